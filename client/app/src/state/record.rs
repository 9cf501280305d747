use std::fmt;

use ed25519_dalek::SigningKey;
use lanrage_client_core::Networks;
use lanrage_control_client::Endpoint;
use lanrage_proto::api::{Change, MemberRecord, PartyState, TicketGrant};
use lanrage_proto::bytes::{DeviceKey, InviteHash, PartySecret, RootHash, SecretKey, TunnelKey};
use lanrage_proto::map::SignedMap;
use lanrage_proto::signed::{KickRecord, SigningKeys};
use lanrage_proto::{Epoch, Member, SessionId};
use serde::{Deserialize, Serialize};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::nic::Lan;

/// A key from the kernel's random generator.
pub fn random_key() -> SecretKey {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(&mut *bytes).expect("getrandom(2) works on every kernel this runs on");
    SecretKey(bytes)
}

/// This installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The Ed25519 seed of the device's identity.
    pub identity: SecretKey,
    /// The party whose LAN is up while the daemon runs.
    pub active: Option<SessionId>,
}

impl Device {
    /// A new identity.
    pub fn generate() -> Self {
        Self { identity: random_key(), active: None }
    }

    /// Signs for the device.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.identity.0)
    }

    /// Names the device.
    pub fn public_key(&self) -> DeviceKey {
        DeviceKey(self.signing_key().verifying_key().to_bytes())
    }
}

/// Where a party's control service is, and how to know it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// Host name or address, as in a URL.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Pins the service.
    pub root: RootHash,
}

impl From<&Server> for Endpoint {
    fn from(server: &Server) -> Self {
        Self { host: server.host.clone(), port: server.port, root: server.root }
    }
}

impl From<Endpoint> for Server {
    fn from(endpoint: Endpoint) -> Self {
        Self { host: endpoint.host, port: endpoint.port, root: endpoint.root }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One membership.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartyRecord {
    /// The control service.
    pub server: Server,
    /// The device's X25519 key for this party.
    pub tunnel: SecretKey,
    /// Party secrets by epoch, oldest first.
    pub secrets: Vec<(Epoch, PartySecret)>,
    /// As control last said.
    pub party: PartyState,
    /// The newest ticket.
    pub ticket: Option<TicketGrant>,
    /// The newest relay map.
    pub map: SignedMap,
    /// The invite that the device joined by.
    #[serde(default)]
    pub invite: Option<InviteHash>,
    /// Above every stamp that relays have seen from this device; see
    /// [`lanrage_client_core::Config::stamp`].
    pub stamp: u64,
}

impl PartyRecord {
    /// Names the party.
    pub const fn session(&self) -> SessionId {
        self.party.session
    }

    /// The party's networks.
    pub const fn networks(&self) -> Networks {
        Networks { subnet: self.party.subnet, prefix: self.party.prefix }
    }

    /// The LAN as this device is on it.
    pub const fn lan(&self) -> Lan {
        Lan { session: self.party.session, me: self.party.you, networks: self.networks() }
    }

    /// This device's record in the party.
    pub fn own_record(&self) -> Option<&MemberRecord> {
        self.party.members.iter().find(|record| record.member == self.party.you)
    }

    /// The secret of an epoch.
    pub fn secret(&self, epoch: Epoch) -> Option<&PartySecret> {
        self.secrets.iter().find(|(known, _)| *known == epoch).map(|(_, secret)| secret)
    }

    /// Who put this device out by `kick`: `None` unless control signed it, for this membership.
    /// Earlier records may be of another device that had the number.
    pub fn kicker(&self, kick: &KickRecord, keys: &(impl SigningKeys + ?Sized)) -> Option<Member> {
        let own = self.own_record()?;
        let is_of_us = kick.session == self.session()
            && kick.member == own.member
            && kick.generation > own.generation;
        (is_of_us && kick.verify(keys).is_ok()).then_some(kick.kicker)
    }

    /// Keeps a newer relay map that the pinned root key signed.
    pub fn take_map(&mut self, signed: &SignedMap) {
        let serial = |map: &SignedMap| map.verify(&self.server.root).ok().map(|map| map.serial);
        if serial(signed) > serial(&self.map) {
            self.map.clone_from(signed);
        }
    }

    /// Applies what control says about this party; changes of other things do nothing.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Party { party } if party.session == self.session() => {
                self.party = party.clone();
            }
            Change::Member { session, member } if *session == self.session() => {
                let members = &mut self.party.members;
                match members.binary_search_by_key(&member.member, |record| record.member) {
                    Ok(at) => members[at] = member.clone(),
                    Err(at) => members.insert(at, member.clone()),
                }
            }
            Change::Left { session, member }
                if *session == self.session() && *member != self.party.you =>
            {
                self.party.members.retain(|record| record.member != *member);
            }
            Change::Relays { session, relays } if *session == self.session() => {
                self.party.relays.clone_from(relays);
            }
            Change::Party { .. }
            | Change::Member { .. }
            | Change::Left { .. }
            | Change::Removed { .. }
            | Change::Relays { .. }
            | Change::Map { .. } => {}
        }
    }

    /// Applies a change while the party is not up. An entry that our newest secret vouches for stays
    /// when control lists it unchanged under another epoch: its key may be all that tells whose a
    /// copy of a newer secret is (protocol §7.3).
    pub fn apply_while_down(&mut self, change: &Change) {
        let before = self.party.members.clone();
        self.apply(change);
        let Some((epoch, secret)) = self.secrets.iter().max_by_key(|(epoch, _)| *epoch) else {
            return;
        };
        for listed in self.party.members.iter_mut().filter_map(|record| record.entry.as_mut()) {
            let kept = before.iter().filter_map(|record| record.entry.as_ref()).find(|entry| {
                entry.body == listed.body && entry.epoch == *epoch && entry.is_genuine(secret)
            });
            if let Some(kept) = kept {
                listed.clone_from(kept);
            }
        }
    }

    /// The device's private key for this party.
    pub fn tunnel_private(&self) -> StaticSecret {
        StaticSecret::from(*self.tunnel.0)
    }

    /// The device's public key for this party.
    pub fn tunnel_key(&self) -> TunnelKey {
        TunnelKey(PublicKey::from(&self.tunnel_private()).to_bytes())
    }
}
