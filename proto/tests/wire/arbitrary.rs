use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ed25519_dalek::SigningKey;
use lanrage_proto::bytes::{Commitment, PartySecret, Signature, TunnelKey};
use lanrage_proto::frame::bind::{BindResult, Lease, Refusal};
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::hint::HintKind;
use lanrage_proto::frame::resume::TICKET_LEN_MAX;
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::ids::{
    Destination, Epoch, Generation, Handle, KeyId, Member, PoolId, RateClass, RelayId, SessionId,
    Tag,
};
use lanrage_proto::inner::LeaseState;
use lanrage_proto::signed::{KickRecord, RelayCertificate, Ticket, TicketBody};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use zeroize::Zeroizing;

pub(crate) fn member() -> impl Strategy<Value = Member> {
    (1..=Member::MAX).prop_map(|number| Member::new(number).unwrap())
}

pub(crate) fn destination() -> impl Strategy<Value = Destination> {
    prop_oneof![Just(Destination::Everyone), member().prop_map(Destination::One)]
}

pub(crate) fn relay() -> impl Strategy<Value = RelayId> {
    any::<u16>().prop_map(RelayId)
}

pub(crate) fn session() -> impl Strategy<Value = SessionId> {
    any::<u64>().prop_map(SessionId)
}

pub(crate) fn nonce() -> impl Strategy<Value = Nonce> {
    any::<[u8; 16]>().prop_map(Nonce)
}

pub(crate) fn cookie() -> impl Strategy<Value = Cookie> {
    any::<[u8; 20]>().prop_map(Cookie)
}

pub(crate) fn secret() -> impl Strategy<Value = PartySecret> {
    any::<[u8; 32]>().prop_map(PartySecret)
}

pub(crate) fn signing_key() -> impl Strategy<Value = SigningKey> {
    any::<[u8; 32]>().prop_map(|seed| SigningKey::from_bytes(&seed))
}

fn ipv4() -> impl Strategy<Value = Option<SocketAddrV4>> {
    let address = (1..=u32::MAX, 1..=u16::MAX)
        .prop_map(|(ip, port)| SocketAddrV4::new(Ipv4Addr::from(ip), port));
    option::of(address)
}

fn ipv6() -> impl Strategy<Value = Option<SocketAddrV6>> {
    let address = (1..=u128::MAX, 1..=u16::MAX)
        .prop_map(|(ip, port)| SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, 0));
    option::of(address)
}

/// An IPv4-mapped IPv6 address has no form of its own on the wire.
pub(crate) fn address() -> impl Strategy<Value = SocketAddr> {
    let v6 =
        any::<(Ipv6Addr, u16)>().prop_filter("not IPv4", |(ip, _)| ip.to_ipv4_mapped().is_none());
    prop_oneof![any::<(Ipv4Addr, u16)>().prop_map(SocketAddr::from), v6.prop_map(SocketAddr::from)]
}

pub(crate) fn certificate() -> impl Strategy<Value = RelayCertificate> {
    let ids = (any::<u8>(), any::<u16>(), 1..=u16::MAX);
    (ids, ipv4(), ipv6(), any::<[u8; 32]>(), any::<u64>()).prop_map(
        |((key_id, pool, relay), ipv4, ipv6, key, not_after)| RelayCertificate {
            key_id: KeyId(key_id),
            pool: PoolId(pool),
            relay: RelayId(relay),
            ipv4,
            ipv6,
            key: TunnelKey(key),
            not_after,
            signature: Signature([0; 64]),
        },
    )
}

pub(crate) fn ticket() -> impl Strategy<Value = Ticket> {
    let ids = (any::<u8>(), any::<u16>(), session(), member(), any::<u32>(), any::<u8>());
    let relays = [relay(), relay(), relay()];
    (ids, any::<[u8; 32]>(), relays, any::<(u64, u64)>(), signing_key()).prop_map(
        |((key_id, pool, session, member, generation, rate_class), key, relays, times, signer)| {
            let body = TicketBody {
                key_id: KeyId(key_id),
                pool: PoolId(pool),
                session,
                member,
                generation: Generation(generation),
                rate_class: RateClass(rate_class),
                key: TunnelKey(key),
                relays,
                not_before: times.0,
                expires: times.1,
            };
            body.sign(&signer)
        },
    )
}

pub(crate) fn kick() -> impl Strategy<Value = KickRecord> {
    let who = (any::<u8>(), member(), member(), any::<u32>());
    let promised = (any::<u64>(), any::<[u8; 32]>());
    (who, session(), any::<u32>(), promised, signing_key()).prop_map(
        |((key_id, member, kicker, generation), session, epoch, (issued, commitment), signer)| {
            let unsigned = KickRecord {
                key_id: KeyId(key_id),
                member,
                kicker,
                generation: Generation(generation),
                session,
                epoch: Epoch(epoch),
                issued,
                commitment: Commitment(commitment),
                signature: Signature([0; 64]),
            };
            unsigned.sign(&signer)
        },
    )
}

pub(crate) fn bind_result() -> impl Strategy<Value = BindResult> {
    let keys = any::<[[u8; 32]; 3]>();
    let timeouts = any::<(u16, u16)>();
    let ticket = vec(any::<u8>(), 1..=TICKET_LEN_MAX);
    let lease = (any::<(u32, u32)>(), keys, address(), timeouts, ticket).prop_map(
        |((handle, tag), keys, reflexive, timeouts, resumption_ticket)| {
            let [to_relay, to_client, resumption] = keys.map(Zeroizing::new);
            BindResult::Lease(Box::new(Lease {
                handle: Handle(handle),
                tag: Tag(tag),
                key_to_relay: to_relay,
                key_to_client: to_client,
                reflexive,
                idle_timeout_s: timeouts.0,
                pending_timeout_s: timeouts.1,
                resumption_key: resumption,
                resumption_ticket,
            }))
        },
    );
    let refused = (prop::sample::select(&Refusal::ALL), any::<u64>())
        .prop_map(|(reason, relay_time)| BindResult::Refused { reason, relay_time });
    prop_oneof![lease, refused]
}

pub(crate) fn control_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        Just(Message::Rebind),
        cookie().prop_map(Message::RebindChallenge),
        cookie().prop_map(Message::RebindAnswer),
        address().prop_map(Message::Rebound),
        Just(Message::Release),
        (relay(), any::<u16>()).prop_map(|(next, deadline_s)| Message::Moving { next, deadline_s }),
    ]
}

pub(crate) fn hint_kind() -> impl Strategy<Value = HintKind> {
    prop_oneof![
        Just(HintKind::NoLease),
        member().prop_map(HintKind::NoPeer),
        (member(), relay()).prop_map(|(member, relay)| HintKind::NoPeerThere(member, relay)),
    ]
}

pub(crate) fn leases() -> impl Strategy<Value = Vec<(RelayId, LeaseState)>> {
    let states = [LeaseState::Alive, LeaseState::Suspect, LeaseState::Dead];
    vec((relay(), prop::sample::select(states.to_vec())), 0..=6)
}

/// What [`lanrage_proto::party::valid_name`] takes.
pub(crate) fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?"
}
