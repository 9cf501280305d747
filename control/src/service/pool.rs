use std::sync::{Arc, PoisonError};

use ed25519_dalek::SigningKey;
use lanrage_proto::api::{
    Change, ENROLMENT_PROOF_CONTEXT, Enrolled, Enrolment, ErrorCode, Heartbeat,
    RELAY_PROOF_CONTEXT, Revocation,
};
use lanrage_proto::map::{RelayEntry, RelayMap, SignedMap};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{DeviceKey, PoolId, RelayId, Signature};
use sqlx::SqliteConnection;

use super::Service;
use super::devices::token_hash;
use crate::domain::keys::{self, SigningKeyRow};
use crate::domain::limits::{CERTIFICATE_LIFETIME_S, REVOCATIONS_AT_ONCE};
use crate::domain::relays::Addresses;
use crate::domain::{self, Refusal, entry, naming, refuse};
use crate::fleet::{Heard, StreamId};
use crate::hub::encode;
use crate::random::random_bytes;
use crate::store::relays::RelayRow;
use crate::store::{Committed, Store, StoreError, Write, kicks, pool, relays};

/// The pool brought up to date: what is signed by which keys, and the map that says so.
struct Refreshed {
    signing_keys: Vec<SigningKeyRow>,
    relays: Vec<RelayId>,
    map: SignedMap,
    changed: bool,
}

/// When a map is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Something in it has changed.
    Changed,
    Always,
}

/// Brings the pool up to date before anything runs.
///
/// The database may be an old backup. A map that clients and relays have never seen, under a
/// greater serial, makes them follow it; and no revocation gets a cursor that a relay may have
/// from what is lost, for there is less than one a second.
pub(super) async fn take_over(
    store: &Store,
    root: &SigningKey,
    now: u64,
) -> Result<(Vec<SigningKeyRow>, SignedMap, u64), StoreError> {
    let mut write = store.write().await?;
    let refreshed = refresh(write.db(), root, now, Sign::Always).await?;
    kicks::raise_cursor(write.db(), now).await?;
    let revoked = kicks::last_cursor(write.db()).await?;
    write.commit().await?;
    Ok((refreshed.signing_keys, refreshed.map, revoked))
}

impl Service {
    /// Makes a signing key when one is due, renews certificates, signs a new map when something
    /// in it has changed, and tells everybody.
    pub(crate) async fn refresh_pool(&self) -> Result<(), StoreError> {
        let mut write = self.store.write().await?;
        let refreshed = refresh(write.db(), &self.root, self.clock.now(), Sign::Changed).await?;
        let _committed = write.commit().await?;
        self.take(refreshed);
        Ok(())
    }

