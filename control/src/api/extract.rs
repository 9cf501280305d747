use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use lanrage_proto::api::ErrorCode;
use lanrage_proto::bytes::{Token, decode_base64};
use lanrage_proto::{DeviceKey, SessionId};
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Api;
use super::answer::Refused;
use super::counting::count_device;
use crate::domain::refuse;
use crate::network::{Network, Part};
use crate::service::unauthorized;

/// A body that takes longer is given up.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The TLS connection that a request came by.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) channel_binding: [u8; 32],
    pub(crate) network: Network,
    /// Requests that may be begun on it.
    pub(crate) requests: Arc<Semaphore>,
    /// Its place among all connections; a stream keeps it to its end.
    pub(crate) place: Arc<Part>,
}

impl<S: Sync> FromRequestParts<S> for Connection {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let connection: Option<&Self> = parts.extensions.get();
        Ok(connection.expect("the accept loop adds it to every request").clone())
    }
}

/// The device whose token the request carries; it has not asked too much.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller(pub(crate) DeviceKey);

impl FromRequestParts<Api> for Caller {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).and_then(decode_base64);
        let token = Token(token.ok_or_else(|| Refused(unauthorized()))?);
        let device = api.service.authenticate(&token).await?;
        let Ok(connection) = Connection::from_request_parts(parts, api).await;
        count_device(&api.service, &parts.extensions, &device, connection.network)?;
        Ok(Self(device))
    }
}

/// The party in the path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InParty(pub(crate) SessionId);

impl FromRequestParts<Api> for InParty {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Refused> {
        let text = Path::<String>::from_request_parts(parts, api).await;
        let session = text.ok().and_then(|text| SessionId::from_str(&text).ok());
        let malformed = || refuse(ErrorCode::NotFound, "a party id has 16 hexadecimal digits");
        session.map(Self).ok_or_else(|| Refused(malformed()))
    }
}

/// A JSON body.
#[derive(Debug)]
pub(crate) struct Body<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = Refused;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Refused> {
        let bad = |message: String| Refused(refuse(ErrorCode::BadRequest, message));
        let bytes = timeout(BODY_TIMEOUT, Bytes::from_request(request, api))
            .await
            .map_err(|_| bad("the body did not come within 10 s: try again".to_owned()))?
            .map_err(|_| bad("the body is longer than the path takes, or broke off".to_owned()))?;
        let value = serde_json::from_slice(&bytes);
        value
            .map(Self)
            .map_err(|error| bad(format!("the body is not what the path takes: {error}")))
    }
}
