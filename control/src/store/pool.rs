use ed25519_dalek::SigningKey;
use lanrage_proto::map::SignedMap;
use lanrage_proto::{KeyId, PoolId};
use sqlx::SqliteConnection;

use super::{StoreError, bytes, json, number, of_u64, to_json};
use crate::domain::keys::SigningKeyRow;

/// The pool's one row.
#[derive(Debug)]
pub(crate) struct PoolRow {
    pub(crate) id: PoolId,
    /// Grows when another process changes the relays.
    pub(crate) version: u64,
    pub(crate) map_serial: u64,
    pub(crate) map: Option<SignedMap>,
}

/// Reads the pool's row.
pub(crate) async fn load(db: &mut SqliteConnection) -> Result<PoolRow, StoreError> {
    let row = sqlx::query("SELECT id, version, map_serial, coalesce(map, 'null') AS map FROM pool")
        .fetch_one(db)
        .await?;
    Ok(PoolRow {
        id: PoolId(number(&row, "id")?),
        version: number(&row, "version")?,
        map_serial: number(&row, "map_serial")?,
        map: json(&row, "map")?,
    })
}

/// Tells the running service to look at the relays again.
pub(crate) async fn touch(db: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::query("UPDATE pool SET version = version + 1").execute(db).await?;
    Ok(())
}

/// When the service was last at work; 0 when it never was.
pub(crate) async fn alive(db: &mut SqliteConnection) -> Result<u64, StoreError> {
    number(&sqlx::query("SELECT alive FROM pool").fetch_one(db).await?, "alive")
}

/// Notes that the service is at work.
pub(crate) async fn set_alive(db: &mut SqliteConnection, now: u64) -> Result<(), StoreError> {
    sqlx::query("UPDATE pool SET alive = ?").bind(of_u64(now)).execute(db).await?;
    Ok(())
}

/// Keeps a new map; its serial never goes back.
pub(crate) async fn keep_map(
    db: &mut SqliteConnection,
    serial: u64,
    map: &SignedMap,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE pool SET map_serial = ?1, map = ?2 WHERE map_serial < ?1")
        .bind(of_u64(serial))
        .bind(to_json(map))
        .execute(db)
        .await?;
    Ok(())
}

/// All signing keys, eldest first.
pub(crate) async fn signing_keys(
    db: &mut SqliteConnection,
) -> Result<Vec<SigningKeyRow>, StoreError> {
    let rows = sqlx::query("SELECT id, seed, made FROM signing_keys ORDER BY made, id")
        .fetch_all(db)
        .await?;
    let key = |row| {
        Ok(SigningKeyRow {
            id: KeyId(number(row, "id")?),
            key: SigningKey::from_bytes(&bytes(row, "seed")?),
            made: number(row, "made")?,
        })
    };
    rows.iter().map(key).collect()
}

/// Adds a key and drops those made before `kept_since`.
pub(crate) async fn rotate_signing_key(
    db: &mut SqliteConnection,
    key: &SigningKeyRow,
    kept_since: u64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM signing_keys WHERE made < ?")
        .bind(of_u64(kept_since))
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO signing_keys VALUES (?, ?, ?)")
        .bind(key.id.0)
        .bind(&key.key.to_bytes()[..])
        .bind(of_u64(key.made))
        .execute(db)
        .await?;
    Ok(())
}
