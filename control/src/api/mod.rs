//! The HTTP face: parses requests, calls the service, and writes answers. Nothing is decided here.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use lanrage_proto::api::{ErrorCode, path};

use crate::domain::limits::{BODY_LEN_MAX, KICK_LEN_MAX};
use crate::domain::refuse;
use crate::service::Service;
use crate::stopping::Stopping;

/// What every handler gets out of a request: connection, caller, body.
mod extract;
pub(crate) use extract::Connection;

/// Answers and refusals.
mod answer;
use answer::Refused;

/// What a request counts as, by its path.
mod counting;

/// Requests, one handler a path.
mod handlers;

/// Streams to devices.
mod device_stream;

/// Streams to relays.
mod relay_stream;

/// What both kinds of stream share: first message, pings, goodbyes.
mod stream;

/// Shared by all handlers.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) service: Arc<Service>,
    pub(crate) stopping: Stopping,
}

/// All paths of [`path`].
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route(path::DEVICES, post(handlers::register))
        .route(path::PARTIES, post(handlers::create_party))
        .route(path::ENTRY, put(handlers::publish_entry))
        .route(path::INVITES, post(handlers::create_invite))
        .route(path::TICKET, post(handlers::ticket))
        .route(path::LEAVE, post(handlers::leave))
        .route(path::KICK, post(handlers::kick).layer(DefaultBodyLimit::max(KICK_LEN_MAX)))
        .route(path::PROMOTE, post(handlers::promote))
        .route(path::INVITE_OPEN, post(handlers::open_invite))
        .route(path::INVITE_REDEEM, post(handlers::redeem_invite))
        .route(path::MAP, get(handlers::map))
        .route(path::STREAM, get(device_stream::open))
        .route(path::ENROL, post(handlers::enrol))
        .route(path::RELAY_STREAM, get(relay_stream::open))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(BODY_LEN_MAX))
        .layer(middleware::from_fn_with_state(api.clone(), counting::count_network))
        .layer(middleware::from_fn(finish))
        .with_state(api)
}

/// Carries a request to its end even when the caller is gone: a commit must be published. It counts
/// until that end as one of its connection, so that who cancels and asks again gets no more done.
async fn finish(connection: Connection, request: Request, next: Next) -> Result<Response, Refused> {
    let permit = connection.requests.acquire_owned().await;
    let run = async {
        let _permit = permit;
        next.run(request).await
    };
    let answer = tokio::spawn(run).await.map_err(|error| {
        tracing::error!(%error, "a handler failed");
        Refused(refuse(ErrorCode::Internal, "the server failed: try again; its log says why"))
    })?;
    let code = answer.status().as_u16().to_string();
    metrics::counter!("lanrage_control_requests_total", "status" => code).increment(1);
    Ok(answer)
}

async fn no_such_path() -> Refused {
    Refused(refuse(ErrorCode::NotFound, "no such path: update LANrage"))
}

async fn wrong_method() -> Refused {
    Refused(refuse(ErrorCode::BadRequest, "the path takes another method: update LANrage"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use axum::body::Body;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;
    use crate::network::{Network, Shared};

    /// Requests begun and cancelled in a loop went on running, any number of them at once.
    #[tokio::test]
    async fn regression_cancelled_requests_count_until_they_end() {
        const MAX: usize = 4;
        static RUNNING: AtomicUsize = AtomicUsize::new(0);
        let slow = async || {
            RUNNING.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await;
        };
        let routes = Router::new().route("/", get(slow)).layer(middleware::from_fn(finish));
        let service = TowerToHyperService::new(routes);
        let places = Shared::new(1, 1);
        let network = Network::from(std::net::IpAddr::from([127, 0, 0, 1]));
        let place = places.give(places.one().await, network).unwrap();
        let connection = Connection {
            channel_binding: [0; 32],
            network,
            requests: Arc::new(Semaphore::new(MAX)),
            place: Arc::new(place),
        };
        for _ in 0..5 * MAX {
            let mut request = Request::new(Body::empty());
            request.extensions_mut().insert(connection.clone());
            let cancelled = timeout(Duration::from_millis(5), service.call(request)).await;
            assert!(cancelled.is_err());
        }
        assert_eq!(RUNNING.load(Ordering::Relaxed), MAX);
    }
}
