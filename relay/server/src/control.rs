//! The stream from control: certificate, relay map and revocations down, heartbeats up.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lanrage_control_client::{ControlClient, Endpoint, Error, WebSocket};
use lanrage_proto::KeyId;
use lanrage_proto::api::{
    ApiError, ErrorCode, Heartbeat, RELAY_PROOF_CONTEXT, RelayDown, RelayUp, path,
};
use lanrage_proto::map::{RelayEntry, RelayMap, SignedMap, TlsAccess};
use lanrage_proto::signed::{RelayCertificate, sign};
use lanrage_relay_core::binder::CLOCK_LEEWAY_S;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use crate::backoff::Backoff;
use crate::binder::{Order, Orders};
use crate::clock::unix_s;
use crate::config::Config;
use crate::every_minute::EveryMinute;
use crate::kept::Kept;
use crate::mesh::Mesh;
use crate::published::Published;
use crate::state::{Enrolment, Keys};

const DEADLINE: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Control says something every 5 s; a stream that is silent for this long is dead.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The relay's end of the stream.
#[derive(Debug)]
pub(crate) struct Link {
    kept: Kept,
    keys: Keys,
    enrolment: Enrolment,
    orders: Orders,
    /// Where streams are served.
    tls: Option<TlsAccess>,
    mesh: Arc<Mesh>,
    published: Arc<Published>,
    /// Whether this stream has shown that the clocks differ.
    clock_reported: bool,
    /// What the operator calls this relay, until it is compared with what the pool does.
    given_name: Option<String>,
    refusal: EveryMinute,
}

impl Link {
    /// `kept` is of the relay that `enrolment` names.
    pub(crate) fn new(
        kept: Kept,
        keys: Keys,
        enrolment: Enrolment,
        (orders, mesh): (Orders, Arc<Mesh>),
        tls: Option<TlsAccess>,
        published: Arc<Published>,
        config: &Config,
    ) -> Self {
        Self {
            kept,
            keys,
            enrolment,
            orders,
            tls,
            mesh,
            published,
            clock_reported: false,
            given_name: config.name_is_given.then(|| config.name.clone()),
            refusal: EveryMinute::default(),
        }
    }

    /// Gives the binder what control said before this start.
    pub(crate) async fn recall(&self) {
        let told = self.kept.told();
        if let Some(map) = told.relay_map(&self.enrolment.root) {
            self.mesh.set_map(&map);
            self.orders.give(signing_keys(&map)).await;
        }
        self.orders.give(Order::Recall(told.revocations.clone())).await;
        if let Some(certificate) = told.certificate {
            self.install(certificate).await;
        }
    }

