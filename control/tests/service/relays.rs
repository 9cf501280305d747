use std::time::Duration;

use ed25519_dalek::SigningKey;
use lanrage_control_client::{Connection, Error, Method};
use lanrage_proto::api::{
    Change, Enrolled, Enrolment, ErrorCode, RELAY_PROOF_CONTEXT, RelayDown, RelayUp, path,
};
use lanrage_proto::bytes::Token;
use lanrage_proto::map::{RelayMap, TlsAccess};
use lanrage_proto::signed::{RelayCertificate, sign};
use lanrage_proto::{DeviceKey, Generation, KeyId, RelayId, TunnelKey};
use sqlx::Connection as _;

use crate::support::*;

async fn enrol(connection: &Connection, request: &Enrolment) -> Result<Enrolled, Error> {
    connection.request(Method::POST, path::ENROL, None, request, DEADLINE).await
}

async fn certificate(relay: &mut Relay) -> RelayCertificate {
    let fits = |message: &RelayDown| matches!(message, RelayDown::Certificate { .. });
    let RelayDown::Certificate { certificate } = relay.until(fits).await else { panic!() };
    certificate
}

#[tokio::test]
async fn a_token_enrols_one_relay_once() {
    let service = Service::start().await;
    let connection = service.client().connect(DEADLINE).await.unwrap();
    let token = relay_token(&service).await.secret;
    let identity = SigningKey::from_bytes(&random());
    let request = enrolment(token, "fra1", &identity, &connection);
    for wrong in [
        Enrolment { name: "No Name".to_owned(), ..request.clone() },
        Enrolment { ipv4: None, ..request.clone() },
        Enrolment { ipv4: Some("0.0.0.0:51820".parse().unwrap()), ..request.clone() },
        Enrolment { ipv6: Some("[fe80::1%2]:51820".parse().unwrap()), ..request.clone() },
        Enrolment { key: TunnelKey([0; 32]), ..request.clone() },
    ] {
        assert_refused(enrol(&connection, &wrong).await, ErrorCode::BadRequest);
    }
    let unknown = Enrolment { token: Token(random()), ..request.clone() };
    assert_refused(enrol(&connection, &unknown).await, ErrorCode::BadEnrolment);

    let first = enrol(&connection, &request).await.unwrap();
    let again = enrol(&connection, &request).await.unwrap();
    assert_eq!(first.relay, again.relay, "the answer may have been lost");
    let other = enrolment(token, "fra2", &SigningKey::from_bytes(&random()), &connection);
    assert_refused(enrol(&connection, &other).await, ErrorCode::BadEnrolment);

    let late = relay_token(&service).await.secret;
    service.clock.advance(Duration::from_secs(3_600));
    let late = enrolment(late, "fra3", &SigningKey::from_bytes(&random()), &connection);
    assert_refused(enrol(&connection, &late).await, ErrorCode::BadEnrolment);
    assert_eq!(service.map().await.relays.len(), 1);
}

/// Whoever had any token could take a relay's place in the pool by naming its identity key.
#[tokio::test]
async fn regression_a_relays_place_is_not_taken_by_its_public_key() {
    let (service, relay) = Service::with_relay().await;
    let connection = service.client().connect(DEADLINE).await.unwrap();
    let before = service.map().await;
    let token = relay_token(&service).await.secret;
    let genuine = enrolment(token, "thief", &relay.identity, &connection);
    let other = service.client().connect(DEADLINE).await.unwrap();
    let stranger = enrolment(token, "thief", &SigningKey::from_bytes(&random()), &connection);
    for thief in [
        Enrolment { identity: genuine.identity, ..stranger },
        enrolment(token, "thief", &relay.identity, &other),
    ] {
        assert_refused(enrol(&connection, &thief).await, ErrorCode::BadProof);
    }
    assert_eq!(service.map().await, before);
    assert_eq!(enrol(&connection, &genuine).await.unwrap().relay, relay.id, "itself it may");
}

