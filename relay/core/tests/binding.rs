//! Binding, from HELLO to a lease's end, in virtual time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use common::{Player, RELAY, World, address, identity, is_hint, open_bound, open_control, public};
use lanrage_proto::api::Revocation;
use lanrage_proto::frame::bind::Refusal;
use lanrage_proto::frame::control::Message;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::Resume;
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::ids::{Destination, Generation, PoolId, RelayId};
use lanrage_proto::signed::TicketBody;
use lanrage_relay_core::{Binder, Classes, DropReason, End, Outcome};
use lanrage_relay_table::Capacity;

fn player() -> Player {
    Player::new(1, 1, address("192.0.2.1:1001"))
}

fn alive(world: &mut World, player: &Player, lease: &lanrage_proto::frame::bind::Lease) -> bool {
    let probe = player.frame(lease, Destination::One(player.member), b"probe");
    let out = world.send(player.address, &probe);
    out.len() == 1 && !is_hint(&out[0]) && out[0].to == player.address
}

#[test]
fn versions_without_one_in_common_are_told_so() {
    let mut world = World::new(4);
    let hello = Hello { version_min: 2, version_max: 9, nonce: Nonce([1; 16]) };
    let out = world.send(address("192.0.2.1:1"), &hello.encode());
    assert_eq!(out.len(), 1);
    assert_eq!(world.outcome, Some(Outcome::Unsupported));
}

#[test]
fn without_a_certificate_nobody_is_challenged() {
    let mut world = World::new(4);
    let (writer, _) = lanrage_relay_table::new(Capacity::for_leases(4)).unwrap();
    world.binder = Binder::new(identity(RELAY), writer, Classes::default(), [0; 32], world.now);
    let hello = Hello { version_min: 1, version_max: 1, nonce: Nonce([1; 16]) };
    assert!(world.send(address("192.0.2.1:1"), &hello.encode()).is_empty());
    assert_eq!(world.outcome, Some(Outcome::NoCertificate));
}

#[test]
fn each_refusal_has_its_reason() {
    let mut world = World::new(4);
    let p = player();
    let mut binding = p.clone();
    let body = world.ticket(&p);
    let mut refused = |world: &mut World, body, reason| {
        assert_eq!(world.bind_with(&mut binding, body).unwrap_err(), reason);
        assert_eq!(world.outcome, Some(Outcome::Refused(reason)));
        assert_eq!(world.binder.counters().refused(reason), 1);
        assert_eq!(world.binder.stored().records, 0);
    };
    let unknown_key = lanrage_proto::KeyId(9);
    let bad = TicketBody { key_id: unknown_key, ..body };
    refused(&mut world, bad, Refusal::BadTicket);
    let bad = TicketBody { pool: PoolId(9), ..body };
    refused(&mut world, bad, Refusal::WrongRelay);
    let bad = TicketBody { key: public([9; 32]), ..body };
    refused(&mut world, bad, Refusal::WrongKey);
    let bad =
        TicketBody { not_before: world.now.unix_s + 31, expires: world.now.unix_s + 60, ..body };
    refused(&mut world, bad, Refusal::NotYetValid);
    let bad = TicketBody { expires: world.now.unix_s - 31, ..body };
    refused(&mut world, bad, Refusal::Expired);
    world.binder.revoke(&Revocation {
        session: p.session,
        member: p.member,
        generation: Generation(2),
        forget_after: u64::MAX,
    });
    refused(&mut world, body, Refusal::Revoked);
    let mut other = Player::new(1, 2, p.address);
    other.private = [2; 32];
    let bad = TicketBody { relays: [RelayId(1), RelayId(2), RelayId(3)], ..world.ticket(&other) };
    assert_eq!(world.bind_with(&mut other, bad).unwrap_err(), Refusal::WrongRelay);
}

#[test]
fn a_full_table_refuses() {
    let mut world = World::new(2);
    for member in 1..=2 {
        world.join(&mut Player::new(1, member, address(&format!("192.0.2.{member}:1"))));
    }
    let mut third = Player::new(1, 3, address("192.0.2.3:1"));
    assert_eq!(world.bind(&mut third).unwrap_err(), Refusal::Full);
}

