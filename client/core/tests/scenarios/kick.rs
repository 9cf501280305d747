use std::time::Duration;

use ed25519_dalek::SigningKey;
use lanrage_client_core::{Connection, DropReason, Event, KickError};
use lanrage_proto::api::{Change, MemberRecord, Role};
use lanrage_proto::bytes::Blob;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Epoch, Generation, PartySecret, TunnelKey};

use crate::net::control::{SESSION, member, tunnel_key};
use crate::net::{Link, Net, SECRET};

/// `kicker` puts `target` out; control answers the kicker and tells nobody else.
pub(crate) fn kick(net: &mut Net, kicker: u8, target: u8) -> KickRecord {
    let body = net.act(kicker, |client, _| client.kick(member(target))).unwrap();
    let record = net.control.kick(kicker, &body);
    net.act(kicker, |client, now| client.handle_kicked(&record, now));
    record
}

pub(crate) fn crosses(net: &mut Net, from: u8, to: u8) -> bool {
    net.run_for(Duration::from_millis(200));
    let before = net.delivered(to);
    net.send_udp(from, to, b"hello");
    net.run_for(Duration::from_secs(1));
    net.delivered(to) == before + 1
}

#[test]
fn members_take_the_next_epoch_inside_their_tunnels_and_play_goes_on() {
    let mut net = Net::with_members(1, 2, 4);
    for _ in 0..50 {
        net.send_udp(2, 4, b"position");
        net.run_for(Duration::from_millis(20));
    }
    net.run_for(Duration::from_millis(100));
    kick(&mut net, 1, 3);
    let before = net.delivered(4);
    for _ in 0..100 {
        net.send_udp(2, 4, b"position");
        net.run_for(Duration::from_millis(20));
    }
    net.run_for(Duration::from_millis(100));
    assert_eq!(net.delivered(4), before + 100, "{:?}", net.drops(4));
    let secrets: Vec<_> = [1, 2, 4].map(|number| net.epochs(number)).into();
    assert!(secrets.iter().all(|epochs| epochs.len() == 1 && *epochs == secrets[0]));
    for number in [1, 2, 4] {
        assert_eq!(net.client(number).epoch(), Epoch(2));
    }
    assert!(crosses(&mut net, 1, 4) && crosses(&mut net, 4, 2));

    assert!(!crosses(&mut net, 3, 1), "the kicked member is out");
    assert!(net.client(1).counters().dropped(DropReason::UnknownMember) > 0);
    net.run_for(Duration::from_secs(15));
    assert!(crosses(&mut net, 1, 4) && crosses(&mut net, 4, 2), "without the old tunnels");
}

#[test]
fn the_next_epoch_gets_through_20_percent_loss() {
    for seed in 0..20 {
        let mut net = Net::with_members(seed, 2, 4);
        net.link = Link { loss_permille: 200, ..Link::GOOD };
        kick(&mut net, 1, 3);
        let all_in = |net: &mut Net| [2, 4].iter().all(|n| net.client(*n).epoch() == Epoch(2));
        let took = net.run_until(Duration::from_secs(3), all_in);
        assert!(took.is_some_and(|took| took < Duration::from_secs(2)), "seed {seed}: {took:?}");
    }
}

#[test]
fn a_member_off_line_for_several_epochs_comes_back_by_the_copies() {
    for from_cache in [false, true] {
        let mut net = Net::with_members(3, 2, 6);
        let cached = net.config(4);
        net.nodes.get_mut(&4).unwrap().is_on = false;
        kick(&mut net, 1, 5);
        net.run_for(Duration::from_secs(1));
        kick(&mut net, 1, 6);
        net.run_for(Duration::from_secs(1));
        kick(&mut net, 1, 3);
        net.run_for(Duration::from_secs(40));
        if from_cache {
            net.turn_on_with(4, cached);
            net.run_for(Duration::from_secs(1));
            let party = net.control.party(4);
            net.act(4, |client, now| client.handle_party(&party, now));
        } else {
            net.turn_on(4);
        }
        assert_eq!(net.epochs(4).iter().map(|(epoch, _)| epoch.0).collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(net.client(4).secrets(), net.client(2).secrets());
        net.run_for(Duration::from_secs(2));
        assert!(crosses(&mut net, 4, 1) && crosses(&mut net, 2, 4), "{:?}", net.drops(4));
    }
}

#[test]
fn a_lost_answer_to_a_kick_is_made_good_by_controls_list() {
    let mut net = Net::with_members(4, 2, 3);
    let body = net.act(1, |client, _| client.kick(member(3))).unwrap();
    net.control.kick(1, &body);
    let party = net.control.party(1);
    net.act(1, |client, now| client.handle_party(&party, now));
    assert_eq!(net.client(1).epoch(), Epoch(2));
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.client(2).epoch(), Epoch(2));
    assert!(crosses(&mut net, 1, 2));
}