    /// Follows control for as long as the relay runs.
    pub(crate) async fn follow(mut self, config: &Config) -> Infallible {
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
                Err(Error::Api(error)) if is_refusal(error.code) => self.report_refusal(&error),
                Err(error) => tracing::warn!(%error, "no stream from control; trying again"),
            }
            self.kept.during(backoff.wait()).await;
        }
    }

    async fn stream(
        &mut self,
        client: &ControlClient,
        config: &Config,
        backoff: &mut Backoff,
    ) -> Result<(), Error> {
        let open = client.websocket(path::RELAY_STREAM, None, DEADLINE);
        let mut stream = self.kept.during(open).await?;
        self.prove(&mut stream, config).await?;
        self.clock_reported = false;
        let mut heartbeat = interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = Instant::now() + SILENCE_MAX;
        loop {
            let receive = timeout_at(silent_until, stream.receive::<RelayDown>());
            tokio::select! {
                down = self.kept.during(receive) => {
                    let Some(down) = down.map_err(|_| client.endpoint().timed_out())?? else { return Ok(()) };
                    silent_until = Instant::now() + SILENCE_MAX;
                    self.published.heard_at.store(unix_s(), Ordering::Relaxed);
                    if !self.published.has_control.swap(true, Ordering::Relaxed) {
                        tracing::info!("stream from control");
                        *backoff = Backoff::new();
                        self.refusal.end();
                        self.published.set_refused(None);
                        self.orders.give(Order::ControlFound).await;
                    }
                    self.handle(down).await;
                }
                _ = heartbeat.tick() => stream.send(&self.heartbeat()).await?,
            }
        }
    }

    /// Control may have been restored from a backup that does not know this relay: what it serves
    /// goes on.
    fn report_refusal(&mut self, error: &ApiError) {
        self.published.set_refused(Some(error.message.clone()));
        if self.refusal.is_due() {
            tracing::error!(
                relay = self.enrolment.relay.0,
                %error,
                "control does not take this relay, not ready; leases that it has are still served. \
                 To put it back into the pool, start it again with a fresh token of \
                 `lanrage-control relay token` in --enrolment-token-file; else stop it"
            );
        }
    }

    async fn prove(&self, stream: &mut WebSocket, config: &Config) -> Result<(), Error> {
        let proof = sign(&self.keys.identity(), RELAY_PROOF_CONTEXT, &stream.channel_binding());
        let prove = RelayUp::Prove {
            relay: self.enrolment.relay,
            proof,
            ipv4: config.advertise_ipv4,
            ipv6: config.advertise_ipv6,
            tls: self.tls,
            cursor: self.kept.told().cursor,
        };
        stream.send(&prove).await
    }

    fn heartbeat(&self) -> RelayUp {
        let view = self.published.binder();
        let draining = view.is_some_and(|binder| binder.draining.is_some());
        let counts = view.map(|binder| binder.counts);
        RelayUp::Heartbeat(Heartbeat {
            leases: counts.map_or(0, |counts| (counts.active + counts.pending) as u64),
            sessions: counts.map_or(0, |counts| counts.sessions as u64),
            draining,
            cursor: self.kept.cursor_on_disk(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: unix_s(),
        })
    }

    /// What control says holds at once, and is kept on disk before a heartbeat says so.
    async fn handle(&mut self, down: RelayDown) {
        match down {
            RelayDown::Tick { now } => self.compare_clocks(now),
            RelayDown::Certificate { certificate } => self.take_certificate(certificate).await,
            RelayDown::Map { map } => self.take_map(map).await,
            RelayDown::Snapshot { cursor, revocations } => {
                self.orders.give(Order::ReplaceRevocations(revocations.clone())).await;
                self.kept.change(|told| {
                    told.revocations = revocations;
                    told.cursor = cursor;
                });
            }
            RelayDown::Revoke { cursor, revocation } => {
                self.orders.give(Order::Revoke(revocation)).await;
                self.kept.revoke(cursor, revocation);
            }
        }
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

    async fn take_certificate(&mut self, certificate: RelayCertificate) {
        let is_ours = certificate.relay == self.enrolment.relay
            && certificate.pool == self.enrolment.pool
            && certificate.key == self.keys.tunnel_key();
        if !is_ours {
            tracing::error!("control sent the certificate of another relay; it is not used");
            return;
        }
        self.kept.change(|told| told.certificate = Some(certificate));
        self.install(certificate).await;
    }

    async fn take_map(&mut self, signed: SignedMap) {
        let map = match signed.verify(&self.enrolment.root) {
            Ok(map) => map,
            Err(error) => {
                tracing::error!(%error, "control sent a relay map that does not hold; it is not used");
                return;
            }
        };
        self.compare_names(&map);
        if self.kept.told().map.as_ref() == Some(&signed) {
            return;
        }
        let known = self.kept.told().relay_map(&self.enrolment.root).map_or(0, |map| map.serial);
        if map.serial <= known {
            tracing::warn!(
                serial = map.serial,
                known,
                "control sent an older relay map than the last; it is not used, and tickets may be \
                 refused: set the clock of control's host and start control again"
            );
            return;
        }
        self.kept.change(|told| told.map = Some(signed));
        self.mesh.set_map(&map);
        self.orders.give(signing_keys(&map)).await;
    }

    /// Said once: nothing else shows that the name given is not the one in use.
    fn compare_names(&mut self, map: &RelayMap) {
        let is_ours = |entry: &&RelayEntry| entry.certificate.relay == self.enrolment.relay;
        let Some(listed) = map.relays.iter().find(is_ours) else { return };
        if let Some(name) = self.given_name.take().filter(|name| *name != listed.name) {
            tracing::warn!(
                name,
                enrolled = listed.name,
                "--name is not the name that this relay enrolled with, which stays: to rename it, \
                 start it again with a fresh token of `lanrage-control relay token`"
            );
        }
    }

    async fn install(&self, certificate: RelayCertificate) {
        self.orders.give(Order::Certificate(certificate)).await;
        self.published.certificate_not_after.store(certificate.not_after, Ordering::Relaxed);
        self.published.has_certificate.store(true, Ordering::Relaxed);
    }
}

/// Whether it says that control knows no such relay, or another by its number, as it does after it
/// was restored from a backup.
fn is_refusal(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::BadEnrolment | ErrorCode::BadProof)
}

fn signing_keys(map: &RelayMap) -> Order {
    Order::SigningKeys(ticket_keys(map))
}

/// The keys that tickets are signed with.
pub(crate) fn ticket_keys(map: &RelayMap) -> Vec<(KeyId, [u8; 32])> {
    map.signing_keys.iter().map(|entry| (entry.id, entry.key.0)).collect()
}
