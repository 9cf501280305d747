use std::time::Duration;

use lanrage_control_client::{Error, Method};
use lanrage_proto::api::{
    Change, ErrorCode, Kick, Kicked, PUT_OUT_MAX, PartyState, Promote, RelayDown, Role,
    TicketGrant, path,
};
use lanrage_proto::party::{EpochCopy, InviteKey};
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Commitment, Epoch, Generation, Mac, PartySecret};
use serde_json::Value;

use crate::support::*;

/// An owner and two guests with entries, and an open invite.
async fn party_of_three(service: &Service) -> ([Device; 3], PartyState, InviteKey) {
    let owner = Device::register(service).await;
    let party = owner.create_party().await.party;
    owner.publish(&party).await;
    let invite = owner.invite(party.session, 1, 9).await.unwrap();
    let mut devices = vec![owner];
    for name in ["one", "two"] {
        let guest = Device::register(service).await;
        let party = guest.redeem(&invite, name).await.unwrap().party;
        guest.publish(&party).await;
        devices.push(guest);
    }
    let party = devices[0].state(party.session).await;
    (devices.try_into().unwrap_or_else(|_| panic!("three")), party, invite)
}

#[tokio::test]
async fn a_kick_reaches_everybody_at_once() {
    let (service, mut relay) = Service::with_relay().await;
    let ([owner, one, two], party, invite) = party_of_three(&service).await;
    let session = party.session;
    let (mut one_sees, mut two_sees) =
        (Stream::open(&one, None).await, Stream::open(&two, None).await);
    one_sees.snapshot().await;
    two_sees.snapshot().await;

    let kicked: Kicked = owner.kick(&party, member(3)).await.unwrap();
    let record = KickRecord::decode(kicked.record.0.as_slice().try_into().unwrap()).unwrap();
    assert_eq!((record.member, record.kicker), (member(3), member(1)));
    assert_eq!((record.generation, record.epoch), (Generation(2), Epoch(2)));
    assert!(record.is_of(&PartySecret([2; 32])), "the kicker's commitment, signed");

    let RelayDown::Revoke { cursor, revocation } =
        relay.until(|message| matches!(message, RelayDown::Revoke { .. })).await
    else {
        panic!()
    };
    assert!(cursor > 0);
    assert_eq!((revocation.session, revocation.member), (session, member(3)));
    assert_eq!(revocation.generation, Generation(2));
    assert!(revocation.forget_after > service.clock.now() + 86_400);

    let removed = loop {
        // The online flags of others may come first.
        match two_sees.change().await {
            Change::Removed { session: of, kick } => break (of, kick),
            Change::Member { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(removed, (session, Some(kicked.record)));
    let seen = loop {
        match one_sees.change().await {
            Change::Party { party } => break party,
            Change::Member { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((seen.epoch, seen.members.len()), (Epoch(2), 2));
    assert_eq!(seen.kicks, [record]);
    let new = PartySecret([2; 32]);
    assert_eq!(seen.copies.len(), 1);
    assert_eq!(seen.copies[0].open(session, &one.tunnel, (Epoch(1), &SECRET)), Ok(new));
    for member in &seen.members {
        assert!(member.entry.as_ref().unwrap().is_genuine(&new));
    }

    let gone = two.in_party::<_, TicketGrant>(path::TICKET, session, &empty()).await;
    assert_refused(gone, ErrorCode::NotFound);
    assert_refused(two.redeem(&invite, "two").await, ErrorCode::InviteVoid);
    assert_refused(owner.invite(session, 1, 1).await, ErrorCode::Conflict);
    let invite = owner.invite(session, 2, 1).await.unwrap();
    let back = two.redeem(&invite, "two").await.unwrap();
    assert_eq!(back.party.you, member(3), "its number, under a new generation");
    assert_eq!(generations(&back.party)[2], (3, Generation(2)));
    assert_eq!(back.ticket.ticket.body.generation, Generation(2));
    assert!(back.party.copies.is_empty());
}

#[tokio::test]
async fn a_kick_that_is_not_whole_changes_nothing() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, two], party, invite) = party_of_three(&service).await;
    let good = owner.kick_request(&party, member(3));
    let kick = async |device: &Device, request: Kick| {
        device.in_party::<_, Kicked>(path::KICK, party.session, &request).await
    };
    let with = |change: &dyn Fn(&mut Kick)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let conflicts = [
        with(&|kick| kick.epoch = Epoch(3)),
        with(&|kick| kick.generation = Generation(7)),
        with(&|kick| kick.copies.push(kick.copies[0].clone())),
        with(&|kick| kick.copies[0].to = member(1)),
        with(&|kick| kick.copies[0].to = member(3)),
        with(&|kick| kick.copies[0].to = member(9)),
        with(&|kick| kick.macs.truncate(1)),
        with(&|kick| kick.macs.push(kick.macs[0].clone())),
        with(&|kick| kick.macs[0].generation = Generation(7)),
    ];
    for wrong in conflicts {
        let wrong = Kick {
            copies: wrong
                .copies
                .into_iter()
                .map(|mut copy| {
                    copy.epoch = wrong.epoch;
                    copy
                })
                .collect(),
            ..wrong
        };
        assert_refused(kick(&owner, wrong).await, ErrorCode::Conflict);
    }
    for wrong in [
        with(&|kick| kick.copies[0].sealed.0.truncate(71)),
        with(&|kick| kick.copies[0].under = Some(Epoch(2))),
        with(&|kick| kick.copies[0].from = member(2)),
        with(&|kick| kick.copies[0].from_key = one.tunnel_key()),
    ] {
        assert_refused(kick(&owner, wrong).await, ErrorCode::BadRequest);
    }
    assert_refused(kick(&owner, with(&|kick| kick.member = member(9))).await, ErrorCode::NotFound);
    assert_refused(kick(&owner, with(&|kick| kick.member = member(1))).await, ErrorCode::Forbidden);
    assert_refused(kick(&one, with(&|_| {})).await, ErrorCode::Forbidden);
    assert_refused(kick(&two, with(&|kick| kick.member = member(1))).await, ErrorCode::Forbidden);

    let after = owner.state(party.session).await;
    assert_eq!(after.epoch, Epoch(1));
    assert_eq!(generations(&after), generations(&party));
    let stranger = Device::register(&service).await;
    stranger.redeem(&invite, "still-open").await.unwrap();
    // The newcomer has no entry yet, so the prepared kick is still whole.
    kick(&owner, good.clone()).await.unwrap();
    assert_refused(kick(&owner, good).await, ErrorCode::NotFound);
}

/// Control cannot tell whether an entry's MAC holds: a member whose entry vouches for nothing gets no
/// copy, and protects neither another nor itself.
#[tokio::test]
async fn a_member_with_a_false_entry_cannot_hinder_a_kick() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, two], party, _) = party_of_three(&service).await;
    for device in [&one, &two] {
        let party = device.state(party.session).await;
        let mut request = device.entry(&party, if party.you == member(2) { "one" } else { "two" });
        request.entry.mac = Mac([7; 16]);
        let path = path::of_party(path::ENTRY, party.session);
        let _: Value = device.send(Method::PUT, &path, &request).await.unwrap();
    }
    let party = owner.state(party.session).await;
    let mut request = owner.kick_request(&party, member(3));
    request.copies.clear();
    request.macs[1].mac = Mac([7; 16]);
    let _: Kicked = owner.in_party(path::KICK, party.session, &request).await.unwrap();
    let seen = one.state(party.session).await;
    assert_eq!((seen.epoch, seen.members.len()), (Epoch(2), 2));
    assert!(seen.copies.is_empty());
    let genuine: Vec<bool> = seen
        .members
        .iter()
        .map(|member| member.entry.as_ref().unwrap().is_genuine(&PartySecret([2; 32])))
        .collect();
    assert_eq!(genuine, [true, false]);
    let mut request = owner.kick_request(&seen, member(2));
    request.copies.clear();
    let _: Kicked = owner.in_party(path::KICK, party.session, &request).await.unwrap();
    assert_eq!(owner.state(party.session).await.members.len(), 1);
}

