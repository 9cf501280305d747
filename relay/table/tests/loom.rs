//! Every interleaving, and every value that the memory model lets a relaxed load return, of small scenarios.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p lanrage-relay-table --release --test loom
//! ```
//!
//! Under loom a chain line has two entries, a chain three lines, and a line is read twice before it is torn. A scenario
//! ends with a check of which answers were seen, so that none passes by never meeting its race.

#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    net::Ipv6Addr,
    sync::{Arc, Mutex},
};

use lanrage_relay_table::{
    Capacity, ChainHead, Cursor, Endpoint, Handle, LocalId, Member, Miss, NewLease, Reader,
    SessionId, Tag, Writer, new,
};
use loom::thread;

/// The answers met in all executions of a scenario.
type Seen = Arc<Mutex<BTreeSet<&'static str>>>;

fn explore(scenario: impl Fn(&Seen) + Send + Sync + 'static) -> BTreeSet<&'static str> {
    let seen = Seen::default();
    let kept = Arc::clone(&seen);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(4);
    builder.check(move || scenario(&seen));
    let seen = kept.lock().unwrap();
    seen.clone()
}

fn note(seen: &Seen, answer: &'static str) {
    seen.lock().unwrap().insert(answer);
}

fn table(leases: u32, session_lines: u32) -> (Writer, Reader) {
    new(Capacity { leases, session_lines }).unwrap()
}

fn member(number: u8) -> Member {
    Member::new(number).unwrap()
}

/// All parts say the same number.
fn endpoint(number: u16) -> Endpoint {
    let half = u64::from(number) * 0x0001_0001_0001_0001;
    Endpoint {
        ip: Ipv6Addr::from(u128::from(half) << 64 | u128::from(half)),
        port: number,
        local: LocalId(number),
    }
}

fn number(endpoint: &Endpoint) -> u16 {
    assert_eq!(*endpoint, self::endpoint(endpoint.port), "torn");
    endpoint.port
}

fn pending(writer: &mut Writer, session: u64, who: u8, address: u16) -> Handle {
    let new = NewLease {
        session: SessionId(session),
        member: member(who),
        endpoint: endpoint(address),
        tag: Tag(u32::from(address)),
        rate_class: who,
    };
    writer.insert_pending(&new, 0, 0).unwrap().handle
}

fn active(writer: &mut Writer, session: u64, who: u8, address: u16) -> Handle {
    let handle = pending(writer, session, who, address);
    writer.activate(handle).unwrap();
    handle
}

fn chain(writer: &Writer, handle: Handle) -> ChainHead {
    writer.lease(handle).unwrap().chain
}

#[test]
fn an_address_is_never_torn() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(1, 1);
        let handle = active(&mut writer, 1, 1, 10);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || match reader.source(handle).map(|source| source.lease) {
                Ok(lease) => {
                    let answer =
                        match (number(&lease.endpoint), lease.previous.as_ref().map(number)) {
                            (10, None) => "before",
                            (20, Some(10)) => "moving",
                            (20, None) => "settled",
                            torn => panic!("{torn:?}"),
                        };
                    note(&seen, answer);
                }
                Err(Miss::Torn) => note(&seen, "torn"),
                Err(Miss::Absent) => panic!("the lease is there"),
            }
        });
        writer.rebind(handle, endpoint(20)).unwrap();
        writer.settle_address(handle).unwrap();
        shard.join().unwrap();
    });
    assert_eq!(seen, BTreeSet::from(["before", "moving", "settled", "torn"]));
}

#[test]
fn a_reused_slot_is_not_its_former_lease() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(1, 1);
        let old = active(&mut writer, 1, 1, 10);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || match reader.source(old).map(|source| source.lease) {
                Ok(lease) => {
                    assert_eq!(
                        (lease.session, lease.member, lease.tag),
                        (SessionId(1), member(1), Tag(10))
                    );
                    assert_eq!(number(&lease.endpoint), 10);
                    note(&seen, "old");
                }
                Err(Miss::Absent) => note(&seen, "absent"),
                Err(Miss::Torn) => note(&seen, "torn"),
            }
        });
        writer.release(old).unwrap();
        let new = pending(&mut writer, 2, 2, 20);
        assert_eq!(new.index(), old.index());
        shard.join().unwrap();
    });
    assert!(seen.is_superset(&BTreeSet::from(["old", "absent"])), "{seen:?}");
}

/// Slot and line go to another session that has the same member number: the reader's chain leads it there.
#[test]
fn a_reused_line_does_not_deliver_to_another_session() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(1, 1);
        let old = active(&mut writer, 1, 1, 10);
        let chain = chain(&writer, old);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || match reader.peer(chain, SessionId(1), member(1)) {
                Ok(target) => {
                    assert_eq!((target.handle, number(&target.endpoint)), (old, 10));
                    note(&seen, "old");
                }
                Err(Miss::Absent) => note(&seen, "absent"),
                Err(Miss::Torn) => note(&seen, "torn"),
            }
        });
        writer.release(old).unwrap();
        active(&mut writer, 2, 1, 20);
        shard.join().unwrap();
    });
    assert!(seen.is_superset(&BTreeSet::from(["old", "absent"])), "{seen:?}");
}

