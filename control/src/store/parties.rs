use std::net::{Ipv4Addr, Ipv6Addr};

use lanrage_proto::api::Role;
use lanrage_proto::party::Entry;
use lanrage_proto::{DeviceKey, Epoch, Generation, Member, RelayId, SessionId, TunnelKey};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::{StoreError, bytes, number, of_session, of_u64, session, to_json};
use crate::domain::{MemberRow, Party};

/// What is kept of a new party beside its members and relays.
#[derive(Debug)]
pub(crate) struct NewParty<'a> {
    pub(crate) party: &'a Party,
    pub(crate) creator: &'a DeviceKey,
    pub(crate) request: &'a [u8; 16],
    pub(crate) now: u64,
}

/// Adds a party without members; `false` when the session id is taken.
pub(crate) async fn insert(
    db: &mut SqliteConnection,
    new: &NewParty<'_>,
) -> Result<bool, StoreError> {
    let party = new.party;
    let inserted = sqlx::query(
        "INSERT INTO parties VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (session) DO NOTHING",
    )
    .bind(of_session(party.session))
    .bind(&party.name)
    .bind(i64::from(party.subnet.to_bits()))
    .bind(&party.prefix.octets()[..])
    .bind(i64::from(party.epoch.0))
    .bind(&new.creator.0[..])
    .bind(&new.request[..])
    .bind(of_u64(new.now))
    .execute(&mut *db)
    .await?;
    set_relays(db, party.session, &party.relays).await?;
    Ok(inserted.rows_affected() == 1)
}

/// The party that this request of this device made.
pub(crate) async fn of_request(
    db: &mut SqliteConnection,
    creator: &DeviceKey,
    request: &[u8; 16],
) -> Result<Option<SessionId>, StoreError> {
    let row = sqlx::query("SELECT session FROM parties WHERE creator = ? AND request = ?")
        .bind(&creator.0[..])
        .bind(&request[..])
        .fetch_optional(db)
        .await?;
    row.as_ref().map(session).transpose()
}

/// A party with all its numbers and relays.
pub(crate) async fn load(
    db: &mut SqliteConnection,
    party: SessionId,
) -> Result<Option<Party>, StoreError> {
    let row = sqlx::query("SELECT * FROM parties WHERE session = ?")
        .bind(of_session(party))
        .fetch_optional(&mut *db)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let members = sqlx::query("SELECT * FROM members WHERE session = ? ORDER BY member")
        .bind(of_session(party))
        .fetch_all(&mut *db)
        .await?;
    Ok(Some(Party {
        session: party,
        name: row.try_get("name")?,
        subnet: Ipv4Addr::from_bits(number(&row, "subnet")?),
        prefix: Ipv6Addr::from(bytes::<16>(&row, "prefix")?),
        epoch: Epoch(number(&row, "epoch")?),
        relays: relays(db, party).await?,
        rows: members.iter().map(member).collect::<Result<_, _>>()?,
    }))
}

/// The parties a device is in.
pub(crate) async fn of_device(
    db: &mut SqliteConnection,
    device: &DeviceKey,
) -> Result<Vec<SessionId>, StoreError> {
    let rows = sqlx::query(
        "SELECT session FROM members WHERE device = ? AND gone IS NULL ORDER BY joined, session",
    )
    .bind(&device.0[..])
    .fetch_all(db)
    .await?;
    rows.iter().map(session).collect()
}

/// How much a device's parties hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) parties: u64,
    pub(crate) members: u64,
    pub(crate) kicks: u64,
    /// The device's own.
    pub(crate) copies: u64,
}

/// Counts what a device's parties hold.
pub(crate) async fn extent_of_device(
    db: &mut SqliteConnection,
    device: &DeviceKey,
) -> Result<Extent, StoreError> {
    let row = sqlx::query(
        "SELECT count(*) AS parties,
            coalesce(sum((SELECT count(*) FROM members AS m
                WHERE m.session = me.session AND m.gone IS NULL)), 0) AS members,
            coalesce(sum((SELECT count(*) FROM kicks AS k
                WHERE k.session = me.session)), 0) AS kicks,
            coalesce(sum((SELECT count(*) FROM epoch_copies AS c
                WHERE c.session = me.session AND c.member = me.member)), 0) AS copies
         FROM members AS me WHERE me.device = ? AND me.gone IS NULL",
    )
    .bind(&device.0[..])
    .fetch_one(db)
    .await?;
    Ok(Extent {
        parties: number(&row, "parties")?,
        members: number(&row, "members")?,
        kicks: number(&row, "kicks")?,
        copies: number(&row, "copies")?,
    })
}

