//! One stream without its socket: TLS bytes in and out on one side, datagrams on the other.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use lanrage_proto::stream::{ALPN, Deframer, Waiting};
use rustls::{ServerConfig, ServerConnection};

use super::Closed;

/// Plaintext of a TLS record (RFC 8446 §5.1).
const RECORD_LEN: usize = 1 << 14;

#[derive(Debug)]
pub(super) struct Connection {
    tls: ServerConnection,
    deframer: Deframer,
}

impl Connection {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self { tls: ServerConnection::new(config)?, deframer: Deframer::default() })
    }

    pub(super) fn is_established(&self) -> bool {
        !self.tls.is_handshaking()
    }

    /// Takes what the socket received and hands over the datagrams in it. TLS may have something to
    /// say afterwards, also about an error: see [`Connection::transmit`].
    ///
    /// # Errors
    /// The stream is over.
    pub(super) fn receive(
        &mut self,
        mut bytes: &[u8],
        mut handle: impl FnMut(&mut [u8]),
    ) -> Result<(), Closed> {
        let mut plain = [0; RECORD_LEN];
        while !bytes.is_empty() {
            // Neither call waits: they only say "not yet" or "no more".
            let read = self.tls.read_tls(&mut bytes).map_err(|_| Closed::Tls)?;
            let state = self.tls.process_new_packets().map_err(|_| Closed::Tls)?;
            if self.is_established() && self.tls.alpn_protocol() != Some(ALPN) {
                return Err(Closed::Tls);
            }
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let len = self.tls.reader().read(&mut plain).map_err(|_| Closed::Tls)?;
                left -= len;
                self.deframer
                    .feed(&mut plain[..len], &mut handle)
                    .map_err(|_| Closed::Malformed)?;
            }
            if state.peer_has_closed() || read == 0 {
                return Err(Closed::Ended);
            }
        }
        Ok(())
    }

    /// Adds to `target` what the socket is to send: what TLS has to say, or else one record of the
    /// datagrams that wait. How many these were.
    pub(super) fn transmit(&mut self, waiting: &mut Waiting, target: &mut Vec<u8>) -> u64 {
        let mut datagrams = 0;
        if self.is_established() && !self.tls.wants_write() && !waiting.is_empty() {
            let mut plain = Vec::with_capacity(RECORD_LEN);
            datagrams = waiting.take(&mut plain, RECORD_LEN);
            self.tls.writer().write_all(&plain).expect("a record fits an empty buffer");
        }
        while self.tls.wants_write() {
            self.tls.write_tls(target).expect("a vector takes everything");
        }
        datagrams
    }

    /// Whether TLS has something to say.
    pub(super) fn wants_transmit(&self) -> bool {
        self.tls.wants_write()
    }

    /// Says that nothing more comes.
    pub(super) fn close(&mut self) {
        self.tls.send_close_notify();
    }
}
