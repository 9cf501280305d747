use std::net::Ipv4Addr;

use lanrage_control_client::Method;
use lanrage_proto::api::{
    Change, CreateParty, ErrorCode, Membership, Promote, PublishEntry, Role, TicketGrant, path,
};
use lanrage_proto::map::SignedMap;
use lanrage_proto::{Epoch, Generation, RelayId, TunnelKey};
use serde_json::Value;

use crate::support::*;

#[tokio::test]
async fn a_party_is_made_once_per_request() {
    let (service, relay) = Service::with_relay().await;
    let device = Device::register(&service).await;
    let request =
        CreateParty { subnet: Some(Ipv4Addr::new(10, 66, 7, 0)), ..device.party_request() };
    let first: Membership = device.post(path::PARTIES, &request).await.unwrap();
    let again: Membership = device.post(path::PARTIES, &request).await.unwrap();
    assert_eq!(first.party, again.party);
    let party = first.party;
    assert_eq!((party.you, party.epoch), (member(1), Epoch(1)));
    assert_eq!(party.subnet, Ipv4Addr::new(10, 66, 7, 0));
    assert_eq!(party.prefix.octets()[0], 0xfd);
    assert_eq!(party.prefix.octets()[8..], [0; 8]);
    assert_eq!(party.relays, [relay.id]);
    assert_eq!((party.members.len(), party.members[0].role), (1, Role::Owner));

    let other = device.create_party().await.party;
    assert_ne!(other.session, party.session);
    assert_ne!(other.subnet, party.subnet);

    let map: SignedMap =
        device.connection.request(Method::GET, path::MAP, None, &(), DEADLINE).await.unwrap();
    let map = map.verify(&service.endpoint().root).unwrap();
    let ticket = first.ticket.ticket.verify(&map).unwrap();
    assert_eq!(
        (ticket.session, ticket.member, ticket.key),
        (party.session, member(1), device.tunnel_key())
    );
    assert_eq!(ticket.relays, [relay.id, RelayId(0), RelayId(0)]);
    assert_eq!(ticket.expires - ticket.not_before, 3_600);
    let renewed: TicketGrant =
        device.in_party(path::TICKET, party.session, &empty()).await.unwrap();
    renewed.ticket.verify(&map).unwrap();
    assert_eq!(renewed.lifetime_s, 3_600);
}

#[tokio::test]
async fn the_ticket_lifetime_is_the_configured_one() {
    let service = Service::start_with(|config| config.ticket_lifetime_s = 10).await;
    let _relay = Relay::enrol(&service, "one").await;
    let grant = Device::register(&service).await.create_party().await.ticket;
    assert_eq!(grant.lifetime_s, 10);
    assert_eq!(grant.ticket.body.expires - grant.ticket.body.not_before, 10);
}

#[tokio::test]
async fn what_cannot_be_a_party_is_refused() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    let make =
        async |request: CreateParty| device.post::<_, Membership>(path::PARTIES, &request).await;
    assert_refused(make(device.party_request()).await, ErrorCode::NoRelay);
    let _relay = Relay::enrol(&service, "one").await;
    for name in ["", "Upper", "-x", "x-", "a b", &"x".repeat(33)] {
        let name = name.to_owned();
        let request = CreateParty { name: name.clone(), ..device.party_request() };
        assert_refused(make(request).await, ErrorCode::BadRequest);
        let request = CreateParty { member_name: name, ..device.party_request() };
        assert_refused(make(request).await, ErrorCode::BadRequest);
    }
    let subnet = Some(Ipv4Addr::new(192, 168, 1, 0));
    assert_refused(
        make(CreateParty { subnet, ..device.party_request() }).await,
        ErrorCode::BadRequest,
    );
    let tunnel = TunnelKey([0; 32]);
    assert_refused(
        make(CreateParty { tunnel, ..device.party_request() }).await,
        ErrorCode::BadRequest,
    );
    for _ in 0..32 {
        make(device.party_request()).await.unwrap();
    }
    assert_refused(make(device.party_request()).await, ErrorCode::Forbidden);
}

