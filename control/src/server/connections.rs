use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use lanrage_proto::api::{CHANNEL_BINDING_LABEL, CHANNEL_BINDING_LEN};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::api::Connection;
use crate::domain::limits::BODY_LEN_MAX;
use crate::stopping::Stopping;

/// From TCP's to TLS's handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// For the head of a request, and between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Requests at once on one connection.
const REQUESTS_MAX: u32 = 32;
/// When accepting fails, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many connections there may be at once, over all listeners.
#[derive(Clone, Debug)]
pub(super) struct Limit(Arc<Semaphore>);

impl Limit {
    pub(super) fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS))))
    }
}

/// Accepts until the service stops, then lets every connection end.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: Router,
    limit: Limit,
    mut stopping: Stopping,
) {
    let acceptor = TlsAcceptor::from(tls);
    let routes = routes.layer(DefaultBodyLimit::max(BODY_LEN_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stopping.begun() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &limit) => accepted,
        };
        let (tcp, permit) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, routes, stopping) = (acceptor.clone(), routes.clone(), stopping.clone());
        connections.spawn(async move {
            let _permit = permit;
            if let Err(error) = serve_one(tcp, &acceptor, routes, stopping).await {
                metrics::counter!("lanrage_control_connection_failures_total").increment(1);
                tracing::debug!(error = format!("{error:#}"), "a connection failed");
            }
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn accept(
    listener: &TcpListener,
    limit: &Limit,
) -> std::io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(&limit.0).acquire_owned().await.map_err(std::io::Error::other)?;
    let (tcp, _) = listener.accept().await?;
    Ok((tcp, permit))
}

async fn serve_one(
    tcp: TcpStream,
    acceptor: &TlsAcceptor,
    routes: Router,
    mut stopping: Stopping,
) -> anyhow::Result<()> {
    let peer = tcp.peer_addr().context("the peer is gone")?.ip();
    tcp.set_nodelay(true).context("setting TCP_NODELAY")?;
    let tls = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(tcp)).await;
    let tls =
        tls.context("the TLS handshake took too long")?.context("the TLS handshake failed")?;
    let connection = Connection { channel_binding: channel_binding(&tls)?, peer };
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");

    let service = TowerToHyperService::new(routes);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(connection);
        service.call(request)
    });
    let builder = builder();
    // Told by ALPN: reading the first bytes to find out has no time-out in hyper-util.
    let builder = if http2 { builder.http2_only() } else { builder.http1_only() };
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(tls), service);
    tokio::pin!(serving);
    let served = tokio::select! {
        served = &mut serving => served,
        () = stopping.begun() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    served.map_err(|error| anyhow::anyhow!(error))
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .max_concurrent_streams(REQUESTS_MAX)
        .max_header_list_size(16 << 10);
    builder
}

fn channel_binding(tls: &TlsStream<TcpStream>) -> anyhow::Result<[u8; CHANNEL_BINDING_LEN]> {
    let session = tls.get_ref().1;
    session
        .export_keying_material([0; CHANNEL_BINDING_LEN], CHANNEL_BINDING_LABEL, None)
        .context("exporting the channel binding")
}
