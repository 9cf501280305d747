//! The listener for operators: `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::metrics::{Facts, render};
use crate::published::Published;

const CONNECTIONS_MAX: usize = 16;
const CONNECTION_MAX: Duration = Duration::from_secs(60);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A thread that has not ended a turn for this long is stuck.
const ALIVE_MAX_MS: u64 = 2_000;

/// What the listener answers from.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) published: Arc<Published>,
    pub(crate) facts: Facts,
    pub(crate) clock: Clock,
    /// That forward what comes by UDP.
    pub(crate) threads: usize,
    /// Whether another one serves streams.
    pub(crate) has_streams: bool,
}

impl Health {
    /// Whether every thread of the data path makes progress.
    ///
    /// # Errors
    /// Which one does not.
    pub(crate) fn is_turning(&self) -> Result<(), String> {
        let now_ms = self.clock.ms();
        let is_alive = |alive_ms: u64| now_ms.saturating_sub(alive_ms) < ALIVE_MAX_MS;
        let shards = self.published.shards();
        if shards.len() < self.threads {
            return Err("not enrolled, or starting".to_owned());
        }
        if !shards.iter().all(|shard| is_alive(shard.alive_ms.load(Ordering::Relaxed))) {
            return Err("a shard is stuck".to_owned());
        }
        let streams = self.published.streams().map(|streams| streams.shard.clone());
        match streams {
            None if self.has_streams => return Err("starting to serve streams".to_owned()),
            Some(shard) if !is_alive(shard.alive_ms.load(Ordering::Relaxed)) => {
                return Err("the streams' thread is stuck".to_owned());
            }
            _ => {}
        }
        if !self.published.binder().is_some_and(|binder| is_alive(binder.alive_ms)) {
            return Err("the binder is stuck".to_owned());
        }
        Ok(())
    }

    /// # Errors
    /// Why the relay is not ready.
    pub(crate) fn is_ready(&self) -> Result<(), String> {
        self.is_turning()?;
        if let Some(why) = self.published.refused() {
            return Err(format!("control does not take this relay: {why}"));
        }
        if let Some(why) = self.published.unwritten() {
            return Err(format!("what control says is not kept on disk: {why}"));
        }
        if self.published.binder().is_some_and(|binder| binder.draining.is_some()) {
            return Err("draining".to_owned());
        }
        if !self.published.has_certificate.load(Ordering::Relaxed) {
            return Err("no certificate from control".to_owned());
        }
        Ok(())
    }

    fn answer(&self, request: &Request<Incoming>) -> (StatusCode, &'static str, String) {
        const TEXT: &str = "text/plain; charset=utf-8";
        const METRICS: &str = "text/plain; version=0.0.4";
        if request.method() != Method::GET {
            return (StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET only\n".to_owned());
        }
        match request.uri().path() {
            "/metrics" => {
                let page = render(&self.published, &self.facts, self.is_ready().is_ok());
                (StatusCode::OK, METRICS, page)
            }
            "/healthz" => (StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => match self.is_ready() {
                Ok(()) => (StatusCode::OK, TEXT, "ready\n".to_owned()),
                Err(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
            },
            _ => (StatusCode::NOT_FOUND, TEXT, "/metrics, /healthz, /readyz\n".to_owned()),
        }
    }
}

/// Answers until dropped.
pub(crate) async fn serve(listener: TcpListener, health: Arc<Health>) -> Infallible {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: others must close theirs first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let _slot = slot;
            let service = service_fn(|request| {
                let (status, kind, text) = health.answer(&request);
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = status;
                response.headers_mut().insert(CONTENT_TYPE, kind.parse().expect("a constant"));
                std::future::ready(Ok::<_, Infallible>(response))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A broken connection concerns the other end alone.
            let _ = timeout(CONNECTION_MAX, connection).await;
        });
    }
}
