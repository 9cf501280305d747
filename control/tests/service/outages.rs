//! Control after a backup was restored, and after it was away.

use std::path::Path;
use std::time::Duration;

use lanrage_control::Clock;
use lanrage_proto::api::RelayDown;

use crate::support::*;

/// The database as it is while the service is stopped.
fn backup(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("control.db")).unwrap()
}

/// Restoring takes a minute.
fn restore(dir: &Path, backup: &[u8], clock: &Clock) {
    assert!(!dir.join("control.db-wal").exists(), "a stopped service leaves none");
    clock.advance(Duration::from_secs(60));
    std::fs::write(dir.join("control.db"), backup).unwrap();
}

/// A signing key was made after the backup. The restored service made another under the same id
/// and put it into a map of the same serial as the lost one: clients and relays took neither, and
/// refused every ticket.
#[tokio::test]
async fn regression_a_restored_backup_is_followed() {
    let (service, _relay) = Service::with_relay().await;
    let mut saved = Vec::new();
    let service = service.restart_after(|dir, _| saved = backup(dir)).await;
    service.advance(31 * DAY).await;
    let lost = service.map().await;
    assert_eq!(lost.signing_keys.len(), 2);

    let service = service.restart_after(|dir, clock| restore(dir, &saved, clock)).await;
    let restored = service.map().await;
    assert_ne!(restored.signing_keys, lost.signing_keys);
    assert!(restored.serial > lost.serial, "{} after {}", restored.serial, lost.serial);
}

/// A relay was removed after the backup: what the restored service says about it had an older
/// serial than what everybody had heard, until something else changed.
#[tokio::test]
async fn regression_an_unchanged_backup_is_followed_too() {
    let (service, relay) = Service::with_relay().await;
    let mut saved = Vec::new();
    let service = service.restart_after(|dir, _| saved = backup(dir)).await;
    service.command(&["relay", "remove", &relay.id.to_string()]).await;
    service.server.run_jobs().await.unwrap();
    let lost = service.map().await;
    assert!(lost.relay(relay.id).is_none());

    let service = service.restart_after(|dir, clock| restore(dir, &saved, clock)).await;
    let restored = service.map().await;
    assert!(restored.relay(relay.id).is_some());
    assert!(restored.serial > lost.serial, "{} after {}", restored.serial, lost.serial);
}

/// A kick after the backup gave the relay a cursor. The restored service gave the same cursor to
/// the next kick, which a relay that was away meanwhile never heard of.
#[tokio::test]
async fn regression_a_kick_after_a_restore_reaches_a_relay_that_was_away() {
    let (service, relay) = Service::with_relay().await;
    let owner = Device::register(&service).await;
    let session = owner.create_party().await.party.session;
    let invite = owner.invite(session, 1, 9).await.unwrap();
    for name in ["one", "two"] {
        Device::register(&service).await.redeem(&invite, name).await.unwrap();
    }
    let mut saved = Vec::new();
    let service = service.restart_after(|dir, _| saved = backup(dir)).await;
    let owner = Device::register_key(&service, owner.key.clone()).await;
    owner.kick(&owner.state(session).await, member(2)).await.unwrap();
    let mut stream = Relay::connect(&service, relay.id, relay.identity, 0).await.unwrap();
    let told = stream.until(|message| matches!(message, RelayDown::Snapshot { .. })).await;
    let RelayDown::Snapshot { cursor, revocations } = told else { panic!() };
    assert_eq!(revocations.len(), 1);

    let service = service.restart_after(|dir, clock| restore(dir, &saved, clock)).await;
    let owner = Device::register_key(&service, owner.key.clone()).await;
    owner.kick(&owner.state(session).await, member(3)).await.unwrap();
    let mut stream = Relay::connect(&service, relay.id, stream.identity, cursor).await.unwrap();
    let told = stream
        .until(|message| matches!(message, RelayDown::Revoke { .. } | RelayDown::Tick { .. }));
    let told = told.await;
    let RelayDown::Revoke { revocation, .. } = told else { panic!("{told:?}") };
    assert_eq!(revocation.member, member(3));
}
