//! Control messages (cmsg(3)): what the kernel says of an arrival, and the segment size of a train.

use std::time::Duration;

/// `struct cmsghdr`: length (size_t), level (int), type (int).
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
/// Control messages are aligned to size_t (CMSG_ALIGN).
const ALIGN: usize = size_of::<usize>();

/// Room for UDP_GRO and SO_RXQ_OVFL, four bytes each, and SCM_TIMESTAMPNS, a timespec.
pub(crate) const RECEIVE_LEN: usize = 2 * space(4) + space(size_of::<libc::timespec>());
const _: () = assert!(HEADER_LEN == 16 && RECEIVE_LEN == 80, "the layout of 64-bit Linux");

/// CMSG_SPACE(3).
const fn space(data: usize) -> usize {
    (HEADER_LEN + data).next_multiple_of(ALIGN)
}

/// What the control messages of one arrival say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    /// UDP_GRO: the size of each segment of a train but the last. Absent for a single datagram.
    pub(crate) segment_size: Option<usize>,
    /// SO_RXQ_OVFL: datagrams the socket has dropped since it was made, modulo 2³². Absent while
    /// zero (net/socket.c, `sock_recv_drops`).
    pub(crate) dropped: Option<u32>,
    /// SCM_TIMESTAMPNS: when the network stack took the datagram, or the train's first, since 1970.
    pub(crate) arrived: Option<Duration>,
}

/// Reads the control messages in `bytes`; stops at the first that does not fit.
pub(crate) fn parse(mut bytes: &[u8]) -> Control {
    let mut control = Control::default();
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() {
        let len = usize::from_ne_bytes(
            *header.first_chunk().expect("a header is longer than its length field"),
        );
        let level = i32::from_ne_bytes([header[8], header[9], header[10], header[11]]);
        let kind = i32::from_ne_bytes([header[12], header[13], header[14], header[15]]);
        let Some(data) = len.checked_sub(HEADER_LEN).and_then(|len| rest.get(..len)) else { break };
        if let Some(&value) = data.first_chunk::<4>() {
            match (level, kind) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    control.segment_size =
                        usize::try_from(i32::from_ne_bytes(value)).ok().filter(|size| *size > 0);
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    control.dropped = Some(u32::from_ne_bytes(value))
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => control.arrived = timestamp(data),
                _ => {}
            }
        }
        bytes = bytes.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    control
}

/// A `struct timespec` of 64-bit Linux: two i64.
fn timestamp(data: &[u8]) -> Option<Duration> {
    let (seconds, rest) = data.split_first_chunk()?;
    let seconds = u64::try_from(i64::from_ne_bytes(*seconds)).ok()?;
    let nanoseconds = u32::try_from(i64::from_ne_bytes(*rest.first_chunk()?)).ok()?;
    Some(Duration::new(seconds, nanoseconds.min(999_999_999)))
}

/// The UDP_SEGMENT control message: one u16 (udp(7)).
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct SegmentControl([u8; space(2)]);

impl SegmentControl {
    pub(crate) const LEN: usize = space(2);

    pub(crate) fn new(segment_size: u16) -> Self {
        let mut bytes = [0; Self::LEN];
        bytes[0..8].copy_from_slice(&(HEADER_LEN + 2).to_ne_bytes());
        bytes[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        bytes[16..18].copy_from_slice(&segment_size.to_ne_bytes());
        Self(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let mut bytes = (HEADER_LEN + data.len()).to_ne_bytes().to_vec();
        bytes.extend_from_slice(&level.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(data);
        bytes.resize(space(data.len()), 0);
        bytes
    }

    #[test]
    fn reads_all_messages_in_any_order() {
        let gro = message(libc::SOL_UDP, libc::UDP_GRO, &1300i32.to_ne_bytes());
        let drops = message(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7u32.to_ne_bytes());
        let stamp = [5i64.to_ne_bytes(), 7i64.to_ne_bytes()].concat();
        let stamp = message(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &stamp);
        let arrived = Some(Duration::new(5, 7));
        let expected = Control { segment_size: Some(1300), dropped: Some(7), arrived };
        assert_eq!(parse(&[stamp.clone(), gro.clone(), drops.clone()].concat()), expected);
        assert_eq!(parse(&[drops, gro, stamp].concat()), expected);
    }

    #[test]
    fn survives_any_length_field() {
        let good = message(libc::SOL_UDP, libc::UDP_GRO, &1300i32.to_ne_bytes());
        for len in [0, 1, 15, 16, 17, 19, 25, usize::MAX - 3, usize::MAX] {
            let mut bad = good.clone();
            bad[..8].copy_from_slice(&len.to_ne_bytes());
            bad.extend_from_slice(&good);
            parse(&bad);
        }
        for len in 0..good.len() {
            parse(&good[..len]);
        }
        assert_eq!(
            parse(&message(libc::SOL_UDP, libc::UDP_GRO, &(-5i32).to_ne_bytes())),
            Control::default()
        );
    }
}