#[test]
fn a_repeated_bind_gets_the_same_answer_and_a_replayed_one_evicts_nobody() {
    let mut world = World::new(8);
    let mut p = player();
    let ticket = world.ticket(&p).sign(&world.signing);
    let (frame, mut initiator) = world.bind_frame(&mut p, ticket);
    let first = world.send(p.address, &frame);
    let again = world.send(p.address, &frame);
    assert_eq!(first, again);
    assert_eq!(world.outcome, Some(Outcome::Repeated));
    let lease = open_bound(&first[0].bytes, &mut initiator).unwrap();
    assert!(alive(&mut world, &p, &lease));

    // From elsewhere the cookie does not hold; from there, later, the stamp is old.
    assert!(world.send(address("192.0.2.66:1001"), &frame).is_empty());
    assert_eq!(world.outcome, Some(Outcome::BadCookie));
    world.advance(5_100);
    assert_eq!(world.send(p.address, &frame).len(), 1);
    assert_eq!(world.outcome, Some(Outcome::Refused(Refusal::Replayed)));
    assert!(alive(&mut world, &p, &lease));
    assert_eq!(world.binder.counts().active, 1);
    assert_eq!(world.binder.counts().pending, 0);
}

#[test]
fn a_cookie_holds_for_two_epochs() {
    let mut world = World::new(8);
    let mut p = player();
    let ticket = world.ticket(&p).sign(&world.signing);
    let (frame, _) = world.bind_frame(&mut p, ticket.clone());
    world.advance(89_000);
    world.send(p.address, &frame);
    assert_eq!(world.outcome, Some(Outcome::Bound));
    let (frame, _) = world.bind_frame(&mut p, ticket);
    world.advance(181_000);
    assert!(world.send(p.address, &frame).is_empty());
    assert_eq!(world.outcome, Some(Outcome::BadCookie));
}

#[test]
fn a_pending_lease_replaces_only_when_used_and_ends_unused() {
    let mut world = World::new(8);
    let mut p = player();
    let old = world.join(&mut p);
    let home = p.address;
    p.address = address("192.0.2.1:2002");
    let new = world.bind(&mut p).unwrap();
    let mut at_home = p.clone();
    at_home.address = home;
    assert!(alive(&mut world, &at_home, &old), "the old lease lives beside the pending one");
    world.advance(3_100);
    assert_eq!(world.binder.counters().ended(End::Unused), 1);
    assert!(!alive(&mut world, &p, &new));
    assert!(alive(&mut world, &at_home, &old));

    let newer = world.join(&mut p);
    assert!(alive(&mut world, &p, &newer));
    assert!(!alive(&mut world, &at_home, &old), "replaced");
    assert_eq!(world.binder.counters().ended(End::Replaced), 1);
}

#[test]
fn the_same_instance_at_the_same_address_renews_in_place() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    for _ in 0..4 {
        for _ in 0..120 {
            world.advance(20_000);
            assert!(alive(&mut world, &p, &lease));
        }
        let renewed = world.bind(&mut p).unwrap();
        assert_eq!((renewed.handle, renewed.tag), (lease.handle, lease.tag));
        assert_ne!(renewed.key_to_relay, lease.key_to_relay, "counters begin again");
        assert_eq!(world.outcome, Some(Outcome::Renewed));
    }
    assert!(alive(&mut world, &p, &lease), "2.7 h on tickets of an hour");
}

#[test]
fn a_lease_ends_idle_released_expired() {
    let mut world = World::new(8);
    let mut p = player();
    world.join(&mut p);
    world.advance(32_500);
    assert_eq!(world.binder.counters().ended(End::Idle), 1);

    let lease = world.join(&mut p);
    let release = Message::Release.seal(&lease.key_to_relay, lease.handle, 1);
    assert!(world.send(p.address, &release).is_empty());
    assert_eq!(world.outcome, Some(Outcome::Released));
    assert!(!alive(&mut world, &p, &lease));
    world.send(p.address, &release);
    assert_eq!(world.outcome, Some(Outcome::NoLease));

    let lease = world.join(&mut p);
    let mut life_s = 0;
    while alive(&mut world, &p, &lease) {
        world.advance(10_000);
        life_s += 10;
    }
    assert!((3_620..=3_660).contains(&life_s), "{life_s} s");
    assert_eq!(world.binder.counters().ended(End::Expired), 1);
}

