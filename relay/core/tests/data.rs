//! What a shard does with data: each check in its order, each way out, each count.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Player, World, address, is_hint};
use lanrage_proto::Tag;
use lanrage_proto::frame::data::{Delivered, Sent};
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::ids::{Destination, Member, RelayId};
use lanrage_relay_core::shard::{BACKLOG_LEN, COPIES_PER_PASS};
use lanrage_relay_core::{Class, DropReason, Verdict};

/// Broadcasts of a session that may wait while no other's do.
const OF_A_SESSION: u64 = BACKLOG_LEN as u64 / 2 + 1;

fn one(member: u8) -> Destination {
    Destination::One(Member::new(member).unwrap())
}

fn pair(world: &mut World) -> [(Player, lanrage_proto::frame::bind::Lease); 2] {
    ["192.0.2.1:1001", "[2001:db8::2]:1002"].map(|text| text.parse().unwrap()).map({
        let mut member = 0;
        move |at| {
            member += 1;
            let mut player = Player::new(0xabc, member, at);
            let lease = world.join(&mut player);
            (player, lease)
        }
    })
}

#[test]
fn unicast_is_delivered_with_its_header_rewritten() {
    let mut world = World::new(16);
    let [(a, lease), (b, _)] = pair(&mut world);
    let out = world.send(a.address, &a.frame(&lease, one(2), b"to b"));
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].to, b.address);
    let (header, payload) = Delivered::decode(&out[0].bytes).unwrap();
    assert_eq!(payload, b"to b");
    let expected = Delivered {
        egress: RelayId(0),
        destination: one(2),
        source: a.member,
        ingress: common::RELAY,
    };
    assert_eq!(header, expected);
    assert_eq!(world.shard.counters().unicast, 1);
}

#[test]
fn each_check_has_its_reason_and_its_place() {
    let mut world = World::new(16);
    let [(a, lease), _] = pair(&mut world);
    let elsewhere = address("192.0.2.99:1001");

    // Everything is wrong at first; each step mends what the check before found.
    let mut sent = Sent {
        flags: 1,
        egress: RelayId(9),
        destination: 251,
        source: 2,
        handle: lanrage_proto::Handle(lease.handle.0 ^ 1 << 24),
        tag: Tag(lease.tag.0 ^ 1),
    };
    let mut from = elsewhere;
    let expect = |world: &mut World, from, frame: &[u8], reason: DropReason, hint| {
        let before = *world.shard.counters();
        let out = world.send(from, frame);
        let after = world.shard.counters();
        for other in DropReason::all() {
            let grown = after.dropped_for(other) - before.dropped_for(other);
            assert_eq!(grown, u64::from(other == reason), "{} for {reason:?}", other.as_str());
        }
        let hints: Vec<_> = out.iter().map(|hint| Hint::decode(&hint.bytes).unwrap()).collect();
        assert_eq!(hints.iter().map(|hint| hint.kind).collect::<Vec<_>>(), hint, "{reason:?}");
        assert!(out.iter().all(|hint| hint.to == from && hint.bytes.len() <= frame.len()));
    };
    let no_lease = vec![HintKind::NoLease];
    expect(&mut world, from, &sent.encode()[..15], DropReason::Length, vec![]);
    let long = [sent.encode().as_slice(), &[0; 1457]].concat();
    expect(&mut world, from, &long, DropReason::Length, vec![]);
    expect(&mut world, from, &sent.encode(), DropReason::Handle, no_lease.clone());
    sent.handle.0 = lease.handle.0 | 0x00ff_ffff;
    expect(&mut world, from, &sent.encode(), DropReason::Handle, no_lease.clone());
    sent.handle = lease.handle;
    expect(&mut world, from, &sent.encode(), DropReason::Tag, no_lease.clone());
    sent.tag = lease.tag;
    expect(&mut world, from, &sent.encode(), DropReason::Address, no_lease.clone());
    from = address("192.0.2.1:1002");
    expect(&mut world, from, &sent.encode(), DropReason::Address, no_lease);
    from = a.address;
    expect(&mut world, from, &sent.encode(), DropReason::Source, vec![]);
    sent.source = 0x0101;
    expect(&mut world, from, &sent.encode(), DropReason::Source, vec![]);
    sent.source = 1;
    expect(&mut world, from, &sent.encode(), DropReason::Flags, vec![]);
    sent.flags = 0;
    for destination in [251, 0, 0x0102, 0xfffe] {
        sent.destination = destination;
        expect(&mut world, from, &sent.encode(), DropReason::Destination, vec![]);
    }
    sent.destination = 3;
    let no_peer = vec![HintKind::NoPeer(Member::new(3).unwrap())];
    let there = HintKind::NoPeerThere(Member::new(3).unwrap(), RelayId(9));
    expect(&mut world, from, &sent.encode(), DropReason::NoMesh, vec![there]);
    sent.egress = common::RELAY;
    expect(&mut world, from, &sent.encode(), DropReason::NoPeer, no_peer);
}

