//! The stream from control: certificate, relay map and revocations down, heartbeats up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lanrage_control_client::{ControlClient, Endpoint, Error, WebSocket};
use lanrage_proto::api::{Heartbeat, RELAY_PROOF_CONTEXT, RelayDown, RelayUp, path};
use lanrage_proto::map::{RelayMap, SignedMap};
use lanrage_proto::signed::{RelayCertificate, sign};
use lanrage_relay_core::binder::CLOCK_LEEWAY_S;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};

use crate::backoff::Backoff;
use crate::binder::{Order, Orders};
use crate::clock::unix_s;
use crate::config::Config;
use crate::failure::Failure;
use crate::published::Published;
use crate::state::{Enrolment, Keys, StateDir, Told};

const DEADLINE: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Revocations that follow one another faster are written together: each write is the whole file.
const SAVE_DELAY: Duration = Duration::from_millis(200);
/// Control says something every 5 s; a stream that is silent for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The relay's end of the stream.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) state: StateDir,
    pub(crate) keys: Keys,
    pub(crate) enrolment: Enrolment,
    pub(crate) told: Told,
    pub(crate) orders: Orders,
    pub(crate) published: Arc<Published>,
    /// Whether this stream has shown that the clocks differ.
    pub(crate) clock_reported: bool,
    /// Whether there are revocations that are not on disk.
    pub(crate) unsaved: bool,
    /// When `told` was last written.
    pub(crate) saved_at: Option<Instant>,
}

impl Link {
    /// Gives the binder what control said before this start.
    pub(crate) async fn recall(&self) {
        if let Some(map) = self.told.relay_map(&self.enrolment.root) {
            self.orders.give(signing_keys(&map)).await;
        }
        self.orders.give(Order::ReplaceRevocations(self.told.revocations.clone())).await;
        if let Some(certificate) = self.told.certificate {
            self.install(certificate).await;
        }
    }

    /// Follows control for as long as the relay runs.
    ///
    /// # Errors
    /// The state directory can no longer be written.
    pub(crate) async fn follow(mut self, config: &Config) -> Result<(), Failure> {
        let Some((host, port)) = config.control.clone() else {
            tracing::warn!("no control configured: serving with what control said last");
            return std::future::pending().await;
        };
        let client = ControlClient::new(Endpoint { host, port, root: self.enrolment.root });
        let mut backoff = Backoff::new();
        loop {
            let end = self.stream(&client, config, &mut backoff).await;
            if self.published.has_control.swap(false, Ordering::Relaxed) {
                self.orders.give(Order::ControlLost).await;
            }
            match end {
                Ok(()) => tracing::warn!("control closed the stream; connecting again"),
                Err(End::Link(error)) => {
                    tracing::warn!(%error, "no stream from control; trying again")
                }
                Err(End::Relay(failure)) => return Err(failure),
            }
            backoff.wait().await;
        }
    }

    async fn stream(
        &mut self,
        client: &ControlClient,
        config: &Config,
        backoff: &mut Backoff,
    ) -> Result<(), End> {
        // The proof names the cursor: what is below it must be on disk.
        self.keep_unsaved()?;
        let mut stream = client.websocket(path::RELAY_STREAM, None, DEADLINE).await?;
        self.prove(&mut stream, config).await?;
        self.clock_reported = false;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = Instant::now() + SILENCE_MAX;
        loop {
            tokio::select! {
                down = timeout_at(silent_until, stream.receive::<RelayDown>()) => {
                    let Some(down) = down.map_err(|_| client.endpoint().timed_out())?? else { return Ok(()) };
                    silent_until = Instant::now() + SILENCE_MAX;
                    if !self.published.has_control.swap(true, Ordering::Relaxed) {
                        tracing::info!("stream from control");
                        *backoff = Backoff::new();
                        self.orders.give(Order::ControlFound).await;
                    }
                    self.handle(down).await?;
                }
                () = sleep_until(self.save_at()), if self.unsaved => {
                    self.keep_unsaved()?;
                }
                _ = heartbeat.tick() => {
                    self.keep_unsaved()?;
                    stream.send(&self.heartbeat()).await?;
                }
            }
        }
    }

    async fn prove(&self, stream: &mut WebSocket, config: &Config) -> Result<(), Error> {
        let proof = sign(&self.keys.identity(), RELAY_PROOF_CONTEXT, &stream.channel_binding());
        let prove = RelayUp::Prove {
            relay: self.enrolment.relay,
            proof,
            ipv4: config.advertise_ipv4,
            ipv6: config.advertise_ipv6,
            cursor: self.told.cursor,
        };
        stream.send(&prove).await
    }

    fn save_at(&self) -> Instant {
        self.saved_at.map_or_else(Instant::now, |at| at + SAVE_DELAY)
    }

    fn heartbeat(&self) -> RelayUp {
        let counts = self.published.binder().map(|binder| binder.counts);
        RelayUp::Heartbeat(Heartbeat {
            leases: counts.map_or(0, |counts| (counts.active + counts.pending) as u64),
            sessions: counts.map_or(0, |counts| counts.sessions as u64),
            draining: false,
            cursor: self.told.cursor,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: unix_s(),
        })
    }

