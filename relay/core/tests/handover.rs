//! What another process is given to go on with may be damaged, and may be large.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Player, RELAY, World, address, given, identity, words};
use lanrage_proto::ids::RelayId;
use lanrage_relay_core::binder::{MemoryError, ThawError, binder_words};
use lanrage_relay_core::{Binder, Classes, Now};
use lanrage_relay_table::{Capacity, Full};
use proptest::prelude::*;

/// A relay with a bit of everything to freeze.
fn world() -> World {
    let mut world = World::new(8);
    for member in 1..=4 {
        let place = address(&format!("198.51.100.{member}:4000"));
        let mut player = Player::new(1, member, place);
        world.join(&mut player);
    }
    world.advance(200);
    world.binder.drain(world.now, 60_000, Some(RelayId(9)));
    world.advance(200);
    world
}

proptest! {
    #[test]
    fn damaged_state_is_an_error_or_a_binder(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let world = world();
        let mut frozen = world.binder.freeze().to_vec();
        for (at, value) in damage {
            let at = at.index(frozen.len());
            frozen[at] = value;
        }
        frozen.truncate(cut.map_or(frozen.len(), |cut| cut.index(frozen.len())));
        let Ok(mut binder) = world.thaw(&frozen) else { return Ok(()) };
        for step in 1..100 {
            binder.handle_timeout(Now { ms: world.now.ms + step * 500, ..world.now });
        }
        prop_assert_eq!(binder.skew(), 0);
    }

    #[test]
    fn noise_is_an_error(noise in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(world().thaw(&noise).is_err());
    }
}

#[test]
fn every_cut_is_an_error() {
    let world = world();
    let frozen = world.binder.freeze();
    for len in 0..frozen.len() {
        assert!(world.thaw(&frozen[..len]).is_err(), "{len} of {} bytes", frozen.len());
    }
    assert!(matches!(world.thaw(&[&frozen[..], &[0]].concat()), Err(ThawError::Malformed(_))));
    world.thaw(&frozen).unwrap();
    let mut newer = frozen.to_vec();
    newer[3] += 1;
    assert_eq!(world.thaw(&newer).map(drop), Err(ThawError::Version(3)));
}

const NOW: Now = Now { ms: 5_000, unix_s: 1_800_000_000 };

#[test]
fn leases_are_given_without_a_bind() {
    let capacity = Capacity { leases: 9, session_lines: 3 };
    let (table, reader) = lanrage_relay_table::new(capacity).unwrap();
    let memory = words(binder_words(capacity));
    let mut binder =
        Binder::new_in(memory, identity(RELAY), table, Classes::default(), [1; 32], NOW).unwrap();
    for number in 0..8 {
        let (handle, tag) = binder.give_lease(NOW, &given(number)).unwrap();
        let lease = reader.source(handle).unwrap().lease;
        assert_eq!((lease.tag, lease.endpoint.port), (tag, 4000));
    }
    binder.give_lease(NOW, &given(3)).unwrap();
    assert_eq!((binder.counts().active, binder.counts().sessions, binder.skew()), (8, 2, 0));
    binder.give_lease(NOW, &given(8)).unwrap();
    assert_eq!(binder.give_lease(NOW, &given(9)), Err(Full::Leases));
    assert_eq!(binder.skew(), 0);
    binder.handle_timeout(Now { ms: 5_100, ..NOW });
    assert_eq!(binder.counts().active, 9);

    let (other, _) = lanrage_relay_table::new(capacity).unwrap();
    let refused =
        Binder::new_in(memory, identity(RELAY), other, Classes::default(), [1; 32], NOW).map(drop);
    assert_eq!(refused.unwrap_err(), MemoryError::NotFresh);
}

/// The next process bound again, and told nobody any more to leave.
#[test]
fn regression_a_drain_outlives_an_upgrade() {
    let mut world = world();
    let before = world.binder.draining().unwrap();
    assert!(before.told >= 4, "{before:?}");
    world.upgrade();
    assert_eq!(world.binder.draining(), Some(before));
    let mut late = Player::new(1, 7, address("198.51.100.7:4000"));
    assert!(world.bind(&mut late).is_err());
    world.advance(6_000);
    assert_eq!(world.binder.draining().unwrap().told, before.told + 4, "those who stay, again");
    world.binder.undrain();
    world.upgrade();
    assert_eq!(world.binder.draining(), None);
    world.bind(&mut late).unwrap();
}
