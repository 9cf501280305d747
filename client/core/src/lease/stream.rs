//! The other way to a relay: TLS over TCP, for where the network blocks UDP (§11).
//!
//! ```text
//!            no relay by UDP for 2 s         opened: REBIND or HELLO
//!   nothing ─────────────────────────► wanted ─────────────────────► the lease is at the stream
//!      ▲                                  ▲  ▲                         │
//!      │                                  │  └─────── closed ──────────┤
//!      │  3 s alive by UDP                └── dead by UDP: REBIND ──┐  │ REBIND by UDP every few
//!      └──────────────────────────────────────── both are there ◄───┴──┘ seconds, until answered
//! ```

use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use lanrage_proto::RelayId;

/// Without a lease that works by UDP at any relay for this long, UDP is taken to be blocked. A relay's
/// death alone is over in less: the next one answers within a second.
pub(super) const UDP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a lease must be alive by UDP before its stream is closed.
const UDP_PROOF: Duration = Duration::from_secs(3);
/// Between attempts to go back to UDP.
const RETURN_PAUSE: Duration = Duration::from_secs(3);
/// The same where UDP answers and then fails.
const RETURN_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Stands for the stream to a relay wherever a socket address names a way to it. It is a multicast
/// address, which no datagram comes from.
pub const fn stream_address(relay: RelayId) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::new(0xffff, 0, 0, 0, 0, 0, 0, relay.0)), 0)
}

/// The relay whose stream an address stands for.
pub fn stream_relay(address: SocketAddr) -> Option<RelayId> {
    let SocketAddr::V6(v6) = address else { return None };
    let [.., relay] = v6.ip().segments();
    (address == stream_address(RelayId(relay))).then_some(RelayId(relay))
}

pub(super) fn is_stream(address: SocketAddr) -> bool {
    address.ip().is_multicast()
}

/// A stream that the program keeps, or is opening, for a lease.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) is_open: bool,
    /// While the lease is at the stream: when UDP is tried.
    return_at: Option<Instant>,
    return_pause: Duration,
    /// While the lease is at a UDP address: since when it has been alive there.
    udp_since: Option<Instant>,
}

/// What is due about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The lease is to go back to UDP, if that answers.
    Return,
    /// The stream has done its service.
    Close,
}

impl Stream {
    pub(super) const fn wanted() -> Self {
        Self { is_open: false, return_at: None, return_pause: RETURN_PAUSE, udp_since: None }
    }

    /// Follows where the lease is, and whether it is alive there.
    pub(super) fn handle_timeout(
        &mut self,
        at: SocketAddr,
        is_alive: bool,
        now: Instant,
    ) -> Option<Due> {
        if is_stream(at) {
            if self.udp_since.take().is_some() {
                self.return_pause = (self.return_pause * 2).min(RETURN_PAUSE_MAX);
            }
            let due = *self.return_at.get_or_insert(now + self.return_pause);
            if now < due {
                return None;
            }
            self.return_at = Some(now + self.return_pause);
            return Some(Due::Return);
        }
        self.return_at = None;
        let since = *self.udp_since.get_or_insert(now);
        if !is_alive {
            self.udp_since = Some(now);
            return None;
        }
        (now >= since + UDP_PROOF).then_some(Due::Close)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.return_at.or_else(|| Some(self.udp_since? + UDP_PROOF))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_one_relays_stream() {
        for relay in [RelayId(1), RelayId(0x203), RelayId(u16::MAX)] {
            assert_eq!(stream_relay(stream_address(relay)), Some(relay));
            assert!(is_stream(stream_address(relay)));
        }
        for other in ["192.0.2.1:1", "[2001:db8::1]:1", "[ffff::1]:1", "[ffff::1:1]:0"] {
            assert_eq!(stream_relay(other.parse().unwrap()), None);
        }
    }

    #[test]
    fn udp_is_tried_ever_slower_when_it_answers_and_fails() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (tls, udp) = (stream_address(RelayId(1)), "192.0.2.1:1".parse().unwrap());
        let mut stream = Stream::wanted();
        assert_eq!(stream.handle_timeout(tls, true, at(0)), None);
        assert_eq!(stream.deadline(), Some(at(3_000)));
        assert_eq!(stream.handle_timeout(tls, true, at(3_000)), Some(Due::Return));
        assert_eq!(stream.handle_timeout(udp, true, at(3_100)), None);
        assert_eq!(stream.handle_timeout(udp, false, at(4_000)), None, "UDP fails again");
        assert_eq!(stream.handle_timeout(tls, true, at(4_500)), None);
        assert_eq!(stream.deadline(), Some(at(10_500)), "twice the pause");
        assert_eq!(stream.handle_timeout(udp, true, at(11_000)), None);
        assert_eq!(stream.handle_timeout(udp, true, at(13_999)), None);
        assert_eq!(stream.handle_timeout(udp, true, at(14_000)), Some(Due::Close));
    }
}