/// All parties: session, name, members of today.
pub(crate) async fn list(
    db: &mut SqliteConnection,
) -> Result<Vec<(SessionId, String, u32)>, StoreError> {
    let rows = sqlx::query(
        "SELECT session, name,
            (SELECT count(*) FROM members AS m WHERE m.session = p.session AND gone IS NULL) AS size
         FROM parties AS p ORDER BY made, session",
    )
    .fetch_all(db)
    .await?;
    rows.iter().map(|row| Ok((session(row)?, row.try_get("name")?, number(row, "size")?))).collect()
}

/// Parties after `after` whose relay list is shorter than `wanted` or names one of `relays`.
pub(crate) async fn with_relay_trouble(
    db: &mut SqliteConnection,
    after: Option<SessionId>,
    wanted: usize,
    relays: &[RelayId],
    limit: u32,
) -> Result<Vec<SessionId>, StoreError> {
    let ids = to_json(&relays);
    let rows = sqlx::query(
        "SELECT session FROM parties AS p WHERE session > ?1 AND (
            (SELECT count(*) FROM party_relays AS r WHERE r.session = p.session) < ?2
            OR EXISTS (SELECT 1 FROM party_relays AS r WHERE r.session = p.session
                AND r.relay IN (SELECT value FROM json_each(?3))))
         ORDER BY session LIMIT ?4",
    )
    .bind(after.map_or(i64::MIN, of_session))
    .bind(i64::try_from(wanted).unwrap_or(i64::MAX))
    .bind(ids)
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(session).collect()
}

/// Relays that party lists name.
pub(crate) async fn relays_in_use(db: &mut SqliteConnection) -> Result<Vec<RelayId>, StoreError> {
    let rows = sqlx::query("SELECT DISTINCT relay FROM party_relays").fetch_all(db).await?;
    rows.iter().map(|row| Ok(RelayId(number(row, "relay")?))).collect()
}

/// Parties whose owner was last seen before `gone_since`, and another member after.
pub(crate) async fn with_owner_gone(
    db: &mut SqliteConnection,
    gone_since: u64,
) -> Result<Vec<SessionId>, StoreError> {
    let rows = sqlx::query(
        "SELECT session FROM members AS owner JOIN devices USING (device)
         WHERE role = 'owner' AND gone IS NULL AND seen < ?1 AND EXISTS
            (SELECT 1 FROM members AS other JOIN devices USING (device)
             WHERE other.session = owner.session AND other.gone IS NULL AND seen >= ?1)",
    )
    .bind(of_u64(gone_since))
    .fetch_all(db)
    .await?;
    rows.iter().map(session).collect()
}

/// Parties of which no member was seen after `seen_before`.
pub(crate) async fn abandoned(
    db: &mut SqliteConnection,
    seen_before: u64,
    limit: u32,
) -> Result<Vec<SessionId>, StoreError> {
    let rows = sqlx::query(
        "SELECT session FROM parties WHERE NOT EXISTS
            (SELECT 1 FROM members JOIN devices USING (device)
             WHERE members.session = parties.session AND gone IS NULL AND seen >= ?1) LIMIT ?2",
    )
    .bind(of_u64(seen_before))
    .bind(limit)
    .fetch_all(db)
    .await?;
    rows.iter().map(session).collect()
}

