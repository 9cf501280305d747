use std::time::{Duration, Instant};

use lanrage_proto::bytes::Signature;
use lanrage_proto::frame::Cookie;
use lanrage_proto::frame::bind::Lease as Granted;
use lanrage_proto::map::{RelayEntry, RelayMap};
use lanrage_proto::{Handle, KeyId, PoolId, Tag, TunnelKey};
use rand_core::SeedableRng as _;
use x25519_dalek::StaticSecret;
use zeroize::Zeroizing;

use super::*;

const KEY_TO_RELAY: [u8; 32] = [1; 32];
const KEY_TO_CLIENT: [u8; 32] = [2; 32];
const HANDLE: Handle = Handle(7);

struct Fixture {
    credentials: Credentials,
    rng: ChaCha12Rng,
    outbox: Outbox,
    lease: Lease,
    relay: SocketAddr,
    start: Instant,
}

impl Fixture {
    fn new() -> Self {
        let start = Instant::now();
        let certificate = RelayCertificate {
            key_id: KeyId(1),
            pool: PoolId(1),
            relay: RelayId(1),
            ipv4: Some("198.51.100.1:51820".parse().unwrap()),
            ipv6: Some("[2001:db8::1]:51820".parse().unwrap()),
            key: TunnelKey([1; 32]),
            not_after: 0,
            signature: Signature([0; 64]),
        };
        let map = RelayMap {
            serial: 1,
            issued: 0,
            pool: PoolId(1),
            signing_keys: Vec::new(),
            relays: Vec::new(),
        };
        let private = StaticSecret::from([3; 32]);
        let granted = Granted {
            handle: HANDLE,
            tag: Tag(9),
            key_to_relay: Zeroizing::new(KEY_TO_RELAY),
            key_to_client: Zeroizing::new(KEY_TO_CLIENT),
            reflexive: "203.0.113.1:1".parse().unwrap(),
            idle_timeout_s: 30,
            pending_timeout_s: 3,
            resumption_key: Zeroizing::new([4; 32]),
            resumption_ticket: vec![5; 20],
        };
        let relay = "198.51.100.1:51820".parse().unwrap();
        let entry = RelayEntry { name: "r".into(), certificate, tls: None };
        let mut lease = Lease::new(&entry, start);
        lease.bound = Some(Bound::new(granted, relay, start));
        lease.retry_at = None;
        Self {
            credentials: Credentials::new(private, None, [0; 16], map, (0, start), 1),
            rng: ChaCha12Rng::from_seed([0; 32]),
            outbox: Outbox::default(),
            lease,
            relay,
            start,
        }
    }

    fn act<R>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Lease, &mut Surroundings<'_>) -> R,
    ) -> R {
        let mut around = Surroundings {
            credentials: &mut self.credentials,
            rng: &mut self.rng,
            outbox: &mut self.outbox,
            member: Member::new(1).unwrap(),
            active: true,
            now,
        };
        act(&mut self.lease, &mut around)
    }

    fn hear(&mut self, message: Message, counter: u64) -> Result<(), DropReason> {
        self.hear_from(self.relay, message, counter)
    }

    fn hear_from(
        &mut self,
        source: SocketAddr,
        message: Message,
        counter: u64,
    ) -> Result<(), DropReason> {
        let frame = message.seal(&KEY_TO_CLIENT, HANDLE, counter);
        let sealed = Sealed::decode(&frame).unwrap();
        self.act(self.start, |lease, around| lease.handle_control(source, &sealed, around))
    }

    /// Where the control messages that are due go, and which they are.
    fn controls(&mut self, now: Instant) -> Vec<(SocketAddr, Message)> {
        self.act(now, |lease, around| lease.handle_timeout(around));
        let sent = std::iter::from_fn(|| self.outbox.poll_transmit());
        let opened = sent.filter_map(|sent| {
            let sealed = Sealed::decode(&sent.payload).ok()?;
            Some((sent.to, sealed.open(&KEY_TO_RELAY).unwrap()))
        });
        opened.collect()
    }
}