/// A hole in the chain, and the slot, go to another member of the same session.
#[test]
fn a_reused_entry_does_not_deliver_to_another_member() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(2, 1);
        let leaving = active(&mut writer, 1, 1, 10);
        active(&mut writer, 1, 2, 20);
        let chain = chain(&writer, leaving);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || match reader.peer(chain, SessionId(1), member(1)) {
                Ok(target) => {
                    assert_eq!((target.member, number(&target.endpoint)), (member(1), 10));
                    note(&seen, "old");
                }
                Err(Miss::Absent) => note(&seen, "absent"),
                Err(Miss::Torn) => note(&seen, "torn"),
            }
        });
        writer.release(leaving).unwrap();
        active(&mut writer, 1, 3, 30);
        shard.join().unwrap();
    });
    assert!(seen.is_superset(&BTreeSet::from(["old", "absent"])), "{seen:?}");
}

/// Sessions come and go around one that stays: a search for it passes over their words, and finds it every time.
#[test]
fn a_session_that_stays_is_found_whatever_comes_and_goes() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(3, 3);
        let going = active(&mut writer, 2, 2, 20);
        active(&mut writer, 1, 1, 10);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || {
                let chain = reader.chain(SessionId(1)).expect("it stays");
                let target = reader.peer(chain, SessionId(1), member(1)).unwrap();
                assert_eq!(number(&target.endpoint), 10);
                if let Some(chain) = reader.chain(SessionId(2)) {
                    match reader.peer(chain, SessionId(2), member(2)) {
                        Ok(target) => assert_eq!(number(&target.endpoint), 20),
                        Err(Miss::Absent) => note(&seen, "absent"),
                        Err(Miss::Torn) => note(&seen, "torn"),
                    }
                } else {
                    note(&seen, "gone");
                }
            }
        });
        writer.release(going).unwrap();
        active(&mut writer, 3, 2, 30);
        shard.join().unwrap();
    });
    assert!(seen.is_superset(&BTreeSet::from(["absent", "gone"])), "{seen:?}");
}

#[test]
fn a_replaced_lease_leaves_no_gap() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(2, 1);
        let old = active(&mut writer, 1, 1, 10);
        let chain = chain(&writer, old);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || match reader.peer(chain, SessionId(1), member(1)) {
                Ok(target) if target.handle == old => {
                    assert_eq!(number(&target.endpoint), 10);
                    note(&seen, "old");
                }
                Ok(target) => {
                    assert_eq!(number(&target.endpoint), 20);
                    note(&seen, "new");
                }
                Err(Miss::Absent) => panic!("the member is there"),
                Err(Miss::Torn) => note(&seen, "torn"),
            }
        });
        let new = pending(&mut writer, 1, 1, 20);
        assert_eq!(writer.activate(new), Ok(Some(old)));
        shard.join().unwrap();
    });
    assert!(seen.is_superset(&BTreeSet::from(["old", "new"])), "{seen:?}");
}

/// Walks session 1, `pass` targets at a time.
fn walk(reader: &Reader, chain: ChainHead, pass: usize) -> Vec<Result<(u8, Handle), ()>> {
    let mut cursor = Cursor::start(chain);
    let mut visited = Vec::new();
    while !cursor.is_done() {
        let mut members = reader.members(SessionId(1), cursor);
        visited.extend(members.by_ref().take(pass).map(|target| {
            let target = target.map_err(|_| ())?;
            assert_eq!(
                number(&target.endpoint) / 10,
                u16::from(target.member.number()),
                "of somebody else"
            );
            Ok((target.member.number(), target.handle))
        }));
        cursor = members.cursor();
    }
    visited
}

fn check_walk(visited: &[Result<(u8, Handle), ()>], staying: &[u8]) {
    let torn = visited.iter().filter(|target| target.is_err()).count();
    let leases: Vec<Handle> = visited.iter().flatten().map(|(_, handle)| *handle).collect();
    assert_eq!(leases.iter().collect::<BTreeSet<_>>().len(), leases.len(), "a lease visited twice");
    let mut missing = 0;
    for who in staying {
        match visited.iter().flatten().filter(|(number, _)| number == who).count() {
            0 => missing += 1,
            count => assert_eq!(count, 1, "member {who}"),
        }
    }
    assert!(missing <= torn, "{missing} missing, {torn} torn");
}

/// Lines {1, 2} {3, 4}: 2 leaves, 5 takes its hole.
#[test]
fn a_walk_meets_those_who_stay_once_while_a_hole_is_reused() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(4, 2);
        let leases = [1, 2, 3].map(|who| active(&mut writer, 1, who, u16::from(who) * 10));
        let chain = chain(&writer, leases[0]);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || {
                let visited = walk(&reader, chain, 2);
                check_walk(&visited, &[1, 3]);
                for (who, answer) in [(2, "left"), (5, "joined")] {
                    if visited.iter().flatten().any(|(number, _)| *number == who) {
                        note(&seen, answer);
                    }
                }
            }
        });
        writer.release(leases[1]).unwrap();
        active(&mut writer, 1, 5, 50);
        shard.join().unwrap();
    });
    assert_eq!(seen, BTreeSet::from(["joined", "left"]));
}

