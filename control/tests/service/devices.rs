use ed25519_dalek::SigningKey;
use lanrage_control_client::Method;
use lanrage_proto::SessionId;
use lanrage_proto::api::{ErrorCode, Registered, TicketGrant, path};
use lanrage_proto::bytes::Token;
use lanrage_proto::map::SignedMap;
use serde_json::{Value, json};

use crate::support::*;

#[tokio::test]
async fn a_device_proves_its_key_on_its_own_connection() {
    let service = Service::start().await;
    let key = SigningKey::from_bytes(&random());
    let (first, second) = {
        let client = service.client();
        (client.connect(DEADLINE).await.unwrap(), client.connect(DEADLINE).await.unwrap())
    };
    let register = async |connection: &lanrage_control_client::Connection, body| {
        connection
            .request::<_, Registered>(Method::POST, path::DEVICES, None, &body, DEADLINE)
            .await
    };
    let good = proof_of(&key, &first.channel_binding());
    register(&first, good.clone()).await.unwrap();
    assert_refused(register(&second, good.clone()).await, ErrorCode::BadProof);

    let other = SigningKey::from_bytes(&random());
    let mut wrong = proof_of(&other, &first.channel_binding());
    wrong.device = good.device;
    assert_refused(register(&first, wrong).await, ErrorCode::BadProof);
    let mut damaged = good;
    damaged.proof.0[0] ^= 1;
    assert_refused(register(&first, damaged).await, ErrorCode::BadProof);
}

/// A client on a bad line registered several times at once and used the first answer; the late ones
/// took that token away, and the next request was refused.
#[tokio::test]
async fn regression_late_registrations_leave_the_first_token_alone() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    let mut tokens = vec![device.token];
    for _ in 0..8 {
        tokens.push(Device::register_key(&service, device.key.clone()).await.token);
    }
    let ask = async |token: Token| {
        let device = Device { token, ..device.clone() };
        device.in_party::<_, TicketGrant>(path::TICKET, SessionId(1), &empty()).await
    };
    assert_refused(ask(tokens[0]).await, ErrorCode::Unauthorized);
    for token in &tokens[1..] {
        assert_refused(ask(*token).await, ErrorCode::NotFound);
    }
}

#[tokio::test]
async fn a_stream_needs_a_token() {
    let service = Service::start().await;
    let client = service.client();
    let refused = client.websocket(path::STREAM, Some(&Token([0; 32])), DEADLINE).await;
    assert_refused(refused, ErrorCode::Unauthorized);
    assert_refused(client.websocket(path::STREAM, None, DEADLINE).await, ErrorCode::Unauthorized);
}

#[tokio::test]
async fn what_is_no_request_is_refused_clearly() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    let refused = device.post::<_, Value>("/v2/none", &empty()).await;
    assert_refused(refused, ErrorCode::NotFound);
    let refused = device.send::<_, Value>(Method::PUT, path::PARTIES, &empty()).await;
    assert_refused(refused, ErrorCode::BadRequest);
    assert_refused(device.post::<_, Value>(path::PARTIES, &empty()).await, ErrorCode::BadRequest);
    let refused = device.post::<_, Value>("/v1/parties/xyz/ticket", &empty()).await;
    assert_refused(refused, ErrorCode::NotFound);

    let mut unknown_field = serde_json::to_value(device.party_request()).unwrap();
    unknown_field["extra"] = json!(1);
    let refused = device.post::<_, Value>(path::PARTIES, &unknown_field).await;
    assert_refused(refused, ErrorCode::BadRequest);
    let oversized = json!({ "invite": "x".repeat(300 << 10) });
    let refused = device.post::<_, Value>(path::INVITE_OPEN, &oversized).await;
    assert_refused(refused, ErrorCode::BadRequest);
}

#[tokio::test]
async fn cheap_to_abuse_paths_are_limited_per_network_and_per_device() {
    let service = Service::start_with(|config| config.requests_per_minute = 20).await;
    let device = Device::register(&service).await;
    let open = json!({ "invite": lanrage_proto::InviteHash(random()) });
    let mut codes = Vec::new();
    for _ in 0..7 {
        match device.post::<_, Value>(path::INVITE_OPEN, &open).await.unwrap_err() {
            lanrage_control_client::Error::Api(refusal) => codes.push(refusal.code),
            other => panic!("{other:?}"),
        }
    }
    let limited = codes.iter().filter(|code| **code == ErrorCode::RateLimited).count();
    assert!((1..=2).contains(&limited), "5 a minute for a device: {codes:?}");

    let mut refused = None;
    for _ in 0..30 {
        let connection = service.client().connect(DEADLINE).await.unwrap();
        let proof = proof_of(&device.key, &connection.channel_binding());
        let answer = connection
            .request::<_, Registered>(Method::POST, path::DEVICES, None, &proof, DEADLINE)
            .await;
        if answer.is_err() {
            refused = Some(answer);
            break;
        }
    }
    assert_refused(refused.expect("20 a minute for a network"), ErrorCode::RateLimited);
}

#[tokio::test]
async fn the_map_is_for_everybody_and_signed_by_the_pinned_root() {
    let (service, relay) = Service::with_relay().await;
    let connection = service.client().connect(DEADLINE).await.unwrap();
    let map: SignedMap =
        connection.request(Method::GET, path::MAP, None, &(), DEADLINE).await.unwrap();
    let map = map.verify(&service.endpoint().root).unwrap();
    let entry = map.relay(relay.id).unwrap();
    assert_eq!(entry.name, "one");
    assert_eq!(entry.certificate.ipv4, Some(RELAY_IPV4));
    entry.certificate.verify(&map, service.clock.now()).unwrap();
}