#[test]
fn without_control_tickets_hold_a_day_longer() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    world.binder.control_lost();
    let hours = |world: &mut World, p: &Player, lease, hours: u64| {
        for _ in 0..hours * 180 {
            world.advance(20_000);
            assert!(alive(world, p, lease));
        }
    };
    hours(&mut world, &p, &lease, 24);
    let mut late = Player::new(1, 2, address("192.0.2.2:1"));
    let mut body = world.ticket(&late);
    body.expires = world.now.unix_s - 86_000;
    assert!(world.bind_with(&mut late, body.clone()).is_ok(), "expired by less than a day");
    body.expires -= 1_000;
    assert_eq!(world.bind_with(&mut late, body.clone()).unwrap_err(), Refusal::Expired);

    // Control is back: no expired ticket binds, and clients have two minutes to renew.
    world.binder.control_found(world.now);
    body.expires = world.now.unix_s - 31;
    assert_eq!(world.bind_with(&mut late, body).unwrap_err(), Refusal::Expired);
    world.advance(20_000);
    assert!(alive(&mut world, &p, &lease));
    for _ in 0..6 {
        world.advance(20_000);
        alive(&mut world, &p, &lease);
    }
    assert!(!alive(&mut world, &p, &lease));
}

#[test]
fn a_revocation_ends_leases_and_a_later_generation_outlives_it() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let revocation = Revocation {
        session: p.session,
        member: p.member,
        generation: Generation(2),
        forget_after: u64::MAX,
    };
    world.binder.revoke(&revocation);
    assert!(!alive(&mut world, &p, &lease));
    assert_eq!(world.binder.counters().ended(End::Revoked), 1);
    assert_eq!(world.bind(&mut p).unwrap_err(), Refusal::Revoked);
    p.generation = Generation(2);
    let lease = world.join(&mut p);
    world.binder.revoke(&revocation);
    assert!(alive(&mut world, &p, &lease));
    let mut former = player();
    former.stamp = 100;
    world.binder.replace_revocations(&[]);
    assert_eq!(
        world.bind(&mut former).unwrap_err(),
        Refusal::Revoked,
        "a lease of a later generation is control's word, too"
    );
}

#[test]
fn instances_that_fight_are_told_so() {
    let mut world = World::new(8);
    let mut ours = player();
    let mut theirs = Player { instance: [99; 16], address: address("198.51.100.1:5"), ..player() };
    world.join(&mut ours);
    for _ in 0..3 {
        world.join(&mut theirs);
        std::mem::swap(&mut ours, &mut theirs);
    }
    assert_eq!(world.bind(&mut theirs).unwrap_err(), Refusal::Duplicate);
    assert!(world.bind(&mut ours).is_ok(), "the one that has the lease keeps it");
    world.advance(20_000);
    world.join(&mut ours);
    world.advance(20_000);
    world.join(&mut ours);
    world.advance(20_100);
    world.join(&mut theirs);
}

#[test]
fn rebind_accepts_both_addresses_for_three_seconds() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let mut peer = Player::new(1, 2, address("192.0.2.2:1"));
    let peer_lease = world.join(&mut peer);
    let before = p.clone();
    p.address = address("[2001:db8::1]:7");
    assert_eq!(world.rebind(&p, &lease, 1), Some(p.address));

    let to_p = peer.frame(&peer_lease, Destination::One(p.member), b"hi");
    assert_eq!(world.send(peer.address, &to_p)[0].to, p.address, "sending goes to the new one");
    let to_peer = p.frame(&lease, Destination::One(peer.member), b"hi");
    assert_eq!(world.send(p.address, &to_peer)[0].to, peer.address);
    assert_eq!(world.send(before.address, &to_peer)[0].to, peer.address);
    world.advance(3_100);
    assert!(is_hint(&world.send(before.address, &to_peer)[0]));
    assert_eq!(world.shard.counters().dropped_for(DropReason::Address), 1);
    assert_eq!(world.send(p.address, &to_peer)[0].to, peer.address);
}

/// Each repetition, as when REBOUND was lost, gave the former address three more seconds.
#[test]
fn regression_a_repeated_rebind_keeps_the_former_address_no_longer() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let former = p.address;
    p.address = address("192.0.2.1:2002");
    assert_eq!(world.rebind(&p, &lease, 1), Some(p.address));
    world.advance(2_900);
    assert_eq!(world.rebind(&p, &lease, 3), Some(p.address), "it is there already");
    world.advance(200);
    let probe = p.frame(&lease, Destination::One(p.member), b"probe");
    assert!(is_hint(&world.send(former, &probe)[0]));
    assert!(alive(&mut world, &p, &lease));
}

