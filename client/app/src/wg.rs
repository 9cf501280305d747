//! WireGuard by boringtun, behind the core's [`lanrage_client_core::Tunnel`]: the only file that
//! names it.
//!
//! boringtun reads the system's clock itself: its timers run on `Instant`, its handshake
//! timestamps on `SystemTime`.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use lanrage_client_core::{Received, Refused, Tunnel, TunnelFactory, TunnelParameters};
use x25519_dalek::PublicKey;

/// Makes boringtun tunnels.
#[derive(Clone, Copy, Debug, Default)]
pub struct WireGuard;

impl TunnelFactory for WireGuard {
    fn make(&mut self, parameters: TunnelParameters<'_>) -> Box<dyn Tunnel> {
        // One for each tunnel: a member's flood costs no other member its handshake.
        let own_key = PublicKey::from(parameters.private);
        let limiter = Arc::new(RateLimiter::new(&own_key, HANDSHAKES_PER_SECOND));
        let tunn = Tunn::new(
            parameters.private.clone(),
            PublicKey::from(parameters.peer.0),
            Some(*parameters.pre_shared_key),
            None,
            parameters.index,
            Some(Arc::clone(&limiter)),
        );
        // Every member reaches us from a relay's address; the limiter's cookies need one each.
        let source = Ipv4Addr::new(169, 254, 0, parameters.member.number()).into();
        Box::new(WireGuardTunnel { tunn, limiter, source })
    }
}

/// What [`Tunnel`] asks of a limiter; boringtun's own lets 10 through.
const HANDSHAKES_PER_SECOND: u64 = 20;

struct WireGuardTunnel {
    tunn: Tunn,
    limiter: Arc<RateLimiter>,
    source: IpAddr,
}

impl Tunnel for WireGuardTunnel {
    fn encapsulate(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        // Without a session boringtun would queue the packet.
        if self.time_since_handshake().is_none() {
            return Err(Refused::NoSession);
        }
        written(self.tunn.encapsulate(packet, out))
    }

    fn decapsulate(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Received, Refused> {
        // An empty one would ask boringtun for its queue.
        if datagram.is_empty() {
            return Err(Refused::NotAuthentic);
        }
        // Begins a new count once a second; here, since an idle tunnel's timers do not run.
        if matches!(datagram[0], HANDSHAKE_INITIATION | HANDSHAKE_RESPONSE) {
            self.limiter.reset_count();
        }
        match self.tunn.decapsulate(Some(self.source), datagram, out) {
            TunnResult::Done => Ok(Received::Nothing),
            TunnResult::WriteToNetwork(reply) => Ok(Received::Reply(reply.len())),
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Ok(Received::Packet(packet.len()))
            }
            TunnResult::Err(error) => Err(refused(&error)),
        }
    }

    fn initiate(&mut self, out: &mut [u8]) -> Result<usize, Refused> {
        written(self.tunn.format_handshake_initiation(out, true))
    }

    fn tick(&mut self, out: &mut [u8]) -> Option<usize> {
        written(self.tunn.update_timers(out)).ok()
    }

    fn time_since_handshake(&self) -> Option<Duration> {
        self.tunn.time_since_last_handshake()
    }
}

/// Message types (WireGuard paper §5.4).
const HANDSHAKE_INITIATION: u8 = 1;
const HANDSHAKE_RESPONSE: u8 = 2;

fn written(result: TunnResult<'_>) -> Result<usize, Refused> {
    match result {
        TunnResult::WriteToNetwork(datagram) => Ok(datagram.len()),
        TunnResult::Err(error) => Err(refused(&error)),
        TunnResult::Done | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            Err(Refused::NoSession)
        }
    }
}

