use std::net::{SocketAddrV4, SocketAddrV6};
use std::num::NonZeroU16;

use lanrage_proto::map::TlsAccess;
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{DeviceKey, RelayId, TunnelKey};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{StoreError, bytes, number, of_u64};

/// An enrolled relay.
#[derive(Clone, Debug)]
pub(crate) struct RelayRow {
    pub(crate) id: RelayId,
    pub(crate) name: String,
    pub(crate) identity: DeviceKey,
    pub(crate) key: TunnelKey,
    pub(crate) ipv4: Option<SocketAddrV4>,
    pub(crate) ipv6: Option<SocketAddrV6>,
    pub(crate) tls: Option<TlsAccess>,
    /// Absent until the first one is signed.
    pub(crate) certificate: Option<RelayCertificate>,
    /// When it was last heard on a stream; noted every 15 s.
    pub(crate) seen: u64,
}

/// Lets one relay enrol until `expires`.
pub(crate) async fn add_token(
    db: &mut SqliteConnection,
    hash: &[u8; 32],
    expires: u64,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO enrolment_tokens (hash, expires) VALUES (?, ?)")
        .bind(&hash[..])
        .bind(of_u64(expires))
        .execute(db)
        .await?;
    Ok(())
}

/// Spends a token for an identity; `false` when it is unknown, expired or spent by another.
pub(crate) async fn spend_token(
    db: &mut SqliteConnection,
    hash: &[u8; 32],
    identity: &DeviceKey,
    now: u64,
) -> Result<bool, StoreError> {
    let spent = sqlx::query(
        "UPDATE enrolment_tokens SET identity = ?2
         WHERE hash = ?1 AND expires > ?3 AND coalesce(identity, ?2) = ?2",
    )
    .bind(&hash[..])
    .bind(&identity.0[..])
    .bind(of_u64(now))
    .execute(db)
    .await?;
    Ok(spent.rows_affected() == 1)
}

/// Forgets expired tokens.
pub(crate) async fn expire_tokens(db: &mut SqliteConnection, now: u64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM enrolment_tokens WHERE expires <= ?")
        .bind(of_u64(now))
        .execute(db)
        .await?;
    Ok(())
}

/// The number of a relay with this identity: its own again, or the next.
pub(crate) async fn enrol(
    db: &mut SqliteConnection,
    row: &RelayRow,
    now: u64,
) -> Result<RelayId, StoreError> {
    let found = sqlx::query(
        "INSERT INTO relays (name, identity, key, ipv4, ipv6, certificate, enrolled, seen)
         VALUES (?1, ?2, ?3, ?4, ?5, x'', ?6, ?6)
         ON CONFLICT (identity) DO UPDATE SET name = ?1, key = ?3, ipv4 = ?4, ipv6 = ?5
         RETURNING id",
    )
    .bind(&row.name)
    .bind(&row.identity.0[..])
    .bind(&row.key.0[..])
    .bind(row.ipv4.map(|address| address.to_string()))
    .bind(row.ipv6.map(|address| address.to_string()))
    .bind(of_u64(now))
    .fetch_one(db)
    .await?;
    Ok(RelayId(number(&found, "id")?))
}

/// All relays, by id.
pub(crate) async fn list(db: &mut SqliteConnection) -> Result<Vec<RelayRow>, StoreError> {
    let rows = sqlx::query("SELECT * FROM relays ORDER BY id").fetch_all(db).await?;
    rows.iter().map(relay).collect()
}

/// One relay.
pub(crate) async fn load(
    db: &mut SqliteConnection,
    id: RelayId,
) -> Result<Option<RelayRow>, StoreError> {
    let row =
        sqlx::query("SELECT * FROM relays WHERE id = ?").bind(id.0).fetch_optional(db).await?;
    row.as_ref().map(relay).transpose()
}

/// Keeps a relay's addresses and certificate.
pub(crate) async fn update(db: &mut SqliteConnection, row: &RelayRow) -> Result<(), StoreError> {
    let certificate = row.certificate.map(|certificate| certificate.encode().to_vec());
    sqlx::query(
        "UPDATE relays SET ipv4 = ?, ipv6 = ?, tls_port = ?, tls_key = ?, certificate = ?, seen = ?
         WHERE id = ?",
    )
    .bind(row.ipv4.map(|address| address.to_string()))
    .bind(row.ipv6.map(|address| address.to_string()))
    .bind(row.tls.map(|tls| tls.port.get()))
    .bind(row.tls.map(|tls| tls.key.0.to_vec()))
    .bind(certificate.unwrap_or_default())
    .bind(of_u64(row.seen))
    .bind(row.id.0)
    .execute(db)
    .await?;
    Ok(())
}

/// Notes when relays were last heard.
pub(crate) async fn note_seen(
    db: &mut SqliteConnection,
    seen: impl IntoIterator<Item = (RelayId, u64)>,
) -> Result<(), StoreError> {
    for (relay, at) in seen {
        sqlx::query("UPDATE relays SET seen = ? WHERE id = ?")
            .bind(of_u64(at))
            .bind(relay.0)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Removes a relay from the pool; `false` when there is none.
pub(crate) async fn remove(db: &mut SqliteConnection, id: RelayId) -> Result<bool, StoreError> {
    let removed = sqlx::query("DELETE FROM relays WHERE id = ?").bind(id.0).execute(db).await?;
    Ok(removed.rows_affected() == 1)
}

fn relay(row: &SqliteRow) -> Result<RelayRow, StoreError> {
    let certificate: &[u8] = row.try_get("certificate")?;
    let certificate = match certificate {
        [] => None,
        _ => Some(
            RelayCertificate::decode(&bytes(row, "certificate")?)
                .map_err(|_| StoreError::Unreadable("certificate"))?,
        ),
    };
    Ok(RelayRow {
        id: RelayId(number(row, "id")?),
        name: row.try_get("name")?,
        identity: DeviceKey(bytes(row, "identity")?),
        key: TunnelKey(bytes(row, "key")?),
        ipv4: address(row, "ipv4")?,
        ipv6: address(row, "ipv6")?,
        tls: tls(row)?,
        certificate,
        seen: number(row, "seen")?,
    })
}

fn tls(row: &SqliteRow) -> Result<Option<TlsAccess>, StoreError> {
    let Some(port) = row.try_get::<Option<u16>, _>("tls_port")? else { return Ok(None) };
    let port = NonZeroU16::new(port).ok_or(StoreError::Unreadable("tls_port"))?;
    Ok(Some(TlsAccess { port, key: DeviceKey(bytes(row, "tls_key")?) }))
}

fn address<T: std::str::FromStr>(
    row: &SqliteRow,
    column: &'static str,
) -> Result<Option<T>, StoreError> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(str::parse).transpose().map_err(|_| StoreError::Unreadable(column))
}
