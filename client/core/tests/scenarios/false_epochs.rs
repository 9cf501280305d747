//! Members and a control service that would spoil an epoch: a false secret, worthless copies, a
//! kicker that nobody knows.

use std::sync::Arc;
use std::time::Duration;

use lanrage_client_core::{DropReason, Event};
use lanrage_proto::api::{Kick, Role};
use lanrage_proto::bytes::Signature;
use lanrage_proto::inner::{Message, is_message};
use lanrage_proto::party::{EpochCopy, commitment};
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Epoch, Generation, KeyId, Mac, PartySecret};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use crate::kick::{crosses, kick};
use crate::net::control::{Control, SESSION, UNIX_TIME, member, private, tunnel_key};
use crate::net::{Cut, Net, SECRET};

const FALSE_SECRET: PartySecret = PartySecret([66; 32]);
/// Longer than the tunnels of the epoch before last.
const OLD_TUNNELS_END: Duration = Duration::from_secs(12);

/// What control last said reaches a member.
fn tell(net: &mut Net, number: u8) {
    let party = net.control.party(number);
    net.act(number, |client, now| client.handle_party(&party, now));
}

fn cut_off(net: &mut Net, number: u8) {
    net.cuts.extend([1, 2].map(|relay| Cut::ToRelay(number, relay)));
    net.cuts.extend([1, 2].map(|relay| Cut::FromRelay(number, relay)));
}

/// A party of `count` in which member 2 is promoted.
fn with_promoted(seed: u64, count: u8) -> Net {
    let mut net = Net::with_members(seed, 2, count);
    net.control.members[1].role = Role::Promoted;
    (1..=count).for_each(|number| tell(&mut net, number));
    net
}

/// Member 2 puts `target` out with a kick that `change` spoils, and tells nobody.
fn spoiled_kick(net: &mut Net, target: u8, change: impl FnOnce(&mut Kick)) {
    let mut body = net.act(2, |client, _| client.kick(member(target))).unwrap();
    change(&mut body);
    net.control.kick(2, &body);
}

fn worthless(kick: &mut Kick) {
    kick.commitment = commitment(&FALSE_SECRET, SESSION, kick.epoch);
    kick.copies.iter_mut().for_each(|copy| copy.sealed.0.fill(0));
    kick.macs.iter_mut().for_each(|vouched| vouched.mac = Mac([0; 16]));
}

/// A plain member passed the true record with a false secret: who had not heard of the kick was in
/// a false epoch for good.
#[test]
fn regression_a_false_secret_with_the_true_record_changes_nothing() {
    let mut net = Net::with_members(1, 2, 4);
    net.lie = Some(Arc::new(|packet| {
        if is_message(packet) && matches!(Message::decode(packet), Ok(Message::NewEpoch { .. })) {
            let at = packet.len() - PartySecret::LEN;
            packet[at..].copy_from_slice(&FALSE_SECRET.0);
        }
    }));
    net.turn_on(2);
    net.run_for(Duration::from_secs(3));
    cut_off(&mut net, 3);
    kick(&mut net, 1, 4);
    net.run_for(Duration::from_millis(300));
    assert_eq!(net.client(2).epoch(), Epoch(2));
    // The victim hears the liar alone, and nothing of the owner's that is still under way.
    cut_off(&mut net, 1);
    net.run_for(Duration::from_millis(100));
    net.cuts.retain(|cut| !matches!(cut, Cut::ToRelay(3, _) | Cut::FromRelay(3, _)));
    net.run_for(Duration::from_millis(500));
    assert!(net.client(3).counters().dropped(DropReason::BadEpoch) > 0, "{:?}", net.drops(3));
    assert_eq!(net.client(3).epoch(), Epoch(1));
    let now = net.now;
    let members: Vec<_> =
        net.client(3).members(now).iter().map(|status| status.member.number()).collect();
    assert_eq!(members, [1, 2, 3], "the record itself is control's word");
    net.cuts.clear();
    net.run_for(Duration::from_secs(1));
    assert_eq!(net.client(3).secrets(), net.client(1).secrets());
    assert!(crosses(&mut net, 3, 1) && crosses(&mut net, 3, 2));
}

