use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ed25519_dalek::SigningKey;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use lanrage_control_client::{Connection, ControlClient, Endpoint, Error, Method, WebSocket};
use lanrage_proto::api::{DEVICE_PROOF_CONTEXT, ErrorCode, RegisterDevice, Registered, path};
use lanrage_proto::bytes::{DeviceKey, Token};
use lanrage_proto::map::SignedMap;
use lanrage_proto::signed::sign;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::sleep;

/// An exchange is begun again on a fresh connection when nothing has come back for so long: a lost
/// packet costs TCP at least its minimum retransmission time, and twice that the second time.
const HEDGE_AFTER: Duration = Duration::from_millis(300);
/// Exchanges begun at most, so that a slow server is not made slower.
const ATTEMPTS: usize = 3;
const DEADLINE: Duration = Duration::from_secs(10);

/// One control service, as this device talks to it. Clones share connection, token and clock.
#[derive(Clone, Debug)]
pub struct Control {
    client: ControlClient,
    device: Arc<SigningKey>,
    shared: Arc<Mutex<Shared>>,
    /// Held while registering: two registrations at once would waste a token.
    registering: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    connection: Option<Connection>,
    token: Option<Token>,
    /// Control's clock, and when it showed that.
    clock: Option<(u64, Instant)>,
}

impl Control {
    /// Connects to nothing yet.
    pub fn new(endpoint: Endpoint, device: SigningKey) -> Self {
        Self {
            client: ControlClient::new(endpoint),
            device: Arc::new(device),
            shared: Arc::default(),
            registering: Arc::default(),
        }
    }

    /// Which service.
    pub const fn endpoint(&self) -> &Endpoint {
        self.client.endpoint()
    }

    /// Control's clock in seconds since 1970; this machine's until control has shown its own.
    pub fn unix_time(&self) -> u64 {
        match self.shared().clock {
            Some((unix_time, at)) => unix_time + at.elapsed().as_secs(),
            None => SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        }
    }

    /// Control has said what time it is.
    pub fn set_clock(&self, unix_time: u64) {
        self.shared().clock = Some((unix_time, Instant::now()));
    }

    /// An idempotent request with the device's token: repeated on fresh connections while control
    /// is slow, and once more after registering when the token is not known (any more).
    ///
    /// # Errors
    /// Those of [`Connection::request`].
    pub async fn call<T: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &T,
    ) -> Result<R, Error> {
        let token = self.token(None).await?;
        let answer = self.exchange(&method, path, Some(&token), body).await;
        if !is_unauthorized(&answer) {
            return answer;
        }
        let token = self.token(Some(token)).await?;
        self.exchange(&method, path, Some(&token), body).await
    }

    /// The signed relay map, not yet verified.
    ///
    /// # Errors
    /// Those of [`Connection::request`].
    pub async fn map(&self) -> Result<SignedMap, Error> {
        self.exchange(&Method::GET, path::MAP, None, &()).await
    }

    /// The device's stream.
    ///
    /// # Errors
    /// Those of [`ControlClient::websocket`].
    pub async fn stream(&self) -> Result<WebSocket, Error> {
        let token = self.token(None).await?;
        let opened = self.client.websocket(path::STREAM, Some(&token), DEADLINE).await;
        if !is_unauthorized(&opened) {
            return opened;
        }
        let token = self.token(Some(token)).await?;
        self.client.websocket(path::STREAM, Some(&token), DEADLINE).await
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
        self.hedged(|connection| async move {
            connection.request(method.clone(), path, token, body, DEADLINE).await
        })
        .await
    }

    /// Runs an exchange on the open connection, and on fresh ones while nothing comes back. The
    /// first answer wins, a refusal too; its connection is kept for the next exchange.
    async fn hedged<R, F: Future<Output = Result<R, Error>>>(
        &self,
        exchange: impl Fn(Connection) -> F,
    ) -> Result<R, Error> {
        let open = self.shared().connection.take().filter(|connection| !connection.is_closed());
        let attempt = async |open: Option<Connection>| {
            let connection = match open {
                Some(connection) => connection,
                None => self.client.connect(DEADLINE).await?,
            };
            let answer = exchange(connection.clone()).await;
            if is_final(&answer) {
                self.shared().connection = Some(connection);
            }
            answer
        };
        let mut attempts = FuturesUnordered::new();
        attempts.push(attempt(open));
        let mut begun = 1;
        loop {
            tokio::select! {
                Some(answer) = attempts.next() => {
                    if is_final(&answer) || (attempts.is_empty() && begun == ATTEMPTS) {
                        return answer;
                    }
                    if !attempts.is_empty() {
                        continue;
                    }
                }
                () = sleep(HEDGE_AFTER), if begun < ATTEMPTS => {}
            }
            attempts.push(attempt(None));
            begun += 1;
        }
    }

    fn shared(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether another attempt cannot end differently.
const fn is_final<R>(answer: &Result<R, Error>) -> bool {
    match answer {
        Ok(_) | Err(Error::Api(_) | Error::OtherRoot { .. } | Error::BadAnswer(_)) => true,
        Err(Error::Unreachable { .. } | Error::Tls { .. } | Error::Broken(_) | Error::TimedOut) => {
            false
        }
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