#[test]
fn broadcasts_go_to_all_but_the_source_and_stay_in_the_session() {
    let mut world = World::new(64);
    let mut players: Vec<_> =
        (1..=5).map(|at| Player::new(1, at, address(&format!("192.0.2.{at}:7")))).collect();
    let leases: Vec<_> = players.iter_mut().map(|player| world.join(player)).collect();
    let mut stranger = Player::new(2, 1, address("192.0.2.200:7"));
    world.join(&mut stranger);

    let out = world
        .send(players[2].address, &players[2].frame(&leases[2], Destination::Everyone, b"all"));
    let mut to: Vec<_> = out.iter().map(|copy| copy.to).collect();
    to.sort();
    let others: Vec<_> = players
        .iter()
        .map(|player| player.address)
        .filter(|at| *at != players[2].address)
        .collect();
    assert_eq!(to, others);
    assert_eq!(world.shard.counters().copies, 4);
}

#[test]
fn a_large_party_is_served_in_passes() {
    let mut world = World::new(512);
    let (players, leases) = world.party(250);
    let frame = players[0].frame(&leases[0], Destination::Everyone, b"all of you");
    let mut passes = vec![world.send(players[0].address, &frame)];
    while world.shard.is_backlogged() {
        passes.push(world.pass());
    }
    assert!(passes.iter().all(|pass| pass.len() <= COPIES_PER_PASS));
    let mut to: Vec<_> = passes.concat().iter().map(|copy| copy.to).collect();
    to.sort();
    to.dedup();
    assert_eq!(to.len(), 249);
    assert_eq!(world.shard.counters().copies, 249, "each once");
    assert_eq!(world.shard.counters().deferred, 1);

    // More than a session may have waiting: the rest is dropped whole, and counted.
    let frames = BACKLOG_LEN as u64;
    for at in 0..frames {
        let player = &players[at as usize % 250];
        let lease = &leases[at as usize % 250];
        world.shard.begin_pass(world.now.ms);
        let mut frame = player.frame(lease, Destination::Everyone, b"x");
        let len = frame.len();
        world.shard.handle_run(&mut frame, len, player.address);
        assert_eq!(world.shard.counters().skew(), 0);
    }
    let dropped = world.shard.counters().dropped_for(DropReason::BroadcastBacklog);
    assert_eq!(dropped, frames - OF_A_SESSION);
}

/// One session could fill the backlog, and the broadcasts of all others were dropped.
#[test]
fn regression_loud_sessions_leave_room_for_the_broadcasts_of_others() {
    let mut world = World::new(2048);
    let mut senders = Vec::new();
    for session in 1..=16 {
        for member in 1..=70 {
            let from = address(&format!("10.{session}.{member}.1:7"));
            let mut player = Player::new(session, member, from);
            world.advance(10);
            let lease = world.join(&mut player);
            if member == 1 {
                senders.push((player, lease));
            }
        }
    }
    let mut waiting = |(player, lease): &(Player, _)| {
        let before = world.shard.counters().deferred;
        for _ in 0..30 {
            let mut frame = player.frame(lease, Destination::Everyone, b"all of you");
            let len = frame.len();
            world.shard.handle_run(&mut frame, len, player.address);
        }
        world.shard.counters().deferred - before
    };
    let waits: Vec<_> = senders.iter().map(&mut waiting).collect();
    assert!(waits.iter().all(|waits| *waits > 0), "{waits:?}");
    assert_eq!(waits[..2], [30, 30], "few are not held up");
}

