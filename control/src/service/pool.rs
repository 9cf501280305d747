use std::net::{SocketAddrV4, SocketAddrV6};
use std::sync::{Arc, PoisonError};

use ed25519_dalek::SigningKey;
use lanrage_proto::api::{Change, Enrolled, Enrolment, ErrorCode, RELAY_PROOF_CONTEXT, Revocation};
use lanrage_proto::map::{RelayEntry, RelayMap, SignedMap};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{PoolId, RelayId, Signature};
use sqlx::SqliteConnection;

use super::Service;
use super::devices::token_hash;
use crate::domain::keys::{self, SigningKeyRow};
use crate::domain::limits::{CERTIFICATE_LIFETIME_S, REVOCATIONS_AT_ONCE};
use crate::domain::{Refusal, naming, refuse};
use crate::hub::encode;
use crate::random::random_bytes;
use crate::store::relays::RelayRow;
use crate::store::{Store, StoreError, kicks, pool, relays};

/// A relay's unicast addresses.
pub(crate) type Addresses = (Option<SocketAddrV4>, Option<SocketAddrV6>);

/// The pool brought up to date: what is signed by which keys, and the map that says so.
struct Refreshed {
    signing_keys: Vec<SigningKeyRow>,
    relays: Vec<RelayId>,
    map: SignedMap,
    changed: bool,
}

/// Brings the pool up to date before anything runs.
pub(super) async fn take_over(
    store: &Store,
    root: &SigningKey,
    now: u64,
) -> Result<(Vec<SigningKeyRow>, SignedMap, u64), StoreError> {
    let mut write = store.write().await?;
    let refreshed = refresh(write.db(), root, now).await?;
    let revoked = kicks::last_cursor(write.db()).await?;
    write.commit().await?;
    Ok((refreshed.signing_keys, refreshed.map, revoked))
}

impl Service {
    /// Makes a signing key when one is due, renews certificates, signs a new map when something
    /// in it has changed, and tells everybody.
    pub(crate) async fn refresh_pool(&self) -> Result<(), StoreError> {
        let mut write = self.store.write().await?;
        let refreshed = refresh(write.db(), &self.root, self.clock.now()).await?;
        let _committed = write.commit().await?;
        self.take(refreshed);
        Ok(())
    }

    /// Takes a relay into the pool for a one-time token.
    pub(crate) async fn enrol(&self, request: &Enrolment) -> Result<Enrolled, Refusal> {
        naming::check_name(&request.name)?;
        check_addresses((request.ipv4, request.ipv6))?;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let hash = token_hash(&request.token);
        if !relays::spend_token(write.db(), &hash, &request.identity, now).await? {
            return Err(refuse(
                ErrorCode::BadEnrolment,
                "the enrolment token is unknown, spent or expired: \
                 get a new one with `lanrage-control relay token`",
            ));
        }
        let row = RelayRow {
            id: RelayId(0),
            name: request.name.clone(),
            identity: request.identity,
            key: request.key,
            ipv4: request.ipv4,
            ipv6: request.ipv6,
            certificate: None,
            seen: now,
        };
        let relay = relays::enrol(write.db(), &row, now).await?;
        let refreshed = refresh(write.db(), &self.root, now).await?;
        let pool = pool::load(write.db()).await?.id;
        let _committed = write.commit().await?;
        self.take(refreshed);
        tracing::info!(relay = relay.0, name = request.name, "a relay enrolled");
        Ok(Enrolled { relay, pool, now })
    }

    /// Checks that a stream is the relay's, and takes its addresses of today.
    pub(crate) async fn prove_relay(
        &self,
        relay: RelayId,
        proof: &Signature,
        channel_binding: &[u8; 32],
        addresses: Addresses,
    ) -> Result<(), Refusal> {
        check_addresses(addresses)?;
        // Writers wait for nobody who cannot prove anything.
        let row = relays::load(&mut *self.store.read().await?, relay).await?;
        let identity = row.ok_or_else(not_enrolled)?.identity;
        if !identity.verifies(RELAY_PROOF_CONTEXT, channel_binding, proof) {
            return Err(refuse(
                ErrorCode::BadProof,
                "the proof is not the relay's signature over this connection",
            ));
        }
        let (ipv4, ipv6) = addresses;
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        let row = relays::load(write.db(), relay).await?;
        let row = row.filter(|row| row.identity == identity).ok_or_else(not_enrolled)?;
        relays::update(write.db(), &RelayRow { ipv4, ipv6, seen: now, ..row }).await?;
        let refreshed = refresh(write.db(), &self.root, now).await?;
        let _committed = write.commit().await?;
        self.take(refreshed);
        Ok(())
    }

    /// The certificate a relay has today.
    ///
    /// # Errors
    /// [`ErrorCode::BadEnrolment`] when the relay was removed.
    pub(crate) async fn certificate(&self, relay: RelayId) -> Result<RelayCertificate, Refusal> {
        let mut view = self.store.read().await?;
        let row = relays::load(&mut view, relay).await?;
        row.and_then(|row| row.certificate).ok_or_else(not_enrolled)
    }

