use hkdf::Hkdf;
use sha2::Sha256;
use siphasher::sip::SipHasher24;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::{VERSION, data};
use crate::bytes::TunnelKey;
use crate::datagram::first_byte;
use crate::ids::{Destination, Member, PoolId, RelayId, SessionId};
use crate::wire::Malformed;

/// What stands before the payload in place of a data frame's header.
pub const HEADER_LEN: usize = 32;
/// How much longer a frame is between relays than as its sender sent it.
pub const GROWTH: usize = HEADER_LEN - data::HEADER_LEN;
/// The longest datagram between relays.
pub const DATAGRAM_LEN_MAX: usize = super::DATAGRAM_LEN_MAX + GROWTH;
/// Where a delivered data frame begins in one that came from a relay: its header takes the place
/// of session and tag.
pub const DELIVERED: std::ops::RangeFrom<usize> = GROWTH..;
/// Seconds for which keys hold (§3.6).
pub const EPOCH_S: u64 = 600;
/// Counters are below this; see [`Moment::first_counter`].
pub const COUNTER_END: u64 = 1 << 34;

const TAG: usize = HEADER_LEN - 8;
const PURPOSE: &[u8] = b"lanrage mesh 1";
const EVERYONE: u8 = 255;

/// Nanoseconds a counter that starts with the time advances by one. No socket sends so fast that
/// its counter would overtake the time.
const COUNTER_NS: u64 = 64;
const _: () = assert!(EPOCH_S * 1_000_000_000 / COUNTER_NS < COUNTER_END / 3 * 2);

/// Keys' version: the time in units of [`EPOCH_S`] since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshEpoch(pub u32);

impl MeshEpoch {
    /// What the frame says of it.
    pub const fn to_wire(self) -> u8 {
        self.0 as u8
    }

    /// The epoch that a frame names: this one, the next or the one before.
    pub fn named(self, wire: u8) -> Option<Self> {
        let ahead = wire.wrapping_sub(self.to_wire()).cast_signed();
        let near = matches!(ahead, -1..=1).then_some(ahead)?;
        self.0.checked_add_signed(i32::from(near)).map(Self)
    }
}

/// A moment by a relay's clock, as the mesh counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The epoch.
    pub epoch: MeshEpoch,
    /// What a relay that starts now counts from, so that it repeats no counter of its former life.
    pub first_counter: u64,
}

impl Moment {
    /// `since_1970` in nanoseconds.
    pub const fn new(since_1970: u128) -> Self {
        let epoch_ns = EPOCH_S as u128 * 1_000_000_000;
        Self {
            epoch: MeshEpoch((since_1970 / epoch_ns) as u32),
            first_counter: (since_1970 % epoch_ns) as u64 / COUNTER_NS,
        }
    }
}

/// What two relays agree on by their static keys.
pub struct MeshSecret {
    shared: Zeroizing<[u8; 32]>,
    pool: PoolId,
}

impl std::fmt::Debug for MeshSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MeshSecret").finish_non_exhaustive()
    }
}

impl MeshSecret {
    /// Public-key work. `None` when the other key is of low order.
    pub fn agree(private: &StaticSecret, other: &TunnelKey, pool: PoolId) -> Option<Self> {
        let shared = private.diffie_hellman(&PublicKey::from(other.0));
        let shared = shared.was_contributory().then(|| Zeroizing::new(shared.to_bytes()))?;
        Some(Self { shared, pool })
    }

    /// The key of one direction and epoch (§1.4).
    pub fn key(&self, from: RelayId, to: RelayId, epoch: MeshEpoch) -> MeshKey {
        let mut key = Zeroizing::new([0; 32]);
        let info = [
            PURPOSE,
            &[0],
            &self.pool.0.to_be_bytes(),
            &from.0.to_be_bytes(),
            &to.0.to_be_bytes(),
            &epoch.0.to_be_bytes(),
        ];
        Hkdf::<Sha256>::new(None, &*self.shared)
            .expand_multi_info(&info, &mut *key)
            .expect("32 bytes are within HKDF's limit");
        MeshKey(SipHasher24::new_with_key(key.first_chunk().expect("16 of 32 bytes")))
    }
}

/// Makes and checks the tags of one direction and epoch.
#[derive(Clone, Copy)]
pub struct MeshKey(SipHasher24);

impl std::fmt::Debug for MeshKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MeshKey(secret)")
    }
}

