use ed25519_dalek::SigningKey;
use lanrage_control_client::{Error, Method};
use lanrage_proto::SessionId;
use lanrage_proto::api::{
    DeviceDown, DeviceUp, ErrorCode, OpenedInvite, Registered, TicketGrant, path,
};
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
    let oversized = json!({ "invite": "x".repeat(5 << 10) });
    match device.post::<_, Value>(path::INVITE_OPEN, &oversized).await {
        Err(Error::Api(refusal)) => assert!(refusal.message.contains("longer"), "{refusal:?}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn cheap_to_abuse_paths_are_limited_per_network_and_per_device() {
    let service = Service::start_with(|config| config.requests_per_minute = 20).await;
    let device = Device::register(&service).await;
    let open = json!({ "invite": lanrage_proto::InviteHash(random()) });
    let mut codes = Vec::new();
    for _ in 0..7 {
        match device.post::<_, Value>(path::INVITE_OPEN, &open).await.unwrap_err() {
            Error::Api(refusal) => codes.push(refusal.code),
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

/// How many of `asks` are granted before one is refused for being too many.
async fn granted<T>(asks: usize, mut ask: impl AsyncFnMut() -> Result<T, Error>) -> Option<usize> {
    for done in 0..asks {
        match ask().await {
            Err(Error::Api(refusal)) if refusal.code == ErrorCode::RateLimited => {
                return Some(done);
            }
            _ => {}
        }
    }
    None
}

/// After its registration a device could make rows, writes and pushes without end.
#[tokio::test]
async fn regression_what_a_token_allows_is_limited() {
    let service = Service::start_with(|config| config.requests_per_minute = 100).await;
    let _relay = Relay::enrol(&service, "one").await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let invites = granted(40, async || owner.invite(party.session, 1, 1).await).await;
    assert!((18..=21).contains(&invites.unwrap()), "20 changes, less the party: {invites:?}");

    // Entries count as those did.
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let (entry_path, mut turn) = (path::of_party(path::ENTRY, party.session), 0);
    let entries = granted(40, async || {
        turn += 1;
        let entry = owner.entry(&party, ["owner", "other"][turn % 2]);
        owner.send::<_, Value>(Method::PUT, &entry_path, &entry).await
    });
    let entries = entries.await.unwrap();
    assert!((19..=25).contains(&entries), "20 changes, less the party: {entries}");
    let tickets =
        async || owner.in_party::<_, TicketGrant>(path::TICKET, party.session, &empty()).await;
    let tickets = granted(100, tickets).await.unwrap();
    assert!((25..=45).contains(&tickets), "50 requests, less those before: {tickets}");
}

/// A stream that asked again and again for everything was given it each time.
#[tokio::test]
async fn regression_snapshots_on_demand_are_limited() {
    let service = Service::start_with(|config| config.requests_per_minute = 100).await;
    let device = Device::register(&service).await;
    let mut stream = Stream::open(&device, None).await;
    stream.snapshot().await;
    let mut given = 1;
    let end = loop {
        stream.0.send(&DeviceUp::Follow { cursor: None }).await.unwrap();
        match stream.0.receive::<DeviceDown>().await {
            Ok(Some(_)) => given += 1,
            end => break end,
        }
        assert!(given < 40);
    };
    assert_refused(end, ErrorCode::RateLimited);
    assert!((10..=13).contains(&given), "{given}");
}

/// Who has no token, or sends no body that can be read, cost look-ups and time, and was not counted.
#[tokio::test]
async fn regression_what_is_refused_counts_as_well() {
    let service = Service::start_with(|config| config.requests_per_minute = 10).await;
    let connection = service.client().connect(DEADLINE).await.unwrap();
    let register = async || {
        let body = json!({ "device": 1 });
        connection.request::<_, Value>(Method::POST, path::DEVICES, None, &body, DEADLINE).await
    };
    let registered = granted(30, register).await.unwrap();
    assert!((10..=12).contains(&registered), "{registered}");
    let client = service.client();
    let open = async || client.websocket(path::RELAY_STREAM, None, DEADLINE).await;
    let opened = granted(30, open).await.unwrap();
    assert!((5..=7).contains(&opened), "{opened}");
    let guess = async || {
        let (token, path) = (Token(random()), path::INVITE_OPEN);
        connection.request::<_, Value>(Method::POST, path, Some(&token), &empty(), DEADLINE).await
    };
    let guessed = granted(200, guess).await.unwrap();
    assert!((60..=100).contains(&guessed), "100 requests in all: {guessed}");
}

/// The limits are for loops: a lab of people behind one address notices nothing of them.
#[tokio::test]
async fn twenty_rounds_behind_one_address_pass_the_default_limits() {
    let service = Service::start_with(|config| config.requests_per_minute = 600).await;
    let _relay = Relay::enrol(&service, "one").await;
    let owner = Device::register(&service).await;
    for _ in 0..20 {
        let party = owner.create_party().await.party;
        owner.publish(&party).await;
        let invite = owner.invite(party.session, 1, 9).await.unwrap();
        for name in ["one", "two", "three"] {
            let guest = Device::register(&service).await;
            let _: OpenedInvite =
                guest.post(path::INVITE_OPEN, &json!({ "invite": invite.hash() })).await.unwrap();
            let party = guest.redeem(&invite, name).await.unwrap().party;
            guest.publish(&party).await;
            let _: TicketGrant =
                guest.in_party(path::TICKET, party.session, &empty()).await.unwrap();
            guest.state(party.session).await;
        }
        owner.kick(&owner.state(party.session).await, member(4)).await.unwrap();
        let _: Value = owner.in_party(path::LEAVE, party.session, &empty()).await.unwrap();
    }
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
