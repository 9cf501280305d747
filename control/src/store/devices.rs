use lanrage_proto::DeviceKey;
use sqlx::SqliteConnection;

use super::{StoreError, of_u64, to_json};

/// The last tokens of a device that hold. A client on a bad line begins a registration up to four
/// times and uses the first answer, while the others still arrive here; twice that, so that two
/// such registrations in a row do not cost each other their token.
const TOKENS_KEPT: i64 = 8;

/// Registers the device, or registers it again, with the hash of one more token.
pub(crate) async fn register(
    db: &mut SqliteConnection,
    device: &DeviceKey,
    token_hash: &[u8; 32],
    now: u64,
) -> Result<(), StoreError> {
    let device = &device.0[..];
    sqlx::query("INSERT INTO devices VALUES (?1, ?2, ?2) ON CONFLICT DO NOTHING")
        .bind(device)
        .bind(of_u64(now))
        .execute(&mut *db)
        .await?;
    sqlx::query("INSERT INTO tokens (hash, device) VALUES (?, ?)")
        .bind(&token_hash[..])
        .bind(device)
        .execute(&mut *db)
        .await?;
    sqlx::query(
        "DELETE FROM tokens WHERE device = ?1 AND id NOT IN
            (SELECT id FROM tokens WHERE device = ?1 ORDER BY id DESC LIMIT ?2)",
    )
    .bind(device)
    .bind(TOKENS_KEPT)
    .execute(db)
    .await?;
    Ok(())
}

/// Whose token this is.
pub(crate) async fn of_token(
    db: &mut SqliteConnection,
    token_hash: &[u8; 32],
) -> Result<Option<DeviceKey>, StoreError> {
    let device: Option<Vec<u8>> = sqlx::query_scalar("SELECT device FROM tokens WHERE hash = ?")
        .bind(&token_hash[..])
        .fetch_optional(db)
        .await?;
    device
        .map(|device| device.try_into().map(DeviceKey))
        .transpose()
        .map_err(|_| StoreError::Unreadable("device"))
}

/// Notes that the devices have, or just had, a stream.
pub(crate) async fn seen(
    db: &mut SqliteConnection,
    devices: &[DeviceKey],
    now: u64,
) -> Result<(), StoreError> {
    let hex = |device: &DeviceKey| device.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let devices: Vec<String> = devices.iter().map(hex).collect();
    sqlx::query(
        "UPDATE devices SET seen = ?1 WHERE device IN (SELECT unhex(value) FROM json_each(?2))",
    )
    .bind(of_u64(now))
    .bind(to_json(&devices))
    .execute(db)
    .await?;
    Ok(())
}

/// Moves all times of [`seen`] by `shift_s`, to `now` at most.
pub(crate) async fn shift_seen(
    db: &mut SqliteConnection,
    shift_s: i64,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE devices SET seen = max(0, min(seen + ?1, ?2))")
        .bind(shift_s)
        .bind(of_u64(now))
        .execute(db)
        .await?;
    Ok(())
}

/// When the device last had a stream.
pub(crate) async fn last_seen(
    db: &mut SqliteConnection,
    device: &DeviceKey,
) -> Result<u64, StoreError> {
    let seen: Option<i64> = sqlx::query_scalar("SELECT seen FROM devices WHERE device = ?")
        .bind(&device.0[..])
        .fetch_optional(db)
        .await?;
    Ok(seen.and_then(|seen| u64::try_from(seen).ok()).unwrap_or(0))
}

/// Forgets devices that are in no party and were last seen before `seen_before`.
pub(crate) async fn forget(db: &mut SqliteConnection, seen_before: u64) -> Result<(), StoreError> {
    sqlx::query(
        "DELETE FROM devices WHERE seen < ? AND NOT EXISTS
            (SELECT 1 FROM members WHERE members.device = devices.device)",
    )
    .bind(of_u64(seen_before))
    .execute(db)
    .await?;
    Ok(())
}