/// The certificate has no room for a scope, so it never said what the relay had: every minute had
/// a new certificate and a new map, pushed to everybody.
#[tokio::test]
async fn regression_an_address_with_a_scope_does_not_stir_the_map() {
    let (service, relay) = Service::with_relay().await;
    let before = service.map().await;
    let mut stream = service.client().websocket(path::RELAY_STREAM, None, DEADLINE).await.unwrap();
    let proof = sign(&relay.identity, RELAY_PROOF_CONTEXT, &stream.channel_binding());
    let ipv6 = Some("[2001:db8::1%2]:51820".parse().unwrap());
    let prove = RelayUp::Prove { relay: relay.id, proof, ipv4: None, ipv6, tls: None, cursor: 0 };
    stream.send(&prove).await.unwrap();
    assert_refused(stream.receive::<RelayDown>().await, ErrorCode::BadRequest);
    for _ in 0..2 {
        service.advance(Duration::from_secs(61)).await;
        assert_eq!(service.map().await, before);
    }
}

#[tokio::test]
async fn a_stream_begins_with_a_proof_over_its_own_connection() {
    let (service, relay) = Service::with_relay().await;
    let client = service.client();
    let open = async || client.websocket(path::RELAY_STREAM, None, DEADLINE).await.unwrap();
    let prove = |key: &SigningKey, relay, binding: &[u8; 32]| RelayUp::Prove {
        relay,
        proof: sign(key, RELAY_PROOF_CONTEXT, binding),
        ipv4: Some(RELAY_IPV4),
        ipv6: None,
        tls: None,
        cursor: 0,
    };
    let (mut first, second) = (open().await, open().await);
    first.send(&prove(&relay.identity, relay.id, &second.channel_binding())).await.unwrap();
    assert_refused(first.receive::<RelayDown>().await, ErrorCode::BadProof);

    let mut stream = open().await;
    let stranger = SigningKey::from_bytes(&random());
    stream.send(&prove(&stranger, relay.id, &stream.channel_binding())).await.unwrap();
    assert_refused(stream.receive::<RelayDown>().await, ErrorCode::BadProof);

    let mut stream = open().await;
    stream.send(&prove(&stranger, RelayId(77), &stream.channel_binding())).await.unwrap();
    assert_refused(stream.receive::<RelayDown>().await, ErrorCode::BadEnrolment);

    let mut stream = open().await;
    let heartbeat = lanrage_proto::api::Heartbeat {
        leases: 0,
        sessions: 0,
        draining: false,
        cursor: 0,
        version: String::new(),
        now: 0,
    };
    stream.send(&RelayUp::Heartbeat(heartbeat)).await.unwrap();
    assert_refused(stream.receive::<RelayDown>().await, ErrorCode::BadProof);
}

/// A proof that does not hold waited for the writers, and they for it.
#[tokio::test]
async fn regression_a_false_proof_does_not_hold_writers_up() {
    let (service, relay) = Service::with_relay().await;
    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut db).await.unwrap();
    let stranger = SigningKey::from_bytes(&random());
    let mut false_one = Relay::connect(&service, relay.id, stranger, 0).await.unwrap();
    assert_refused(false_one.stream.receive::<RelayDown>().await, ErrorCode::BadProof);
}

#[tokio::test]
async fn a_relay_gets_certificate_map_revocations_and_ticks() {
    let (service, old) = Service::with_relay().await;
    let mut relay = Relay::connect(&service, old.id, old.identity, 0).await.unwrap();
    let RelayDown::Certificate { certificate } = relay.next().await else { panic!() };
    let RelayDown::Map { map } = relay.next().await else { panic!() };
    let map = map.verify(&service.endpoint().root).unwrap();
    certificate.verify(&map, service.clock.now()).unwrap();
    assert!(certificate.verify(&map, service.clock.now() + 31 * 86_400).is_err());
    let RelayDown::Snapshot { cursor, revocations } = relay.next().await else { panic!() };
    assert!(cursor > 0 && revocations.is_empty());
    for _ in 0..2 {
        let RelayDown::Tick { now } = relay.next().await else { panic!() };
        assert!(now.abs_diff(service.clock.now()) <= 1);
    }
}