/// The largest kick there is fits a request, and each copy reaches its member.
#[tokio::test]
async fn the_owner_of_a_full_party_kicks() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    owner.publish(&party).await;
    let invite = owner.invite(party.session, 1, 249).await.unwrap();
    let mut guests = Vec::new();
    for _ in 2..=250 {
        let guest = Device::register(&service).await;
        let party = guest.redeem(&invite, &"x".repeat(32)).await.unwrap().party;
        guest.publish(&party).await;
        guests.push(guest);
    }
    let party = owner.state(party.session).await;
    let request = owner.kick_request(&party, member(2));
    assert_eq!((request.copies.len(), request.macs.len()), (248, 249));
    let _: Kicked = owner.in_party(path::KICK, party.session, &request).await.unwrap();
    let last = guests[248].state(party.session).await;
    assert_eq!((last.you, last.members.len(), last.epoch), (member(250), 249, Epoch(2)));
    let new = last.copies[0].open(party.session, &guests[248].tunnel, (Epoch(1), &SECRET));
    assert_eq!(new, Ok(PartySecret([2; 32])));
}

/// A kicker that lacks the newest secret seals under none; control takes that from whoever may kick.
#[tokio::test]
async fn a_kicker_that_is_behind_kicks_with_copies_under_no_epoch() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, two], party, _) = party_of_three(&service).await;
    let session = party.session;
    let request = Promote { member: member(2), role: Role::Promoted };
    let _: Value = owner.in_party(path::PROMOTE, session, &request).await.unwrap();
    let mut worthless = one.kick_request(&one.state(session).await, member(3));
    worthless.commitment = Commitment([7; 32]);
    let _: Kicked = one.in_party(path::KICK, session, &worthless).await.unwrap();
    let [record] = owner.state(session).await.kicks[..] else { panic!("one record") };
    assert_eq!(record.commitment, Commitment([7; 32]));
    assert!(!record.is_of(&PartySecret([2; 32])));

    let invite = owner.invite(session, 2, 1).await.unwrap();
    let party = two.redeem(&invite, "two").await.unwrap().party;
    two.publish(&party).await;
    let mut request = owner.kick_request(&owner.state(session).await, member(2));
    let receiver = (member(3), &two.tunnel_key());
    let new = (Epoch(3), &PartySecret([2; 32]));
    let kicker = (member(1), &owner.tunnel);
    request.copies =
        vec![EpochCopy::seal(session, new, None, kicker, receiver, &mut rng()).unwrap()];
    let _: Kicked = owner.in_party(path::KICK, session, &request).await.unwrap();
    let seen = two.state(session).await;
    let record = seen.kicks.last().unwrap();
    let secret = seen.copies[0].open(session, &two.tunnel, (Epoch(2), &SECRET)).unwrap();
    assert!(record.epoch == Epoch(3) && record.is_of(&secret));
}