/// Who waits for a long pass anyway hardly waits longer for more copies in it.
#[test]
fn a_pass_after_many_datagrams_makes_more_copies() {
    let mut world = World::new(512);
    let (players, leases) = world.party(250);
    let to_all = players[0].frame(&leases[0], Destination::Everyone, b"all of you");
    for (datagrams, expected) in [(40, COPIES_PER_PASS + 10), (400, 4 * COPIES_PER_PASS)] {
        let mut broadcast = to_all.clone();
        let len = broadcast.len();
        world.shard.handle_run(&mut broadcast, len, players[0].address);
        world.shard.begin_pass(world.now.ms);
        for _ in 0..datagrams {
            let mut frame = players[1].frame(&leases[1], one(3), b"3");
            let len = frame.len();
            world.shard.handle_run(&mut frame, len, players[1].address);
        }
        world.shard.begin_pass(world.now.ms);
        let copies = std::iter::from_fn(|| world.shard.poll_copy().map(|_| ())).count();
        assert_eq!(copies, expected);
        while world.shard.is_backlogged() {
            world.shard.begin_pass(world.now.ms);
            while world.shard.poll_copy().is_some() {}
        }
    }
}

/// Copies are charged when they are made, so a lease could have as many broadcasts admitted as can
/// wait: 64 thousand copies where its rate allows 2,500 at once, a thousand passes during which the
/// broadcasts of all others were dropped.
#[test]
fn regression_broadcasts_that_wait_are_held_to_their_senders_rate() {
    let mut world = World::new(512);
    let (players, leases) = world.party(250);
    let frame = players[0].frame(&leases[0], Destination::Everyone, b"all of you");
    let mut copies = 0;
    for _ in 0..BACKLOG_LEN {
        let mut frame = frame.clone();
        let len = frame.len();
        if world.shard.handle_run(&mut frame, len, players[0].address) == Verdict::Copy {
            copies += world.shard.targets().len();
        }
    }
    let mut passes = 0;
    while world.shard.is_backlogged() {
        world.shard.begin_pass(world.now.ms);
        copies += std::iter::from_fn(|| world.shard.poll_copy().map(|_| ())).count();
        passes += 1;
    }
    assert!((2_500..2_500 + 250).contains(&copies), "{copies} copies");
    let most = (2_500usize + 250).div_ceil(COPIES_PER_PASS) + 1;
    assert!(passes <= most, "{passes} passes");
    let counters = world.shard.counters();
    assert_eq!(counters.copies, copies as u64);
    assert_eq!(counters.broadcasts_cut, OF_A_SESSION - counters.copies.div_ceil(249));
    assert_eq!(counters.skew(), 0);
}

#[test]
fn a_train_goes_out_in_runs() {
    let mut world = World::new(16);
    let [(a, lease), (b, _)] = pair(&mut world);
    let to_b = a.frame(&lease, one(2), &[1; 100]);
    let to_a = a.frame(&lease, one(1), &[2; 100]);
    let forged = {
        let mut frame = to_b.clone();
        frame[7] = 2;
        frame
    };
    let short = a.frame(&lease, one(2), &[3; 10]);
    let train = [&to_b, &to_b, &to_a, &forged, &to_b, &short].map(Vec::as_slice).concat();
    let out = world.send_train(a.address, &train, to_b.len());
    let to: Vec<_> = out.iter().map(|datagram| datagram.to).collect();
    assert_eq!(to, [b.address, b.address, a.address, b.address, b.address]);
    assert_eq!(out[4].bytes.len(), short.len());
    assert!(out.iter().all(|datagram| Delivered::decode(&datagram.bytes).is_ok()));
    assert_eq!(world.shard.counters().dropped_for(DropReason::Source), 1);
}

