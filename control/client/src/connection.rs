use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use lanrage_proto::api::{
    ApiError, CHANNEL_BINDING_LABEL, CHANNEL_BINDING_LEN, ErrorCode, TLS_NAME,
};
use lanrage_proto::bytes::{Token, encode_base64};
use rustls::ClientConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::dial::dial;
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::pin::{OTHER_ROOT, client_config, server_name};

/// The longest answer that is read.
const ANSWER_LEN_MAX: usize = 16 << 20;
/// A connection on which nothing comes back for this long after a ping is dropped.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes connections to one control service; cheap to clone.
#[derive(Clone)]
pub struct ControlClient {
    endpoint: Arc<Endpoint>,
    requests: Arc<ClientConfig>,
    streams: Arc<ClientConfig>,
}

impl fmt::Debug for ControlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlClient").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl ControlClient {
    /// Connects to nothing yet.
    pub fn new(endpoint: Endpoint) -> Self {
        let requests = client_config(endpoint.root, b"h2");
        let streams = client_config(endpoint.root, b"http/1.1");
        Self { endpoint: Arc::new(endpoint), requests, streams }
    }

    /// The service.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Opens an HTTP/2 connection for any number of concurrent requests.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::OtherRoot`], [`Error::Tls`], [`Error::TimedOut`] after
    /// `deadline`, [`Error::Broken`].
    pub async fn connect(&self, deadline: Duration) -> Result<Connection, Error> {
        timeout(deadline, async {
            let (tls, channel_binding) = self.open_tls(&self.requests).await?;
            let (sender, driver) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE_TIMEOUT)
                .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
                .handshake(TokioIo::new(tls))
                .await
                .map_err(|error| self.endpoint.broken(error))?;
            tokio::spawn(driver);
            let endpoint = Arc::clone(&self.endpoint);
            Ok(Connection { endpoint, sender, channel_binding })
        })
        .await
        .map_err(|_| self.endpoint.timed_out())?
    }

    /// A TLS connection for one WebSocket, and its channel binding.
    pub(crate) async fn open_stream(
        &self,
    ) -> Result<(TlsStream<TcpStream>, [u8; CHANNEL_BINDING_LEN]), Error> {
        self.open_tls(&self.streams).await
    }

    async fn open_tls(
        &self,
        config: &Arc<ClientConfig>,
    ) -> Result<(TlsStream<TcpStream>, [u8; CHANNEL_BINDING_LEN]), Error> {
        let tcp = dial(&self.endpoint).await?;
        let connector = TlsConnector::from(Arc::clone(config));
        let tls = connector.connect(server_name(), tcp).await;
        let tls = tls.map_err(|error| self.tls_error(error))?;
        let (_, session) = tls.get_ref();
        let binding = session
            .export_keying_material([0; CHANNEL_BINDING_LEN], CHANNEL_BINDING_LABEL, None)
            .map_err(|error| self.tls_error(io::Error::other(error)))?;
        Ok((tls, binding))
    }

    fn tls_error(&self, reason: io::Error) -> Error {
        let endpoint = self.endpoint.to_string();
        let cause = reason.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(error)) if *error == OTHER_ROOT => {
                Error::OtherRoot { endpoint }
            }
            _ => Error::Tls { endpoint, reason },
        }
    }
}

/// One HTTP/2 connection; closed when all its clones are dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    endpoint: Arc<Endpoint>,
    sender: SendRequest<Full<Bytes>>,
    channel_binding: [u8; CHANNEL_BINDING_LEN],
}

impl Connection {
    /// What a device or relay signs to prove its key on this connection (RFC 9266).
    pub const fn channel_binding(&self) -> [u8; CHANNEL_BINDING_LEN] {
        self.channel_binding
    }

    /// Whether the other side has closed it: connect again.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends one request and reads its JSON answer; a GET carries no body.
    ///
    /// # Errors
    /// [`Error::Api`] when control refuses, [`Error::BadAnswer`], [`Error::Broken`], or
    /// [`Error::TimedOut`] after `deadline`.
    pub async fn request<T: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        token: Option<&Token>,
        body: &T,
        deadline: Duration,
    ) -> Result<R, Error> {
        let endpoint = &*self.endpoint;
        let body = match method {
            Method::GET => Bytes::new(),
            _ => serde_json::to_vec(body).map(Bytes::from).map_err(|e| endpoint.bad_answer(e))?,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://{TLS_NAME}{path}"))
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, bearer(token));
        }
        let request = request.body(Full::new(body)).map_err(|e| endpoint.bad_answer(e))?;
        let mut sender = self.sender.clone();
        let exchange = async {
            sender.ready().await.map_err(|error| endpoint.broken(error))?;
            let answer = sender.send_request(request).await;
            read_answer(endpoint, answer.map_err(|error| endpoint.broken(error))?).await
        };
        timeout(deadline, exchange).await.map_err(|_| endpoint.timed_out())?
    }
}

async fn read_answer<R: DeserializeOwned>(
    endpoint: &Endpoint,
    response: Response<Incoming>,
) -> Result<R, Error> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX).collect().await;
    let body = body.map_err(|error| endpoint.broken(error))?.to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| endpoint.bad_answer(error));
    }
    Err(refusal(endpoint, status.as_u16(), &body))
}

/// The error in the body of an answer with a status of 400 or above. A refused WebSocket may come
/// without its body; what a program must act on follows from the status alone.
pub(crate) fn refusal(endpoint: &Endpoint, status: u16, body: &[u8]) -> Error {
    let bare = |code, message: &str| Error::Api(ApiError { code, message: message.to_owned() });
    match (serde_json::from_slice::<ApiError>(body), status) {
        (Ok(error), _) => Error::Api(error),
        (Err(_), 401) => bare(ErrorCode::Unauthorized, "the token is not known: register again"),
        (Err(_), 429) => bare(
            ErrorCode::RateLimited,
            &format!("control at {endpoint} takes no more requests: wait a minute"),
        ),
        (Err(_), status) => endpoint.bad_answer(format_args!("HTTP status {status}")),
    }
}

/// The value of the `Authorization` header.
pub(crate) fn bearer(token: &Token) -> String {
    format!("Bearer {}", encode_base64(&token.0))
}