#[tokio::test]
async fn revocations_follow_the_cursor() {
    let (service, relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let session = party.session;
    let invite = owner.invite(session, 1, 9).await.unwrap();
    for name in ["one", "two"] {
        Device::register(&service).await.redeem(&invite, name).await.unwrap();
    }
    owner.kick(&owner.state(session).await, member(2)).await.unwrap();
    owner.kick(&owner.state(session).await, member(3)).await.unwrap();

    let revocations = async |cursor| {
        let mut stream =
            Relay::connect(&service, relay.id, relay.identity.clone(), cursor).await.unwrap();
        let mut messages = Vec::new();
        loop {
            match stream.next().await {
                RelayDown::Tick { .. } => return messages,
                RelayDown::Certificate { .. } | RelayDown::Map { .. } => {}
                other @ (RelayDown::Snapshot { .. } | RelayDown::Revoke { .. }) => {
                    messages.push(other);
                }
            }
        }
    };
    let mut last = 0;
    for cursor in [0, u64::MAX] {
        let messages = revocations(cursor).await;
        let [RelayDown::Snapshot { cursor, revocations }] = &messages[..] else {
            panic!("{messages:?}")
        };
        assert_eq!(revocations.len(), 2);
        assert_eq!((revocations[0].session, revocations[0].member), (session, member(2)));
        assert_eq!(revocations[0].generation, Generation(2));
        last = *cursor;
    }
    let messages = revocations(last - 1).await;
    let [RelayDown::Revoke { cursor, revocation }] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((*cursor, revocation.member), (last, member(3)));
    assert_eq!(revocations(last).await, []);

    // The last one of a member holds for those before.
    let invite = owner.invite(session, 3, 9).await.unwrap();
    let guest = Device::register(&service).await;
    assert_eq!(guest.redeem(&invite, "three").await.unwrap().party.you, member(4));
    owner.kick(&owner.state(session).await, member(4)).await.unwrap();
    let invite = owner.invite(session, 4, 9).await.unwrap();
    assert_eq!(guest.redeem(&invite, "three").await.unwrap().party.you, member(4));
    owner.kick(&owner.state(session).await, member(4)).await.unwrap();
    let messages = revocations(0).await;
    let [RelayDown::Snapshot { cursor, revocations: newest }] = &messages[..] else {
        panic!("{messages:?}")
    };
    let newest_cursor = *cursor;
    assert!(newest_cursor > last);
    let generations: Vec<_> = newest.iter().map(|revoked| revoked.generation.0).collect();
    assert_eq!(generations, [2, 2, 3]);

    // After every ticket and lease of the old generation is over, nobody needs to know.
    service.advance(4 * DAY).await;
    let messages = revocations(0).await;
    assert_eq!(messages, [RelayDown::Snapshot { cursor: newest_cursor, revocations: Vec::new() }]);
}

/// All revocations went into one message: some 200,000 were more than a relay reads, and a new one
/// never had a stream.
#[tokio::test]
async fn regression_many_revocations_come_in_pieces() {
    const AT_ONCE: u64 = 10_000;
    const ALL: u64 = 25_000;
    let (service, relay) = Service::with_relay().await;
    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let many = format!(
        "WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {ALL})
         INSERT INTO revocations (session, member, generation, forget_after)
         SELECT n, 7, 2, {} FROM n",
        service.clock.now() + 86_400,
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many)).execute(&mut db).await.unwrap();
    let mut relay = Relay::connect(&service, relay.id, relay.identity, 0).await.unwrap();
    let snapshot = relay.until(|message| matches!(message, RelayDown::Snapshot { .. })).await;
    let RelayDown::Snapshot { cursor: first, revocations } = snapshot else { panic!() };
    assert_eq!(revocations.len() as u64, AT_ONCE);
    for wanted in AT_ONCE + 1..=ALL {
        let revoke = relay.until(|message| matches!(message, RelayDown::Revoke { .. })).await;
        let RelayDown::Revoke { cursor, revocation } = revoke else { panic!() };
        assert_eq!((cursor - first, revocation.session.0), (wanted - AT_ONCE, wanted));
    }
}

