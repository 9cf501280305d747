use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lanrage_control::{Clock, Failure, Server};
use lanrage_control_client::Method;
use lanrage_proto::SessionId;
use lanrage_proto::api::{ErrorCode, path};
use lanrage_proto::party::ServerAddress;
use sqlx::Connection as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::*;

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What a counter or gauge shows.
async fn shown(metrics: SocketAddr, name: &str) -> f64 {
    let text = get(metrics, "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// The recorder is the process's: where tests share one, others count as well.
#[tokio::test]
async fn health_and_metrics_tell_what_happens() {
    let (service, _relay) = Service::with_relay().await;
    let metrics = service.server.metrics_address().unwrap();
    assert!(get(metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(metrics, "/readyz").await.starts_with("HTTP/1.1 200"));
    assert!(shown(metrics, "lanrage_control_streams{kind=\"relay\"}").await >= 1.0);
    let names = [
        "lanrage_control_requests_total{status=\"200\"}",
        "lanrage_control_rate_limited_total",
        "lanrage_control_connection_failures_total",
        "lanrage_control_connections_refused_total",
        "lanrage_control_store_errors_total",
        "lanrage_control_stream_snapshots_total",
        "lanrage_control_invites_redeemed_total",
        "lanrage_control_kicks_total",
    ];
    let mut before = Vec::new();
    Device::register(&service).await;
    for name in names {
        before.push(shown(metrics, name).await);
    }

    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let invite = owner.invite(party.session, 1, 1).await.unwrap();
    Device::register(&service).await.redeem(&invite, "guest").await.unwrap();
    owner.kick(&owner.state(party.session).await, member(2)).await.unwrap();
    Stream::open(&owner, Some(0)).await.snapshot().await;
    fail_the_database(&service).await;
    owner.redeem(&invite, "guest").await.unwrap_err();
    let small = Service::start_with(|config| {
        config.requests_per_minute = 1;
        config.connections_max = 100;
    });
    let small = small.await;
    let mut held = Vec::new();
    for _ in 0..65 {
        held.push(tokio::net::TcpStream::connect(small.server.addresses()[0]).await.unwrap());
    }
    drop(held);
    let connection = loop {
        // Until the others' ends are seen there is no room.
        if let Ok(connection) = small.client().connect(DEADLINE).await {
            break connection;
        }
    };
    for _ in 0..2 {
        let body = empty();
        let asked = connection.request::<_, serde_json::Value>(
            Method::POST,
            path::DEVICES,
            None,
            &body,
            DEADLINE,
        );
        asked.await.unwrap_err();
    }

    for (name, before) in names.into_iter().zip(before) {
        assert!(shown(metrics, name).await > before, "{name}");
    }
    let page = include_str!("../../../docs/src/metrics.md");
    let text = get(metrics, "/metrics").await;
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = name.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{name}`")), "{name} stands in no document");
    }
}

/// Takes away what every request needs.
async fn fail_the_database(service: &Service) {
    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("DROP TABLE tokens; DROP TABLE pool").execute(&mut db).await.unwrap();
}

#[tokio::test]
async fn the_commands_look_at_the_running_service() {
    let (service, relay) = Service::with_relay().await;
    let session = Device::register(&service).await.create_party().await.party.session;
    let relays = service.command(&["relay", "list"]).await;
    let row = relays.lines().nth(1).unwrap();
    for word in [&relay.id.to_string(), "one", "connected", "0 s ago", "192.0.2.1:51820"] {
        assert!(row.contains(word), "{word} in {relays}");
    }
    let json = service.command(&["relay", "list", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["relays"][0]["state"], "connected");
    let parties = service.command(&["party", "list"]).await;
    assert_eq!(parties, format!("{session}    1  party\n"));
    let address = service.command(&["address", "--public", "lan.example:8443"]).await;
    let address: ServerAddress = address.trim().parse().unwrap();
    assert_eq!((address.host.as_str(), address.port), ("lan.example", 8443));
    assert_eq!(address.root, service.endpoint().root);
}

#[tokio::test]
async fn a_directory_has_one_service_and_survives_it() {
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let second = Server::start(&service.config, Clock::default()).await;
    let pid = std::process::id().to_string();
    match second {
        Err(Failure::State(message)) => assert!(message.contains(&pid), "{message}"),
        other => panic!("{other:?}"),
    }
    let service = service.restart().await;
    let owner = Device::register_key(&service, owner.key.clone()).await;
    let after = owner.state(party.session).await;
    assert_eq!((after.relays, after.prefix), (party.relays, party.prefix));
}

/// With a full disk every request that writes failed, and the service was ready all the while.
#[tokio::test]
async fn regression_a_service_that_cannot_write_is_not_ready() {
    let (service, _relay) = Service::with_relay().await;
    let metrics = service.server.metrics_address().unwrap();
    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let full = "CREATE TRIGGER full BEFORE UPDATE ON pool
                BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END";
    sqlx::raw_sql(full).execute(&mut db).await.unwrap();
    service.clock.advance(Duration::from_secs(15));
    service.server.run_jobs().await.unwrap_err();
    let answer = get(metrics, "/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("disk full"), "{answer}");
    assert!(get(metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
    sqlx::raw_sql("DROP TRIGGER full").execute(&mut db).await.unwrap();
    service.advance(Duration::from_secs(60)).await;
    assert!(get(metrics, "/readyz").await.starts_with("HTTP/1.1 200"));
}

/// Nothing told an operator that a party was made, joined, left, or lost a member.
#[tokio::test]
async fn regression_what_happens_to_parties_is_logged_without_names_or_keys() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _until_the_end = tracing::subscriber::set_default(subscriber.finish());
    let (service, _relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let party = owner.create_party().await.party;
    let invite = owner.invite(party.session, 1, 2).await.unwrap();
    for name in ["guest", "other"] {
        Device::register(&service).await.redeem(&invite, name).await.unwrap();
    }
    owner.kick(&owner.state(party.session).await, member(2)).await.unwrap();
    let _: serde_json::Value = owner.in_party(path::LEAVE, party.session, &empty()).await.unwrap();
    let log = log.text();
    let session = format!("session={}", party.session);
    for said in [
        "a party was created",
        "member=2",
        "a member joined",
        "a member was kicked",
        "by=1",
        "a member left",
        "heir=3",
    ] {
        let found = log.lines().any(|line| line.contains(said) && line.contains(&session));
        assert!(found, "{said} in {log}");
    }
    for never in ["guest", "127.0.0.1"] {
        assert!(!log.contains(never), "{never} in {log}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Mute connections hold neither the service nor its end up.
#[tokio::test]
async fn silent_connections_do_not_hinder_others_nor_the_end() {
    let service = Service::start().await;
    let address = service.server.addresses()[0];
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    let device = Device::register(&service).await;
    let mut stream = Stream::open(&device, None).await;
    stream.snapshot().await;
    let begun = std::time::Instant::now();
    service.server.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert!(stream.0.receive::<serde_json::Value>().await.unwrap().is_none(), "said goodbye");
}

/// One host with more connections than its share, all silent, used up everybody's.
#[tokio::test]
async fn regression_one_network_cannot_take_all_connections() {
    const MAX: usize = 700;
    const SHARE: usize = 70;
    let service = Service::start_with(|config| config.connections_max = MAX).await;
    let address = service.server.addresses()[0];
    // Another /24 of this host.
    let from = async |ip: [u8; 4]| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((ip, 0))).unwrap();
        socket.connect(address).await.unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..SHARE {
        held.push(from([127, 9, 9, 1]).await);
    }
    let mut more = from([127, 9, 9, 2]).await;
    let end = tokio::time::timeout(DEADLINE, more.read(&mut [0])).await.unwrap();
    assert!(matches!(end, Ok(0) | Err(_)), "closed at once: {end:?}");
    Device::register(&service).await;
    drop(held);
    let mut again = from([127, 9, 9, 1]).await;
    let mut byte = [0];
    let end = tokio::time::timeout(Duration::from_millis(300), again.read(&mut byte));
    assert!(end.await.is_err(), "there is room again");
}

/// What went wrong inside stays in the log.
#[tokio::test]
async fn a_failing_database_is_an_internal_error_and_not_ready() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    fail_the_database(&service).await;
    let ticket = path::of_party(path::TICKET, SessionId(1));
    let refused = device.post::<_, serde_json::Value>(&ticket, &empty()).await;
    let text = format!("{refused:?}");
    assert_refused(refused, ErrorCode::Internal);
    assert!(!text.contains("tokens") && !text.contains("SQL"), "{text}");
    let metrics = service.server.metrics_address().unwrap();
    assert!(get(metrics, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
}
