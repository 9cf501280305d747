//! All SQL of the service. One connection writes, a few read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lanrage_proto::SessionId;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow,
    SqliteSynchronous,
};
use sqlx::{Connection as _, Row as _, Sqlite, SqliteConnection, Transaction};
use tokio::sync::{Mutex, MutexGuard};

/// Steps from an empty file to today's tables.
mod schema;

/// Devices and their tokens.
pub(crate) mod devices;
/// Invites, open and closed.
pub(crate) mod invites;
/// What a kick leaves behind: copies, records, revocations.
pub(crate) mod kicks;
/// Parties and members.
pub(crate) mod parties;
/// Signing keys, the pool, and the signed map.
pub(crate) mod pool;
/// Relays and their enrolment.
pub(crate) mod relays;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const READERS: u32 = 4;
/// Connections for what may take long: a device's snapshot reads up to 32 full parties.
const VIEWS: u32 = 4;

/// The database in the state directory.
#[derive(Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
    views: SqlitePool,
    /// Held from the beginning of a write until its changes are published, so that streams see
    /// changes in the order in which they were committed.
    order: Mutex<()>,
    /// A write has failed.
    failed: AtomicBool,
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the database failed: {}", plainly(.0))]
    Database(#[from] sqlx::Error),
    #[error("the database holds an unreadable {0}")]
    Unreadable(&'static str),
}

/// Why the database cannot be opened; nothing was changed in it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("{0} is missing: restore the directory from a backup, or begin anew in another")]
    Missing(PathBuf),
    #[error("{0} has schema {1}, this program knows up to {known}: run a newer lanrage-control", known = schema::VERSION)]
    Newer(PathBuf, i64),
    #[error("{0} has schema {1}, this program needs {known}: start `lanrage-control run` of this version first", known = schema::VERSION)]
    Older(PathBuf, i64),
    #[error("{0} is corrupt ({1}): stop lanrage-control and restore the file from a backup")]
    Corrupt(PathBuf, String),
    #[error("{path} cannot be opened: {why}", path = .0.display(), why = plainly(.1))]
    Database(PathBuf, sqlx::Error),
}

/// What a database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// To make it. The caller has the directory's lock.
    Create,
    /// To serve from it: it is checked and brought up to today's schema. The caller has the
    /// directory's lock.
    Serve,
    /// To look at it or change a row while another process, perhaps of an older version, serves.
    Visit,
}

impl Store {
    /// Opens the file.
    pub(crate) async fn open(path: &Path, opening: Opening) -> Result<Self, OpenError> {
        if opening != Opening::Create && !path.exists() {
            return Err(OpenError::Missing(path.to_owned()));
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(opening == Opening::Create)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let failed = |error| open_error(path, error);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            // Some errors, a full disk among them, end the transaction inside SQLite
            // (https://sqlite.org/lang_transaction.html#response_to_errors_within_a_transaction).
            // sqlx then cannot roll back, and takes the connection for one in a transaction for ever.
            .before_acquire(|db, _| Box::pin(async { Ok(!db.is_in_transaction()) }))
            .connect_with(options.clone())
            .await
            .map_err(failed)?;
        schema::check_version(&writer, path, opening).await?;
        if opening != Opening::Visit {
            schema::check_whole(&writer, path).await?;
            schema::migrate(&writer).await.map_err(failed)?;
        }
        let read_only = options.read_only(true).create_if_missing(false);
        let reading = async |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_with(read_only.clone())
                .await
                .map_err(failed)
        };
        let (readers, views) = (reading(READERS).await?, reading(VIEWS).await?);
        Ok(Self { writer, readers, views, order: Mutex::new(()), failed: AtomicBool::new(false) })
    }

    /// Begins the one write transaction; rolled back unless committed.
    pub(crate) async fn write(&self) -> Result<Write<'_>, StoreError> {
        let order = self.order.lock().await;
        let begun = self.writer.begin_with("BEGIN IMMEDIATE").await;
        Ok(Write { tx: begun.inspect_err(|_| self.set_failed(true))?, order, store: self })
    }

    /// Whether a write has failed, as on a full disk, since [`Store::set_failed`] took it back.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Begins and commits that fail say so by themselves.
    pub(crate) fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Ordering::Relaxed);
    }

    /// A consistent view of what is committed.
    pub(crate) async fn read(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    /// A consistent view that may be read for long, begun while writers are held off: what is
    /// published from now until [`Committed`] is dropped agrees with it.
    pub(crate) async fn ordered_view(
        &self,
    ) -> Result<(Transaction<'static, Sqlite>, Committed<'_>), StoreError> {
        // First: whoever waits for a connection must not hold writers off meanwhile.
        let mut view = self.views.begin().await?;
        let order = Committed { _order: self.order.lock().await };
        // SQLite takes a transaction's snapshot at its first read (https://sqlite.org/isolation.html).
        sqlx::query("SELECT one FROM pool").execute(&mut *view).await?;
        Ok((view, order))
    }

    /// Finishes what is queued and closes the file.
    pub(crate) async fn close(&self) {
        self.views.close().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// The write transaction.
#[derive(Debug)]
pub(crate) struct Write<'a> {
    order: MutexGuard<'a, ()>,
    store: &'a Store,
    tx: Transaction<'static, Sqlite>,
}

/// Publish before this is dropped.
#[derive(Debug)]
pub(crate) struct Committed<'a> {
    _order: MutexGuard<'a, ()>,
}