#[test]
fn control_messages_must_be_fresh_sealed_and_answered_from_there() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let elsewhere = address("203.0.113.5:5");
    let key = &lease.key_to_relay;

    let rebind = Message::Rebind.seal(key, lease.handle, 5);
    let out = world.send(elsewhere, &rebind);
    assert_eq!(out[0].bytes.len(), rebind.len(), "no longer than its question");
    assert!(world.send(elsewhere, &rebind).is_empty(), "a counter is good once");
    assert_eq!(world.outcome, Some(Outcome::NotAuthentic));
    let Some(Message::RebindChallenge(cookie)) = open_control(&out[0].bytes, &lease) else {
        panic!("no challenge");
    };
    let answer = Message::RebindAnswer(cookie).seal(key, lease.handle, 6);
    assert!(world.send(address("203.0.113.6:5"), &answer).is_empty(), "from another address");
    assert_eq!(world.outcome, Some(Outcome::BadCookie));

    let forged = Message::Release.seal(&[7; 32], lease.handle, 9);
    assert!(world.send(p.address, &forged).is_empty());
    assert_eq!(world.outcome, Some(Outcome::NotAuthentic));
    let reflected = Message::Release.seal(&lease.key_to_client, lease.handle, 9);
    assert!(world.send(p.address, &reflected).is_empty());
    assert_eq!(world.outcome, Some(Outcome::NotAuthentic), "each direction has its key");
    assert!(alive(&mut world, &p, &lease));
}

#[test]
fn a_lease_is_resumed_after_a_crash_once_for_each_ticket() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    world.crash(8);
    assert!(is_hint(&world.send(p.address, &p.frame(&lease, Destination::One(p.member), b""))[0]));

    let wrong = world.resume(&p, &[1; 32], &lease.resumption_ticket);
    assert!(wrong.is_none());
    let key = &lease.resumption_key;
    let resumed = world.resume(&p, key, &lease.resumption_ticket).unwrap().unwrap();
    assert_eq!(world.outcome, Some(Outcome::Resumed));
    assert!(alive(&mut world, &p, &resumed));
    let mut forged = lease.resumption_ticket.clone();
    forged[40] ^= 1;
    assert!(world.resume(&p, key, &forged).is_none());

    // The same RESUME again: the same answer, and later none that is of use.
    world.crash(8);
    let challenge = world.challenge(p.address);
    let frame =
        Resume::new(challenge.nonce, challenge.cookie, &lease.resumption_ticket, key, RELAY);
    let first = world.send(p.address, &frame.encode());
    assert_eq!(world.outcome, Some(Outcome::Resumed));
    assert_eq!(world.send(p.address, &frame.encode()), first);
    assert_eq!(world.outcome, Some(Outcome::Repeated));
    world.advance(5_100);
    world.send(p.address, &frame.encode());
    assert_eq!(world.outcome, Some(Outcome::Refused(Refusal::Replayed)));
}

/// A RESUME whose cookie still held put its old claim, ticket and address on a lease that had been
/// renewed since, or resumed by another RESUME: it expired early, and its client's control keys
/// were no longer the relay's. Whoever could hold a datagram back could do that.
#[test]
fn regression_a_resume_that_was_held_back_undoes_nothing() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let hold_back = |world: &mut World, lease: &lanrage_proto::frame::bind::Lease| {
        let challenge = world.challenge(p.address);
        let (ticket, key) = (&lease.resumption_ticket, &lease.resumption_key);
        Resume::new(challenge.nonce, challenge.cookie, ticket, key, RELAY).encode()
    };
    let held_back = hold_back(&mut world, &lease);
    world.advance(20_000);
    let mut binding = p.clone();
    let renewed = world.bind(&mut binding).unwrap();
    assert_eq!(world.outcome, Some(Outcome::Renewed));
    let undoes_nothing = |world: &mut World, frame: &[u8]| {
        world.send(p.address, frame);
        assert_eq!(world.outcome, Some(Outcome::Refused(Refusal::Replayed)));
        assert_eq!((world.binder.counts().active, world.binder.counts().pending), (1, 0));
    };
    undoes_nothing(&mut world, &held_back);
    assert_eq!(world.rebind(&p, &renewed, 1), Some(p.address), "the keys are those of the BIND");

    let held_back = hold_back(&mut world, &renewed);
    let (key, ticket) = (&renewed.resumption_key, &renewed.resumption_ticket);
    let resumed = world.resume(&p, key, ticket).unwrap().unwrap();
    undoes_nothing(&mut world, &held_back);
    assert_eq!(world.rebind(&p, &resumed, 1), Some(p.address), "the keys are those of the RESUME");

    let held_back = hold_back(&mut world, &resumed);
    binding.stamp += 1;
    let release = Message::Release.seal(&resumed.key_to_relay, resumed.handle, 9);
    world.send(p.address, &release);
    let after = world.bind(&mut binding).unwrap();
    world.send(p.address, &held_back);
    assert_eq!(
        world.outcome,
        Some(Outcome::Refused(Refusal::Replayed)),
        "displaces no pending one"
    );
    assert!(alive(&mut world, &p, &after));
}