#[test]
fn the_kicked_member_stops_and_knows_who_did_it() {
    let mut net = Net::with_members(5, 2, 3);
    let record = kick(&mut net, 1, 3);
    let change = Change::Removed { session: SESSION, kick: Some(Blob(record.encode().to_vec())) };
    net.act(3, |client, now| client.handle_change(&change, now));
    let removed = Event::Removed { kicker: Some(member(1)) };
    assert!(net.nodes[&3].events.iter().any(|(_, event)| *event == removed));
    assert_eq!(net.client(3).poll_timeout(), None);
}

/// A player who asks twice, or whose first answer is lost: whichever kick control took begins the
/// epoch.
#[test]
fn a_second_kick_does_not_forget_the_first() {
    let mut net = Net::with_members(10, 2, 4);
    let [first, second] = [3, 4].map(|target| net.client(1).kick(member(target)).unwrap());
    let record = net.control.kick(1, &first);
    net.act(1, |client, _| client.handle_kick_refused(&second.commitment));
    net.act(1, |client, now| client.handle_kicked(&record, now));
    assert_eq!(net.client(1).epoch(), Epoch(2));

    let kicks: Vec<_> = (0..8).map(|_| net.client(1).kick(member(4)).unwrap()).collect();
    assert_eq!(net.client(1).kick(member(4)), Err(KickError::TooMany));
    net.client(1).handle_kick_refused(&kicks[3].commitment);
    let ninth = net.client(1).kick(member(4)).unwrap();
    let record = net.control.kick(1, &ninth);
    net.act(1, |client, now| client.handle_kicked(&record, now));
    assert_eq!(net.client(1).epoch(), Epoch(3));
    assert!(crosses(&mut net, 1, 2));
    for target in [4, 2, 2, 2, 2, 2, 2, 2, 2] {
        let kick = net.client(1).kick(member(target));
        assert_eq!(kick.is_ok(), target == 2, "those of a past epoch are forgotten");
    }
}

#[test]
fn only_those_who_may_kick() {
    let mut net = Net::with_members(6, 2, 3);
    assert_eq!(net.client(2).kick(member(3)), Err(KickError::NotAllowed));
    assert_eq!(net.client(1).kick(member(1)), Err(KickError::NoSuchMember(member(1))));
    assert_eq!(net.client(1).kick(member(9)), Err(KickError::NoSuchMember(member(9))));
    net.control.members[1].role = Role::Promoted;
    let party = net.control.party(2);
    net.act(2, |client, now| client.handle_party(&party, now));
    assert_eq!(net.client(2).kick(member(1)), Err(KickError::NotAllowed), "nobody kicks the owner");
    assert!(net.client(2).kick(member(3)).is_ok());
}