#[tokio::test]
async fn certificates_are_renewed_at_half_their_life_and_when_addresses_change() {
    let (service, mut relay) = Service::with_relay().await;
    let device = Device::register(&service).await;
    let mut stream = Stream::open(&device, None).await;
    stream.snapshot().await;
    let first = service.map().await;
    service.advance(14 * DAY).await;
    assert_eq!(service.map().await, first);
    service.advance(DAY + Duration::from_secs(60)).await;
    let renewed = certificate(&mut relay).await;
    assert!(renewed.not_after.abs_diff(service.clock.now() + 30 * 86_400) <= 1);
    let second = service.map().await;
    assert!(second.serial > first.serial);
    renewed.verify(&second, service.clock.now()).unwrap();
    let Change::Map { map: pushed } = stream.change().await else { panic!() };
    assert_eq!(pushed.verify(&service.endpoint().root).unwrap(), second);

    let mut moved = service.client().websocket(path::RELAY_STREAM, None, DEADLINE).await.unwrap();
    let ipv6 = "[2001:db8::1]:51820".parse().unwrap();
    let proof = sign(&relay.identity, RELAY_PROOF_CONTEXT, &moved.channel_binding());
    let key = DeviceKey([9; 32]);
    let tls = Some(TlsAccess { port: 443.try_into().unwrap(), key });
    let ipv6 = Some(ipv6);
    let prove = RelayUp::Prove { relay: relay.id, proof, ipv4: None, ipv6, tls, cursor: 0 };
    moved.send(&prove).await.unwrap();
    let Some(RelayDown::Certificate { certificate }) = moved.receive().await.unwrap() else {
        panic!()
    };
    assert_eq!((certificate.ipv4, certificate.ipv6), (None, ipv6));
    let third = service.map().await;
    assert!(third.serial > second.serial);
    assert_eq!((second.relays[0].tls, third.relays[0].tls), (None, tls));

    // The same addresses again, and no more TLS: the map says that, too.
    let mut closed = service.client().websocket(path::RELAY_STREAM, None, DEADLINE).await.unwrap();
    let proof = sign(&relay.identity, RELAY_PROOF_CONTEXT, &closed.channel_binding());
    let tls = None;
    let prove = RelayUp::Prove { relay: relay.id, proof, ipv4: None, ipv6, tls, cursor: 0 };
    closed.send(&prove).await.unwrap();
    closed.receive::<RelayDown>().await.unwrap();
    assert_eq!(service.map().await.relays[0].tls, None);
}

/// The new key is listed before it signs, and the old one stays listed while what it signed holds.
#[tokio::test]
async fn two_signing_keys_overlap() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let old = owner.create_party().await.ticket.ticket;
    let keys = |map: &RelayMap| map.signing_keys.iter().map(|key| key.id).collect::<Vec<_>>();
    assert_eq!(keys(&service.map().await), [KeyId(1)]);

    service.advance(30 * DAY).await;
    let listed = service.map().await;
    assert_eq!(keys(&listed), [KeyId(1), KeyId(2)]);
    service.clock.advance(Duration::from_secs(60));
    let session = old.body.session;
    let grant = async || {
        owner
            .in_party::<_, lanrage_proto::api::TicketGrant>(path::TICKET, session, &empty())
            .await
            .unwrap()
            .ticket
    };
    assert_eq!(grant().await.body.key_id, KeyId(1), "relays have had no time to learn the new one");
    service.clock.advance(Duration::from_secs(3_600));
    let new = grant().await;
    assert_eq!(new.body.key_id, KeyId(2));
    old.verify(&listed).unwrap();
    new.verify(&listed).unwrap();

    service.advance(30 * DAY).await;
    service.advance(3 * DAY).await;
    service.advance(30 * DAY).await;
    let listed = service.map().await;
    assert!(!keys(&listed).contains(&KeyId(1)), "{listed:?}");
    let service = service.restart().await;
    let restarted = service.map().await;
    assert_eq!(restarted.signing_keys, listed.signing_keys);
    assert!(restarted.serial > listed.serial);
}

