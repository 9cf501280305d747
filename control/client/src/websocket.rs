use std::fmt;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::header::AUTHORIZATION;
use lanrage_proto::api::{CHANNEL_BINDING_LEN, TLS_NAME};
use lanrage_proto::bytes::Token;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::connection::{ControlClient, bearer, refusal};
use crate::endpoint::Endpoint;
use crate::error::Error;

/// The longest message that is read: a snapshot of several full parties.
const MESSAGE_LEN_MAX: usize = 16 << 20;
/// Control pings every 10 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// A stream of JSON messages over its own TLS connection.
pub struct WebSocket {
    endpoint: Endpoint,
    stream: WebSocketStream<TlsStream<TcpStream>>,
    channel_binding: [u8; CHANNEL_BINDING_LEN],
    last_heard: Instant,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("last_heard", &self.last_heard).finish_non_exhaustive()
    }
}

impl ControlClient {
    /// Opens a stream over a new TLS connection.
    ///
    /// # Errors
    /// Those of [`ControlClient::connect`], and [`Error::Api`] when control refuses the stream.
    pub async fn websocket(
        &self,
        path: &str,
        token: Option<&Token>,
        deadline: Duration,
    ) -> Result<WebSocket, Error> {
        let endpoint = self.endpoint();
        let request = format!("wss://{TLS_NAME}{path}").into_client_request();
        let mut request = request.map_err(|error| failed(endpoint, error))?;
        if let Some(token) = token {
            let value = bearer(token).parse().expect("base64 is a header value");
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        timeout(deadline, async {
            let (tls, channel_binding) = self.open_stream().await?;
            let config = WebSocketConfig::default()
                .read_buffer_size(16 << 10)
                .max_message_size(Some(MESSAGE_LEN_MAX))
                .max_frame_size(Some(MESSAGE_LEN_MAX));
            let opened = client_async_with_config(request, tls, Some(config)).await;
            let (stream, _) = opened.map_err(|error| failed(endpoint, error))?;
            let last_heard = Instant::now();
            Ok(WebSocket { endpoint: endpoint.clone(), stream, channel_binding, last_heard })
        })
        .await
        .map_err(|_| endpoint.timed_out())?
    }
}

impl WebSocket {
    /// What a device or relay signs to prove its key on this connection (RFC 9266).
    pub const fn channel_binding(&self) -> [u8; CHANNEL_BINDING_LEN] {
        self.channel_binding
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`Error::Broken`], or [`Error::TimedOut`] when nothing leaves for 30 s.
    pub async fn send<T: Serialize + ?Sized>(&mut self, message: &T) -> Result<(), Error> {
        let endpoint = &self.endpoint;
        let text = serde_json::to_string(message).map_err(|error| endpoint.bad_answer(error))?;
        let sent = timeout(SILENCE_TIMEOUT, self.stream.send(Message::text(text))).await;
        sent.map_err(|_| endpoint.timed_out())?.map_err(|error| failed(endpoint, error))
    }

    /// The next message; `None` when control has closed the stream without a complaint: it stops,
    /// or there is a newer stream.
    ///
    /// # Cancel safety
    /// A dropped call loses no message.
    ///
    /// # Errors
    /// [`Error::Api`] when control has closed the stream and says why, [`Error::BadAnswer`] for a
    /// message that is no `T`, [`Error::TimedOut`] after 30 s without a message or ping,
    /// [`Error::Broken`].
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Error> {
        let Self { endpoint, stream, last_heard, .. } = self;
        loop {
            let message = timeout_at(*last_heard + SILENCE_TIMEOUT, stream.next()).await;
            let message = match message.map_err(|_| endpoint.timed_out())? {
                None | Some(Err(WsError::ConnectionClosed | WsError::AlreadyClosed)) => {
                    return Ok(None);
                }
                Some(message) => message.map_err(|error| failed(endpoint, error))?,
            };
            *last_heard = Instant::now();
            match message {
                Message::Text(text) => {
                    let message = serde_json::from_str(&text);
                    return message.map(Some).map_err(|error| endpoint.bad_answer(error));
                }
                Message::Close(frame) => return closed(endpoint, frame),
                Message::Binary(_) => return Err(endpoint.bad_answer("a binary message")),
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Says goodbye; errors do not matter any more.
    pub async fn close(mut self) {
        // The peer may already be gone, which is what this is for.
        let _closed = timeout(Duration::from_secs(1), self.stream.close(None)).await;
    }
}

/// A close code from 4000 on comes with the refusal as its reason.
fn closed<T>(endpoint: &Endpoint, frame: Option<CloseFrame>) -> Result<Option<T>, Error> {
    match frame {
        Some(frame) if u16::from(frame.code) >= 4000 => {
            Err(refusal(endpoint, u16::from(frame.code) - 4000, frame.reason.as_bytes()))
        }
        Some(_) | None => Ok(None),
    }
}

fn failed(endpoint: &Endpoint, error: WsError) -> Error {
    if let WsError::Http(response) = error {
        let body = response.body().as_deref().unwrap_or_default();
        return refusal(endpoint, response.status().as_u16(), body);
    }
    endpoint.broken(error)
}