    /// The cursor of the last revocation ever made.
    pub(crate) async fn last_revocation(&self) -> Result<u64, Refusal> {
        Ok(kicks::last_cursor(&mut *self.store.read().await?).await?)
    }

    /// The revocations after a cursor with their own, [`REVOCATIONS_AT_ONCE`] at most.
    pub(crate) async fn revocations(&self, after: u64) -> Result<Vec<(u64, Revocation)>, Refusal> {
        let mut view = self.store.read().await?;
        Ok(kicks::revocations(&mut view, after, REVOCATIONS_AT_ONCE).await?)
    }

    /// Must be called while writers are held off.
    fn take(&self, refreshed: Refreshed) {
        self.fleet.enrolled(&refreshed.relays, false);
        *self.signing_keys.write().unwrap_or_else(PoisonError::into_inner) = refreshed.signing_keys;
        if refreshed.changed {
            self.map.send_replace(Arc::new(refreshed.map.clone()));
            self.hub.publish_all(&encode(&Change::Map { map: refreshed.map }));
        }
    }
}

async fn refresh(
    db: &mut SqliteConnection,
    root: &SigningKey,
    now: u64,
) -> Result<Refreshed, StoreError> {
    let mut signing_keys = pool::signing_keys(db).await?;
    if let Some(id) = keys::due(&signing_keys, now) {
        let key = SigningKeyRow { id, key: SigningKey::from_bytes(&random_bytes()), made: now };
        pool::rotate_signing_key(db, &key, keys::kept_since(now)).await?;
        signing_keys = pool::signing_keys(db).await?;
    }
    let signer = keys::current(&signing_keys, now).ok_or(StoreError::Unreadable("signing key"))?;
    let row = pool::load(db).await?;
    let mut entries = Vec::new();
    for mut relay in relays::list(db).await? {
        let certificate = match relay.certificate {
            Some(certificate) if holds(&certificate, &relay, now) => certificate,
            _ => {
                let certificate = certify(&relay, row.id, signer, now);
                relay.certificate = Some(certificate);
                relays::update(db, &relay).await?;
                certificate
            }
        };
        entries.push(RelayEntry { name: relay.name, certificate });
    }

    let wanted = RelayMap {
        serial: row.map_serial + 1,
        issued: now,
        pool: row.id,
        signing_keys: keys::listed(&signing_keys),
        relays: entries,
    };
    let relays = wanted.relays.iter().map(|entry| entry.certificate.relay).collect();
    if let Some(map) = row.map.filter(|map| says_the_same(map, &wanted, root)) {
        return Ok(Refreshed { signing_keys, relays, map, changed: false });
    }
    let map = wanted.sign(root);
    pool::keep_map(db, wanted.serial, &map).await?;
    Ok(Refreshed { signing_keys, relays, map, changed: true })
}

/// Whether a certificate says what is so today and has more than half of its life left.
fn holds(certificate: &RelayCertificate, relay: &RelayRow, now: u64) -> bool {
    certificate.not_after >= now + CERTIFICATE_LIFETIME_S / 2
        && (certificate.key, certificate.ipv4, certificate.ipv6)
            == (relay.key, relay.ipv4, relay.ipv6)
}

fn certify(relay: &RelayRow, pool: PoolId, signer: &SigningKeyRow, now: u64) -> RelayCertificate {
    RelayCertificate {
        key_id: signer.id,
        pool,
        relay: relay.id,
        ipv4: relay.ipv4,
        ipv6: relay.ipv6,
        key: relay.key,
        not_after: now + CERTIFICATE_LIFETIME_S,
        signature: Signature([0; 64]),
    }
    .sign(&signer.key)
}

fn says_the_same(signed: &SignedMap, wanted: &RelayMap, root: &SigningKey) -> bool {
    let known = serde_json::from_str::<RelayMap>(&signed.map);
    signed.root.0 == root.verifying_key().to_bytes()
        && known.is_ok_and(|known| {
            (known.pool, &known.signing_keys, &known.relays)
                == (wanted.pool, &wanted.signing_keys, &wanted.relays)
        })
}

fn check_addresses((ipv4, ipv6): Addresses) -> Result<(), Refusal> {
    let unusable = ipv4.is_some_and(|a| a.ip().is_unspecified() || a.port() == 0)
        || ipv6.is_some_and(|a| a.ip().is_unspecified() || a.port() == 0);
    if unusable || (ipv4.is_none() && ipv6.is_none()) {
        return Err(refuse(
            ErrorCode::BadRequest,
            "a relay has at least one unicast address with a port: set `advertise` on the relay",
        ));
    }
    Ok(())
}

fn not_enrolled() -> Refusal {
    refuse(
        ErrorCode::BadEnrolment,
        "the relay is not in the pool (any more): enrol it with `lanrage-control relay token`",
    )
}
