//! The HTTP face: parses requests, calls the service, and writes answers. Nothing is decided here.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post, put};
use lanrage_proto::api::{ErrorCode, path};

use crate::domain::refuse;
use crate::service::Service;
use crate::stopping::Stopping;

/// What every handler gets out of a request: connection, caller, body.
mod extract;
pub(crate) use extract::Connection;

/// Answers and refusals.
mod answer;
use answer::Refused;

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
        .route(path::KICK, post(handlers::kick))
        .route(path::PROMOTE, post(handlers::promote))
        .route(path::INVITE_OPEN, post(handlers::open_invite))
        .route(path::INVITE_REDEEM, post(handlers::redeem_invite))
        .route(path::MAP, get(handlers::map))
        .route(path::STREAM, get(device_stream::open))
        .route(path::ENROL, post(handlers::enrol))
        .route(path::RELAY_STREAM, get(relay_stream::open))
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(finish))
        .with_state(api)
}

/// Carries a request to its end even when the caller is gone: a commit must be published.
async fn finish(request: Request, next: Next) -> Result<Response, Refused> {
    let answer = tokio::spawn(next.run(request)).await.map_err(|error| {
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