/// A member takes a secret by its epoch's record alone, so a copy is never listed without.
#[tokio::test]
async fn a_copy_is_kept_as_long_as_its_record() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, _two], party, _) = party_of_three(&service).await;
    let session = party.session;
    owner.kick(&party, member(3)).await.unwrap();
    let listed = async || {
        let seen = one.state(session).await;
        let copies: Vec<_> = seen.copies.iter().map(|copy| copy.epoch).collect();
        let kicks: Vec<_> = seen.kicks.iter().map(|kick| kick.epoch).collect();
        assert_eq!(copies, kicks);
        copies
    };
    service.advance(29 * DAY).await;
    assert_eq!(listed().await, [Epoch(2)]);
    service.advance(DAY + Duration::from_secs(60)).await;
    assert_eq!(listed().await, []);
}

fn record_of(kicked: &Kicked) -> KickRecord {
    KickRecord::decode(kicked.record.0.as_slice().try_into().unwrap()).unwrap()
}

/// A device that had no stream during its kick saw its party gone and never learnt why: the record
/// was sent once, to streams alone.
#[tokio::test]
async fn regression_a_device_that_was_off_line_is_told_of_its_kick() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, two], party, _) = party_of_three(&service).await;
    let session = party.session;
    let kicked = owner.kick(&party, member(3)).await.unwrap();
    let record = record_of(&kicked);
    assert_eq!((record.member, record.kicker, record.session), (member(3), member(1), session));
    assert!(record.verify(&service.map().await).is_ok());
    assert_eq!(two.put_out().await, [record]);
    assert_eq!(two.put_out().await, [record], "until it expires, however often it asks");
    for other in [&owner, &one] {
        assert_eq!(other.put_out().await, []);
    }
    let _: Value = one.in_party(path::LEAVE, session, &empty()).await.unwrap();
    assert_eq!(one.put_out().await, [], "it left by itself");

    let service = service.restart().await;
    let [owner, one, two] = [owner, one, two].map(|device| device.key);
    let owner = Device::register_key(&service, owner).await;
    let two = Device::register_key(&service, two).await;
    let one = Device::register_key(&service, one).await;
    assert_eq!(two.put_out().await, [record]);
    assert_eq!(one.put_out().await, []);

    let invite = owner.invite(session, 2, 1).await.unwrap();
    two.redeem(&invite, "two").await.unwrap();
    assert_eq!(two.put_out().await, [], "it is a member again");
    let again = owner.kick(&owner.state(session).await, member(3)).await.unwrap();
    assert_eq!(two.put_out().await, [record_of(&again)], "the last kick alone");

    service.advance(29 * DAY).await;
    assert_eq!(two.put_out().await, [record_of(&again)]);
    service.advance(DAY + Duration::from_secs(60)).await;
    assert_eq!(two.put_out().await, []);
}