#[test]
fn a_relay_that_moves_its_clients_is_not_relied_on_and_left_in_time() {
    let mut fixture = Fixture::new();
    let start = fixture.start;
    assert_eq!(fixture.lease.state(), Some(LeaseState::Alive));
    let moving = Message::Moving { next: RelayId(2), deadline_s: 20 };
    assert_eq!(fixture.hear(moving, 5), Ok(()));
    assert_eq!(fixture.hear(moving, 6), Ok(()));
    assert_eq!(fixture.lease.state(), Some(LeaseState::Suspect));
    assert!(fixture.lease.is_lacking(start));
    let events: Vec<_> = std::iter::from_fn(|| fixture.outbox.poll_event()).collect();
    let told = Event::Moving { relay: RelayId(1), next: Some(RelayId(2)) };
    assert_eq!(events.iter().filter(|event| **event == told).count(), 1, "said once");
    let deadline = start + Duration::from_secs(20);
    fixture.act(deadline, |lease, around| lease.handle_timeout(around));
    assert_eq!(fixture.lease.state(), None);
}

/// A lease was kept until its relay's deadline, so that a relay could not stop any sooner.
#[test]
fn regression_a_lease_is_given_back_once_another_has_served_for_a_while() {
    let mut fixture = Fixture::new();
    let start = fixture.start;
    let leave = |fixture: &mut Fixture, ms, is_served| {
        let now = start + Duration::from_millis(ms);
        fixture.act(now, |lease, around| lease.leave(is_served, around.now, around.outbox));
        fixture.lease.state().is_none()
    };
    assert!(!leave(&mut fixture, 0, true), "nothing was asked");
    let moving = Message::Moving { next: RelayId(0), deadline_s: 60 };
    assert_eq!(fixture.hear(moving, 5), Ok(()));
    assert!(!leave(&mut fixture, 4_000, false));
    assert!(!leave(&mut fixture, 5_000, true), "the other has not served for long");
    assert!(!leave(&mut fixture, 8_999, true));
    assert!(leave(&mut fixture, 9_000, true));
    let sent = std::iter::from_fn(|| fixture.outbox.poll_transmit());
    let sent: Vec<_> = sent
        .filter_map(|sent| Sealed::decode(&sent.payload).ok()?.open(&KEY_TO_RELAY).ok())
        .collect();
    assert_eq!(sent, [Message::Release]);
}

/// With one address family lost, REBIND went on to the address that was lost with it, and only a
/// new lease 300 ms later found the other: more than a second without play.
#[test]
fn regression_a_lease_is_rebound_by_whichever_address_answers_first() {
    let mut fixture = Fixture::new();
    let (start, ipv4) = (fixture.start, fixture.relay);
    let ipv6 = "[2001:db8::1]:51820".parse().unwrap();
    fixture.act(start, |lease, _| lease.recover(start));
    assert_eq!(fixture.controls(start), [(ipv4, Message::Rebind), (ipv6, Message::Rebind)]);

    let (first, second) = (Cookie([1; 20]), Cookie([2; 20]));
    assert_eq!(fixture.hear_from(ipv6, Message::RebindChallenge(first), 1), Ok(()));
    assert_eq!(fixture.hear_from(ipv4, Message::RebindChallenge(second), 2), Ok(()));
    assert_eq!(fixture.controls(start), [(ipv6, Message::RebindAnswer(first))]);
    assert_eq!(fixture.lease.bound().map(Bound::address), Some(ipv6));
}

#[test]
fn one_missing_probe_asks_the_relay_at_every_address() {
    let mut fixture = Fixture::new();
    let start = fixture.start;
    assert_eq!(fixture.controls(start), []);
    assert_eq!(fixture.controls(start + Duration::from_millis(240)), []);
    let asked = fixture.controls(start + Duration::from_millis(260));
    assert_eq!(fixture.lease.state(), Some(LeaseState::Suspect));
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked.iter().all(|(_, message)| *message == Message::Rebind));
}

#[test]
fn a_control_message_counts_once_and_only_from_the_relay() {
    let mut fixture = Fixture::new();
    let moving = Message::Moving { next: RelayId(0), deadline_s: 20 };
    assert_eq!(fixture.hear(moving, 5), Ok(()));
    assert_eq!(fixture.hear(moving, 5), Err(DropReason::Unasked));
    assert_eq!(fixture.hear(moving, 4), Err(DropReason::Unasked));
    assert_eq!(fixture.hear(Message::Release, 6), Err(DropReason::UnknownKind));
    let forged = moving.seal(&[8; 32], HANDLE, 9);
    let sealed = Sealed::decode(&forged).unwrap();
    let (relay, now) = (fixture.relay, fixture.start);
    let result = fixture.act(now, |lease, around| lease.handle_control(relay, &sealed, around));
    assert_eq!(result, Err(DropReason::NotFromRelay));
    assert_eq!(fixture.hear(moving, 7), Ok(()), "a forgery does not move the counter");
}
