use std::net::SocketAddrV4;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use lanrage_control_client::Method;
use lanrage_proto::SessionId;
use lanrage_proto::api::{
    Change, DeviceDown, Enrolled, ErrorCode, MemberRecord, Promote, Role, path,
};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::*;

async fn member_change(stream: &mut Stream) -> MemberRecord {
    match stream.change().await {
        Change::Member { member, .. } => member,
        other => panic!("expected a member: {other:?}"),
    }
}

/// Makes one change that every member sees.
async fn turn(owner: &Device, session: SessionId, role: Role) {
    let request = Promote { member: member(2), role };
    let _: Value = owner.in_party(path::PROMOTE, session, &request).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_and_then_every_change() {
    let (service, relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let mut stream = Stream::open(&owner, None).await;
    let (cursor, parties) = stream.snapshot().await;
    assert!(parties.is_empty());

    let party = owner.create_party().await.party;
    let (first, change) = stream.delta().await;
    assert_eq!(first, cursor + 1);
    let Change::Party { party: seen } = change else { panic!("{change:?}") };
    assert_eq!(seen.session, party.session);
    assert_eq!(seen.relays, [relay.id]);

    let invite = owner.invite(party.session, 1, 1).await.unwrap();
    let guest = Device::register(&service).await;
    let guests = guest.redeem(&invite, "guest").await.unwrap().party;
    let record = member_change(&mut stream).await;
    assert_eq!((record.member, record.online, record.entry), (member(2), false, None));
    guest.publish(&guests).await;
    assert!(member_change(&mut stream).await.entry.is_some());

    let _: Value = guest.in_party(path::LEAVE, party.session, &empty()).await.unwrap();
    let (last, change) = stream.delta().await;
    assert_eq!(change, Change::Left { session: party.session, member: member(2) });
    assert_eq!(last, cursor + 4);

    let _: Value = owner.in_party(path::LEAVE, party.session, &empty()).await.unwrap();
    assert_eq!(stream.change().await, Change::Removed { session: party.session, kick: None });
}

#[tokio::test]
async fn online_follows_streams_and_a_short_loss_is_not_seen() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, session) = party_of_two(&service).await;
    let mut stream = Stream::open(&owner, None).await;
    stream.snapshot().await;
    let mut guests = Stream::open(&guest, None).await;
    guests.snapshot().await;
    assert!(member_change(&mut stream).await.online);
    assert!(guest.state(session).await.members.iter().all(|member| member.online));

    // `state` has replaced and closed the guest's stream: back within the delay.
    let mut guests = Stream::open(&guest, None).await;
    guests.snapshot().await;
    turn(&owner, session, Role::Promoted).await;
    let record = member_change(&mut stream).await;
    assert!(record.online && record.role == Role::Promoted, "nothing in between: {record:?}");

    guests.0.close().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.advance(Duration::from_secs(5)).await;
    assert!(!member_change(&mut stream).await.online);
}

/// Turns to online and offline were lost when they could not be noted: others saw ghosts for ever.
#[tokio::test]
async fn regression_a_full_disk_hides_no_turn() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, _session) = party_of_two(&service).await;
    let mut stream = Stream::open(&owner, None).await;
    stream.snapshot().await;
    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON devices
                BEGIN SELECT RAISE(FAIL, 'the disk is full'); END";
    sqlx::raw_sql(full).execute(&mut db).await.unwrap();

    let mut guests = Stream::open(&guest, None).await;
    guests.snapshot().await;
    assert!(member_change(&mut stream).await.online);
    guests.0.close().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.clock.advance(Duration::from_secs(5));
    // Noting fails, here or in the service's own round.
    let _failed = service.server.run_jobs().await;
    assert!(!member_change(&mut stream).await.online);
}

#[tokio::test]
async fn a_stream_resumes_where_it_broke_off() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, session) = party_of_two(&service).await;
    let mut stream = Stream::open(&guest, None).await;
    let (cursor, _) = stream.snapshot().await;
    drop(stream);
    turn(&owner, session, Role::Promoted).await;
    turn(&owner, session, Role::Member).await;

    let mut stream = Stream::open(&guest, Some(cursor)).await;
    assert_eq!(stream.delta().await.0, cursor + 1);
    let (last, _) = stream.delta().await;
    assert_eq!(last, cursor + 2);
    drop(stream);
    let mut stream = Stream::open(&guest, Some(last)).await;
    turn(&owner, session, Role::Promoted).await;
    assert_eq!(stream.delta().await.0, last + 1, "nothing twice");
    drop(stream);

    for cursor in [0, last + 1_000, u64::MAX] {
        Stream::open(&guest, Some(cursor)).await.snapshot().await;
    }
    let service = service.restart().await;
    let again = Device::register_key(&service, guest.key.clone()).await;
    let (_, parties) = Stream::open(&again, Some(last)).await.snapshot().await;
    assert_eq!(parties[0].session, session, "the feed is gone, the party is not");
}