/// A RESUME of a lease that still lived gave the same control keys again and began both counters
/// anew: nonces repeated, and whoever had kept an old RELEASE could end the lease with it.
#[test]
fn regression_a_lease_that_is_resumed_alive_repeats_no_control_key() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    assert_eq!(world.rebind(&p, &lease, 1), Some(p.address));
    let kept = Message::Release.seal(&lease.key_to_relay, lease.handle, 3);

    let resumed = world.resume(&p, &lease.resumption_key, &lease.resumption_ticket);
    let resumed = resumed.unwrap().unwrap();
    assert_eq!((resumed.handle, resumed.tag), (lease.handle, lease.tag), "renewed in place");
    assert_ne!(resumed.key_to_relay, lease.key_to_relay);
    assert_ne!(resumed.key_to_client, lease.key_to_client);
    assert!(world.send(p.address, &kept).is_empty());
    assert_eq!(world.outcome, Some(Outcome::NotAuthentic));
    assert!(alive(&mut world, &p, &resumed));
    assert_eq!(world.rebind(&p, &resumed, 1), Some(p.address), "counters begin again");

    let (key, ticket) = (&resumed.resumption_key, &resumed.resumption_ticket);
    let again = world.resume(&p, key, ticket).unwrap().unwrap();
    assert_ne!(again.key_to_client, resumed.key_to_client);
    assert_ne!(again.key_to_client, lease.key_to_client);
}

#[test]
fn a_resumption_ends_with_the_ticket_and_with_a_kick() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let (key, ticket) = (lease.resumption_key, lease.resumption_ticket);
    world.crash(8);
    world.binder.revoke(&Revocation {
        session: p.session,
        member: p.member,
        generation: Generation(2),
        forget_after: u64::MAX,
    });
    assert_eq!(world.resume(&p, &key, &ticket).unwrap().unwrap_err(), Refusal::Revoked);
    world.binder.replace_revocations(&[]);
    world.binder.control_found(world.now);
    world.advance(3_640_000);
    assert_eq!(world.resume(&p, &key, &ticket).unwrap().unwrap_err(), Refusal::Expired);
}

/// Every first byte and many lengths, from an address that has proven nothing: no answer is longer
/// than its question but for STUN's, and nothing is remembered.
#[test]
fn nothing_unproven_is_amplified_or_stored() {
    let mut world = World::new(8);
    let mut p = player();
    world.join(&mut p);
    world.advance(10_000);
    world.join(&mut p);
    let lengths: Vec<usize> = (0..=64).chain([231, 248, 255, 256, 257, 299, 300, 1472]).collect();
    for first in 0..=255_u8 {
        for &len in &lengths {
            for second in [0, 1, 2] {
                let mut datagram = vec![first; len];
                if len > 8 {
                    datagram[1] = second;
                    datagram[2..4].fill(0);
                    datagram[4..8].copy_from_slice(&0x2112_a442_u32.to_be_bytes());
                }
                let stored = world.binder.stored();
                let counts = world.binder.counts();
                let out = world.send(address("198.51.100.66:666"), &datagram);
                let limit = if first == 0 && len == 20 { 44 } else { len };
                assert!(out.len() <= 1);
                assert!(out.iter().all(|out| out.bytes.len() <= limit), "{first:#x} {len}");
                assert_eq!(world.binder.stored(), stored, "{first:#x} {len}");
                assert_eq!(world.binder.counts(), counts);
            }
        }
        world.now.ms += 1;
    }
}

#[test]
fn frames_with_bad_cookies_reach_no_public_key_work() {
    let mut world = World::new(8);
    let mut p = player();
    let ticket = world.ticket(&p).sign(&world.signing);
    let (mut frame, _) = world.bind_frame(&mut p, ticket);
    frame[20] ^= 1;
    assert!(world.send(p.address, &frame).is_empty());
    assert_eq!(world.outcome, Some(Outcome::BadCookie));
    let resume =
        Resume::new(Nonce([0; 16]), Cookie([9; Cookie::LEN]), &[0; 100], &[0; 32], RELAY).encode();
    assert!(world.send(p.address, &resume).is_empty());
    assert_eq!(world.outcome, Some(Outcome::BadCookie));
    assert_eq!(world.binder.stored().answers, 0);
}

