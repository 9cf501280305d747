use std::time::Duration;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use lanrage_proto::api::ErrorCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::Refused;
use crate::domain::{Refusal, refuse};
use crate::stopping::Stopping;

/// The first message of a stream must come within this.
const FIRST_TIMEOUT: Duration = Duration::from_secs(10);
/// Control pings this often.
pub(super) const PING_PERIOD: Duration = Duration::from_secs(10);
/// A peer that says nothing, or takes nothing, for this long is dead.
pub(super) const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);
/// A close frame's reason has at most 123 bytes (RFC 6455 §5.5).
const REASON_LEN_MAX: usize = 123;
/// What a peer may send: its messages are small.
const MESSAGE_LEN_MAX: usize = 16 << 10;

/// Why a stream ends.
#[derive(Debug)]
pub(super) enum End {
    /// The peer is gone, silent or does not read; nothing can be said to it.
    Gone,
    /// A newer stream of the same peer, or the service's end.
    Over,
    /// The peer is told why.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What a request for a stream asks for, if it does.
pub(super) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Accepts a stream within its bounds.
///
/// # Errors
/// [`ErrorCode::BadRequest`] for what is no WebSocket.
pub(super) fn accept(upgrade: Upgrade) -> Result<WebSocketUpgrade, Refused> {
    let upgrade = upgrade.map_err(|_| {
        let message = "the path is a stream: ask for a WebSocket (RFC 6455) over HTTP/1.1";
        Refused(refuse(ErrorCode::BadRequest, message))
    })?;
    Ok(upgrade
        .read_buffer_size(4 << 10)
        .write_buffer_size(16 << 10)
        .max_message_size(MESSAGE_LEN_MAX)
        .max_frame_size(MESSAGE_LEN_MAX))
}

/// A stream and when its peer was last heard.
pub(super) struct Stream {
    socket: WebSocket,
    last_heard: Instant,
}

impl Stream {
    pub(super) fn new(socket: WebSocket) -> Self {
        Self { socket, last_heard: Instant::now() }
    }

    /// The first message, which says who speaks.
    pub(super) async fn first<T: DeserializeOwned>(
        &mut self,
        stopping: &mut Stopping,
    ) -> Result<T, End> {
        tokio::select! {
            first = timeout(FIRST_TIMEOUT, self.receive()) => first.map_err(|_| End::Gone)?,
            () = stopping.begun() => Err(End::Over),
        }
    }

    /// The next message. Cancel safe.
    pub(super) async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, End> {
        loop {
            let message = timeout_at(self.last_heard + SILENCE_TIMEOUT, self.socket.recv()).await;
            let Ok(Some(Ok(message))) = message else { return Err(End::Gone) };
            self.last_heard = Instant::now();
            match message {
                Message::Text(text) => {
                    return serde_json::from_str(&text).map_err(|_| {
                        refuse(ErrorCode::BadRequest, "not a message of this stream").into()
                    });
                }
                Message::Binary(_) => {
                    return Err(refuse(ErrorCode::BadRequest, "messages are text").into());
                }
                Message::Close(_) => return Err(End::Gone),
                Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    }

    /// Sends one message; a peer that does not read is dead.
    pub(super) async fn send(&mut self, message: &impl Serialize) -> Result<(), End> {
        self.send_text(encode(message)).await
    }

    /// As [`Stream::send`], for what is already encoded.
    pub(super) async fn send_text(&mut self, text: String) -> Result<(), End> {
        self.send_frame(Message::text(text)).await
    }

    /// Asks the peer for a sign of life.
    pub(super) async fn ping(&mut self) -> Result<(), End> {
        self.send_frame(Message::Ping(Vec::new().into())).await
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), End> {
        let sent = timeout(SILENCE_TIMEOUT, self.socket.send(frame)).await;
        sent.map_err(|_| End::Gone)?.map_err(|_| End::Gone)
    }

    /// Says why the stream ends: for a refusal, code 4000 + HTTP status and the refusal in JSON.
    pub(super) async fn end(mut self, end: End) {
        let (code, reason) = match end {
            End::Gone => return,
            End::Over => (close_code::AWAY, String::new()),
            End::Refused(refusal) => (4000 + refusal.code.status(), reason(refusal)),
        };
        let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
        // A peer that is gone cannot be told.
        let _told = timeout(Duration::from_secs(1), self.socket.send(close)).await;
    }
}

/// A message as it is sent.
pub(super) fn encode(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("messages have string keys only")
}

/// The refusal in JSON, without its message where that is too long.
fn reason(refusal: Refusal) -> String {
    let full = encode(&refusal);
    if full.len() <= REASON_LEN_MAX { full } else { encode(&refuse(refusal.code, "refused")) }
}