const fn refused(error: &WireGuardError) -> Refused {
    match error {
        WireGuardError::NoCurrentSession | WireGuardError::ConnectionExpired => Refused::NoSession,
        WireGuardError::DuplicateCounter | WireGuardError::InvalidCounter => Refused::Duplicate,
        WireGuardError::WrongTai64nTimestamp => Refused::Stale,
        WireGuardError::DestinationBufferTooSmall
        | WireGuardError::IncorrectPacketLength
        | WireGuardError::UnexpectedPacket
        | WireGuardError::WrongPacketType
        | WireGuardError::WrongIndex
        | WireGuardError::WrongKey
        | WireGuardError::InvalidTai64nTimestamp
        | WireGuardError::InvalidMac
        | WireGuardError::InvalidAeadTag
        | WireGuardError::InvalidPacket
        | WireGuardError::LockFailed
        | WireGuardError::UnderLoad => Refused::NotAuthentic,
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::party::pre_shared_key;
    use lanrage_proto::{Epoch, Member, PartySecret, SessionId, TunnelKey};
    use x25519_dalek::StaticSecret;

    use super::*;

    struct End {
        private: StaticSecret,
        public: TunnelKey,
    }

    impl End {
        fn new(seed: u8) -> Self {
            let private = StaticSecret::from([seed; 32]);
            let public = TunnelKey(PublicKey::from(&private).to_bytes());
            Self { private, public }
        }

        fn tunnel(&self, peer: &Self, epoch: u32, secret: u8, index: u32) -> Box<dyn Tunnel> {
            let secret = PartySecret([secret; 32]);
            let (one, other) = (&self.public, &peer.public);
            let psk = pre_shared_key(&secret, SessionId(1), Epoch(epoch), one, other);
            WireGuard.make(TunnelParameters {
                member: Member::new(2).unwrap(),
                private: &self.private,
                peer: &peer.public,
                pre_shared_key: &psk,
                index,
            })
        }
    }

    fn packet(payload: u8) -> Vec<u8> {
        let mut packet = Vec::new();
        let builder = etherparse::PacketBuilder::ipv4([10, 66, 5, 1], [10, 66, 5, 2], 64);
        builder.udp(1, 2).write(&mut packet, &[payload; 100]).unwrap();
        packet
    }

    /// Initiation, response, keepalive.
    fn shake(initiator: &mut dyn Tunnel, responder: &mut dyn Tunnel) -> Result<(), Refused> {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let length = initiator.initiate(&mut there)?;
        let Received::Reply(length) = responder.decapsulate(&there[..length], &mut back)? else {
            panic!("an initiation is answered");
        };
        let Received::Reply(length) = initiator.decapsulate(&back[..length], &mut there)? else {
            panic!("a response is answered with a keepalive");
        };
        assert_eq!(responder.decapsulate(&there[..length], &mut back), Ok(Received::Nothing));
        Ok(())
    }

    fn carry(
        from: &mut dyn Tunnel,
        to: &mut dyn Tunnel,
        packet: &[u8],
    ) -> Result<Vec<u8>, Refused> {
        let (mut sealed, mut opened) = ([0; 2048], [0; 2048]);
        let length = from.encapsulate(packet, &mut sealed)?;
        match to.decapsulate(&sealed[..length], &mut opened)? {
            Received::Packet(length) => Ok(opened[..length].to_vec()),
            other @ (Received::Reply(_) | Received::Nothing) => {
                panic!("expected a packet, got {other:?}")
            }
        }
    }

    #[test]
    fn two_ends_talk_both_ways() {
        let (a, b) = (End::new(1), End::new(2));
        let mut one = a.tunnel(&b, 1, 7, 5);
        let mut other = b.tunnel(&a, 1, 7, 6);
        assert!(one.time_since_handshake().is_none());
        assert_eq!(one.encapsulate(&packet(0), &mut [0; 2048]), Err(Refused::NoSession));
        shake(&mut *one, &mut *other).unwrap();
        assert!(one.time_since_handshake().is_some());
        assert_eq!(carry(&mut *one, &mut *other, &packet(1)), Ok(packet(1)));
        assert_eq!(carry(&mut *other, &mut *one, &packet(2)), Ok(packet(2)));
    }

    #[test]
    fn receiver_index_names_the_tunnel() {
        let (a, b) = (End::new(1), End::new(2));
        let mut one = a.tunnel(&b, 1, 7, 5);
        let mut other = b.tunnel(&a, 1, 7, 6);
        shake(&mut *one, &mut *other).unwrap();
        let mut sealed = [0; 2048];
        one.encapsulate(&packet(1), &mut sealed).unwrap();
        assert_eq!(u32::from_le_bytes(sealed[4..8].try_into().unwrap()) >> 8, 6);
    }

    #[test]
    fn different_party_secrets_give_no_tunnel() {
        let (a, b) = (End::new(1), End::new(2));
        let mut one = a.tunnel(&b, 1, 7, 5);
        let mut other = b.tunnel(&a, 1, 8, 6);
        assert_eq!(shake(&mut *one, &mut *other), Err(Refused::NotAuthentic));
        assert!(one.time_since_handshake().is_none());
    }

    #[test]
    fn different_epochs_give_no_tunnel_and_a_new_one_does_while_the_old_one_receives() {
        let (a, b) = (End::new(1), End::new(2));
        let (mut old_one, mut old_other) = (a.tunnel(&b, 1, 7, 5), b.tunnel(&a, 1, 7, 6));
        shake(&mut *old_one, &mut *old_other).unwrap();

        let (mut one, mut other) = (a.tunnel(&b, 2, 9, 15), b.tunnel(&a, 2, 9, 16));
        assert_eq!(shake(&mut *one, &mut *old_other), Err(Refused::NotAuthentic));
        shake(&mut *one, &mut *other).unwrap();
        assert_eq!(carry(&mut *one, &mut *other, &packet(3)), Ok(packet(3)));
        assert_eq!(carry(&mut *old_other, &mut *old_one, &packet(4)), Ok(packet(4)));
    }

    #[test]
    fn copies_are_told_from_forgeries() {
        let (a, b) = (End::new(1), End::new(2));
        let (mut one, mut other) = (a.tunnel(&b, 1, 7, 5), b.tunnel(&a, 1, 7, 6));
        let (mut sealed, mut opened) = ([0; 2048], [0; 2048]);

        let length = one.initiate(&mut sealed).unwrap();
        let initiation = sealed[..length].to_vec();
        assert!(other.decapsulate(&initiation, &mut opened).is_ok());
        assert_eq!(other.decapsulate(&initiation, &mut opened), Err(Refused::Stale));

        shake(&mut *one, &mut *other).unwrap();
        let length = one.encapsulate(&packet(1), &mut sealed).unwrap();
        assert!(other.decapsulate(&sealed[..length], &mut opened).is_ok());
        let again = other.decapsulate(&sealed[..length], &mut opened);
        assert_eq!(again, Err(Refused::Duplicate));
        sealed[length - 1] ^= 1;
        let forged = other.decapsulate(&sealed[..length], &mut opened);
        assert!(matches!(forged, Err(Refused::NotAuthentic | Refused::Duplicate)), "{forged:?}");
        assert_eq!(other.decapsulate(&[], &mut opened), Err(Refused::NotAuthentic));
        assert_eq!(other.decapsulate(&[4, 0, 0, 0], &mut opened), Err(Refused::NotAuthentic));
    }

    #[test]
    fn repeated_initiations_still_end_in_a_session() {
        let (a, b) = (End::new(1), End::new(2));
        let (mut one, mut other) = (a.tunnel(&b, 1, 7, 5), b.tunnel(&a, 1, 7, 6));
        for _ in 0..3 {
            one.initiate(&mut [0; 2048]).unwrap();
        }
        shake(&mut *one, &mut *other).unwrap();
        assert_eq!(carry(&mut *one, &mut *other, &packet(5)), Ok(packet(5)));
    }

    /// Initiations of a tunnel, one after the other, into `to`; gives the lengths of the answers.
    fn flood(from: &mut dyn Tunnel, to: &mut dyn Tunnel, count: usize) -> Vec<usize> {
        let (mut there, mut back) = ([0; 2048], [0; 2048]);
        let answers = (0..count).map(|_| {
            let length = from.initiate(&mut there).unwrap();
            match to.decapsulate(&there[..length], &mut back) {
                Ok(Received::Reply(length)) => length,
                other => panic!("an initiation is answered, not {other:?}"),
            }
        });
        answers.collect()
    }

    const RESPONSE_LEN: usize = 92;
    const COOKIE_LEN: usize = 64;

    /// The limiter's count began anew in `tick` alone, which an idle tunnel does not get: ten
    /// initiations in its whole life, and every later handshake was answered with a cookie first.
    #[test]
    fn regression_limiter_counts_by_the_second_and_by_the_tunnel() {
        let (us, flooder, friend) = (End::new(1), End::new(2), End::new(3));
        let mut to_flooder = us.tunnel(&flooder, 1, 7, 5);
        let mut to_friend = us.tunnel(&friend, 1, 7, 6);
        // Every initiation comes from a tunnel of its own, which knows no cookie.
        let mut answers = Vec::new();
        for index in 0..40 {
            let mut fresh = flooder.tunnel(&us, 1, 7, index);
            answers.extend(flood(&mut *fresh, &mut *to_flooder, 1));
            // boringtun takes initiations whose timestamps grow, which have a resolution of 1 ms.
            std::thread::sleep(Duration::from_millis(1));
        }
        let answered = answers.iter().take_while(|length| **length == RESPONSE_LEN).count();
        assert_eq!(answered as u64, HANDSHAKES_PER_SECOND);
        assert!(answers[answered..].iter().all(|length| *length == COOKIE_LEN), "{answers:?}");

        let mut from_friend = friend.tunnel(&us, 1, 7, 9);
        shake(&mut *from_friend, &mut *to_friend).unwrap();

        std::thread::sleep(Duration::from_millis(1100));
        let mut from_flooder = flooder.tunnel(&us, 1, 7, 50);
        shake(&mut *from_flooder, &mut *to_flooder).unwrap();
    }
}
