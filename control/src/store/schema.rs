use std::cmp::Ordering;
use std::path::Path;

use sqlx::SqlitePool;

use super::{OpenError, Opening, open_error};

/// Each step is applied once, in order, and never changed afterwards.
const STEPS: [&str; 4] = [
    include_str!("../../migrations/0001.sql"),
    include_str!("../../migrations/0002.sql"),
    include_str!("../../migrations/0003.sql"),
    include_str!("../../migrations/0004.sql"),
];
/// The schema this program writes; in the file as `PRAGMA user_version`.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Refuses a file that is newer than this program, and to visitors one that is older.
pub(super) async fn check_version(
    db: &SqlitePool,
    path: &Path,
    opening: Opening,
) -> Result<(), OpenError> {
    let failed = |error| open_error(path, error);
    let found: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(db).await.map_err(failed)?;
    match found.cmp(&VERSION) {
        Ordering::Greater => Err(OpenError::Newer(path.to_owned(), found)),
        Ordering::Less if opening == Opening::Visit => {
            Err(OpenError::Older(path.to_owned(), found))
        }
        Ordering::Less | Ordering::Equal => Ok(()),
    }
}

/// Refuses a file that is damaged; reads all of it.
pub(super) async fn check_whole(db: &SqlitePool, path: &Path) -> Result<(), OpenError> {
    let failed = |error| open_error(path, error);
    let damage: String =
        sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(db).await.map_err(failed)?;
    if damage != "ok" {
        return Err(OpenError::Corrupt(path.to_owned(), damage));
    }
    Ok(())
}

/// Applies the steps that the file lacks, all or none.
pub(super) async fn migrate(db: &SqlitePool) -> Result<(), sqlx::Error> {
    let mut tx = db.begin_with("BEGIN IMMEDIATE").await?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *tx).await?;
    for (step, version) in STEPS.into_iter().zip(1_i64..).filter(|(_, version)| *version > found) {
        sqlx::raw_sql(step).execute(&mut *tx).await?;
        let mark = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {version}"));
        sqlx::raw_sql(mark).execute(&mut *tx).await?;
    }
    tx.commit().await
}