/// Replaces the row of the member's number.
pub(crate) async fn put_member(
    db: &mut SqliteConnection,
    party: SessionId,
    row: &MemberRow,
) -> Result<(), StoreError> {
    sqlx::query("INSERT OR REPLACE INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        .bind(of_session(party))
        .bind(row.member.number())
        .bind(i64::from(row.generation.0))
        .bind(&row.device.0[..])
        .bind(&row.tunnel.0[..])
        .bind(&row.name)
        .bind(role_name(row.role))
        .bind(of_u64(row.joined))
        .bind(row.gone.map(of_u64))
        .bind(row.entry.as_ref().map(to_json))
        .execute(db)
        .await?;
    Ok(())
}

/// Moves the party from the epoch before to this one; `false` when it has another.
pub(crate) async fn advance_epoch(
    db: &mut SqliteConnection,
    party: SessionId,
    epoch: Epoch,
) -> Result<bool, StoreError> {
    let moved = sqlx::query("UPDATE parties SET epoch = ?1 WHERE session = ?2 AND epoch + 1 = ?1")
        .bind(i64::from(epoch.0))
        .bind(of_session(party))
        .execute(db)
        .await?;
    Ok(moved.rows_affected() == 1)
}

/// Replaces the party's relay list.
pub(crate) async fn set_relays(
    db: &mut SqliteConnection,
    party: SessionId,
    relays: &[RelayId],
) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM party_relays WHERE session = ?")
        .bind(of_session(party))
        .execute(&mut *db)
        .await?;
    for (position, relay) in (0_i64..).zip(relays) {
        sqlx::query("INSERT INTO party_relays VALUES (?, ?, ?)")
            .bind(of_session(party))
            .bind(position)
            .bind(relay.0)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Deletes a party and all that hangs on it but its invites.
pub(crate) async fn delete(db: &mut SqliteConnection, party: SessionId) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM parties WHERE session = ?")
        .bind(of_session(party))
        .execute(db)
        .await?;
    Ok(())
}

async fn relays(db: &mut SqliteConnection, party: SessionId) -> Result<Vec<RelayId>, StoreError> {
    let rows = sqlx::query("SELECT relay FROM party_relays WHERE session = ? ORDER BY position")
        .bind(of_session(party))
        .fetch_all(db)
        .await?;
    rows.iter().map(|row| Ok(RelayId(number(row, "relay")?))).collect()
}

fn member(row: &SqliteRow) -> Result<MemberRow, StoreError> {
    let gone: Option<i64> = row.try_get("gone")?;
    let entry: Option<&str> = row.try_get("entry")?;
    let entry = entry.map(serde_json::from_str::<Entry>).transpose();
    Ok(MemberRow {
        member: Member::new(number(row, "member")?).ok_or(StoreError::Unreadable("member"))?,
        generation: Generation(number(row, "generation")?),
        device: DeviceKey(bytes(row, "device")?),
        tunnel: TunnelKey(bytes(row, "tunnel")?),
        name: row.try_get("name")?,
        role: role(row.try_get("role")?)?,
        joined: number(row, "joined")?,
        gone: gone.map(|gone| gone.try_into().unwrap_or(0)),
        entry: entry.map_err(|_| StoreError::Unreadable("entry"))?,
    })
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Promoted => "promoted",
        Role::Owner => "owner",
    }
}

fn role(name: &str) -> Result<Role, StoreError> {
    match name {
        "member" => Ok(Role::Member),
        "promoted" => Ok(Role::Promoted),
        "owner" => Ok(Role::Owner),
        _ => Err(StoreError::Unreadable("role")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Opening, Store, devices};
    use super::*;

    const OWNER: DeviceKey = DeviceKey([1; 32]);
    const GUEST: DeviceKey = DeviceKey([2; 32]);

    async fn party_of_two(store: &Store) -> SessionId {
        let row = |number, device, role| MemberRow {
            member: Member::new(number).unwrap(),
            generation: Generation(1),
            device,
            tunnel: TunnelKey([number; 32]),
            name: format!("m{number}"),
            role,
            joined: 0,
            gone: None,
            entry: None,
        };
        let party = Party {
            session: SessionId(7),
            name: "party".to_owned(),
            subnet: Ipv4Addr::new(10, 66, 1, 0),
            prefix: Ipv6Addr::LOCALHOST,
            epoch: Epoch(1),
            relays: Vec::new(),
            rows: Vec::new(),
        };
        let mut write = store.write().await.unwrap();
        let new = NewParty { party: &party, creator: &OWNER, request: &[0; 16], now: 0 };
        assert!(insert(write.db(), &new).await.unwrap());
        for (number, device, role) in [(1, OWNER, Role::Owner), (2, GUEST, Role::Member)] {
            devices::register(write.db(), &device, &[number; 32], 0).await.unwrap();
            put_member(write.db(), party.session, &row(number, device, role)).await.unwrap();
        }
        write.commit().await.unwrap();
        party.session
    }

    /// A party to which nobody comes has work for nobody, however long its owner is gone; every
    /// such party was loaded every minute for ever.
    #[tokio::test]
    async fn regression_an_abandoned_party_waits_for_a_member_and_then_ends() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("control.db"), Opening::Create).await.unwrap();
        let session = party_of_two(&store).await;
        let mut write = store.write().await.unwrap();
        let db = write.db();
        devices::seen(db, &[OWNER, GUEST], 100).await.unwrap();
        assert_eq!(with_owner_gone(db, 101).await.unwrap(), []);
        assert_eq!(abandoned(db, 101, 9).await.unwrap(), [session]);

        devices::seen(db, &[GUEST], 101).await.unwrap();
        assert_eq!(with_owner_gone(db, 101).await.unwrap(), [session]);
        assert_eq!(abandoned(db, 101, 9).await.unwrap(), []);

        devices::seen(db, &[OWNER], 101).await.unwrap();
        assert_eq!(with_owner_gone(db, 101).await.unwrap(), []);

        devices::shift_seen(db, 50, 120).await.unwrap();
        assert_eq!(devices::last_seen(db, &OWNER).await.unwrap(), 120, "not after today");
        devices::shift_seen(db, -200, 120).await.unwrap();
        assert_eq!(devices::last_seen(db, &OWNER).await.unwrap(), 0);
    }
}
