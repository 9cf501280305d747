use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use lanrage_proto::api::{CHANNEL_BINDING_LABEL, CHANNEL_BINDING_LEN};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::api::Connection;
use crate::domain::limits::{CONNECTIONS_NETWORK_MIN, CONNECTIONS_NETWORK_PART};
use crate::network::{Network, Part, Shared};
use crate::stopping::Stopping;

/// From TCP's to TLS's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of a request, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Requests at once on one connection.
const REQUESTS_MAX: u32 = 32;
/// A connection on which no request begins for this long is closed, though it answers pings: over
/// HTTP/1.1 `HEAD_TIMEOUT` ends it sooner.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// What a peer may send on one HTTP/2 stream, and on all of a connection, before it is read; the
/// largest body, a kick, takes two round trips.
const STREAM_WINDOW: u32 = 64 << 10;
const CONNECTION_WINDOW: u32 = 128 << 10;
/// The same for HTTP/1.1; also the longest head of a request.
const HTTP1_BUFFER_LEN: usize = 32 << 10;
/// When accepting fails, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Places for all connections over all listeners.
pub(super) fn places(connections_max: usize) -> Shared {
    let total = u32::try_from(connections_max).unwrap_or(u32::MAX);
    let share = (total / CONNECTIONS_NETWORK_PART).max(CONNECTIONS_NETWORK_MIN);
    Shared::new(total, share)
}

/// A connection's place among all.
struct Place {
    network: Network,
    part: Arc<Part>,
}

/// Accepts until the service stops, then lets every connection end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    places: Shared,
    mut stopping: Stopping,
) {
    let acceptor = TlsAcceptor::from(tls);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.begun() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        let (tcp, place) = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => {
                metrics::counter!("lanrage_control_connections_refused_total").increment(1);
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, routes, stopping) = (acceptor.clone(), routes.clone(), stopping.clone());
        connections.spawn(async move {
            if let Err(error) = serve_one(tcp, &acceptor, place, routes, stopping).await {
                metrics::counter!("lanrage_control_connection_failures_total").increment(1);
                tracing::debug!(error = format!("{error:#}"), "a connection failed");
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection and its place; `None` for one whose network has its share of them, which is
/// closed at once.
async fn accept(
    listener: &TcpListener,
    places: &Shared,
) -> std::io::Result<Option<(TcpStream, Place)>> {
    let place = places.one().await;
    let (tcp, peer) = listener.accept().await?;
    let network = Network::from(peer.ip());
    let place = places.give(place, network);
    Ok(place.map(|place| (tcp, Place { network, part: Arc::new(place) })))
}

async fn serve_one(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
    place: Place,
    routes: Router,
    stopping: Stopping,
) -> anyhow::Result<()> {
    tcp.set_nodelay(true).context("setting TCP_NODELAY")?;
    let tls = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
    let tls =
        tls.context("the TLS handshake took too long")?.context("the TLS handshake failed")?;
    let connection = Connection {
        channel_binding: channel_binding(&tls)?,
        network: place.network,
        requests: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
        place: place.part,
    };
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    serve_http(tls, http2, connection, routes, stopping).await
}

async fn serve_http(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    http2: bool,
    connection: Connection,
    routes: Router,
    mut stopping: Stopping,
) -> anyhow::Result<()> {
    let (begun, mut requests) = watch::channel(());
    let service = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        begun.send_replace(());
        request.extensions_mut().insert(connection.clone());
        service.call(request)
    });
    let builder = builder();
    // Told by ALPN: reading the first bytes to find out has no time-out in hyper-util.
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(io), service);
    tokio::pin!(serving);
    let served = loop {
        tokio::select! {
            served = &mut serving => break served,
            () = stopping.begun() => {
                serving.as_mut().graceful_shutdown();
                break serving.await;
            }
            begun = timeout(IDLE_TIMEOUT, requests.changed()) => if begun.is_err() {
                serving.as_mut().graceful_shutdown();
                // Whoever does not take part in the goodbye is cut off.
                break timeout(HANDSHAKE_TIMEOUT, serving).await.unwrap_or(Ok(()));
            },
        }
    };
    served.map_err(|error| anyhow::anyhow!(error))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_LEN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(REQUESTS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(16 << 10);
    builder
}

fn channel_binding(tls: &TlsStream<TcpStream>) -> anyhow::Result<[u8; CHANNEL_BINDING_LEN]> {
    let session = tls.get_ref().1;
    session
        .export_keying_material([0; CHANNEL_BINDING_LEN], CHANNEL_BINDING_LABEL, None)
        .context("exporting the channel binding")
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use axum::routing::get;
    use hyper::client::conn::http2;
    use tokio::time::Instant;

    use super::*;

    /// A client that answered pings kept its connection for ever, and its place from others.
    #[tokio::test(start_paused = true)]
    async fn regression_a_connection_without_requests_is_closed() {
        let places = places(1);
        let network = Network::from(IpAddr::from([127, 0, 0, 1]));
        let place = places.give(places.one().await, network).unwrap();
        let connection = Connection {
            channel_binding: [0; CHANNEL_BINDING_LEN],
            network,
            requests: Arc::new(Semaphore::new(REQUESTS_MAX as usize)),
            place: Arc::new(place),
        };
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let stop = watch::Sender::new(false);
        let routes = Router::new().route("/", get(async || ()));
        tokio::spawn(serve_http(ours, true, connection, routes, Stopping::of(&stop)));
        let (mut sender, driver) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(theirs)).await.unwrap();
        let driver = tokio::spawn(driver);
        for _ in 0..3 {
            sleep(IDLE_TIMEOUT / 2).await;
            let request = hyper::Request::get("http://x/").body(axum::body::Body::empty());
            let answer = sender.send_request(request.unwrap()).await.unwrap();
            assert!(answer.status().is_success());
        }
        let last = Instant::now();
        timeout(Duration::from_secs(3_600), driver).await.unwrap().unwrap().unwrap();
        assert_eq!(last.elapsed().as_secs(), IDLE_TIMEOUT.as_secs());
        timeout(Duration::from_secs(1), places.unused()).await.unwrap();
    }
}
