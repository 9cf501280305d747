//! What control knows and signs.

use std::net::Ipv4Addr;

use ed25519_dalek::SigningKey;
use lanrage_proto::api::{Kick, MemberRecord, PartyState, Role, TicketGrant};
use lanrage_proto::bytes::Signature;
use lanrage_proto::map::{RelayEntry, RelayMap, SigningKeyEntry, TlsAccess};
use lanrage_proto::party::{EntryBody, EpochCopy};
use lanrage_proto::signed::{KickRecord, RelayCertificate, TicketBody};
use lanrage_proto::{
    DeviceKey, Epoch, Generation, KeyId, Member, PartySecret, PoolId, RateClass, RelayId,
    SessionId, TunnelKey,
};
use x25519_dalek::{PublicKey, StaticSecret};

pub(crate) const POOL: u16 = 7;
pub(crate) const SESSION: SessionId = SessionId(0x1234_5678_9abc_def0);
pub(crate) const UNIX_TIME: u64 = 1_800_000_000;

pub(crate) struct Control {
    pub(crate) signing: SigningKey,
    pub(crate) members: Vec<MemberRecord>,
    pub(crate) epoch: Epoch,
    pub(crate) relays: Vec<RelayId>,
    pub(crate) kicks: Vec<KickRecord>,
    pub(crate) copies: Vec<EpochCopy>,
    /// Whether relays serve streams.
    pub(crate) tls: Option<TlsAccess>,
}

pub(crate) fn member(number: u8) -> Member {
    Member::new(number).unwrap()
}

pub(crate) fn private(number: u8) -> StaticSecret {
    StaticSecret::from([number; 32])
}

pub(crate) fn tunnel_key(number: u8) -> TunnelKey {
    TunnelKey(PublicKey::from(&private(number)).to_bytes())
}

impl Control {
    pub(crate) fn new() -> Self {
        Self {
            signing: SigningKey::from_bytes(&[77; 32]),
            members: Vec::new(),
            epoch: Epoch(1),
            relays: Vec::new(),
            kicks: Vec::new(),
            copies: Vec::new(),
            tls: None,
        }
    }

    pub(crate) fn keys(&self) -> Vec<(KeyId, [u8; 32])> {
        vec![(KeyId(1), self.signing.verifying_key().to_bytes())]
    }

    pub(crate) fn map(&self, certificates: impl Iterator<Item = RelayCertificate>) -> RelayMap {
        let relays = certificates.map(move |certificate| RelayEntry {
            name: "r".into(),
            certificate,
            tls: self.tls,
        });
        RelayMap {
            serial: 1,
            issued: UNIX_TIME,
            pool: PoolId(POOL),
            signing_keys: vec![SigningKeyEntry {
                id: KeyId(1),
                key: DeviceKey(self.signing.verifying_key().to_bytes()),
            }],
            relays: relays.collect(),
        }
    }

    /// A member with its entry under the current secret.
    pub(crate) fn add(&mut self, number: u8, secret: &PartySecret) -> MemberRecord {
        let device = SigningKey::from_bytes(&[number; 32]);
        let body = EntryBody {
            session: SESSION,
            member: member(number),
            generation: Generation(1),
            name: format!("m{number}"),
            device: DeviceKey(device.verifying_key().to_bytes()),
            tunnel: tunnel_key(number),
        };
        let record = MemberRecord {
            member: member(number),
            generation: Generation(1),
            role: if number == 1 { Role::Owner } else { Role::Member },
            name: body.name.clone(),
            online: true,
            entry: Some(body.sign(&device, secret, self.epoch)),
        };
        self.members.push(record.clone());
        record
    }

    pub(crate) fn party(&self, number: u8) -> PartyState {
        PartyState {
            session: SESSION,
            name: "party".into(),
            subnet: Ipv4Addr::new(10, 66, 3, 0),
            prefix: "fd00:1:2:3::".parse().unwrap(),
            epoch: self.epoch,
            relays: self.relays.clone(),
            you: member(number),
            members: self.members.clone(),
            copies: self.copies.iter().filter(|copy| copy.to == member(number)).cloned().collect(),
            kicks: self.kicks.clone(),
        }
    }

    pub(crate) fn ticket(&self, number: u8, not_before: u64) -> TicketGrant {
        let mut relays = [RelayId(0); 3];
        for (slot, relay) in relays.iter_mut().zip(&self.relays) {
            *slot = *relay;
        }
        let body = TicketBody {
            key_id: KeyId(1),
            pool: PoolId(POOL),
            session: SESSION,
            member: member(number),
            generation: Generation(1),
            rate_class: RateClass(0),
            key: tunnel_key(number),
            relays,
            not_before,
            expires: not_before + 3600,
        };
        TicketGrant { ticket: body.sign(&self.signing), lifetime_s: 3600, now: not_before }
    }

    /// Takes a kick as control does: MACs for exactly the remaining entries, the next epoch, the
    /// copies, a signed record.
    pub(crate) fn kick(&mut self, kicker: u8, kick: &Kick) -> KickRecord {
        assert_eq!(kick.epoch, self.epoch.next());
        self.epoch = kick.epoch;
        self.members.retain(|record| record.member != kick.member);
        let with_entry = self.members.iter().filter(|record| record.entry.is_some());
        let entries: Vec<_> = with_entry.map(|record| (record.member, record.generation)).collect();
        let vouched: Vec<_> = kick.macs.iter().map(|mac| (mac.member, mac.generation)).collect();
        assert_eq!(vouched, entries);
        let mut receivers: Vec<_> = entries.iter().map(|(member, _)| *member).collect();
        receivers.retain(|receiver| *receiver != member(kicker));
        for copy in &kick.copies {
            let at = receivers.iter().position(|receiver| *receiver == copy.to);
            receivers.remove(at.expect("one copy for a remaining member"));
        }
        for vouched in &kick.macs {
            let record = self.members.iter_mut().find(|r| r.member == vouched.member).unwrap();
            let entry = record.entry.as_mut().unwrap();
            (entry.epoch, entry.mac) = (kick.epoch, vouched.mac);
        }
        self.copies.extend(kick.copies.iter().cloned());
        let record = KickRecord {
            key_id: KeyId(1),
            member: kick.member,
            kicker: member(kicker),
            generation: Generation(kick.generation.0 + 1),
            session: SESSION,
            epoch: kick.epoch,
            issued: UNIX_TIME,
            commitment: kick.commitment,
            signature: Signature([0; 64]),
        }
        .sign(&self.signing);
        self.kicks.push(record);
        record
    }
}
