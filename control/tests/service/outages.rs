//! Control after a backup was restored, and after it was away.

use std::path::Path;
use std::time::Duration;

use lanrage_control::Clock;

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
