use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

use super::derive;
use crate::bytes::{DeviceKey, Mac, PartySecret, Signature, TunnelKey};
use crate::ids::{Epoch, Generation, Member, SessionId};
use crate::mac::mac16;
use crate::signed::{sign, verifies};
use crate::wire::Writer;

const CONTEXT: &str = "lanrage entry 1";
/// The longest name of a member or party, in bytes of UTF-8.
pub const NAME_LEN_MAX: usize = 32;

/// A name that fits a DNS label: 1–32 of a–z, 0–9 and inner hyphens.
pub fn valid_name(name: &str) -> bool {
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_LEN_MAX).contains(&name.len())
        && name.bytes().all(label)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Who a member number is, as its device says (§7.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryBody {
    /// The party.
    pub session: SessionId,
    /// The number control assigned.
    pub member: Member,
    /// The generation control assigned.
    pub generation: Generation,
    /// See [`valid_name`].
    pub name: String,
    /// The device's identity: makes the signature.
    pub device: DeviceKey,
    /// The device's WireGuard key for this party.
    pub tunnel: TunnelKey,
}

/// A directory entry: without both its signature and its MAC it is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What is signed and authenticated.
    #[serde(flatten)]
    pub body: EntryBody,
    /// The device's, over the body.
    pub signature: Signature,
    /// The epoch whose secret made `mac`.
    pub epoch: Epoch,
    /// Under the party secret, over body and signature: some member vouched for this entry.
    pub mac: Mac,
}

impl EntryBody {
    /// session u64, member u8, name length u8, 0 u16, generation u32, device, tunnel, name
    fn encode(&self) -> Vec<u8> {
        Writer::with_capacity(80 + NAME_LEN_MAX)
            .u64(self.session.0)
            .u8(self.member.number())
            .u8(self.name.len() as u8)
            .u16(0)
            .u32(self.generation.0)
            .bytes(&self.device.0)
            .bytes(&self.tunnel.0)
            .bytes(self.name.as_bytes())
            .finish()
    }

    /// Signs with the device's key and vouches with the party's secret.
    pub fn sign(self, device: &SigningKey, secret: &PartySecret, epoch: Epoch) -> Entry {
        let signature = sign(device, CONTEXT, &self.encode());
        let mac = Mac([0; 16]);
        Entry { body: self, signature, epoch, mac }.vouch(secret, epoch)
    }
}

impl Entry {
    /// The same entry under another epoch's secret.
    pub fn vouch(mut self, secret: &PartySecret, epoch: Epoch) -> Self {
        self.epoch = epoch;
        self.mac = self.expected_mac(secret);
        self
    }

    fn expected_mac(&self, secret: &PartySecret) -> Mac {
        let context =
            [&self.body.session.0.to_be_bytes()[..], &self.epoch.0.to_be_bytes()].concat();
        let key = derive(None, &secret.0, "lanrage directory 1", &context);
        Mac(mac16(&key, &[&self.body.encode(), &self.signature.0]))
    }

    /// Whether the device signed the body: all that control can check.
    pub fn is_signed(&self) -> bool {
        valid_name(&self.body.name)
            && verifies(&self.body.device.0, CONTEXT, &self.body.encode(), &self.signature)
    }

    /// Whether device and party both stand behind the entry; `secret` is that of `self.epoch`.
    pub fn is_genuine(&self, secret: &PartySecret) -> bool {
        self.is_signed() && self.expected_mac(secret).0.ct_eq(&self.mac.0).into()
    }
}