    /// Takes a relay into the pool for a one-time token, when it has the identity key that it
    /// names: it may be the one of a relay that is in the pool already.
    pub(crate) async fn enrol(
        &self,
        request: &Enrolment,
        channel_binding: &[u8; 32],
    ) -> Result<Enrolled, Refusal> {
        naming::check_name(&request.name)?;
        entry::check_tunnel_key(&request.key)?;
        let Enrolment { ipv4, ipv6, .. } = *request;
        domain::relays::check_addresses(Addresses { ipv4, ipv6, tls: None })?;
        check_proof(&request.identity, ENROLMENT_PROOF_CONTEXT, channel_binding, &request.proof)?;
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
            ipv4,
            ipv6,
            tls: None,
            certificate: None,
            seen: now,
        };
        let relay = relays::enrol(write.db(), &row, now).await?;
        let refreshed = refresh(write.db(), &self.root, now, Sign::Changed).await?;
        let pool = pool::load(write.db()).await?.id;
        let _committed = write.commit().await?;
        self.take(refreshed);
        tracing::info!(relay = relay.0, name = request.name, "a relay enrolled");
        Ok(Enrolled { relay, pool, now })
    }

    /// Checks that a stream is the relay's, and takes its addresses of today. Of several streams
    /// the newest counts, for a relay may come back before its old stream is known to be dead.
    pub(crate) async fn prove_relay(
        &self,
        relay: RelayId,
        proof: &Signature,
        channel_binding: &[u8; 32],
        addresses: Addresses,
    ) -> Result<StreamId, Refusal> {
        domain::relays::check_addresses(addresses)?;
        // Writers wait for nobody who cannot prove anything.
        let row = relays::load(&mut *self.store.read().await?, relay).await?;
        let identity = row.ok_or_else(not_enrolled)?.identity;
        check_proof(&identity, RELAY_PROOF_CONTEXT, channel_binding, proof)?;
        let mut write = self.store.write().await?;
        let row = relays::load(write.db(), relay).await?;
        let row = row.filter(|row| row.identity == identity).ok_or_else(not_enrolled)?;
        let _committed = self.take_addresses(write, row, addresses).await?;
        Ok(self.fleet.attach(relay, addresses, self.clock.uptime_s()))
    }

    /// Takes a heartbeat. Two processes with one identity are told to the operator, and the older
    /// one's addresses are taken again when it alone is left.
    pub(crate) async fn hear_relay(&self, relay: RelayId, stream: StreamId, heartbeat: &Heartbeat) {
        match self.fleet.heartbeat(relay, stream, heartbeat, self.clock.uptime_s()) {
            Heard::Counted | Heard::Ignored => {}
            Heard::Doubled { here, newer } => tracing::warn!(
                relay = relay.0,
                older = domain::relays::text(here),
                newer = domain::relays::text(newer),
                "two processes run with the state directory of one relay, and clients are sent to \
                 the newer alone: stop one, and enrol it with a state directory of its own"
            ),
            Heard::Returned(addresses) => {
                // A failure is logged, and the next heartbeat tries again.
                let _taken = self.take_back(relay, stream, addresses).await;
            }
        }
    }

    async fn take_back(
        &self,
        relay: RelayId,
        stream: StreamId,
        addresses: Addresses,
    ) -> Result<(), Refusal> {
        let mut write = self.store.write().await?;
        let Some(row) = relays::load(write.db(), relay).await? else { return Ok(()) };
        if self.fleet.is_newest(relay, stream) {
            let _committed = self.take_addresses(write, row, addresses).await?;
            self.fleet.readdress(relay, addresses);
            tracing::info!(relay = relay.0, "the relay's newer stream ended: back to its address");
        }
        Ok(())
    }

    /// Gives a relay that has just been heard a certificate for these addresses.
    async fn take_addresses<'a>(
        &self,
        mut write: Write<'a>,
        row: RelayRow,
        Addresses { ipv4, ipv6, tls }: Addresses,
    ) -> Result<Committed<'a>, StoreError> {
        let now = self.clock.now();
        relays::update(write.db(), &RelayRow { ipv4, ipv6, tls, seen: now, ..row }).await?;
        let refreshed = refresh(write.db(), &self.root, now, Sign::Changed).await?;
        let committed = write.commit().await?;
        self.take(refreshed);
        Ok(committed)
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
        self.fleet.enrolled(&refreshed.relays);
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
    sign: Sign,
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
        entries.push(RelayEntry { name: relay.name, certificate, tls: relay.tls });
    }

    let wanted = RelayMap {
        // At least the time: a restored database must not count again from where it was.
        serial: now.max(row.map_serial + 1),
        issued: now,
        pool: row.id,
        signing_keys: keys::listed(&signing_keys),
        relays: entries,
    };
    let relays = wanted.relays.iter().map(|entry| entry.certificate.relay).collect();
    if let Some(map) = row.map.filter(|map| says_the_same(map, &wanted, root))
        && sign == Sign::Changed
    {
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

fn check_proof(
    identity: &DeviceKey,
    context: &str,
    channel_binding: &[u8; 32],
    proof: &Signature,
) -> Result<(), Refusal> {
    if identity.verifies(context, channel_binding, proof) {
        return Ok(());
    }
    Err(refuse(
        ErrorCode::BadProof,
        "the proof is not the relay's signature over this connection: update LANrage on the relay",
    ))
}

fn not_enrolled() -> Refusal {
    refuse(
        ErrorCode::BadEnrolment,
        "the relay is not in the pool (any more): enrol it with `lanrage-control relay token`",
    )
}
