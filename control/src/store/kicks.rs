use lanrage_proto::api::{PUT_OUT_MAX, Revocation};
use lanrage_proto::party::EpochCopy;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{DeviceKey, Generation, Member, SessionId};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::{StoreError, bytes, json, number, of_session, of_u64, session, to_json};
use crate::domain::limits::COPIES_KEPT;

/// Keeps a copy of the secret that a kept kick began with, and at most the newest 32 of a member.
pub(crate) async fn keep_copy(
    db: &mut SqliteConnection,
    party: SessionId,
    copy: &EpochCopy,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO epoch_copies VALUES (?, ?, ?, ?)")
        .bind(of_session(party))
        .bind(copy.to.number())
        .bind(i64::from(copy.epoch.0))
        .bind(to_json(copy))
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM epoch_copies WHERE session = ? AND member = ? AND epoch <= ?")
        .bind(of_session(party))
        .bind(copy.to.number())
        .bind(i64::from(copy.epoch.0) - COPIES_KEPT as i64)
        .execute(db)
        .await?;
    Ok(())
}

/// A member's copies, oldest first.
pub(crate) async fn copies(
    db: &mut SqliteConnection,
    party: SessionId,
    member: Member,
) -> Result<Vec<EpochCopy>, StoreError> {
    let rows = sqlx::query(
        "SELECT copy FROM epoch_copies WHERE session = ? AND member = ? ORDER BY epoch",
    )
    .bind(of_session(party))
    .bind(member.number())
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| json(row, "copy")).collect()
}

/// Deletes the copies of a number that is no longer, or newly, a device's.
pub(crate) async fn drop_copies(
    db: &mut SqliteConnection,
    party: SessionId,
    member: Member,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM epoch_copies WHERE session = ? AND member = ?")
        .bind(of_session(party))
        .bind(member.number())
        .execute(db)
        .await?;
    Ok(())
}

/// Keeps a signed kick of a device.
pub(crate) async fn keep_record(
    db: &mut SqliteConnection,
    record: &KickRecord,
    device: &DeviceKey,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO kicks (session, epoch, record, made, device) VALUES (?, ?, ?, ?, ?)")
        .bind(of_session(record.session))
        .bind(i64::from(record.epoch.0))
        .bind(&record.encode()[..])
        .bind(of_u64(record.issued))
        .bind(&device.0[..])
        .execute(db)
        .await?;
    Ok(())
}

/// A party's kicks, oldest first.
pub(crate) async fn records(
    db: &mut SqliteConnection,
    party: SessionId,
) -> Result<Vec<KickRecord>, StoreError> {
    let rows = sqlx::query("SELECT record FROM kicks WHERE session = ? ORDER BY epoch")
        .bind(of_session(party))
        .fetch_all(db)
        .await?;
    rows.iter().map(record).collect()
}

/// The last kick of a device in each party that it was put out of and is not in again, newest first.
pub(crate) async fn put_out(
    db: &mut SqliteConnection,
    device: &DeviceKey,
) -> Result<Vec<KickRecord>, StoreError> {
    // The other columns are of the row that has the maximum
    // (https://sqlite.org/lang_select.html#bareagg).
    let rows = sqlx::query(
        "SELECT record, made, max(epoch) FROM kicks WHERE device = ?1 AND session NOT IN
            (SELECT session FROM members WHERE device = ?1 AND gone IS NULL)
         GROUP BY session ORDER BY made DESC, session LIMIT ?2",
    )
    .bind(&device.0[..])
    .bind(PUT_OUT_MAX as i64)
    .fetch_all(db)
    .await?;
    rows.iter().map(record).collect()
}

fn record(row: &SqliteRow) -> Result<KickRecord, StoreError> {
    KickRecord::decode(&bytes(row, "record")?).map_err(|_| StoreError::Unreadable("record"))
}

/// Adds a revocation; its cursor is above all before it. It holds for all generations that an earlier
/// one of the member held for, so that one stands for each member.
pub(crate) async fn revoke(
    db: &mut SqliteConnection,
    revocation: &Revocation,
) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "INSERT INTO revocations (session, member, generation, forget_after)
         VALUES (?, ?, ?, ?) RETURNING cursor",
    )
    .bind(of_session(revocation.session))
    .bind(revocation.member.number())
    .bind(i64::from(revocation.generation.0))
    .bind(of_u64(revocation.forget_after))
    .fetch_one(&mut *db)
    .await?;
    let cursor = number(&row, "cursor")?;
    sqlx::query("DELETE FROM revocations WHERE session = ? AND member = ? AND cursor < ?")
        .bind(of_session(revocation.session))
        .bind(revocation.member.number())
        .bind(of_u64(cursor))
        .execute(db)
        .await?;
    Ok(cursor)
}

/// The revocations after `after`, in order, `limit` at most.
pub(crate) async fn revocations(
    db: &mut SqliteConnection,
    after: u64,
    limit: usize,
) -> Result<Vec<(u64, Revocation)>, StoreError> {
    let rows = sqlx::query("SELECT * FROM revocations WHERE cursor > ? ORDER BY cursor LIMIT ?")
        .bind(of_u64(after))
        .bind(i64::try_from(limit).unwrap_or(i64::MAX))
        .fetch_all(db)
        .await?;
    let revocation = |row| {
        let member = Member::new(number(row, "member")?);
        Ok((
            number(row, "cursor")?,
            Revocation {
                session: session(row)?,
                member: member.ok_or(StoreError::Unreadable("member"))?,
                generation: Generation(number(row, "generation")?),
                forget_after: number(row, "forget_after")?,
            },
        ))
    };
    rows.iter().map(revocation).collect()
}

/// The cursor of the last revocation ever made, or what it was raised to since.
pub(crate) async fn last_cursor(db: &mut SqliteConnection) -> Result<u64, StoreError> {
    let row = sqlx::query(
        "SELECT coalesce(max(seq), 0) AS cursor FROM sqlite_sequence WHERE name = 'revocations'",
    )
    .fetch_one(db)
    .await?;
    number(&row, "cursor")
}

/// Makes the next revocation's cursor greater than `cursor`.
pub(crate) async fn raise_cursor(db: &mut SqliteConnection, cursor: u64) -> Result<(), StoreError> {
    // An ordinary table, made with a row for each table once that has had one
    // (https://sqlite.org/autoinc.html).
    sqlx::query(
        "INSERT INTO sqlite_sequence (name, seq) SELECT 'revocations', 0 WHERE NOT EXISTS
            (SELECT 1 FROM sqlite_sequence WHERE name = 'revocations')",
    )
    .execute(&mut *db)
    .await?;
    sqlx::query("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'revocations'")
        .bind(of_u64(cursor))
        .execute(db)
        .await?;
    Ok(())
}

/// Moves the times when kicks were made by `shift_s`, to `now` at most.
pub(crate) async fn shift_made(
    db: &mut SqliteConnection,
    shift_s: i64,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE kicks SET made = max(0, min(made + ?1, ?2))")
        .bind(shift_s)
        .bind(of_u64(now))
        .execute(db)
        .await?;
    Ok(())
}

/// Deletes kicks made before `kept_since` with their copies, and revocations that no longer matter.
pub(crate) async fn expire(
    db: &mut SqliteConnection,
    now: u64,
    kept_since: u64,
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM kicks WHERE made < ?")
        .bind(of_u64(kept_since))
        .execute(&mut *db)
        .await?;
    sqlx::query("DELETE FROM revocations WHERE forget_after < ?")
        .bind(of_u64(now))
        .execute(db)
        .await?;
    Ok(())
}
