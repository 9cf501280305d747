//! One writer editing as fast as it can, readers that check every answer against itself.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    net::Ipv6Addr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use lanrage_relay_table::{
    Budget, Capacity, ChainHead, Cursor, Endpoint, Handle, LocalId, Member, Miss, NewLease, Reader,
    SessionId, State, Tag, Writer, new,
};

const SESSIONS: u64 = 4;
const MEMBERS: u8 = 30;
/// A member of every session that keeps its lease, though the lease is replaced and moved all the time.
const FAITHFUL: u8 = 13;
const STORM: Duration = Duration::from_secs(1);

/// xorshift64* (Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// An address whose every part follows from session, member and a number.
fn endpoint(session: u64, member: u8, number: u32) -> Endpoint {
    let word = session << 40 | u64::from(member) << 32 | u64::from(number);
    let ip = u128::from(word) << 64 | u128::from(!word);
    Endpoint { ip: Ipv6Addr::from(ip), port: number as u16, local: LocalId(!(number as u16)) }
}

fn check(endpoint: &Endpoint, session: u64, member: Member) {
    let number = u128::from(endpoint.ip) >> 64;
    assert_eq!(
        *endpoint,
        self::endpoint(session, member.number(), number as u32),
        "torn, or of somebody else"
    );
}

fn insert(
    writer: &mut Writer,
    random: &mut Random,
    session: u64,
    member: u8,
    number: u32,
) -> Option<Handle> {
    let new = NewLease {
        session: SessionId(session),
        member: Member::new(member).unwrap(),
        endpoint: endpoint(session, member, number),
        tag: Tag(session as u32 ^ u32::from(member) << 8),
        rate_class: member,
    };
    writer.insert_pending(&new, random.next(), 0).ok().map(|inserted| inserted.handle)
}

struct Shared {
    chains: Vec<ChainHead>,
    /// By session and member: the newest handle that the writer gave out, as bits.
    handles: Vec<AtomicU64>,
    is_over: AtomicBool,
}

impl Shared {
    fn handle(&self, session: u64, member: u8) -> &AtomicU64 {
        &self.handles[session as usize * 256 + usize::from(member)]
    }
}

fn write(writer: &mut Writer, shared: &Shared, random: &mut Random) -> u64 {
    let mut edits = 0;
    let end = Instant::now() + STORM;
    while edits % 64 != 0 || Instant::now() < end {
        edits += 1;
        let number = edits as u32;
        let session = random.below(SESSIONS);
        let member = random.below(u64::from(MEMBERS)) as u8 + 1;
        let leases = writer.lookup(SessionId(session), Member::new(member).unwrap());
        let handle = leases.active.or(leases.pending);
        match (random.below(6), handle) {
            (0 | 1, _) | (_, None) => {
                if let Some(handle) = insert(writer, random, session, member, number) {
                    shared
                        .handle(session, member)
                        .store(u64::from(handle.to_bits()), Ordering::Relaxed);
                }
            }
            (2, Some(_)) => _ = leases.pending.map(|pending| writer.activate(pending).unwrap()),
            (3, Some(handle)) => writer.rebind(handle, endpoint(session, member, number)).unwrap(),
            (4, Some(handle)) => writer.settle_address(handle).unwrap(),
            (_, Some(_)) if member == FAITHFUL => {}
            (_, Some(handle)) => writer.release(handle).unwrap(),
        }
    }
    shared.is_over.store(true, Ordering::Relaxed);
    edits
}

#[derive(Debug, Default)]
struct Seen {
    sources: u64,
    peers: u64,
    absent: u64,
    torn: u64,
    walks: u64,
    walked: u64,
}

fn read(reader: &Reader, shared: &Shared, random: &mut Random) -> Seen {
    let mut seen = Seen::default();
    while !shared.is_over.load(Ordering::Relaxed) {
        let session = random.below(SESSIONS);
        let member = random.below(u64::from(MEMBERS)) as u8 + 1;
        match random.below(16) {
            0 => walk(reader, shared.chains[session as usize], session, random, &mut seen),
            1..8 => source(reader, shared, session, member, &mut seen),
            _ => peer(reader, shared.chains[session as usize], session, member, &mut seen),
        }
    }
    seen
}

