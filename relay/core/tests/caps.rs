//! What operators cap while the relay runs.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::num::NonZeroU64;

use common::{Player, World, address};
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::ids::{Destination, RateClass, SessionId};
use lanrage_relay_core::{CapError, Caps, DropReason};

fn packets(units: u64) -> Caps {
    Caps { packets: NonZeroU64::new(units), ..Caps::default() }
}

fn member(world: &mut World, session: u64, number: u8) -> (Player, Lease) {
    let from = address(&format!("192.0.{}.{number}:7", session + 1));
    let mut player = Player::new(session, number, from);
    world.advance(10);
    let lease = world.join(&mut player);
    (player, lease)
}

/// Frames that pass in a second, of one sent every millisecond by each, after a pause.
fn passes(world: &mut World, members: &[&(Player, Lease)]) -> u64 {
    world.now.ms += 10_000;
    let before = world.shard.counters().self_addressed;
    for _ in 0..2_000 {
        world.now.ms += 1;
        for (player, lease) in members {
            let frame = player.frame(lease, Destination::One(player.member), b"to myself");
            world.send(player.address, &frame);
        }
    }
    (world.shard.counters().self_addressed - before) / 2
}

#[test]
fn a_lease_is_capped_and_let_go_without_a_new_ticket() {
    let mut world = World::new(16);
    world.is_checked = false;
    let (one, other) = (member(&mut world, 1, 1), member(&mut world, 1, 2));
    let capped = |world: &World| {
        world.binder.caps().map(|cap| (cap.member, cap.caps.packets)).collect::<Vec<_>>()
    };
    assert_eq!(passes(&mut world, &[&one]), 1_000);
    world.binder.set_lease_cap(one.0.session, one.0.member, Some(packets(100))).unwrap();
    assert_eq!(capped(&world), [(Some(one.0.member), NonZeroU64::new(100))]);
    assert!((100..=115).contains(&passes(&mut world, &[&one])));
    assert_eq!(passes(&mut world, &[&other]), 1_000, "nobody else's");
    assert!(world.shard.counters().dropped_for(DropReason::RateLease) > 1_500);

    let mut player = one.0.clone();
    player.address.set_port(8);
    let lease = world.join(&mut player);
    let again = (player, lease);
    assert!((100..=115).contains(&passes(&mut world, &[&again])), "the next lease has it, too");
    world.binder.set_lease_cap(one.0.session, one.0.member, None).unwrap();
    assert_eq!(passes(&mut world, &[&again]), 1_000);
    assert!(capped(&world).is_empty());
}

/// One broadcast under a narrow cap of bytes put its sender minutes into debt, which stayed when the
/// cap was lifted.
#[test]
fn regression_debt_made_under_a_cap_ends_with_it() {
    let mut world = World::new(16);
    world.is_checked = false;
    let one = member(&mut world, 1, 1);
    let others: Vec<_> = (2..=8).map(|number| member(&mut world, 1, number)).collect();
    let bytes = Caps { bytes: NonZeroU64::new(100), ..Caps::default() };
    world.binder.set_lease_cap(one.0.session, one.0.member, Some(bytes)).unwrap();
    let frame = one.0.frame(&one.1, Destination::Everyone, &[0; 1_400]);
    assert_eq!(world.send(one.0.address, &frame).len(), others.len());
    assert_eq!(passes(&mut world, &[&one]), 0, "98 s of debt");
    world.binder.set_lease_cap(one.0.session, one.0.member, None).unwrap();
    assert_eq!(passes(&mut world, &[&one]), 1_000);
}

#[test]
fn a_session_is_capped_with_all_its_leases() {
    let mut world = World::new(16);
    world.is_checked = false;
    let (one, other) = (member(&mut world, 1, 1), member(&mut world, 1, 2));
    let elsewhere = member(&mut world, 2, 1);
    world.binder.set_session_cap(SessionId(1), Some(packets(200))).unwrap();
    assert!((200..=226).contains(&passes(&mut world, &[&one, &other])));
    assert!(world.shard.counters().dropped_for(DropReason::RateSession) > 1_000);
    assert_eq!(passes(&mut world, &[&elsewhere]), 1_000);
    let late = member(&mut world, 1, 3);
    assert!((200..=226).contains(&passes(&mut world, &[&one, &late])), "those to come, too");

    world.binder.set_lease_cap(SessionId(1), one.0.member, Some(packets(50))).unwrap();
    assert!((50..=57).contains(&passes(&mut world, &[&one])), "the narrower of both");
    assert!((200..=226).contains(&passes(&mut world, &[&late])));
    world.binder.set_session_cap(SessionId(1), None).unwrap();
    assert_eq!(passes(&mut world, &[&late]), 1_000);
    assert!((50..=57).contains(&passes(&mut world, &[&one])));
}

/// There are 128 bytes for combinations of a class and caps: those that nobody needs are used again,
/// and when all are needed nothing changes but what was asked for is refused.
#[test]
fn caps_end_where_their_slots_do() {
    let mut world = World::new(16);
    world.is_checked = false;
    let one = member(&mut world, 1, 1);
    for units in 1..=1_000 {
        world.binder.set_lease_cap(SessionId(1), one.0.member, Some(packets(units))).unwrap();
    }
    world.binder.set_lease_cap(SessionId(1), one.0.member, Some(packets(30))).unwrap();
    let of_session = |units| SessionId(units + 1_000);
    let set = |world: &mut World, units| {
        world.binder.set_session_cap(of_session(units), Some(packets(units)))
    };
    let held = (1..=200).take_while(|units| set(&mut world, *units).is_ok()).count();
    assert_eq!(held, 127);
    assert_eq!(set(&mut world, 500), Err(CapError::TooMany));
    assert_eq!(world.binder.caps().count(), 128);
    world.binder.set_session_cap(of_session(7), Some(packets(8))).unwrap();
    assert_eq!(set(&mut world, 500), Ok(()), "the figures of another cap need no slot");
    assert!((30..=34).contains(&passes(&mut world, &[&one])));

    // A ticket of another class finds no slot: that of class 0 with the same cap stands in.
    let mut fast = Player::new(of_session(20).0, 1, address("198.51.100.1:1"));
    fast.rate_class = RateClass(1);
    let lease = world.join(&mut fast);
    assert!((20..=23).contains(&passes(&mut world, &[&(fast, lease)])));
}
