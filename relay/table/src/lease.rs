//! The lease line: packing, and the sequence lock around it.
//!
//! ```text
//! word 0  sequence u32 | generation u8 | state u8 | member u8 | rate class u8     low bits first
//! word 1  session
//! word 2  address, octets 0..8, in memory order
//! word 3  address, octets 8..16
//! word 4  port u16 | previous port u16 | local id u16 | previous local id u16
//! word 5  previous address, octets 0..8
//! word 6  previous address, octets 8..16
//! word 7  tag u32 | chain head u32
//! ```
//!
//! The sequence is odd during an edit. It shares its word with what most lookups fail on, so that a stale handle costs
//! one load. It repeats after 2^31 edits of one line, which no reader sleeps through between two loads.

use std::net::Ipv6Addr;

use crate::{
    endpoint::Endpoint,
    ids::{ChainHead, Handle, LocalId, Member, SessionId, Tag},
    line::{Line, WORDS},
    reader::{Miss, Torn},
    sync::{Ordering, fence, spin_loop},
};

/// Looks at a line before it is reported torn. An edit takes some tens of nanoseconds, about as long as one look at a
/// line that another core is writing; a writer that is descheduled inside an edit would outlast any small number.
pub const READ_TRIES: usize = if cfg!(loom) { 2 } else { 16 };

const SEQUENCE: u64 = u32::MAX as u64;
const STATE: u64 = 0x7f;
const HAS_PREVIOUS: u64 = 0x80;

/// What a lease may be used for.
///
/// ```text
/// Free ── insert_pending ─► Pending ── activate ─► Active
///   ▲                          │                     │
///   └───────── release ────────┴─────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Bound, but no valid frame has used it: not a target for anyone.
    Pending = 1,
    /// The member's lease.
    Active = 2,
}

/// A consistent copy of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub handle: Handle,
    pub session: SessionId,
    /// Where to send.
    pub endpoint: Endpoint,
    /// The address before a rebind, accepted as a source until it is settled.
    pub previous: Option<Endpoint>,
    pub tag: Tag,
    pub chain: ChainHead,
    pub member: Member,
    /// The ticket's rate class; the table only stores it.
    pub rate_class: u8,
    pub state: State,
}

impl Lease {
    /// Whether a frame of this lease may come from this address. The relay's own address is not compared.
    #[must_use]
    pub fn accepts(&self, ip: Ipv6Addr, port: u16) -> bool {
        let is_at = |endpoint: &Endpoint| endpoint.port == port && endpoint.ip == ip;
        is_at(&self.endpoint) || self.previous.as_ref().is_some_and(is_at)
    }

    fn pack(&self) -> [u64; WORDS] {
        let state = self.state as u64 | if self.previous.is_some() { HAS_PREVIOUS } else { 0 };
        let mut words = [
            u64::from(self.handle.generation()) << 32
                | state << 40
                | u64::from(self.member.number()) << 48
                | u64::from(self.rate_class) << 56,
            self.session.0,
            0,
            0,
            0,
            0,
            0,
            u64::from(self.tag.0) | u64::from(self.chain.0) << 32,
        ];
        (words[2], words[3]) = pack_ip(self.endpoint.ip);
        words[4] = u64::from(self.endpoint.port) | u64::from(self.endpoint.local.0) << 32;
        if let Some(previous) = self.previous {
            words[4] |= u64::from(previous.port) << 16 | u64::from(previous.local.0) << 48;
            (words[5], words[6]) = pack_ip(previous.ip);
        }
        words
    }

