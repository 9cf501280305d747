use super::{FRAMED_LEN_MAX, LENGTH_LEN};
use crate::frame::DATAGRAM_LEN_MAX;

/// A length that no datagram has: the stream cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a datagram of {0} bytes on a stream: 1 to {DATAGRAM_LEN_MAX} were expected")]
pub struct BadLength(pub usize);

/// Cuts a stream into its datagrams, however the bytes come in. Between calls it holds less than
/// [`FRAMED_LEN_MAX`] bytes.
#[derive(Debug, Default)]
pub struct Deframer {
    /// The beginning of a datagram with its length, whose rest has not come.
    begun: Vec<u8>,
}

impl Deframer {
    /// Takes the next bytes of the stream and hands over every datagram that is whole, in order.
    /// `bytes` is scratch space afterwards.
    ///
    /// # Errors
    /// [`BadLength`]; what came before it has been handed over.
    pub fn feed(
        &mut self,
        mut bytes: &mut [u8],
        mut handle: impl FnMut(&mut [u8]),
    ) -> Result<(), BadLength> {
        while !self.begun.is_empty() {
            let wanted = match length(&self.begun)? {
                Some(length) => LENGTH_LEN + length,
                None => LENGTH_LEN,
            };
            let (more, rest) = bytes.split_at_mut((wanted - self.begun.len()).min(bytes.len()));
            self.begun.extend_from_slice(more);
            bytes = rest;
            if self.begun.len() < wanted {
                return Ok(());
            }
            if wanted > LENGTH_LEN {
                handle(&mut self.begun[LENGTH_LEN..]);
                self.begun.clear();
            }
        }
        while let Some(length) = length(bytes)?.filter(|length| LENGTH_LEN + length <= bytes.len())
        {
            let (framed, rest) = bytes.split_at_mut(LENGTH_LEN + length);
            handle(&mut framed[LENGTH_LEN..]);
            bytes = rest;
        }
        if self.begun.capacity() == 0 && !bytes.is_empty() {
            self.begun.reserve_exact(FRAMED_LEN_MAX);
        }
        self.begun.extend_from_slice(bytes);
        Ok(())
    }
}

/// The length in front, once both of its bytes are there.
fn length(bytes: &[u8]) -> Result<Option<usize>, BadLength> {
    let Some(length) = bytes.first_chunk() else { return Ok(None) };
    match usize::from(u16::from_be_bytes(*length)) {
        length @ 1..=DATAGRAM_LEN_MAX => Ok(Some(length)),
        length => Err(BadLength(length)),
    }
}