/// The owner could not even put out a promoted member whose epoch it had no secret of.
#[test]
fn regression_the_owner_heals_an_epoch_without_a_secret() {
    for restarts in [false, true] {
        let mut net = with_promoted(2, 5);
        let cached = net.config(4);
        net.nodes.get_mut(&4).unwrap().is_on = false;
        spoiled_kick(&mut net, 5, worthless);
        for number in [1, 3] {
            tell(&mut net, number);
            assert_eq!(net.client(number).epoch(), Epoch(1));
        }
        assert!(crosses(&mut net, 1, 3), "behind, but together");
        if restarts {
            let mut config = net.config(1);
            net.client(1).vouch(&mut config.party.members);
            net.turn_on_with(1, config);
            net.run_for(Duration::from_secs(2));
            assert!(crosses(&mut net, 1, 3));
        }
        kick(&mut net, 1, 2);
        assert_eq!(net.client(1).epoch(), Epoch(3));
        net.run_for(Duration::from_secs(1));
        net.turn_on_with(4, cached);
        tell(&mut net, 4);
        net.run_for(OLD_TUNNELS_END);
        for number in [3, 4] {
            assert_eq!(net.client(number).secrets()[1], net.client(1).secrets()[1]);
        }
        assert!(crosses(&mut net, 1, 4) && crosses(&mut net, 3, 4) && crosses(&mut net, 3, 1));
        assert!(!crosses(&mut net, 2, 1), "the one who spoiled it is out");
        kick(&mut net, 1, 4);
        net.run_for(Duration::from_secs(1));
        assert_eq!(net.client(3).epoch(), Epoch(4), "and life goes on");
    }
}

#[test]
fn members_in_different_epochs_find_together_in_the_owners() {
    let mut net = with_promoted(3, 5);
    let left_out = |kick: &mut Kick| kick.copies.retain(|copy| copy.to == member(3));
    cut_off(&mut net, 3);
    spoiled_kick(&mut net, 5, left_out);
    tell(&mut net, 3);
    tell(&mut net, 1);
    net.run_for(OLD_TUNNELS_END);
    net.cuts.clear();
    assert_eq!([1, 3, 4].map(|number| net.client(number).epoch().0), [1, 2, 1]);
    assert!(crosses(&mut net, 1, 4));
    assert!(!crosses(&mut net, 1, 3), "in another epoch");
    kick(&mut net, 1, 2);
    for number in [3, 4] {
        tell(&mut net, number);
        assert_eq!(net.client(number).epoch(), Epoch(3));
    }
    net.run_for(OLD_TUNNELS_END);
    assert!(crosses(&mut net, 1, 3) && crosses(&mut net, 4, 3) && crosses(&mut net, 1, 4));
}

/// Whoever has the secret passes it on: it takes one copy to reach all that are connected.
#[test]
fn one_good_copy_reaches_all() {
    let mut net = with_promoted(4, 5);
    spoiled_kick(&mut net, 5, |kick| kick.copies.retain(|copy| copy.to == member(3)));
    tell(&mut net, 3);
    net.run_for(Duration::from_secs(1));
    assert_eq!([1, 3, 4].map(|number| net.client(number).epoch().0), [2, 2, 2]);
    assert!(crosses(&mut net, 1, 3) && crosses(&mut net, 4, 3));
}

/// Who skips an epoch has not heard of its kick: it must not hand the new secret to the one who
/// went with it.
#[test]
fn a_secret_is_not_passed_on_before_every_kick_is_known() {
    let mut net = with_promoted(5, 5);
    spoiled_kick(&mut net, 4, worthless);
    tell(&mut net, 1);
    kick(&mut net, 1, 2);
    net.run_for(Duration::from_secs(3));
    assert_eq!(net.client(3).epoch(), Epoch(3), "told by the owner");
    assert!(net.nodes[&3].events.iter().any(|(_, event)| *event == Event::PartyWanted));
    assert_eq!(net.client(4).epoch(), Epoch(1), "kicked, and 3 has not heard of it");
    tell(&mut net, 3);
    net.run_for(Duration::from_secs(3));
    assert_eq!(net.client(4).epoch(), Epoch(1));
    assert!(crosses(&mut net, 3, 5) && crosses(&mut net, 1, 3));
}

