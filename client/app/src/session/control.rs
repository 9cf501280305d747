use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use lanrage_control_client::{Connection, ControlClient, Endpoint, Error, Method, WebSocket};
use lanrage_proto::api::{DEVICE_PROOF_CONTEXT, ErrorCode, RegisterDevice, Registered, path};
use lanrage_proto::bytes::{DeviceKey, Token};
use lanrage_proto::map::SignedMap;
use lanrage_proto::signed::sign;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::boot_time;
use super::connections::{Connections, DEADLINE};

/// One control service, as this device talks to it. Clones share connections, token and clock.
#[derive(Clone, Debug)]
pub struct Control {
    connections: Connections,
    device: Arc<SigningKey>,
    shared: Arc<Mutex<Shared>>,
    /// Held while registering: two registrations at once would waste a token.
    registering: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    token: Option<Token>,
    /// Control's clock, and the [`boot_time`] when it showed that.
    clock: Option<(u64, Duration)>,
}

impl Control {
    /// Connects to nothing yet.
    pub fn new(endpoint: Endpoint, device: SigningKey) -> Self {
        Self {
            connections: Connections::new(ControlClient::new(endpoint)),
            device: Arc::new(device),
            shared: Arc::default(),
            registering: Arc::default(),
        }
    }

    /// Which service.
    pub fn endpoint(&self) -> &Endpoint {
        self.connections.client().endpoint()
    }

    /// Control's clock in seconds since 1970; this machine's until control has shown its own.
    pub fn unix_time(&self) -> u64 {
        match self.shared().clock {
            Some((unix_time, at)) => unix_time + boot_time().saturating_sub(at).as_secs(),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    /// Control has said what time it is.
    pub fn set_clock(&self, unix_time: u64) {
        self.shared().clock = Some((unix_time, boot_time()));
    }

    /// An idempotent request with the device's token: repeated on other connections while control
    /// is slow, and once more after registering when the token is not known (any more).
    ///
    /// # Errors
    /// Those of [`lanrage_control_client::Connection::request`].
    pub async fn call<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &T,
    ) -> Result<R, Error> {
        self.with_token(async |token| self.exchange(&method, path, Some(&token), body).await).await
    }

    /// A request that may not be repeated, for its second answer would be another one.
    ///
    /// # Errors
    /// Those of [`Control::call`]; unless it is [`Error::Api`], nobody knows whether it was done.
    pub async fn call_once<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &T,
    ) -> Result<R, Error> {
        let method = &method;
        self.with_token(|token| async move {
            let request = |connection: Connection| async move {
                connection.request(method.clone(), path, Some(&token), body, DEADLINE).await
            };
            self.connections.once(request).await
        })
        .await
    }

    /// Asks again with a new token when control refuses the one there is.
    async fn with_token<R, F: Future<Output = Result<R, Error>>>(
        &self,
        ask: impl Fn(Token) -> F,
    ) -> Result<R, Error> {
        let token = self.token(None).await?;
        let answer = ask(token).await;
        if !is_unauthorized(&answer) {
            return answer;
        }
        ask(self.token(Some(token)).await?).await
    }

    /// The signed relay map, not yet verified.
    ///
    /// # Errors
    /// Those of [`lanrage_control_client::Connection::request`].
    pub async fn map(&self) -> Result<SignedMap, Error> {
        self.exchange(&Method::GET, path::MAP, None, &()).await
    }

    /// The device's stream.
    ///
    /// # Errors
    /// Those of [`ControlClient::websocket`].
    pub async fn stream(&self) -> Result<WebSocket, Error> {
        let client = self.connections.client();
        self.with_token(async |token| client.websocket(path::STREAM, Some(&token), DEADLINE).await)
            .await
    }

    /// The token, registering when there is none or only the `refused` one.
    async fn token(&self, refused: Option<Token>) -> Result<Token, Error> {
        let known = || self.shared().token.filter(|token| Some(*token) != refused);
        if let Some(token) = known() {
            return Ok(token);
        }
        let _alone = self.registering.lock().await;
        if let Some(token) = known() {
            return Ok(token);
        }
        let device = DeviceKey(self.device.verifying_key().to_bytes());
        let registered: Registered = self
            .connections
            .hedged(|connection| async move {
                let binding = connection.channel_binding();
                let proof = sign(&self.device, DEVICE_PROOF_CONTEXT, &binding);
                let body = RegisterDevice { device, proof };
                connection.request(Method::POST, path::DEVICES, None, &body, DEADLINE).await
            })
            .await?;
        self.set_clock(registered.now);
        self.shared().token = Some(registered.token);
        Ok(registered.token)
    }

    async fn exchange<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &Method,
        path: &str,
        token: Option<&Token>,
        body: &T,
    ) -> Result<R, Error> {
        self.connections
            .hedged(|connection| async move {
                connection.request(method.clone(), path, token, body, DEADLINE).await
            })
            .await
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_unauthorized<R>(answer: &Result<R, Error>) -> bool {
    matches!(answer, Err(Error::Api(error)) if error.code == ErrorCode::Unauthorized)
}

/// From the kernel's random generator.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("getrandom(2) works on every kernel this runs on");
    bytes
}