#[tokio::test]
async fn only_the_callers_own_signed_entry_of_today_is_taken() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest) = (Device::register(&service).await, Device::register(&service).await);
    let party = owner.create_party().await.party;
    let invite = owner.invite(party.session, 1, 1).await.unwrap();
    let guests_party = guest.redeem(&invite, "guest").await.unwrap().party;
    let publish = async |device: &Device, entry: PublishEntry| {
        let path = path::of_party(path::ENTRY, party.session);
        device.send::<_, Value>(Method::PUT, &path, &entry).await
    };

    let good = owner.entry(&party, "owner");
    assert_refused(publish(&guest, good.clone()).await, ErrorCode::Forbidden);
    let mut unsigned = good.clone();
    unsigned.entry.signature.0[0] ^= 1;
    assert_refused(publish(&owner, unsigned).await, ErrorCode::BadProof);
    let mut old = good.clone();
    old.entry.epoch = Epoch(0);
    assert_refused(publish(&owner, old).await, ErrorCode::Conflict);
    let mut generation = good.clone();
    generation.entry.body.generation = Generation(9);
    assert_refused(publish(&owner, generation).await, ErrorCode::Conflict);
    let mut tunnel = good.clone();
    tunnel.entry.body.tunnel = guest.tunnel_key();
    assert_refused(publish(&owner, tunnel).await, ErrorCode::Forbidden);
    publish(&owner, good.clone()).await.unwrap();
    assert_refused(
        publish(&guest, guest.entry(&guests_party, "owner")).await,
        ErrorCode::NameTaken,
    );

    let renamed = guest.entry(&guests_party, "visitor");
    publish(&guest, renamed.clone()).await.unwrap();
    let state = owner.state(party.session).await;
    assert_eq!(state.members[0].entry.as_ref(), Some(&good.entry));
    assert_eq!(state.members[1].entry.as_ref(), Some(&renamed.entry));
    assert_eq!(state.members[1].name, "visitor");
    assert!(state.members[1].entry.as_ref().unwrap().is_genuine(&SECRET));

    let stranger = Device::register(&service).await;
    assert_refused(publish(&stranger, good).await, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_member_keeps_its_number_and_names_are_made_unique() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 5).await.unwrap();
    let (one, two) = (Device::register(&service).await, Device::register(&service).await);
    assert_eq!(one.redeem(&invite, "guest").await.unwrap().party.you, member(2));
    let party = two.redeem(&invite, "guest").await.unwrap().party;
    assert_eq!(party.you, member(3));
    assert_eq!(party.members[2].name, "guest-2");
    let _: Value = one.in_party(path::LEAVE, session, &empty()).await.unwrap();
    let gone = one.in_party::<_, TicketGrant>(path::TICKET, session, &empty()).await;
    assert_refused(gone, ErrorCode::NotFound);
    let third = Device::register(&service).await;
    assert_eq!(third.redeem(&invite, "c").await.unwrap().party.you, member(4), "never used first");
    let back = one.redeem(&invite, "guest").await.unwrap().party;
    assert_eq!((back.you, back.members[1].generation), (member(2), Generation(1)));
}