#[test]
fn the_rate_cuts_a_train_and_counts_the_rest() {
    let mut world = World::new(16);
    let [(a, lease), _] = pair(&mut world);
    let frame = a.frame(&lease, one(2), &[0; 1300]);
    let train = vec![frame.as_slice(); 40].concat();
    let mut delivered = 0;
    let sent = 1_000 * 40;
    for _ in 0..1_000 {
        delivered += world.send_train(a.address, &train, frame.len()).len();
    }
    let burst = 50_000 / 4;
    assert!((burst..burst + 40).contains(&delivered), "{delivered} of {burst}");
    let dropped = world.shard.counters().dropped_for(DropReason::RateLease);
    assert_eq!(delivered as u64 + dropped, sent);
    world.now.ms += 1_000;
    assert_eq!(world.send_train(a.address, &train, frame.len()).len(), 40);
}

/// A session may send four times what a lease may.
#[test]
fn the_rate_of_a_session_holds_for_all_its_leases() {
    let mut world = World::new(16);
    let mut players: Vec<_> =
        (1..=6).map(|at| Player::new(1, at, address(&format!("192.0.2.{at}:7")))).collect();
    let leases: Vec<_> = players.iter_mut().map(|player| world.join(player)).collect();
    let mut delivered = 0;
    for (player, lease) in players.iter().zip(&leases) {
        let frame = player.frame(lease, Destination::One(player.member), &[0; 100]);
        let train = vec![frame.as_slice(); 50].concat();
        for _ in 0..240 {
            delivered += world.send_train(player.address, &train, frame.len()).len();
        }
    }
    let burst = 4 * 50_000 / 4;
    assert!((burst - 10..burst + 50).contains(&delivered), "{delivered} of {burst}");
    let dropped = |reason| world.shard.counters().dropped_for(reason);
    assert_eq!(dropped(DropReason::RateLease), 0);
    assert_eq!(delivered as u64 + dropped(DropReason::RateSession), 6 * 50 * 240);
}

#[test]
fn a_full_binder_queue_is_a_counted_drop() {
    let mut world = World::new(16);
    let mut hello = vec![0xf0; 256];
    let verdict = world.shard.handle_run(&mut hello, 256, address("192.0.2.1:1"));
    assert_eq!(verdict, Verdict::ToBinder(Class::Hello));
    world.shard.refused();
    let counters = world.shard.counters();
    assert_eq!((counters.received, counters.to_control, counters.skew()), (1, 0, 0));
    assert_eq!(counters.dropped_for(DropReason::ControlQueue), 1);
}

#[test]
fn hints_have_a_budget() {
    let mut world = World::new(16);
    let frame =
        Sent::new(RelayId(0), one(1), Member::new(1).unwrap(), lanrage_proto::Handle(5), Tag(5))
            .encode();
    let hints: usize = (0..5_000)
        .map(|at: u32| {
            let from = address(&format!("198.51.{}.{}:9", at / 250 % 250, at % 250));
            world.send(from, &frame).iter().filter(|out| is_hint(out)).count()
        })
        .sum();
    assert_eq!(hints, 101);
}

#[test]
fn the_binder_hears_of_a_first_frame_once_it_has_room() {
    let mut world = World::new(16);
    let mut a = Player::new(1, 1, address("192.0.2.1:1"));
    let lease = world.bind(&mut a).unwrap();
    let probe = a.frame(&lease, one(1), b"");
    let mut poll = |mark: bool| {
        let mut frame = probe.clone();
        let len = frame.len();
        world.shard.handle_run(&mut frame, len, a.address);
        let handle = world.shard.poll_activation();
        if let (Some(handle), true) = (handle, mark) {
            world.shard.activation_queued(handle);
        }
        handle.is_some()
    };
    assert!(poll(false));
    assert!(poll(true), "again while the queue had no room");
    assert!(!poll(true));
}
