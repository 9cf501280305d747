//! The values of `golden/generate.py`, by the same names.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use ed25519_dalek::SigningKey;
use lanrage_proto::bytes::{PartySecret, TunnelKey};
use lanrage_proto::frame::bind::{BindRequest, BindResult, Lease};
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::ids::{
    Epoch, Generation, Handle, KeyId, Member, PoolId, RateClass, RelayId, SessionId, Tag,
};
use lanrage_proto::party::{InviteKey, commitment};
use lanrage_proto::signed::{KickRecord, RelayCertificate, Ticket, TicketBody};
use rand_core::RngCore;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

pub(crate) const SESSION: SessionId = SessionId(0x0123_4567_89ab_cdef);
pub(crate) const POOL: PoolId = PoolId(0x0102);
pub(crate) const RELAY: RelayId = RelayId(0x0203);
pub(crate) const OTHER_RELAY: RelayId = RelayId(0x0304);
pub(crate) const KEY_ID: KeyId = KeyId(5);
pub(crate) const GENERATION: Generation = Generation(3);
pub(crate) const EPOCH: Epoch = Epoch(4);
pub(crate) const HANDLE: Handle = Handle(0x0500_0102);
pub(crate) const TAG: Tag = Tag(0xa1b2_c3d4);
pub(crate) const NOW: u64 = 1_700_000_000;
pub(crate) const NONCE: Nonce = Nonce(run(0x10));
pub(crate) const CLIENT: [u8; 32] = [4; 32];
pub(crate) const RELAY_PRIVATE: [u8; 32] = [5; 32];
pub(crate) const PEER: [u8; 32] = [6; 32];
pub(crate) const CLIENT_EPHEMERAL: [u8; 32] = [7; 32];
pub(crate) const RELAY_EPHEMERAL: [u8; 32] = [8; 32];
pub(crate) const SECRET: PartySecret = PartySecret(run(0x40));
pub(crate) const NEXT_SECRET: PartySecret = PartySecret(run(0x60));
pub(crate) const RESUMPTION: [u8; 32] = run(0xe0);
pub(crate) const RESUMPTION_TICKET: [u8; 48] = run(0);
pub(crate) const TO_RELAY: [u8; 32] = run(0xa0);
pub(crate) const TO_CLIENT: [u8; 32] = run(0xc0);

/// Consecutive bytes from `first` on.
pub(crate) const fn run<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = first.wrapping_add(at as u8);
        at += 1;
    }
    bytes
}

pub(crate) fn member() -> Member {
    Member::new(7).unwrap()
}

pub(crate) fn peer_member() -> Member {
    Member::new(9).unwrap()
}

pub(crate) fn cookie() -> Cookie {
    let mut cookie = [0; 20];
    cookie[3] = 7;
    cookie[4..].copy_from_slice(&run::<16>(0x20));
    Cookie(cookie)
}

pub(crate) fn root() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

pub(crate) fn signing() -> SigningKey {
    SigningKey::from_bytes(&[2; 32])
}

pub(crate) fn device() -> SigningKey {
    SigningKey::from_bytes(&[3; 32])
}

/// Control's signing keys as the relay map lists them.
pub(crate) fn keys() -> [(KeyId, [u8; 32]); 1] {
    [(KEY_ID, signing().verifying_key().to_bytes())]
}

pub(crate) fn public(private: [u8; 32]) -> TunnelKey {
    TunnelKey(PublicKey::from(&StaticSecret::from(private)).to_bytes())
}

pub(crate) fn invite_key() -> InviteKey {
    InviteKey(Zeroizing::new(run(0x80)))
}

pub(crate) fn ticket() -> Ticket {
    let body = TicketBody {
        key_id: KEY_ID,
        pool: POOL,
        session: SESSION,
        member: member(),
        generation: GENERATION,
        rate_class: RateClass(2),
        key: public(CLIENT),
        relays: [RELAY, OTHER_RELAY, RelayId(0)],
        not_before: NOW,
        expires: NOW + 3600,
    };
    body.sign(&signing())
}

pub(crate) fn certificate() -> RelayCertificate {
    let unsigned = RelayCertificate {
        key_id: KEY_ID,
        pool: POOL,
        relay: RELAY,
        ipv4: Some(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 51820)),
        ipv6: Some(SocketAddrV6::new(documentation_v6(), 51821, 0, 0)),
        key: public(RELAY_PRIVATE),
        not_after: NOW + 30 * 86_400,
        signature: lanrage_proto::Signature([0; 64]),
    };
    unsigned.sign(&signing())
}

pub(crate) const fn documentation_v6() -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)
}

pub(crate) fn kick() -> KickRecord {
    let unsigned = KickRecord {
        key_id: KEY_ID,
        member: peer_member(),
        kicker: member(),
        generation: Generation(6),
        session: SESSION,
        epoch: Epoch(5),
        issued: NOW,
        commitment: commitment(&NEXT_SECRET, SESSION, Epoch(5)),
        signature: lanrage_proto::Signature([0; 64]),
    };
    unsigned.sign(&signing())
}

pub(crate) fn bind_request() -> BindRequest {
    BindRequest { ticket: ticket(), instance: run(0x30), stamp: 0x2122_2324_2526_2728 }
}

pub(crate) fn lease() -> BindResult {
    BindResult::Lease(Box::new(Lease {
        handle: HANDLE,
        tag: TAG,
        key_to_relay: Zeroizing::new(TO_RELAY),
        key_to_client: Zeroizing::new(TO_CLIENT),
        reflexive: (Ipv4Addr::new(192, 0, 2, 1), 40000).into(),
        idle_timeout_s: 30,
        pending_timeout_s: 3,
        resumption_key: Zeroizing::new(RESUMPTION),
        resumption_ticket: RESUMPTION_TICKET.to_vec(),
    }))
}

/// Randomness that is not: 0, 1, 2, …
pub(crate) struct Counting(pub(crate) u8);

impl RngCore for Counting {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.fill_bytes(&mut bytes);
        u32::from_be_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.fill_bytes(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    fn fill_bytes(&mut self, target: &mut [u8]) {
        for byte in target {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}