impl MeshKey {
    /// Whether the header's tag is right for a datagram of `len` bytes.
    pub fn verifies(&self, header: &[u8; HEADER_LEN], len: usize) -> bool {
        header[TAG..] == self.tag(header, len).to_be_bytes()
    }

    /// SipHash-2-4 over the header before the tag, and the length.
    fn tag(&self, header: &[u8; HEADER_LEN], len: usize) -> u64 {
        let mut covered = [0; TAG + 2];
        covered[..TAG].copy_from_slice(&header[..TAG]);
        covered[TAG..].copy_from_slice(&(len as u16).to_be_bytes());
        self.0.hash(&covered)
    }
}

/// What a frame between relays is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeshKind {
    /// 0xFA: a data frame on its way to the relay that delivers it.
    Data,
    /// 0xFB: the answer to one: `source` has no lease there, which is for `destination` to know.
    Absent,
}

/// The header of a frame between relays (§3.6); its tag is checked by [`MeshKey::verifies`].
///
/// ```text
/// | 0xFA | version | sending relay u16 | epoch u8 | shard u8 | source u8 | destination u8 |
/// | counter u64 | session u64 | tag u64 |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeshHeader {
    /// See [`MeshKind`].
    pub kind: MeshKind,
    /// Who sends this to the other relay: of data, the ingress relay.
    pub sender: RelayId,
    /// See [`MeshEpoch::to_wire`].
    pub epoch: u8,
    /// Which of the sender's counters this is.
    pub shard: u8,
    /// The member whose frame this is.
    pub source: Member,
    /// Whom it is for.
    pub destination: Destination,
    /// Never twice for a sender, shard and epoch.
    pub counter: u64,
    /// The session of both.
    pub session: SessionId,
}

impl MeshHeader {
    /// # Errors
    /// Another type or version; a member that cannot be; a frame for its source; an answer for
    /// everyone; a counter of [`COUNTER_END`] or more.
    pub fn decode(header: &[u8; HEADER_LEN]) -> Result<Self, Malformed> {
        let [first, version, s0, s1, epoch, shard, source, destination, rest @ ..] = header;
        let kind = match (*first, *version) {
            (first_byte::MESH, VERSION) => MeshKind::Data,
            (first_byte::MESH_ABSENT, VERSION) => MeshKind::Absent,
            _ => return Err(Malformed("mesh version")),
        };
        let source = Member::new(*source).ok_or(Malformed("mesh source"))?;
        let destination = match (*destination, kind) {
            (EVERYONE, MeshKind::Data) => Destination::Everyone,
            (number, _) => Member::new(number)
                .filter(|member| *member != source)
                .map(Destination::One)
                .ok_or(Malformed("mesh destination"))?,
        };
        let (counter, rest) = rest.split_first_chunk().ok_or(Malformed("mesh"))?;
        let (session, _) = rest.split_first_chunk().ok_or(Malformed("mesh"))?;
        let counter = u64::from_be_bytes(*counter);
        if counter >= COUNTER_END {
            return Err(Malformed("mesh counter"));
        }
        Ok(Self {
            kind,
            sender: RelayId(u16::from_be_bytes([*s0, *s1])),
            epoch: *epoch,
            shard: *shard,
            source,
            destination,
            counter,
            session: SessionId(u64::from_be_bytes(*session)),
        })
    }

    /// The header's bytes, for a datagram of `len` bytes.
    pub fn encode(&self, key: &MeshKey, len: usize) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[0] = match self.kind {
            MeshKind::Data => first_byte::MESH,
            MeshKind::Absent => first_byte::MESH_ABSENT,
        };
        header[1] = VERSION;
        header[2..4].copy_from_slice(&self.sender.0.to_be_bytes());
        header[4] = self.epoch;
        header[5] = self.shard;
        header[6] = self.source.number();
        header[7] = match self.destination {
            Destination::One(member) => member.number(),
            Destination::Everyone => EVERYONE,
        };
        header[8..16].copy_from_slice(&self.counter.to_be_bytes());
        header[16..TAG].copy_from_slice(&self.session.0.to_be_bytes());
        let tag = key.tag(&header, len);
        header[TAG..].copy_from_slice(&tag.to_be_bytes());
        header
    }

    /// Turns the frame into one as delivered, in place: `frame[DELIVERED]`.
    pub fn deliver(&self, header: &mut [u8; HEADER_LEN], egress: RelayId) {
        let delivered = data::Delivered {
            egress,
            destination: self.destination,
            source: self.source,
            ingress: self.sender,
        };
        header[DELIVERED].copy_from_slice(&delivered.encode());
    }
}