impl<'a> Write<'a> {
    /// For the functions of this module's children.
    pub(crate) fn db(&mut self) -> &mut SqliteConnection {
        &mut self.tx
    }

    /// Makes the changes durable.
    pub(crate) async fn commit(self) -> Result<Committed<'a>, StoreError> {
        self.tx.commit().await.inspect_err(|_| self.store.set_failed(true))?;
        Ok(Committed { _order: self.order })
    }
}

/// What SQLite says, without what sqlx puts around it.
fn plainly(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(error) => match error.code() {
            Some(code) => format!("{} (SQLite code {code})", error.message()),
            None => error.message().to_owned(),
        },
        None => error.to_string(),
    }
}

fn open_error(path: &Path, error: sqlx::Error) -> OpenError {
    // https://sqlite.org/rescode.html: 11 is SQLITE_CORRUPT, 26 SQLITE_NOTADB.
    let code = error.as_database_error().and_then(|error| error.code());
    match code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
        Some(11 | 26) => OpenError::Corrupt(path.to_owned(), plainly(&error)),
        _ => OpenError::Database(path.to_owned(), error),
    }
}

/// The fixed-size bytes in a column.
fn bytes<const N: usize>(row: &SqliteRow, column: &'static str) -> Result<[u8; N], StoreError> {
    let blob: &[u8] = row.try_get(column)?;
    blob.try_into().map_err(|_| StoreError::Unreadable(column))
}

/// The number in a column.
fn number<T: TryFrom<i64>>(row: &SqliteRow, column: &'static str) -> Result<T, StoreError> {
    let number: i64 = row.try_get(column)?;
    number.try_into().map_err(|_| StoreError::Unreadable(column))
}

/// The JSON in a column.
fn json<T: serde::de::DeserializeOwned>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: &str = row.try_get(column)?;
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable(column))
}

fn to_json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("stored values have string keys only")
}

/// SQLite has signed numbers only; a session is stored as the same 64 bits.
const fn of_session(session: SessionId) -> i64 {
    session.0.cast_signed()
}

fn session(row: &SqliteRow) -> Result<SessionId, StoreError> {
    let number: i64 = row.try_get("session")?;
    Ok(SessionId(number.cast_unsigned()))
}

/// Times and counters fit for 292 billion years.
fn of_u64(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    /// Whoever waited for one of the connections that read held writers off: four big snapshots being
    /// read were the end of writing.
    #[tokio::test]
    async fn regression_writers_do_not_wait_for_readers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), Opening::Create).await.unwrap();
        let mut views = Vec::new();
        for _ in 0..VIEWS {
            views.push(store.ordered_view().await.unwrap().0);
        }
        let one_more = store.ordered_view();
        tokio::pin!(one_more);
        assert!(timeout(Duration::from_millis(50), &mut one_more).await.is_err());
        let write = timeout(Duration::from_secs(5), store.write()).await;
        write.expect("nobody holds writers off").unwrap().commit().await.unwrap();
        timeout(Duration::from_secs(5), store.read()).await.expect("nor readers").unwrap();
        views.pop();
        timeout(Duration::from_secs(5), one_more).await.unwrap().unwrap();
    }

    /// After a disk had been full for a moment nothing could be written until the next start.
    #[tokio::test]
    async fn regression_a_transaction_that_sqlite_ended_does_not_end_all_writing() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db"), Opening::Create).await.unwrap();
        let mut write = store.write().await.unwrap();
        let ends = "CREATE TRIGGER ends BEFORE UPDATE ON pool WHEN new.alive = 7
                    BEGIN SELECT RAISE(ROLLBACK, 'database or disk is full'); END";
        sqlx::raw_sql(ends).execute(write.db()).await.unwrap();
        write.commit().await.unwrap();
        assert!(!store.has_failed());
        let mut write = store.write().await.unwrap();
        let error = pool::set_alive(write.db(), 7).await.unwrap_err().to_string();
        assert_eq!(error, "the database failed: database or disk is full (SQLite code 1811)");
        drop(write);
        let mut write = store.write().await.unwrap();
        pool::set_alive(write.db(), 8).await.unwrap();
        write.commit().await.unwrap();
        assert_eq!(pool::alive(&mut store.read().await.unwrap()).await.unwrap(), 8);
    }
}
