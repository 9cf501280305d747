//! A party of 250 lets nobody else in, and says so.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use lanrage_control_client::{Connection, ControlClient, Endpoint, Method};
use lanrage_lab::NatKind;
use lanrage_proto::api::{
    DEVICE_PROOF_CONTEXT, Membership, RedeemInvite, RegisterDevice, Registered, path,
};
use lanrage_proto::party::Invite;
use lanrage_proto::signed::sign;
use lanrage_proto::{DeviceKey, TunnelKey};
use lanrage_scenarios::{Deployment, Plan, exit};

const PARTY_MAX: u16 = 250;
const DEADLINE: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(20);

/// A device registers and joins, as `lanrage party join` does, but on a shared connection.
async fn enter(connection: Connection, invite: Arc<Invite>, number: u16) {
    let mut seed = [7; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_bytes(&seed);
    let proof = sign(&key, DEVICE_PROOF_CONTEXT, &connection.channel_binding());
    let body = RegisterDevice { device: DeviceKey(key.verifying_key().to_bytes()), proof };
    let registered: Registered =
        connection.request(Method::POST, path::DEVICES, None, &body, DEADLINE).await.unwrap();
    let member_name = format!("filler{number}");
    let body = RedeemInvite { invite: invite.key.hash(), tunnel: TunnelKey(seed), member_name };
    let token = Some(&registered.token);
    let _entered: Membership = connection
        .request(Method::POST, path::INVITE_REDEEM, token, &body, DEADLINE)
        .await
        .unwrap();
}

#[test]
fn the_251st_member_is_refused_with_9_and_nothing_is_used_up() {
    let mut lab = Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, 3)).unwrap();
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("crowd", &server).unwrap();
    let text = lab.players[0].invite(PARTY_MAX).unwrap();
    lab.players[1].join(&text).unwrap();

    // One use of the invite stays, for the one who comes too late.
    let invite: Arc<Invite> = Arc::new(text.parse().unwrap());
    let fill = async {
        // Within this process the lab's names are not known.
        let host = lab.control.address().ip().to_string();
        let client = ControlClient::new(Endpoint { host, ..Endpoint::from(&*invite) });
        let connection = client.connect(DEADLINE).await.unwrap();
        let entering = (2..PARTY_MAX)
            .map(|number| tokio::spawn(enter(connection.clone(), Arc::clone(&invite), number)));
        for device in entering.collect::<Vec<_>>() {
            device.await.unwrap();
        }
    };
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    lab.players[2].host().enter(|| runtime().block_on(fill)).unwrap();

    // Were it spent on a refusal, the next answer would say that the invite is used up.
    for _ in 0..3 {
        let started = Instant::now();
        let answer = lab.players[2].try_join(&text).unwrap();
        answer.expect_failure(exit::REFUSED, "the party is full");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    }
    let members = lab.players[0].status().unwrap()["members"].as_array().unwrap().len();
    assert_eq!(members, usize::from(PARTY_MAX));
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
}