/// Whoever is kicked again and again gets no longer a snapshot for it.
#[tokio::test]
async fn a_device_is_told_of_its_newest_kicks() {
    let (service, _relay) = Service::with_relay().await;
    let guest = Device::register(&service).await;
    let mut records = Vec::new();
    for kick in 0..PUT_OUT_MAX + 2 {
        let owner = Device::register(&service).await;
        let party = owner.create_party().await.party;
        owner.publish(&party).await;
        let invite = owner.invite(party.session, 1, 1).await.unwrap();
        guest.redeem(&invite, &format!("guest{kick}")).await.unwrap();
        let party = owner.state(party.session).await;
        records.push(record_of(&owner.kick(&party, member(2)).await.unwrap()));
        if kick == 1 {
            service.clock.advance(Duration::from_secs(5));
        }
    }
    let mut told = guest.put_out().await;
    assert!(told.is_sorted_by_key(|record| std::cmp::Reverse(record.issued)));
    told.sort_by_key(|record| record.session);
    let mut newest = records.split_off(2);
    newest.sort_by_key(|record| record.session);
    assert_eq!(told, newest);
}

#[tokio::test]
async fn promoted_members_kick_members_only() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, _two], party, _) = party_of_three(&service).await;
    let request = Promote { member: member(2), role: Role::Promoted };
    let _: Value = owner.in_party(path::PROMOTE, party.session, &request).await.unwrap();
    let seen = one.state(party.session).await;
    assert_refused(one.kick(&seen, member(1)).await, ErrorCode::Forbidden);
    one.kick(&seen, member(3)).await.unwrap();
}

/// Of two kicks of the same epoch one wins, the other reads again.
#[tokio::test]
async fn the_epoch_is_compared_and_swapped() {
    let (service, _relay) = Service::with_relay().await;
    let ([owner, one, _two], party, _) = party_of_three(&service).await;
    let request = Promote { member: member(2), role: Role::Promoted };
    let _: Value = owner.in_party(path::PROMOTE, party.session, &request).await.unwrap();
    let (ours, theirs) = (
        owner.kick_request(&party, member(2)),
        one.kick_request(&one.state(party.session).await, member(3)),
    );
    let kick = async |device: &Device, request: Kick| {
        device.in_party::<_, Kicked>(path::KICK, party.session, &request).await
    };
    let (first, second) = tokio::join!(kick(&owner, ours), kick(&one, theirs));
    let results = [first, second];
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let lost = results.into_iter().find_map(Result::err).unwrap();
    let Error::Api(lost) = lost else { panic!("{lost:?}") };
    assert!([ErrorCode::Conflict, ErrorCode::NotFound].contains(&lost.code), "{lost:?}");
}