    /// `None` if the line is free.
    #[inline]
    fn unpack(index: u32, words: [u64; WORDS]) -> Option<Self> {
        let state = match words[0] >> 40 & STATE {
            1 => State::Pending,
            2 => State::Active,
            _ => return None,
        };
        let endpoint = |high: u64, low: u64, ports: u64| Endpoint {
            ip: unpack_ip(high, low),
            port: ports as u16,
            local: LocalId((ports >> 32) as u16),
        };
        Some(Self {
            handle: Handle::new(index, generation(words[0])),
            session: SessionId(words[1]),
            endpoint: endpoint(words[2], words[3], words[4]),
            previous: (words[0] >> 40 & HAS_PREVIOUS != 0)
                .then(|| endpoint(words[5], words[6], words[4] >> 16)),
            tag: Tag(words[7] as u32),
            chain: ChainHead((words[7] >> 32) as u32),
            member: Member::new((words[0] >> 48) as u8)?,
            rate_class: (words[0] >> 56) as u8,
            state,
        })
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseLine<'a>(pub(crate) &'a Line);

impl LeaseLine<'_> {
    /// The lease if it has this generation.
    #[inline]
    pub(crate) fn read(self, handle: Handle) -> Result<Lease, Miss> {
        let [head, rest @ ..] = self.0;
        for _ in 0..READ_TRIES {
            let first = head.load(Ordering::Acquire);
            if first & 1 != 0 {
                spin_loop();
                continue;
            }
            if generation(first) != handle.generation() || first >> 40 & STATE == 0 {
                return Err(Miss::Absent);
            }
            let mut words = [first; WORDS];
            for (word, shared) in words[1..].iter_mut().zip(rest) {
                *word = shared.load(Ordering::Relaxed);
            }
            // Pairs with the fence in `write`: a word from an edit makes that edit's odd sequence visible below.
            fence(Ordering::Acquire);
            if head.load(Ordering::Relaxed) == first {
                return Lease::unpack(handle.index(), words).ok_or(Miss::Absent);
            }
        }
        Err(Torn.into())
    }

    /// Writes a new lease into a free line, or moves a lease to another address.
    pub(crate) fn write(self, lease: &Lease) {
        let words = lease.pack();
        let [head, rest @ ..] = self.0;
        let before = head.load(Ordering::Relaxed);
        head.store(before | 1, Ordering::Relaxed);
        // Keeps the odd sequence before the words (Boehm, "Can seqlocks get along with programming language memory
        // models?", MSPC 2012, figure 6).
        fence(Ordering::Release);
        for (shared, word) in rest.iter().zip(&words[1..]) {
            if shared.load(Ordering::Relaxed) != *word {
                shared.store(*word, Ordering::Relaxed);
            }
        }
        self.set_head(before, words[0]);
    }

    /// Makes a pending lease active. One store, hence never torn.
    pub(crate) fn activate(self) {
        let before = self.0[0].load(Ordering::Relaxed);
        self.set_head(before, before & !(STATE << 40) | (State::Active as u64) << 40);
    }

    /// Drops the previous address. One store, hence never torn.
    pub(crate) fn settle_address(self) {
        let before = self.0[0].load(Ordering::Relaxed);
        self.set_head(before, before & !(HAS_PREVIOUS << 40));
    }

    /// Changes the rate class. One store, hence never torn.
    pub(crate) fn set_rate_class(self, rate_class: u8) {
        let before = self.0[0].load(Ordering::Relaxed);
        self.set_head(before, before & !(0xff << 56) | u64::from(rate_class) << 56);
    }

    /// Frees the line and advances its generation. One store, hence never torn.
    pub(crate) fn free(self) {
        let before = self.0[0].load(Ordering::Relaxed);
        self.set_head(before, u64::from(generation(before).wrapping_add(1)) << 32);
    }

    /// For the writer alone: the generation of the lease, or of the next one if the line is free.
    pub(crate) fn generation(self) -> u8 {
        generation(self.0[0].load(Ordering::Relaxed))
    }

    /// For the writer alone: whether it holds no lease, and no edit is open.
    pub(crate) fn is_free(self) -> bool {
        let head = self.0[0].load(Ordering::Relaxed);
        head & 1 == 0 && head >> 40 & STATE == 0
    }

    /// A load for its cache effect.
    #[inline]
    pub(crate) fn touch(self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// The chain of whatever lease the line holds, or of none: to load lines by, no more.
    #[inline]
    pub(crate) fn chain_hint(self) -> ChainHead {
        ChainHead((self.0[7].load(Ordering::Relaxed) >> 32) as u32)
    }

    /// Ends an edit: `fields` with the sequence after `before`'s.
    fn set_head(self, before: u64, fields: u64) {
        let sequence = (before as u32 & !1).wrapping_add(2);
        self.0[0].store(fields & !SEQUENCE | u64::from(sequence), Ordering::Release);
    }
}

fn generation(head: u64) -> u8 {
    (head >> 32) as u8
}

fn pack_ip(ip: Ipv6Addr) -> (u64, u64) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = ip.octets();
    (u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes(rest))
}

fn unpack_ip(high: u64, low: u64) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&high.to_ne_bytes());
    octets[8..].copy_from_slice(&low.to_ne_bytes());
    Ipv6Addr::from(octets)
}

#[cfg(all(test, not(loom)))]
mod tests;