/// Lines {1, 2} {3}: 3 leaves, its line goes to another session and that session's member gets nothing.
#[test]
fn a_walk_survives_the_loss_of_its_last_line() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(4, 2);
        let leases = [1, 2, 3].map(|who| active(&mut writer, 1, who, u16::from(who) * 10));
        let chain = chain(&writer, leases[0]);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || {
                let visited = walk(&reader, chain, 1);
                check_walk(&visited, &[1, 2]);
                let last = visited.iter().flatten().any(|(number, _)| *number == 3);
                note(&seen, if last { "before" } else { "after" });
            }
        });
        writer.release(leases[2]).unwrap();
        active(&mut writer, 2, 3, 99);
        shard.join().unwrap();
    });
    assert_eq!(seen, BTreeSet::from(["after", "before"]));
}

/// Line {1, 2}: 3 begins a second line.
#[test]
fn a_walk_meets_a_new_line_whole_or_not_at_all() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(3, 2);
        let first = active(&mut writer, 1, 1, 10);
        active(&mut writer, 1, 2, 20);
        let chain = chain(&writer, first);
        let shard = thread::spawn({
            let seen = Arc::clone(seen);
            move || {
                let visited = walk(&reader, chain, 3);
                check_walk(&visited, &[1, 2]);
                let joined = visited.iter().flatten().any(|(number, _)| *number == 3);
                note(&seen, if joined { "joined" } else { "not yet" });
            }
        });
        active(&mut writer, 1, 3, 30);
        shard.join().unwrap();
    });
    assert_eq!(seen, BTreeSet::from(["joined", "not yet"]));
}

/// Lines {1, 2} {3}: 1's lease is replaced during the walk.
#[test]
fn a_walk_meets_a_replaced_member_once() {
    explore(|_| {
        let (mut writer, reader) = table(4, 2);
        let leases = [1, 2, 3].map(|who| active(&mut writer, 1, who, u16::from(who) * 10));
        let chain = chain(&writer, leases[0]);
        let new = pending(&mut writer, 1, 1, 11);
        let shard = thread::spawn(move || check_walk(&walk(&reader, chain, 2), &[1, 2, 3]));
        writer.activate(new).unwrap();
        shard.join().unwrap();
    });
}

/// A shard is late with the mark of the slot's former lease.
#[test]
fn a_late_mark_does_not_silence_the_next_lease() {
    let seen = explore(|seen| {
        let (mut writer, reader) = table(1, 1);
        let old = pending(&mut writer, 1, 1, 10);
        let shard = thread::spawn({
            let (seen, reader) = (Arc::clone(seen), reader.clone());
            move || {
                let Ok(source) = reader.source(old) else { return };
                if !source.owner.is_activation_reported(old) {
                    source.owner.mark_activation_reported(old);
                    note(&seen, "marked");
                }
                source.owner.set_last_seen_ms(7);
            }
        });
        writer.release(old).unwrap();
        let new = pending(&mut writer, 2, 2, 20);
        shard.join().unwrap();
        let owner = reader.source(new).unwrap().owner;
        assert!(!owner.is_activation_reported(new));
        note(seen, if owner.last_seen_ms() == 7 { "late" } else { "in time" });
    });
    assert_eq!(seen, BTreeSet::from(["in time", "late", "marked"]));
}

/// A flow moves: two shards write the owner line, the binder reads. Every word is some shard's, and a reset line is
/// never seen by who sees the lease.
#[test]
fn an_owner_line_stands_two_writers() {
    explore(|_| {
        let (mut writer, reader) = table(1, 1);
        let handle = Arc::new(loom::sync::atomic::AtomicU64::new(u64::MAX));
        let shard = |seen_ms| {
            let (reader, handle) = (reader.clone(), Arc::clone(&handle));
            move || {
                let bits = handle.load(loom::sync::atomic::Ordering::Relaxed);
                let Ok(source) = reader.source(Handle::from_bits(bits as u32)) else { return };
                assert!(
                    source.owner.last_seen_ms() >= 5,
                    "the line is reset before the lease can be seen"
                );
                source.owner.set_last_seen_ms(seen_ms);
                source.owner.count_received(1, 100);
            }
        };
        let shards = [thread::spawn(shard(6)), thread::spawn(shard(7))];
        let new = NewLease {
            session: SessionId(1),
            member: member(1),
            endpoint: endpoint(10),
            tag: Tag(1),
            rate_class: 0,
        };
        let made = writer.insert_pending(&new, 0, 5).unwrap().handle;
        handle.store(u64::from(made.to_bits()), loom::sync::atomic::Ordering::Relaxed);
        let seen = writer.owner(made).unwrap().last_seen_ms();
        assert!((5..=7).contains(&seen));
        for shard in shards {
            shard.join().unwrap();
        }
        let received = writer.owner(made).unwrap().received();
        assert!(received.packets <= 2 && received.bytes <= 200 && received.bytes % 100 == 0);
    });
}