#[tokio::test]
async fn only_the_owner_promotes() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 5).await.unwrap();
    let (one, two) = (Device::register(&service).await, Device::register(&service).await);
    one.redeem(&invite, "one").await.unwrap();
    two.redeem(&invite, "two").await.unwrap();
    let promote = async |device: &Device, number, role| {
        let request = Promote { member: member(number), role };
        device.in_party::<_, Value>(path::PROMOTE, session, &request).await
    };
    assert_refused(promote(&one, 3, Role::Promoted).await, ErrorCode::Forbidden);
    assert_refused(one.invite(session, 1, 1).await, ErrorCode::Forbidden);
    promote(&owner, 2, Role::Promoted).await.unwrap();
    one.invite(session, 1, 1).await.unwrap();
    assert_refused(promote(&one, 3, Role::Promoted).await, ErrorCode::Forbidden);
    assert_refused(promote(&owner, 1, Role::Member).await, ErrorCode::Forbidden);
    assert_refused(promote(&owner, 2, Role::Owner).await, ErrorCode::BadRequest);
    assert_refused(promote(&owner, 9, Role::Promoted).await, ErrorCode::NotFound);
    promote(&owner, 2, Role::Member).await.unwrap();
    assert_refused(one.invite(session, 1, 1).await, ErrorCode::Forbidden);
}

#[tokio::test]
async fn ownership_goes_to_the_eldest_promoted_member_when_the_owner_leaves() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 5).await.unwrap();
    let (one, two) = (Device::register(&service).await, Device::register(&service).await);
    one.redeem(&invite, "one").await.unwrap();
    two.redeem(&invite, "two").await.unwrap();
    let request = Promote { member: member(3), role: Role::Promoted };
    let _: Value = owner.in_party(path::PROMOTE, session, &request).await.unwrap();
    let mut stream = Stream::open(&one, None).await;
    stream.snapshot().await;
    let _: Value = owner.in_party(path::LEAVE, session, &empty()).await.unwrap();
    assert_eq!(stream.change().await, Change::Left { session, member: member(1) });
    let Change::Member { member: record, .. } = stream.change().await else { panic!() };
    assert_eq!((record.member, record.role), (member(3), Role::Owner));

    let _: Value = two.in_party(path::LEAVE, session, &empty()).await.unwrap();
    let _: Value = one.in_party(path::LEAVE, session, &empty()).await.unwrap();
    assert_refused(owner.redeem(&invite, "x").await, ErrorCode::InviteVoid);
}

#[tokio::test]
async fn an_owner_gone_for_30_days_is_followed_by_a_member_that_is_there() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 5).await.unwrap();
    let (one, two) = (Device::register(&service).await, Device::register(&service).await);
    one.redeem(&invite, "one").await.unwrap();
    two.redeem(&invite, "two").await.unwrap();
    service.advance(29 * DAY).await;
    let roles = |party: &lanrage_proto::api::PartyState| {
        party.members.iter().map(|member| member.role).collect::<Vec<_>>()
    };
    let two_is_there = Stream::open(&two, None).await;
    service.advance(DAY / 2).await;
    assert_eq!(roles(&two.state(session).await), [Role::Owner, Role::Member, Role::Member]);
    drop(two_is_there);
    service.advance(DAY).await;
    assert_eq!(roles(&two.state(session).await), [Role::Member, Role::Member, Role::Owner]);
}

/// 250 members is a full party; a number is free again 30 days after its device left.
#[tokio::test]
async fn a_full_party_is_full() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 250).await.unwrap();
    let mut devices = Vec::new();
    for _ in 0..249 {
        let device = Device::register(&service).await;
        device.redeem(&invite, "guest").await.unwrap();
        devices.push(device);
    }
    let late = Device::register(&service).await;
    assert_refused(late.redeem(&invite, "late").await, ErrorCode::PartyFull);
    let _: Value = devices[9].in_party(path::LEAVE, session, &empty()).await.unwrap();
    assert_refused(late.redeem(&invite, "late").await, ErrorCode::PartyFull);
    service.advance(30 * DAY + DAY / 24).await;
    // The invite has expired meanwhile; the refusals above have spent none of its uses.
    let invite = owner.invite(session, 1, 1).await.unwrap();
    let party = late.redeem(&invite, "late").await.unwrap().party;
    assert_eq!((party.you, party.members.len()), (member(11), 250));
    assert_eq!(party.members[10].generation, Generation(2));
}