/// Control's record of a kick of member 3 that begins epoch 2.
fn record(control: &Control, kicker: u8, secret: &PartySecret) -> KickRecord {
    KickRecord {
        key_id: KeyId(1),
        member: member(3),
        kicker: member(kicker),
        generation: Generation(2),
        session: SESSION,
        epoch: Epoch(2),
        issued: UNIX_TIME,
        commitment: commitment(secret, SESSION, Epoch(2)),
        signature: Signature([0; 64]),
    }
    .sign(&control.signing)
}

/// A copy of the false secret for member 2, made with the private key of `key`.
fn copy(from: u8, key: u8, under: Option<(Epoch, &PartySecret)>) -> EpochCopy {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let new = (Epoch(2), &FALSE_SECRET);
    let to = (member(2), &tunnel_key(2));
    EpochCopy::seal(SESSION, new, under, (member(from), &private(key)), to, &mut rng).unwrap()
}

#[test]
fn a_copy_is_taken_by_its_record_and_its_seal_alone() {
    const OURS: Option<(Epoch, &PartySecret)> = Some((Epoch(1), &SECRET));
    let (by, of) = (record, copy);
    type Case = (&'static str, bool, EpochCopy, Vec<KickRecord>);
    let mut net = Net::with_members(7, 2, 4);
    let control = &net.control;
    let mut unsigned = by(control, 1, &FALSE_SECRET);
    unsigned.issued += 1;
    let us = KickRecord { member: member(2), ..by(control, 1, &FALSE_SECRET) };
    let us = us.sign(&control.signing);
    let true_record = by(control, 1, &FALSE_SECRET);
    let other_secret = by(control, 1, &PartySecret([67; 32]));
    let cases: Vec<Case> = vec![
        ("the owner's", true, of(1, 1, OURS), vec![true_record]),
        ("the owner's, from behind", true, of(1, 1, None), vec![true_record]),
        ("one of two records", true, of(1, 1, OURS), vec![other_secret, true_record]),
        ("a newcomer's", true, of(9, 9, OURS), vec![by(control, 9, &FALSE_SECRET)]),
        ("control's own member", false, of(9, 9, None), vec![by(control, 9, &FALSE_SECRET)]),
        ("control in the owner's name", false, of(1, 9, None), vec![true_record]),
        ("without a record", false, of(1, 1, OURS), vec![]),
        ("another kicker's record", false, of(1, 1, OURS), vec![by(control, 4, &FALSE_SECRET)]),
        ("another secret", false, of(1, 1, OURS), vec![other_secret]),
        ("not signed", false, of(1, 1, OURS), vec![unsigned]),
        ("by the one who is out", false, of(3, 3, OURS), vec![by(control, 3, &FALSE_SECRET)]),
        ("we are out", false, of(1, 1, OURS), vec![us]),
        ("under a later epoch", false, of(1, 1, Some((Epoch(2), &SECRET))), vec![true_record]),
        ("a false old secret", false, of(1, 1, Some((Epoch(1), &FALSE_SECRET))), vec![true_record]),
    ];
    for (name, is_taken, copy, kicks) in cases {
        let config = net.config(2);
        net.turn_on_with(2, config);
        let mut party = net.control.party(2);
        (party.epoch, party.copies, party.kicks) = (Epoch(2), vec![copy], kicks);
        net.act(2, |client, now| client.handle_party(&party, now));
        let epoch = if is_taken { Epoch(2) } else { Epoch(1) };
        assert_eq!(net.client(2).epoch(), epoch, "{name}");
    }
}