fn source(reader: &Reader, shared: &Shared, session: u64, member: u8, seen: &mut Seen) {
    let handle = Handle::from_bits(shared.handle(session, member).load(Ordering::Relaxed) as u32);
    match reader.source(handle) {
        // The generation may have come round, so it can be anybody's lease, but it is one lease.
        Ok(source) => {
            let lease = source.lease;
            check(&lease.endpoint, lease.session.0, lease.member);
            if let Some(previous) = lease.previous {
                check(&previous, lease.session.0, lease.member);
            }
            assert_eq!(
                lease.tag,
                Tag(lease.session.0 as u32 ^ u32::from(lease.member.number()) << 8)
            );
            assert_eq!((lease.rate_class, lease.handle), (lease.member.number(), handle));
            assert_eq!(lease.chain, shared.chains[lease.session.0 as usize]);
            assert!(matches!(lease.state, State::Pending | State::Active));
            source.owner.set_last_seen_ms(1);
            source.session.set_bucket(Budget::Packets, 1);
            seen.sources += 1;
        }
        Err(Miss::Absent) => seen.absent += 1,
        Err(Miss::Torn) => seen.torn += 1,
    }
}

fn peer(reader: &Reader, chain: ChainHead, session: u64, member: u8, seen: &mut Seen) {
    match reader.peer(chain, SessionId(session), Member::new(member).unwrap()) {
        Ok(target) => {
            check(&target.endpoint, session, Member::new(member).unwrap());
            seen.peers += 1;
        }
        Err(Miss::Absent) => {
            assert_ne!(member, FAITHFUL, "always there");
            seen.absent += 1;
        }
        Err(Miss::Torn) => seen.torn += 1,
    }
}

fn walk(reader: &Reader, chain: ChainHead, session: u64, random: &mut Random, seen: &mut Seen) {
    let mut cursor = Cursor::start(chain);
    let mut leases = Vec::new();
    let mut faithful = 0;
    let mut torn = 0;
    while !cursor.is_done() {
        let mut members = reader.members(SessionId(session), cursor);
        for target in members.by_ref().take(1 + random.below(20) as usize) {
            let Ok(target) = target else {
                torn += 1;
                continue;
            };
            check(&target.endpoint, session, target.member);
            leases.push(target.handle);
            faithful += u32::from(target.member.number() == FAITHFUL);
        }
        cursor = members.cursor();
    }
    assert!(faithful == 1 || faithful == 0 && torn > 0, "visited {faithful} times, {torn} torn");
    seen.walked += leases.len() as u64;
    seen.walks += 1;
    seen.torn += torn;
}

#[test]
fn readers_see_whole_leases_of_the_right_session() {
    // Few slots and lines, so that both are reused at once.
    let (mut writer, reader) = new(Capacity { leases: 64, session_lines: 12 }).unwrap();
    let mut random = Random(0x1a2b_3c4d_5e6f_7081);
    let mut chains = Vec::new();
    let handles: Vec<AtomicU64> =
        (0..SESSIONS * 256).map(|_| AtomicU64::new(u64::from(u32::MAX))).collect();
    for session in 0..SESSIONS {
        let handle = insert(&mut writer, &mut random, session, FAITHFUL, 0).unwrap();
        writer.activate(handle).unwrap();
        chains.push(writer.lease(handle).unwrap().chain);
    }
    let shared = Shared { chains, handles, is_over: AtomicBool::new(false) };
    thread::scope(|scope| {
        let readers: Vec<_> = [1, 2]
            .map(|seed| {
                let (reader, shared) = (reader.clone(), &shared);
                scope.spawn(move || read(&reader, shared, &mut Random(seed)))
            })
            .into();
        let edits = write(&mut writer, &shared, &mut random);
        println!("{edits} edits");
        for reader in readers {
            let seen = reader.join().unwrap();
            println!("{seen:?}");
            assert!(
                seen.sources > 1_000
                    && seen.peers > 1_000
                    && seen.walks > 100
                    && seen.walked > seen.walks
            );
        }
    });
}
