//! Control after a backup was restored, and after it was away.

use std::path::Path;
use std::time::Duration;

use lanrage_control::Clock;
use lanrage_proto::SessionId;
use lanrage_proto::api::{ErrorCode, RelayDown, Role};

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

async fn roles(service: &Service, device: &Device, session: SessionId) -> Vec<Role> {
    let device = Device::register_key(service, device.key.clone()).await;
    device.state(session).await.members.iter().map(|member| member.role).collect()
}

/// Nobody could reach control for a month. The first member that came back became owner within a
/// minute, and the owner was none any more.
#[tokio::test]
async fn regression_an_outage_is_nobodys_absence() {
    let (service, _relay) = Service::with_relay().await;
    let (_owner, guest, session) = party_of_two(&service).await;
    service.server.run_jobs().await.unwrap();
    let service = service.restart_after(|_, clock| clock.advance(31 * DAY)).await;
    // The absence ends here, and not with the two hours that follow.
    service.server.run_jobs().await.unwrap();
    let guest = Device::register_key(&service, guest.key.clone()).await;
    let mut stream = Stream::open(&guest, None).await;
    stream.snapshot().await;
    service.advance(2 * DAY / 24).await;
    assert_eq!(roles(&service, &guest, session).await, [Role::Owner, Role::Member]);

    // What remains of the 30 days still counts.
    let mut stream = Stream::open(&guest, None).await;
    stream.snapshot().await;
    service.advance(30 * DAY).await;
    assert_eq!(roles(&service, &guest, session).await, [Role::Member, Role::Owner]);
}

#[tokio::test]
async fn regression_a_clock_set_forward_is_nobodys_absence() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, session) = party_of_two(&service).await;
    service.server.run_jobs().await.unwrap();
    service.clock.set_forward(31 * DAY);
    let mut stream = Stream::open(&guest, None).await;
    stream.snapshot().await;
    service.advance(2 * DAY / 24).await;
    assert_eq!(roles(&service, &owner, session).await, [Role::Owner, Role::Member]);
}

/// Members who were away meanwhile have had no time to fetch the new secret.
#[tokio::test]
async fn regression_copies_of_a_new_secret_outlive_an_outage() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, session) = party_of_two(&service).await;
    let invite = owner.invite(session, 1, 1).await.unwrap();
    Device::register(&service).await.redeem(&invite, "third").await.unwrap();
    owner.publish(&owner.state(session).await).await;
    guest.publish(&guest.state(session).await).await;
    owner.kick(&owner.state(session).await, member(3)).await.unwrap();
    let service = service.restart_after(|_, clock| clock.advance(31 * DAY)).await;
    service.advance(2 * DAY / 24).await;
    let guest = Device::register_key(&service, guest.key.clone()).await;
    let party = guest.state(session).await;
    assert_eq!((party.copies.len(), party.kicks.len()), (1, 1));
}

#[tokio::test]
async fn a_party_ends_when_nobody_comes_for_a_year() {
    let (service, _relay) = Service::with_relay().await;
    let (owner, guest, kept) = party_of_two(&service).await;
    let abandoned = Device::register(&service).await;
    let ended = abandoned.create_party().await.party.session;
    let _present = Stream::open(&guest, None).await;
    service.advance(364 * DAY).await;
    assert!(service.command(&["party", "list"]).await.contains(&ended.to_string()));
    service.advance(2 * DAY).await;
    let list = service.command(&["party", "list"]).await;
    assert!(list.contains(&kept.to_string()) && !list.contains(&ended.to_string()), "{list}");
    assert_eq!(roles(&service, &owner, kept).await, [Role::Member, Role::Owner]);
    let back = Device::register_key(&service, abandoned.key).await;
    assert_refused(back.invite(ended, 1, 1).await, ErrorCode::NotFound);
}