/// A device that was away for longer than its feed is kept came back with its cursor and never heard
/// what it had missed.
#[tokio::test]
async fn regression_a_device_that_was_away_for_long_gets_a_snapshot() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, session) = party_of_two(&service).await;
    let mut stream = Stream::open(&guest, None).await;
    let (cursor, _) = stream.snapshot().await;
    stream.0.close().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    service.advance(Duration::from_secs(5)).await;
    service.advance(Duration::from_secs(301)).await;
    turn(&owner, session, Role::Promoted).await;

    let mut stream = Stream::open(&guest, Some(cursor)).await;
    let (_, parties) = stream.snapshot().await;
    assert_eq!(parties[0].members[1].role, Role::Promoted);
}

#[tokio::test]
async fn a_newer_stream_replaces_the_older() {
    let (service, _relay) = Service::with_relay().await;
    let device = Device::register(&service).await;
    let mut first = Stream::open(&device, None).await;
    first.snapshot().await;
    let mut second = Stream::open(&device, None).await;
    second.snapshot().await;
    assert!(first.0.receive::<Value>().await.unwrap().is_none(), "closed without complaint");
    device.client.websocket(path::STREAM, Some(&device.token), DEADLINE).await.unwrap();
}

/// A stream's place was free as soon as the stream was open, so that anybody could open any number.
#[tokio::test]
async fn regression_streams_count_as_connections() {
    const MAX: usize = 3;
    let service = Service::start_with(|config| config.connections_max = MAX).await;
    let client = service.client();
    let open = async || client.websocket(path::RELAY_STREAM, None, Duration::from_secs(1)).await;
    let mut streams = Vec::new();
    for _ in 0..MAX {
        streams.push(open().await.unwrap());
    }
    assert!(open().await.is_err(), "one more than there may be");
    streams.pop().unwrap().close().await;
    open().await.unwrap();
}

/// The service's end did not wait for streams: some heard no goodbye, and those that had not said
/// who they are never did.
#[test]
fn regression_the_end_waits_for_every_goodbye() {
    let service_runtime = tokio::runtime::Runtime::new().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let service = service_runtime.block_on(Service::start());
    runtime.block_on(async {
        let mut streams = Vec::new();
        for _ in 0..20 {
            let silent = service.client().websocket(path::RELAY_STREAM, None, DEADLINE).await;
            streams.push(Stream(silent.unwrap()));
            let device = Device::register(&service).await;
            let mut stream = Stream::open(&device, None).await;
            stream.snapshot().await;
            streams.push(stream);
        }
        let begun = std::time::Instant::now();
        let end = move || {
            service_runtime.block_on(service.server.stop());
            service_runtime.shutdown_background();
        };
        tokio::task::spawn_blocking(end).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        for mut stream in streams {
            assert!(stream.0.receive::<Value>().await.unwrap().is_none(), "said goodbye");
        }
    });
}

#[tokio::test]
async fn what_is_no_stream_message_is_refused_with_its_reason() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    let stream = device.client.websocket(path::STREAM, Some(&device.token), DEADLINE).await;
    let mut stream = stream.unwrap();
    stream.send(&json!({ "type": "shout" })).await.unwrap();
    assert_refused(stream.receive::<Value>().await, ErrorCode::BadRequest);
}

/// Who asked for a stream in the wrong way got plain text instead of a refusal.
#[tokio::test]
async fn regression_a_stream_is_refused_in_json() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    for stream in [path::STREAM, path::RELAY_STREAM] {
        let refused = device.send::<_, Value>(Method::GET, stream, &empty()).await;
        assert_refused(refused, ErrorCode::BadRequest);
    }
}

/// One reader that reads nothing does not delay the others, and gets a snapshot when it reads.
#[tokio::test]
async fn a_slow_reader_stalls_nobody_and_gets_a_snapshot() {
    const CHANGES: u64 = 500;
    let (service, mut relay) = Service::with_relay().await;
    // A map of many relays makes each change big enough to fill every buffer on the way soon.
    let connection = service.client().connect(DEADLINE).await.unwrap();
    for _ in 0..60 {
        let token = relay_token(&service).await.secret;
        let request = enrolment(token, "filler", &SigningKey::from_bytes(&random()), &connection);
        let enrolled =
            connection.request::<_, Enrolled>(Method::POST, path::ENROL, None, &request, DEADLINE);
        enrolled.await.unwrap();
    }
    let (slow, quick) = (Device::register(&service).await, Device::register(&service).await);
    let mut slow = Stream::open(&slow, None).await;
    let (begin, _) = slow.snapshot().await;
    let mut quick = Stream::open(&quick, None).await;
    quick.snapshot().await;
    for port in 0..CHANGES as u16 {
        let moved = SocketAddrV4::new(*RELAY_IPV4.ip(), 1_000 + port);
        relay = Relay::connect_from(&service, relay.id, relay.identity, 0, moved).await.unwrap();
        let asked = std::time::Instant::now();
        assert!(matches!(quick.change().await, Change::Map { .. }));
        assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    }

    let (mut position, mut deltas, mut snapshots) = (begin, 0, 0);
    while position < begin + CHANGES {
        match slow.next().await {
            DeviceDown::Snapshot { cursor, .. } => {
                snapshots += 1;
                position = cursor;
            }
            DeviceDown::Delta { cursor, .. } => {
                assert_eq!(cursor, position + 1, "no gap without a snapshot");
                deltas += 1;
                position = cursor;
            }
        }
    }
    assert!(snapshots > 0 && deltas < CHANGES, "{snapshots} snapshots, {deltas} deltas");
}