/// Whatever a member has published, the owner can put out whom it likes; who has no genuine entry,
/// or no key that a secret can be sealed to, is left without the new secret.
#[test]
fn no_member_can_hinder_a_kick() {
    let mut net = Net::with_members(9, 2, 3);
    net.control.add(4, &SECRET);
    net.control.members[3].entry = None;
    net.control.add(5, &PartySecret([9; 32]));
    let mut low_order = net.control.add(6, &SECRET).entry.unwrap().body;
    low_order.tunnel = TunnelKey([0; 32]);
    let device = SigningKey::from_bytes(&[6; 32]);
    net.control.members[5].entry = Some(low_order.sign(&device, &SECRET, Epoch(1)));
    let stale = net.control.add(7, &SECRET).entry.unwrap().body;
    let device = SigningKey::from_bytes(&[7; 32]);
    net.control.members[6].entry = Some(stale.sign(&device, &PartySecret([8; 32]), Epoch(0)));
    let party = net.control.party(1);
    net.act(1, |client, now| client.handle_party(&party, now));

    let body = net.act(1, |client, _| client.kick(member(3))).unwrap();
    let receivers: Vec<_> = body.copies.iter().map(|copy| copy.to.number()).collect();
    assert_eq!(receivers, [2]);
    let record = net.control.kick(1, &body);
    net.act(1, |client, now| client.handle_kicked(&record, now));
    assert!(crosses(&mut net, 1, 2));
    assert_eq!(net.client(2).epoch(), Epoch(2));
    let (_, secret) = net.epochs(1)[0];
    let genuine = |record: &MemberRecord| {
        record.entry.as_ref().is_some_and(|entry| entry.is_genuine(&secret))
    };
    let vouched: Vec<_> = net.control.members.iter().map(genuine).collect();
    assert_eq!(vouched, [true, true, false, false, true, false], "1, 2, 4 to 7");

    // Nor do they hinder one another's kick, nor the one after that.
    let party = net.control.party(1);
    net.act(1, |client, now| client.handle_party(&party, now));
    for (target, epoch) in [(5, 3), (6, 4), (4, 5), (7, 6)] {
        kick(&mut net, 1, target);
        net.run_for(Duration::from_secs(1));
        assert_eq!(net.client(2).epoch(), Epoch(epoch));
    }
    assert!(crosses(&mut net, 2, 1));
}

/// Control, or an ex-member with the old secret, puts a device of its own into the directory.
fn intruder(net: &mut Net, secret: &PartySecret, epoch: Epoch) -> MemberRecord {
    let saved = (net.control.members.clone(), net.control.epoch);
    net.control.epoch = epoch;
    let record = net.control.add(7, secret);
    (net.control.members, net.control.epoch) = saved;
    record
}

#[test]
fn control_alone_puts_nobody_in() {
    let mut net = Net::with_members(8, 2, 3);
    let by_control = intruder(&mut net, &PartySecret([9; 32]), Epoch(1));
    let change = Change::Member { session: SESSION, member: by_control };
    net.act(1, |client, now| client.handle_change(&change, now));
    assert_eq!(net.status(1, 7).connection, Connection::NotGenuine);
    let change = Change::Left { session: SESSION, member: member(7) };
    net.act(1, |client, now| client.handle_change(&change, now));

    kick(&mut net, 1, 3);
    let by_old_secret = intruder(&mut net, &SECRET, Epoch(1));
    let change = Change::Member { session: SESSION, member: by_old_secret };
    net.act(1, |client, now| client.handle_change(&change, now));
    assert_eq!(net.status(1, 7).connection, Connection::NotGenuine);
    assert_eq!(net.status(1, 2).connection, Connection::Connected, "old entries stay believed");

    let mut swapped = net.control.members[1].clone();
    let device = SigningKey::from_bytes(&[2; 32]);
    let mut body = swapped.entry.clone().unwrap().body;
    body.tunnel = tunnel_key(50);
    swapped.entry = Some(body.sign(&device, &SECRET, Epoch(2)));
    let change = Change::Member { session: SESSION, member: swapped };
    net.act(1, |client, now| client.handle_change(&change, now));
    assert_eq!(
        net.status(1, 2).connection,
        Connection::NotGenuine,
        "another key is another device"
    );

    let mut moved = net.control.members[0].clone();
    moved.generation = Generation(2);
    let change = Change::Member { session: SESSION, member: moved };
    net.act(2, |client, now| client.handle_change(&change, now));
    assert_eq!(net.status(2, 1).connection, Connection::NotGenuine, "another generation");
}
