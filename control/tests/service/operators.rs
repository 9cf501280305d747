use std::net::SocketAddr;

use lanrage_control::{Clock, Failure, Server};
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

/// The value of a line of `/metrics`, by its name and labels; 0 when there is none.
fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

/// The recorder is the process's, and other tests count as well; what nobody counts stays.
#[tokio::test]
async fn health_and_metrics_tell_what_happens() {
    let (service, _relay) = Service::with_relay().await;
    let metrics = service.server.metrics_address().unwrap();
    assert!(get(metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(metrics, "/readyz").await.starts_with("HTTP/1.1 200"));
    let before = get(metrics, "/metrics").await;

    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 1).await.unwrap();
    Device::register(&service).await.redeem(&invite, "guest").await.unwrap();
    owner.kick(&owner.state(session).await, member(2)).await.unwrap();
    let mut stream = Stream::open(&owner, Some(u64::MAX)).await;
    stream.snapshot().await;
    let streams = get(metrics, "/metrics").await;
    for kind in ["device", "relay"] {
        let series = format!("lanrage_control_streams{{kind=\"{kind}\"}}");
        assert!(value(&streams, &series) >= 1.0, "{series} in {streams}");
    }

    let limited = Service::start_with(|config| config.requests_per_minute = 1).await;
    let device = Device::register(&limited).await;
    let proof = proof_of(&device.key, &device.connection.channel_binding());
    let refused = device.post::<_, serde_json::Value>(path::DEVICES, &proof).await;
    assert_refused(refused, ErrorCode::RateLimited);

    let mut plain = tokio::net::TcpStream::connect(service.server.addresses()[0]).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    plain.read_to_end(&mut Vec::new()).await.unwrap();

    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("DROP TABLE tokens").execute(&mut db).await.unwrap();
    let party = path::of_party(path::TICKET, session);
    assert_refused(owner.post::<_, serde_json::Value>(&party, &empty()).await, ErrorCode::Internal);

    let after = get(metrics, "/metrics").await;
    for series in [
        "lanrage_control_requests_total{status=\"200\"}",
        "lanrage_control_requests_total{status=\"429\"}",
        "lanrage_control_requests_total{status=\"500\"}",
        "lanrage_control_kicks_total",
        "lanrage_control_rate_limited_total",
        "lanrage_control_connection_failures_total",
        "lanrage_control_store_errors_total",
        "lanrage_control_stream_snapshots_total",
        "lanrage_control_invites_redeemed_total",
    ] {
        assert!(value(&after, series) > value(&before, series), "{series} in {after}");
    }

    let page = include_str!("../../../docs/src/metrics.md");
    for name in after.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = name.split(' ').next().unwrap();
        assert!(page.contains(&format!("`{name}`")), "{name} stands in no document");
    }
}

#[tokio::test]
async fn the_commands_look_at_the_running_service() {
    let (service, relay) = Service::with_relay().await;
    let session = Device::register(&service).await.create_party().await.party.session;
    let relays = service.command(&["relay", "list"]).await;
    assert!(
        relays.contains(&format!("{:>5}  one", relay.id.0)) && relays.contains("192.0.2.1:51820")
    );
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
    assert!(begun.elapsed() < std::time::Duration::from_secs(2));
    assert!(stream.0.receive::<serde_json::Value>().await.unwrap().is_none(), "said goodbye");
}

/// What went wrong inside stays in the log.
#[tokio::test]
async fn a_failing_database_is_an_internal_error_and_not_ready() {
    let service = Service::start().await;
    let device = Device::register(&service).await;
    let file = service.dir.path().join("control.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file);
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("DROP TABLE tokens; DROP TABLE pool").execute(&mut db).await.unwrap();
    let ticket = path::of_party(path::TICKET, SessionId(1));
    let refused = device.post::<_, serde_json::Value>(&ticket, &empty()).await;
    let text = format!("{refused:?}");
    assert_refused(refused, ErrorCode::Internal);
    assert!(!text.contains("tokens") && !text.contains("SQL"), "{text}");
    let metrics = service.server.metrics_address().unwrap();
    assert!(get(metrics, "/readyz").await.starts_with("HTTP/1.1 503"));
    assert!(get(metrics, "/healthz").await.starts_with("HTTP/1.1 200"));
}
