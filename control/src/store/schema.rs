use std::path::Path;

use sqlx::SqlitePool;

use super::{OpenError, open_error};

/// Each step is applied once, in order, and never changed afterwards.
const STEPS: [&str; 1] = [include_str!("../../migrations/0001.sql")];
/// The schema this program writes; in the file as `PRAGMA user_version`.
pub(super) const VERSION: i64 = STEPS.len() as i64;

/// Refuses a file that is damaged or newer than this program.
pub(super) async fn check(db: &SqlitePool, path: &Path) -> Result<(), OpenError> {
    let failed = |error| open_error(path, error);
    let found: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(db).await.map_err(failed)?;
    if found > VERSION {
        return Err(OpenError::Newer(path.to_owned(), found));
    }
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