    /// What control says is kept on disk and carried out before the next heartbeat says so.
    async fn handle(&mut self, down: RelayDown) -> Result<(), End> {
        match down {
            RelayDown::Tick { now } => self.compare_clocks(now),
            RelayDown::Certificate { certificate } => self.take_certificate(certificate).await?,
            RelayDown::Map { map } => self.take_map(map).await?,
            RelayDown::Snapshot { cursor, revocations } => {
                self.told.revocations.clone_from(&revocations);
                self.told.cursor = cursor;
                self.keep()?;
                self.orders.give(Order::ReplaceRevocations(revocations)).await;
            }
            RelayDown::Revoke { cursor, revocation } => {
                self.told.revocations.push(revocation);
                self.told.cursor = cursor;
                self.unsaved = true;
                if self.save_at() <= Instant::now() {
                    self.keep_unsaved()?;
                }
                self.orders.give(Order::Revoke(revocation)).await;
            }
        }
        Ok(())
    }

    /// Said once a stream: clients are refused, and nothing else tells the operator why.
    fn compare_clocks(&mut self, control: u64) {
        let relay = unix_s();
        let differ = relay.abs_diff(control) > CLOCK_LEEWAY_S;
        if differ && !std::mem::replace(&mut self.clock_reported, true) {
            tracing::error!(
                relay,
                control,
                "this host's clock differs from control's: set it; until then tickets are refused"
            );
        }
    }

    async fn take_certificate(&mut self, certificate: RelayCertificate) -> Result<(), End> {
        let is_ours = certificate.relay == self.enrolment.relay
            && certificate.pool == self.enrolment.pool
            && certificate.key == self.keys.tunnel_key();
        if !is_ours {
            tracing::error!("control sent the certificate of another relay; it is not used");
            return Ok(());
        }
        self.told.certificate = Some(certificate);
        self.keep()?;
        self.install(certificate).await;
        Ok(())
    }

    async fn take_map(&mut self, signed: SignedMap) -> Result<(), End> {
        let map = match signed.verify(&self.enrolment.root) {
            Ok(map) => map,
            Err(error) => {
                tracing::error!(%error, "control sent a relay map that does not hold; it is not used");
                return Ok(());
            }
        };
        if self.told.map.as_ref() == Some(&signed) {
            return Ok(());
        }
        let known = self.told.relay_map(&self.enrolment.root).map_or(0, |map| map.serial);
        if map.serial <= known {
            tracing::warn!(
                serial = map.serial,
                known,
                "control sent an older relay map than the last; it is not used, and tickets may be \
                 refused: set the clock of control's host and start control again"
            );
            return Ok(());
        }
        self.told.map = Some(signed);
        self.keep()?;
        self.orders.give(signing_keys(&map)).await;
        Ok(())
    }

    async fn install(&self, certificate: RelayCertificate) {
        self.orders.give(Order::Certificate(certificate)).await;
        self.published.certificate_not_after.store(certificate.not_after, Ordering::Relaxed);
        self.published.has_certificate.store(true, Ordering::Relaxed);
    }

    /// Keeps what control said, if there is anything that is not on disk yet.
    fn keep_unsaved(&mut self) -> Result<(), End> {
        if !self.unsaved {
            return Ok(());
        }
        let now = unix_s();
        self.told.revocations.retain(|revocation| now <= revocation.forget_after);
        self.keep()
    }

    fn keep(&mut self) -> Result<(), End> {
        self.unsaved = false;
        self.saved_at = Some(Instant::now());
        self.state.set_told(&self.told).map_err(|error| End::Relay(error.into()))
    }
}

/// How a stream ends.
enum End {
    /// It broke: another one can be opened.
    Link(Error),
    /// The relay cannot go on.
    Relay(Failure),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Link(error)
    }
}

fn signing_keys(map: &RelayMap) -> Order {
    Order::SigningKeys(map.signing_keys.iter().map(|entry| (entry.id, entry.key.0)).collect())
}

#[cfg(test)]
mod tests {
    use lanrage_proto::{Generation, Member, PoolId, RelayId, RootHash, SessionId};

    use super::*;

    fn revocation(session: u64) -> RelayDown {
        RelayDown::Revoke {
            cursor: session,
            revocation: lanrage_proto::api::Revocation {
                session: SessionId(session),
                member: Member::new(7).unwrap(),
                generation: Generation(2),
                forget_after: u64::MAX,
            },
        }
    }

    /// The whole file was written and synced for each of them: ten thousand at once took minutes.
    #[tokio::test]
    async fn regression_many_revocations_are_written_together() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let keys = state.keys().unwrap();
        let root = RootHash([0; 32]);
        let enrolment = Enrolment { root, relay: RelayId(1), pool: PoolId(1) };
        let (sender, _) = crossbeam::channel::unbounded();
        let mut link = Link {
            state,
            keys,
            enrolment,
            told: Told::default(),
            orders: Orders::new(sender, std::thread::current()),
            published: Arc::default(),
            clock_reported: false,
            unsaved: false,
            saved_at: None,
        };
        let on_disk = |link: &Link| link.state.told(&root).unwrap().cursor;
        assert!(link.handle(revocation(1)).await.is_ok());
        assert_eq!(on_disk(&link), 1, "a single one at once");
        let begun = Instant::now();
        for session in 2..=1_000 {
            assert!(link.handle(revocation(session)).await.is_ok());
        }
        if begun.elapsed() < SAVE_DELAY {
            assert_eq!(on_disk(&link), 1);
        }
        assert!(link.keep_unsaved().is_ok());
        let told = link.state.told(&root).unwrap();
        assert_eq!((told.cursor, told.revocations.len()), (1_000, 1_000));
    }
}
