use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A relay of the pool; 0 is no relay and means "the one that receives this".
    RelayId(u16)
}
number! {
    /// Relays that trust the same control service.
    PoolId(u16)
}
number! {
    /// Counts the devices a member number has belonged to, and the kicks it has seen.
    Generation(u32)
}
number! {
    /// The version of a party's secret.
    Epoch(u32)
}
number! {
    /// Names one of control's signing keys; two overlap while keys rotate.
    KeyId(u8)
}
number! {
    /// Names the limits a relay applies to a lease.
    RateClass(u8)
}
number! {
    /// Proves, beside the address, that a frame comes from the lease's client: random per lease.
    Tag(u32)
}

impl Epoch {
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A lease's slot in one relay's table: index in the low 24 bits, the slot's generation in the high 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u32);

impl Handle {
    /// Bits of the index: a relay has at most 2^24 leases.
    pub const INDEX_BITS: u32 = 24;

    /// Joins a slot's index (below 2^24) and its generation.
    pub const fn new(index: u32, generation: u8) -> Self {
        Self(((generation as u32) << Self::INDEX_BITS) | (index & ((1 << Self::INDEX_BITS) - 1)))
    }

    /// The slot.
    pub const fn index(self) -> u32 {
        self.0 & ((1 << Self::INDEX_BITS) - 1)
    }

    /// How often the slot has been reused, modulo 256.
    pub const fn generation(self) -> u8 {
        (self.0 >> Self::INDEX_BITS) as u8
    }
}

/// One party at the relays: random, chosen by control, the same for the party's whole life.
///
/// In JSON and on the command line 16 hexadecimal digits: written in lower case, read in either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<SessionId> for String {
    fn from(id: SessionId) -> Self {
        id.to_string()
    }
}

/// A party id is not 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a party id is 16 hexadecimal digits")]
pub struct BadSessionId;

impl std::str::FromStr for SessionId {
    type Err = BadSessionId;

    fn from_str(text: &str) -> Result<Self, BadSessionId> {
        let hexadecimal = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(text, 16) {
            Ok(id) if hexadecimal => Ok(Self(id)),
            _ => Err(BadSessionId),
        }
    }
}

impl TryFrom<String> for SessionId {
    type Error = BadSessionId;

    fn try_from(text: String) -> Result<Self, BadSessionId> {
        text.parse()
    }
}

/// A member's number in its party, 1..=250: the last byte of its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub struct Member(u8);

/// A member number is outside 1..=250.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("member numbers run from 1 to 250")]
pub struct BadMember;

impl Member {
    /// The highest member number, and so the size of the largest party.
    pub const MAX: u8 = 250;

    /// `None` outside 1..=250.
    pub const fn new(number: u8) -> Option<Self> {
        match number {
            1..=Self::MAX => Some(Self(number)),
            _ => None,
        }
    }

    /// 1..=250.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// All member numbers, lowest first.
    pub fn all() -> impl Iterator<Item = Self> {
        (1..=Self::MAX).map(Self)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u8> for Member {
    type Error = BadMember;

    fn try_from(number: u8) -> Result<Self, BadMember> {
        Self::new(number).ok_or(BadMember)
    }
}

impl From<Member> for u8 {
    fn from(member: Member) -> Self {
        member.0
    }
}

/// Whom a data frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// One member; the sender itself for a liveness frame.
    One(Member),
    /// Every member of the session with a lease here, but the source.
    Everyone,
}

impl Destination {
    const EVERYONE: u16 = 0xffff;

    /// `None` for a number that names nobody.
    pub const fn from_wire(number: u16) -> Option<Self> {
        match number {
            Self::EVERYONE => Some(Self::Everyone),
            1..=250 => Some(Self::One(Member(number as u8))),
            _ => None,
        }
    }

    /// The field's value.
    pub const fn to_wire(self) -> u16 {
        match self {
            Self::One(member) => member.0 as u16,
            Self::Everyone => Self::EVERYONE,
        }
    }
}
