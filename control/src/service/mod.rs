//! What the service does: each operation reads, lets `domain` decide, writes, and publishes.

use std::sync::{Arc, PoisonError, RwLock};

use ed25519_dalek::SigningKey;
use lanrage_proto::api::{Change, ErrorCode};
use lanrage_proto::map::SignedMap;
use lanrage_proto::{DeviceKey, SessionId};
use sqlx::SqliteConnection;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::domain::keys::{self, SigningKeyRow};
use crate::domain::limits::{RELAY_SILENT_S, SNAPSHOTS_KIB, SNAPSHOTS_NETWORK_PART};
use crate::domain::{MemberRow, Party, Refusal, refuse};
use crate::fleet::Fleet;
use crate::hub::{Hub, encode};
use crate::limiter::{Limiter, Purpose, Source};
use crate::network::{Network, Shared};
use crate::store::relays::RelayRow;
use crate::store::{Store, StoreError, parties, pool as pool_row, relays};

/// Who has been away for too long, control itself not counted.
mod absence;
/// Registers devices and knows their tokens.
mod devices;
pub(crate) use devices::{token_hash, unauthorized};
/// Makes, opens and redeems invites.
mod invites;
/// What happens by itself as time passes.
mod jobs;
/// Puts members out.
mod kick;
/// Makes parties; entries, roles, leaving.
mod party;
/// Enrols relays and keeps the signed map.
mod pool;
/// Signs tickets; what a device sees of its parties.
mod views;

/// What an operator can set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) ticket_lifetime_s: u64,
    /// How many relays a party gets.
    pub(crate) party_relays: usize,
    /// See [`Limiter::new`].
    pub(crate) requests_per_minute: u32,
}

/// The service behind the API.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) store: Store,
    pub(crate) hub: Hub,
    pub(crate) fleet: Fleet,
    pub(crate) clock: Clock,
    limiter: Limiter,
    /// Memory for snapshots under way, in KiB.
    snapshots: Shared,
    settings: Settings,
    root: SigningKey,
    signing_keys: RwLock<Vec<SigningKeyRow>>,
    /// The newest signed map.
    pub(crate) map: watch::Sender<Arc<SignedMap>>,
    /// The cursor of the newest revocation.
    pub(crate) revoked: watch::Sender<u64>,
    jobs: tokio::sync::Mutex<jobs::Progress>,
}

impl Service {
    /// Takes the database into service: there is a signing key and a signed map afterwards.
    pub(crate) async fn start(
        store: Store,
        root: SigningKey,
        settings: Settings,
        clock: Clock,
    ) -> Result<Arc<Self>, StoreError> {
        let (signing_keys, map, revoked) = pool::take_over(&store, &root, clock.now()).await?;
        let mut view = store.read().await?;
        let alive = pool_row::alive(&mut view).await?;
        let relays = relays::list(&mut view).await?;
        let was_there = |relay: &RelayRow| relay.seen + RELAY_SILENT_S >= alive;
        let relays = relays.iter().map(|relay| (relay.id, was_there(relay)));
        let fleet = Fleet::at_start(relays, clock.uptime_s());
        Ok(Arc::new(Self {
            store,
            hub: Hub::default(),
            fleet,
            clock,
            limiter: Limiter::new(settings.requests_per_minute),
            snapshots: Shared::new(SNAPSHOTS_KIB, SNAPSHOTS_KIB / SNAPSHOTS_NETWORK_PART),
            settings,
            root,
            signing_keys: RwLock::new(signing_keys),
            map: watch::Sender::new(Arc::new(map)),
            revoked: watch::Sender::new(revoked),
            jobs: tokio::sync::Mutex::default(),
        }))
    }

    /// # Errors
    /// Why the service is of no use now: the database does not answer, or a write has failed since
    /// the last minute's jobs were done.
    pub(crate) async fn check_ready(&self) -> Result<(), &'static str> {
        let answers = async || pool_row::load(&mut *self.store.read().await?).await;
        if answers().await.is_err() {
            return Err("the database does not answer\n");
        }
        if self.store.has_failed() {
            return Err("the database cannot be written: the log says why; is the disk full?\n");
        }
        Ok(())
    }

    /// The key that signs now.
    fn signer(&self, now: u64) -> SigningKeyRow {
        let all = self.signing_keys.read().unwrap_or_else(PoisonError::into_inner);
        keys::current(&all, now)
            .expect("the service starts with a key and never drops the last")
            .clone()
    }

    /// Counts a request from a network.
    pub(crate) fn limit_network(&self, purpose: Purpose, network: Network) -> Result<(), Refusal> {
        self.limit(purpose, Source::Network(network))
    }

    /// Counts a request of a device.
    pub(crate) fn limit_device(&self, purpose: Purpose, device: &DeviceKey) -> Result<(), Refusal> {
        self.limit(purpose, Source::Device(*device))
    }

    fn limit(&self, purpose: Purpose, source: Source) -> Result<(), Refusal> {
        if self.limiter.allows(purpose, source, self.clock.uptime_s()) {
            return Ok(());
        }
        metrics::counter!("lanrage_control_rate_limited_total").increment(1);
        Err(refuse(ErrorCode::RateLimited, "too many requests from one place: wait a minute"))
    }

    /// Tells all members of a party, but one, of a change that looks the same to all.
    fn tell(&self, party: &Party, except: Option<&DeviceKey>, change: &Change) {
        let encoded = encode(change);
        let others = party.members().filter(|row| Some(&row.device) != except);
        others.for_each(|row| self.hub.publish(&row.device, &encoded));
    }

    /// Tells all members but one of a member's new record.
    fn tell_member(&self, party: &Party, except: Option<&DeviceKey>, row: &MemberRow) {
        let member = row.record(self.hub.is_online(&row.device));
        self.tell(party, except, &Change::Member { session: party.session, member });
    }
}

/// A party and the caller's place in it.
async fn party_of(
    db: &mut SqliteConnection,
    session: SessionId,
    device: &DeviceKey,
) -> Result<(Party, MemberRow), Refusal> {
    let party = parties::load(db, session).await?;
    let found = party.and_then(|party| {
        let me = party.member_of(device).cloned()?;
        Some((party, me))
    });
    found.ok_or_else(|| refuse(ErrorCode::NotFound, "you are in no such party"))
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        metrics::counter!("lanrage_control_store_errors_total").increment(1);
        refuse(ErrorCode::Internal, "the server failed: try again; its log says why")
    }
}
