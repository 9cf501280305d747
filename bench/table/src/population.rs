//! Leases in parties of four, and the frames that name them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use anyhow::Context as _;
use lanrage_relay_table::{
    self as table, Capacity, Endpoint, LocalId, Member, NewLease, Reader, SessionId, Tag,
};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng as _};

/// Members of each session.
const MEMBERS: u32 = 4;
/// Without limits.
const RATE_CLASS: u8 = 2;

/// What a frame says of its sender and receiver, and where it came from: 16 bytes, so that walking
/// a million of them in order costs the caches as little as the datagrams would.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) handle: u32,
    pub(crate) tag: Tag,
    pub(crate) ip: Ipv4Addr,
    pub(crate) port: u16,
    pub(crate) source: Member,
    pub(crate) destination: Member,
}

impl Question {
    pub(crate) const fn address(&self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(self.ip, self.port))
    }
}

/// A lease as a relay without the table would keep it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) handle: u32,
    pub(crate) session: SessionId,
    pub(crate) member: Member,
    pub(crate) tag: Tag,
    pub(crate) endpoint: Endpoint,
}

/// The same leases for every contestant.
#[derive(Debug)]
pub(crate) struct Population {
    pub(crate) reader: Reader,
    pub(crate) leases: Vec<Kept>,
    /// One for each lease as the sender, shuffled: walked in order, no lease comes again before
    /// every other has.
    pub(crate) questions: Vec<Question>,
}

impl Population {
    /// Members come in no order, so that neither a session's slots nor a map's entries lie together.
    pub(crate) fn new(leases: u32) -> anyhow::Result<Self> {
        let (mut writer, reader) = table::new(Capacity::for_leases(leases))?;
        let mut random = ChaCha8Rng::seed_from_u64(0x1234_5678_9abc_def1);
        let mut arriving: Vec<u32> = (0..leases).collect();
        shuffle(&mut random, &mut arriving);
        let mut kept = Vec::with_capacity(leases as usize);
        for number in arriving {
            let new = NewLease {
                session: SessionId(u64::from(number / MEMBERS)),
                member: member(number % MEMBERS),
                endpoint: Endpoint::new(address(number), LocalId(0)),
                tag: Tag(random.next_u32()),
                rate_class: RATE_CLASS,
            };
            let handle = writer.insert_pending(&new, random.next_u64(), 0)?.handle;
            writer.activate(handle).context("the lease was inserted just now")?;
            let NewLease { session, member, tag, endpoint, .. } = new;
            kept.push(Kept { handle: handle.to_bits(), session, member, tag, endpoint });
        }
        let mut questions: Vec<Question> = kept.iter().map(to_the_next).collect();
        shuffle(&mut random, &mut questions);
        Ok(Self { reader, leases: kept, questions })
    }
}

/// A frame to the next member of the sender's session.
fn to_the_next(lease: &Kept) -> Question {
    let at = u32::from(lease.member.number()) - 1;
    let number = lease.session.0 as u32 * MEMBERS + at;
    Question {
        handle: lease.handle,
        tag: lease.tag,
        ip: ip(number),
        port: port(number),
        source: lease.member,
        destination: member((at + 1) % MEMBERS),
    }
}

fn member(at: u32) -> Member {
    Member::new(at as u8 + 1).expect("a session has four members")
}

fn address(number: u32) -> SocketAddr {
    SocketAddr::from((ip(number), port(number)))
}

fn ip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(10 << 24 | number)
}

const fn port(number: u32) -> u16 {
    40_000 + (number % 20_000) as u16
}

/// R. A. Fisher and F. Yates.
fn shuffle<T>(random: &mut impl RngCore, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let at = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        items.swap(last, at as usize);
    }
}