/// A flood that a budget stops uses up neither another kind's budget nor the answers to those who
/// have proven more than its senders.
#[test]
fn a_flood_of_hellos_starves_neither_binds_nor_control() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let ticket = world.ticket(&p).sign(&world.signing);
    let (bind, _) = world.bind_frame(&mut p, ticket);
    let hello = Hello { version_min: 1, version_max: 1, nonce: Nonce([1; 16]) }.encode();
    let flood = 100_000;
    let answered: usize = (0..flood)
        .map(|at: u32| {
            let from = std::net::SocketAddr::from((std::net::Ipv4Addr::from(at), 9));
            world.send(from, &hello).len()
        })
        .sum();
    assert!((41_000..42_000).contains(&answered), "{answered}: half a second's quarter, 3 µs each");
    let refused = world.binder.counters().outcome(Outcome::Budget);
    assert_eq!(refused, u64::from(flood) - answered as u64);
    assert_eq!(world.send(p.address, &bind).len(), 1);
    assert_eq!(world.outcome, Some(Outcome::Renewed));
    assert!(alive(&mut world, &p, &lease));
    world.advance(100);
    assert!(!world.send(p.address, &hello).is_empty(), "what was refused is not charged");
}

/// Those who forge RESUMEs, or BINDs, from addresses of their own use up what their prefix has.
#[test]
fn a_flood_of_forged_resumes_stops_at_its_prefix() {
    let mut world = World::new(8);
    let mut p = player();
    let lease = world.join(&mut p);
    let neighbour = address("198.51.100.7:7");
    let mut outcomes = std::collections::BTreeMap::new();
    for _ in 0..1_000 {
        let challenge = world.challenge(neighbour);
        let (nonce, cookie) = (challenge.nonce, challenge.cookie);
        let forged = Resume::new(nonce, cookie, &[7; 100], &[7; 32], RELAY).encode();
        assert!(world.send(neighbour, &forged).is_empty());
        *outcomes.entry(format!("{:?}", world.outcome)).or_insert(0) += 1;
    }
    let expected = [("Some(NotAuthentic)", 251), ("Some(PrefixBudget)", 749)];
    assert!(outcomes.iter().map(|(name, count)| (name.as_str(), *count)).eq(expected));
    let resumed = world.resume(&p, &lease.resumption_key, &lease.resumption_ticket);
    assert!(alive(&mut world, &p, &resumed.unwrap().unwrap()));
}

/// A restarted relay hears from all its clients at once, many of them behind one address: none is
/// refused for it, and who asks twice gets the same answer twice.
#[test]
fn a_crowd_resumes_from_one_prefix_within_three_seconds() {
    let crowd: u32 = if std::env::var_os("LANRAGE_SOAK").is_some() { 100_000 } else { 2_000 };
    let mut world = World::new(crowd);
    world.is_checked = false;
    let claims: Vec<_> = (0..crowd)
        .map(|at| {
            let [_, a, b, c] = at.to_be_bytes();
            let bound_from = ([10, a, b, c], 7).into();
            let mut p = Player::new(u64::from(at / 200), (at % 200) as u8 + 1, bound_from);
            world.advance(10);
            let lease = world.bind(&mut p).unwrap();
            p.address = ([203, 0, 113, 9], 1_024 + (at % 60_000) as u16).into();
            (p, lease.resumption_key, lease.resumption_ticket)
        })
        .collect();
    world.crash(crowd);
    let began_ms = world.now.ms;
    for (at, (player, key, ticket)) in claims.iter().enumerate() {
        world.now.ms = began_ms + at as u64 * 3_000 / u64::from(crowd);
        let challenge = world.challenge(player.address);
        let frame = Resume::new(challenge.nonce, challenge.cookie, ticket, key, RELAY).encode();
        let first = world.send(player.address, &frame);
        assert_eq!(world.outcome, Some(Outcome::Resumed));
        assert_eq!(world.send(player.address, &frame), first);
        assert_eq!(world.outcome, Some(Outcome::Repeated));
    }
    world.is_checked = true;
    world.check();
    assert_eq!(world.binder.counts().pending, crowd as usize);
}
