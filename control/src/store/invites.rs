use lanrage_proto::bytes::Blob;
use lanrage_proto::party::SealedSecret;
use lanrage_proto::{InviteHash, SessionId};
use sqlx::{Row as _, SqliteConnection};

use super::{StoreError, number, of_session, of_u64, session};
use crate::domain::invite::InviteRow;
use crate::domain::limits::TOMBSTONES_KEPT;

/// Keeps a new invite, and the party's newest closed ones.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    hash: &InviteHash,
    row: &InviteRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO invites (hash, session, sealed, expires, uses_left) VALUES (?, ?, ?, ?, ?)",
    )
    .bind(&hash.0[..])
    .bind(of_session(row.session))
    .bind(row.sealed.as_ref().map(|sealed| &sealed.0.0[..]))
    .bind(of_u64(row.expires))
    .bind(row.uses_left)
    .execute(&mut *db)
    .await?;
    sqlx::query(
        "DELETE FROM invites WHERE hash IN
            (SELECT hash FROM invites WHERE session = ? AND closed IS NOT NULL
             ORDER BY closed DESC LIMIT -1 OFFSET ?)",
    )
    .bind(of_session(row.session))
    .bind(TOMBSTONES_KEPT)
    .execute(db)
    .await?;
    Ok(())
}

/// An invite, open or closed.
pub(crate) async fn load(
    db: &mut SqliteConnection,
    hash: &InviteHash,
) -> Result<Option<InviteRow>, StoreError> {
    let row = sqlx::query("SELECT * FROM invites WHERE hash = ?")
        .bind(&hash.0[..])
        .fetch_optional(db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let sealed: Option<Vec<u8>> = row.try_get("sealed")?;
    Ok(Some(InviteRow {
        session: session(&row)?,
        sealed: sealed.map(|sealed| SealedSecret(Blob(sealed))),
        expires: number(&row, "expires")?,
        uses_left: number(&row, "uses_left")?,
        void: row.try_get("void")?,
    }))
}

/// How many invites of a party are open.
pub(crate) async fn open_count(
    db: &mut SqliteConnection,
    party: SessionId,
) -> Result<usize, StoreError> {
    let row = sqlx::query("SELECT count(*) AS n FROM invites WHERE session = ? AND closed IS NULL")
        .bind(of_session(party))
        .fetch_one(db)
        .await?;
    number(&row, "n")
}

/// Spends one use; the last one closes the invite. `false` when it is not open.
pub(crate) async fn redeem(
    db: &mut SqliteConnection,
    hash: &InviteHash,
    now: u64,
) -> Result<bool, StoreError> {
    let spent = sqlx::query(
        "UPDATE invites SET
            uses_left = uses_left - 1,
            sealed = iif(uses_left = 1, NULL, sealed),
            closed = iif(uses_left = 1, ?2, NULL)
         WHERE hash = ?1 AND closed IS NULL AND uses_left > 0 AND expires > ?2",
    )
    .bind(&hash.0[..])
    .bind(of_u64(now))
    .execute(db)
    .await?;
    Ok(spent.rows_affected() == 1)
}

/// Voids a party's open invites: their sealed secrets are gone for good.
pub(crate) async fn void_open(
    db: &mut SqliteConnection,
    party: SessionId,
    now: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE invites SET sealed = NULL, closed = ?2, void = 1
         WHERE session = ?1 AND closed IS NULL",
    )
    .bind(of_session(party))
    .bind(of_u64(now))
    .execute(db)
    .await?;
    Ok(())
}

/// Deletes the secrets of expired invites, and tombstones closed before `kept_since`.
pub(crate) async fn expire(
    db: &mut SqliteConnection,
    now: u64,
    kept_since: u64,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE invites SET sealed = NULL, closed = ?1 WHERE closed IS NULL AND expires <= ?1",
    )
    .bind(of_u64(now))
    .execute(&mut *db)
    .await?;
    sqlx::query("DELETE FROM invites WHERE closed < ?")
        .bind(of_u64(kept_since))
        .execute(db)
        .await?;
    Ok(())
}
