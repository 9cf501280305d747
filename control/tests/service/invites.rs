use std::time::Duration;

use lanrage_control_client::Error;
use lanrage_proto::api::{
    CreateInvite, ErrorCode, InviteInfo, Membership, OpenInvite, OpenedInvite, RedeemInvite, path,
};
use lanrage_proto::bytes::Blob;
use lanrage_proto::party::{InviteKey, SealedSecret};
use lanrage_proto::{Epoch, TunnelKey};
use zeroize::Zeroizing;

use crate::support::*;

async fn open(device: &Device, key: &InviteKey) -> Result<OpenedInvite, Error> {
    device.post(path::INVITE_OPEN, &OpenInvite { invite: key.hash() }).await
}

#[tokio::test]
async fn opening_uses_nothing_and_the_last_use_deletes_the_secret() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let key = owner.invite(party.session, 1, 1).await.unwrap();
    let guest = Device::register(&service).await;
    for _ in 0..3 {
        let opened = open(&guest, &key).await.unwrap();
        assert_eq!((opened.session, opened.subnet), (party.session, party.subnet));
        assert_eq!(opened.name, "party");
        let secret = key.open(opened.session, &opened.sealed).unwrap();
        assert_eq!(secret, (Epoch(1), SECRET));
    }
    let first = guest.redeem(&key, "guest").await.unwrap();
    let again = guest.redeem(&key, "guest").await.unwrap();
    assert_eq!(first.party, again.party, "a member spends nothing");
    let late = Device::register(&service).await;
    assert_refused(open(&late, &key).await, ErrorCode::InviteUsedUp);
    assert_refused(late.redeem(&key, "late").await, ErrorCode::InviteUsedUp);
}

#[tokio::test]
async fn why_an_invite_does_not_work_is_told_for_30_days() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let late = Device::register(&service).await;
    let unknown = InviteKey(Zeroizing::new(random()));
    assert_refused(open(&late, &unknown).await, ErrorCode::InviteUnknown);
    assert_refused(late.redeem(&unknown, "late").await, ErrorCode::InviteUnknown);

    let key = owner.invite(session, 1, 1).await.unwrap();
    // Expired, before and after the periodic job has deleted the secret.
    service.clock.advance(Duration::from_secs(3_600));
    assert_refused(open(&late, &key).await, ErrorCode::InviteExpired);
    assert_refused(late.redeem(&key, "late").await, ErrorCode::InviteExpired);
    service.advance(Duration::from_secs(120)).await;
    assert_refused(late.redeem(&key, "late").await, ErrorCode::InviteExpired);
    service.advance(29 * DAY).await;
    assert_refused(late.redeem(&key, "late").await, ErrorCode::InviteExpired);
    service.advance(DAY + Duration::from_secs(60)).await;
    assert_refused(late.redeem(&key, "late").await, ErrorCode::InviteUnknown);
}

#[tokio::test]
async fn a_new_invite_is_checked() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let key = InviteKey(Zeroizing::new(random()));
    let good = invite_request(&key, session, 1, 1);
    let make = async |request: CreateInvite| {
        owner.in_party::<_, InviteInfo>(path::INVITES, session, &request).await
    };
    for wrong in [
        CreateInvite { uses: 0, ..good.clone() },
        CreateInvite { uses: 251, ..good.clone() },
        CreateInvite { lifetime_s: 0, ..good.clone() },
        CreateInvite { lifetime_s: 31 * 86_400, ..good.clone() },
        CreateInvite { sealed: SealedSecret(Blob(vec![0; 77])), ..good.clone() },
    ] {
        assert_refused(make(wrong).await, ErrorCode::BadRequest);
    }
    assert_refused(
        make(CreateInvite { epoch: Epoch(2), ..good.clone() }).await,
        ErrorCode::Conflict,
    );
    let made = make(good.clone()).await.unwrap();
    assert_eq!(made.uses_left, 1);
    assert_eq!(made.expires - made.now, 3_600);
    assert_eq!(make(good.clone()).await.unwrap().expires, made.expires, "idempotent");
    let other = invite_request(&key, session, 1, 1);
    assert_refused(make(other).await, ErrorCode::Conflict);
    for _ in 1..64 {
        owner.invite(session, 1, 1).await.unwrap();
    }
    assert_refused(owner.invite(session, 1, 1).await, ErrorCode::Forbidden);
}

#[tokio::test]
async fn of_50_at_once_one_redeems_a_single_use() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let key = owner.invite(session, 1, 1).await.unwrap();
    let mut devices = Vec::new();
    for _ in 0..50 {
        devices.push(Device::register(&service).await);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for device in devices {
        let key = key.clone();
        tasks.spawn(async move { device.redeem(&key, "guest").await });
    }
    let (mut in_party, mut refused) = (0, 0);
    while let Some(result) = tasks.join_next().await {
        match result.unwrap() {
            Ok(membership) => {
                assert_eq!(membership.party.you, member(2));
                in_party += 1;
            }
            Err(Error::Api(refusal)) if refusal.code == ErrorCode::InviteUsedUp => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!((in_party, refused), (1, 49));
    assert_eq!(owner.state(session).await.members.len(), 2);
}

/// Nobody could seal a new epoch's secret to such a key; the refusal spends nothing.
#[tokio::test]
async fn a_tunnel_key_of_low_order_is_refused() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let key = owner.invite(session, 1, 1).await.unwrap();
    let guest = Device::register(&service).await;
    let redeem = async |tunnel| {
        let request = RedeemInvite { tunnel, ..guest.redemption(&key, "guest") };
        guest.post::<_, Membership>(path::INVITE_REDEEM, &request).await
    };
    let mut one = [0; 32];
    one[0] = 1;
    for low_order in [[0; 32], one] {
        assert_refused(redeem(TunnelKey(low_order)).await, ErrorCode::BadRequest);
    }
    redeem(guest.tunnel_key()).await.unwrap();
    assert_refused(redeem(TunnelKey(one)).await, ErrorCode::BadRequest);
}

/// A device that has lost its party key is still the same member, with a new key.
#[tokio::test]
async fn a_member_with_another_tunnel_key_gets_a_ticket_for_that() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let key = owner.invite(session, 1, 1).await.unwrap();
    let mut guest = Device::register(&service).await;
    let first = guest.redeem(&key, "guest").await.unwrap();
    guest.publish(&first.party).await;
    guest.tunnel = x25519_dalek::StaticSecret::from(random::<32>());
    let second = guest.redeem(&key, "guest").await.unwrap();
    assert_eq!(second.party.you, first.party.you);
    assert_eq!(second.ticket.ticket.body.key, guest.tunnel_key());
    assert_eq!(second.party.members[1].entry, None, "the entry named the old key");
}

/// Two members with one WireGuard key: whose a handshake is nobody could tell.
#[tokio::test]
async fn regression_another_members_tunnel_key_is_refused() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let key = owner.invite(session, 1, 2).await.unwrap();
    let mut guest = Device::register(&service).await;
    let own = guest.tunnel.clone();
    guest.tunnel = owner.tunnel.clone();
    assert_refused(guest.redeem(&key, "guest").await, ErrorCode::Conflict);
    guest.tunnel = own;
    guest.redeem(&key, "guest").await.unwrap();
    guest.tunnel = owner.tunnel.clone();
    assert_refused(guest.redeem(&key, "guest").await, ErrorCode::Conflict);
}