#[tokio::test]
async fn parties_get_the_least_loaded_relays_that_serve_and_keep_them() {
    let service = Service::start().await;
    let mut relays = Vec::new();
    for (name, load) in [("one", 9), ("two", 5), ("three", 7)] {
        let mut relay = Relay::enrol(&service, name).await;
        relay.heartbeat(load, false).await;
        relays.push(relay);
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    assert_eq!(party.relays, [relays[1].id, relays[2].id]);
    let mut stream = Stream::open(&owner, None).await;
    stream.snapshot().await;

    // The second falls silent: nothing changes for 10 minutes.
    let keep = async |relays: &mut Vec<Relay>, indices: &[usize]| {
        for index in indices {
            relays[*index].heartbeat(9, false).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for minutes in [5, 4] {
        service.clock.advance(Duration::from_secs(minutes * 60));
        keep(&mut relays, &[0, 2]).await;
        service.server.run_jobs().await.unwrap();
        assert_eq!(owner.state(party.session).await.relays, party.relays);
    }
    let mut stream = Stream::open(&owner, None).await;
    stream.snapshot().await;
    service.clock.advance(Duration::from_secs(61));
    keep(&mut relays, &[0, 2]).await;
    service.server.run_jobs().await.unwrap();
    let replaced = vec![relays[0].id, relays[2].id];
    let change = Change::Relays { session: party.session, relays: replaced.clone() };
    assert_eq!(stream.change().await, change);

    // The operator removes one: it is told, the map and the list lose it.
    let removed = relays[2].id;
    service.command(&["relay", "remove", &removed.to_string()]).await;
    keep(&mut relays, &[0, 1]).await;
    service.server.run_jobs().await.unwrap();
    loop {
        match relays[2].stream.receive::<RelayDown>().await {
            Ok(Some(_)) => {}
            end => break assert_refused(end, ErrorCode::BadEnrolment),
        }
    }
    assert!(service.map().await.relay(removed).is_none());
    let relays_now = owner.state(party.session).await.relays;
    assert_eq!(relays_now, [relays[0].id, relays[1].id]);
}

#[tokio::test]
async fn a_short_list_grows_and_draining_relays_take_nothing_new() {
    let (service, one) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    assert_eq!(party.relays, [one.id]);
    let mut two = Relay::enrol(&service, "two").await;
    service.server.run_jobs().await.unwrap();
    assert_eq!(owner.state(party.session).await.relays, [one.id, two.id]);
    two.heartbeat(0, true).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(owner.create_party().await.party.relays, [one.id]);
    assert_eq!(owner.state(party.session).await.relays, [one.id, two.id]);
}

/// A copied state directory took the relay's address for good, and nobody was told of it.
#[tokio::test]
async fn regression_the_address_comes_back_when_a_copy_of_the_relay_ends() {
    let (service, mut relay) = Service::with_relay().await;
    let elsewhere = "198.51.100.9:51820".parse().unwrap();
    let id = relay.id;
    let announced = async || service.map().await.relay(id).unwrap().certificate.ipv4;
    let mut copy = Relay::connect_from(&service, relay.id, relay.identity.clone(), 0, elsewhere)
        .await
        .unwrap();
    copy.until(|message| matches!(message, RelayDown::Tick { .. })).await;
    assert_eq!(announced().await, Some(elsewhere), "the newer wins");
    drop(copy);
    certificate(&mut relay).await;
    let restored = async {
        while announced().await != Some(RELAY_IPV4) {
            relay.heartbeat(0, false).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, restored).await.expect("the older one's address is back");
}

/// A party was made on a relay that had been dead for long before control's restart.
#[tokio::test]
async fn regression_a_restart_takes_no_dead_relay_for_a_live_one() {
    let (service, relay) = Service::with_relay().await;
    drop(relay);
    let mut live = Relay::enrol(&service, "two").await;
    // The service notes whom it hears every 15 s, which may be just before a heartbeat comes.
    for step_s in [90, 9, 9] {
        service.clock.advance(Duration::from_secs(step_s));
        live.heartbeat(0, false).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    service.server.run_jobs().await.unwrap();
    let list = service.command(&["relay", "list", "--json"]).await;
    let service = service.restart().await;
    let party = Device::register(&service).await.create_party().await.party;
    assert_eq!(party.relays, [live.id], "{list}");
}
