use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn open(dir: &tempfile::TempDir) -> StateDir {
    StateDir::open(&dir.path().join("state")).unwrap()
}

#[test]
fn device_is_made_once_and_kept_private() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(&dir).device().unwrap();
    let state = open(&dir);
    assert_eq!(state.device().unwrap(), first);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let root = dir.path().join("state");
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("device")), 0o600);
    assert_eq!(mode(&root.join("lock")), 0o600);
}

#[test]
fn second_daemon_is_told_the_pid_of_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let _held = open(&dir);
    match StateDir::open(&dir.path().join("state")) {
        Err(StateError::InUse { pid, .. }) => assert_eq!(pid, std::process::id().to_string()),
        other => panic!("expected InUse, got {other:?}"),
    }
}

#[test]
fn every_truncation_and_every_flipped_bit_is_corrupt_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/device");
    open(&dir).device().unwrap();
    let whole = fs::read(&path).unwrap();
    let damaged =
        (0..whole.len()).map(|length| whole[..length].to_vec()).chain((0..whole.len()).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        }));
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        let state = open(&dir);
        let error = state.device().expect_err("damage is noticed");
        assert!(
            matches!(error, StateError::Corrupt { .. } | StateError::Newer { .. }),
            "{error} for {}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(fs::read(&path).unwrap(), bytes, "nothing is overwritten");
    }
}

#[test]
fn newer_format_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/device");
    open(&dir).device().unwrap();
    let newer = "lanrage-state 2 whatever that format says\n{}";
    fs::write(&path, newer).unwrap();
    let error = open(&dir).device().unwrap_err();
    assert!(matches!(error, StateError::Newer { found: 2, known: 1, .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
}

#[test]
fn crash_before_the_rename_leaves_the_old_record() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    let device = state.device().unwrap();
    fs::write(dir.path().join("state/device.tmp"), b"lanrage-state 1 half a rec").unwrap();
    fs::write(dir.path().join("state/parties/0123456789abcdef.tmp"), b"half").unwrap();
    assert_eq!(state.device().unwrap(), device);
    assert!(state.parties().unwrap().is_empty());
    state.save_device(&device).unwrap();
    assert!(!dir.path().join("state/device.tmp").exists());
}

#[test]
fn corrupt_membership_is_an_error_and_not_a_missing_one() {
    let dir = tempfile::tempdir().unwrap();
    let state = open(&dir);
    fs::write(dir.path().join("state/parties/0123456789abcdef"), b"garbage").unwrap();
    assert!(matches!(state.parties(), Err(StateError::Corrupt { .. })));
}

#[test]
fn secrets_are_not_shown() {
    let device = Device::generate();
    let secret = encode(&device);
    let shown = format!("{device:?}");
    assert!(!shown.contains(&secret[13..40]), "{shown}");
}

fn encode(device: &Device) -> String {
    serde_json::to_string(device).unwrap()
}

fn party() -> PartyRecord {
    use ed25519_dalek::SigningKey;
    use lanrage_proto::api::{MemberRecord, PartyState, Role};
    use lanrage_proto::map::RelayMap;
    use lanrage_proto::{Epoch, Generation, Member, PartySecret, PoolId, RootHash};

    let you = Member::new(2).unwrap();
    let own = MemberRecord {
        member: you,
        generation: Generation(1),
        role: Role::Member,
        name: "bert".to_owned(),
        online: true,
        entry: None,
    };
    let map = RelayMap {
        serial: 1,
        issued: 1,
        pool: PoolId(1),
        signing_keys: Vec::new(),
        relays: Vec::new(),
    };
    PartyRecord {
        server: Server { host: "localhost".to_owned(), port: 443, root: RootHash([1; 32]) },
        tunnel: random_key(),
        secrets: vec![(Epoch(1), PartySecret([2; 32]))],
        party: PartyState {
            session: SessionId(0xabc),
            name: "friday".to_owned(),
            subnet: [10, 66, 5, 0].into(),
            prefix: "fd00:1:2:3::".parse().unwrap(),
            epoch: Epoch(1),
            relays: Vec::new(),
            you,
            members: vec![own],
            copies: Vec::new(),
            kicks: Vec::new(),
        },
        ticket: None,
        map: map.sign(&SigningKey::from_bytes(&[3; 32])),
        invite: None,
        stamp: 7,
    }
}

/// A party that is not up hears of an epoch whose secret its copies may not give: whom it knew, it
/// still knows by the secret it has.
#[test]
fn a_party_that_is_down_keeps_the_entries_it_can_check() {
    use ed25519_dalek::SigningKey;
    use lanrage_proto::api::Change;
    use lanrage_proto::party::EntryBody;
    use lanrage_proto::{DeviceKey, Epoch, PartySecret, TunnelKey};

    let mut record = party();
    let known = record.party.members[0].clone();
    let device = SigningKey::from_bytes(&[4; 32]);
    let body = EntryBody {
        session: record.session(),
        member: known.member,
        generation: known.generation,
        name: known.name,
        device: DeviceKey(device.verifying_key().to_bytes()),
        tunnel: TunnelKey([5; 32]),
    };
    let [ours, theirs] = [1, 9].map(|secret| PartySecret([secret; 32]));
    record.secrets = vec![(Epoch(1), ours)];
    let genuine = body.clone().sign(&device, &ours, Epoch(1));
    record.party.members[0].entry = Some(genuine.clone());
    let mut listed = record.party.clone();
    listed.epoch = Epoch(2);
    listed.members[0].entry = Some(body.clone().sign(&device, &theirs, Epoch(2)));
    record.apply_while_down(&Change::Party { party: listed.clone() });
    assert_eq!(record.party.epoch, Epoch(2));
    assert_eq!(record.party.members[0].entry, Some(genuine));

    let other_key = EntryBody { tunnel: TunnelKey([6; 32]), ..body };
    listed.members[0].entry = Some(other_key.sign(&device, &theirs, Epoch(2)));
    record.apply_while_down(&Change::Party { party: listed.clone() });
    assert_eq!(record.party, listed, "another key is another device");
}

#[test]
fn memberships_come_back_as_they_were_until_removed() {
    let dir = tempfile::tempdir().unwrap();
    let party = party();
    {
        let writer = StateWriter::start(std::sync::Arc::new(open(&dir))).unwrap();
        writer.save_party(&PartyRecord { stamp: 1, ..party.clone() });
        writer.save_party(&party);
        writer.settle().unwrap();
    }
    assert_eq!(open(&dir).parties().unwrap(), std::slice::from_ref(&party));
    {
        let writer = StateWriter::start(std::sync::Arc::new(open(&dir))).unwrap();
        writer.save_party(&party);
        writer.remove_party(party.session());
        // Not settled: dropping it writes what was asked, the last word on each record.
    }
    assert!(open(&dir).parties().unwrap().is_empty());
}

#[test]
fn writer_reports_what_it_could_not_write_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let parties = dir.path().join("state/parties");
    let writer = StateWriter::start(std::sync::Arc::new(open(&dir))).unwrap();
    fs::remove_dir(&parties).unwrap();
    writer.save_party(&party());
    assert!(matches!(writer.settle(), Err(StateError::Io { .. })));
    fs::create_dir(&parties).unwrap();
    writer.save_party(&party());
    writer.settle().unwrap();
}

#[test]
fn changes_of_this_party_are_applied_and_others_are_not() {
    use lanrage_proto::api::{Change, MemberRecord};
    use lanrage_proto::{Member, RelayId};

    let mut record = party();
    let session = record.session();
    let one = MemberRecord { member: Member::new(1).unwrap(), ..record.party.members[0].clone() };
    let elsewhere = SessionId(0xdef);
    record.apply(&Change::Member { session: elsewhere, member: one.clone() });
    record.apply(&Change::Relays { session: elsewhere, relays: vec![RelayId(9)] });
    assert_eq!(record, PartyRecord { tunnel: record.tunnel.clone(), ..party() });

    record.apply(&Change::Member { session, member: one.clone() });
    record.apply(&Change::Relays { session, relays: vec![RelayId(9)] });
    let numbers: Vec<u8> = record.party.members.iter().map(|m| m.member.number()).collect();
    assert_eq!((numbers, &record.party.relays), (vec![1, 2], &vec![RelayId(9)]));
    let renamed = MemberRecord { name: "anna".to_owned(), ..one.clone() };
    record.apply(&Change::Member { session, member: renamed.clone() });
    assert_eq!(record.party.members[0], renamed);
    record.apply(&Change::Left { session, member: one.member });
    assert_eq!(record.party.members.len(), 1);
}

/// Kicks that ended an earlier holder's generation of the number, or that control did not sign, end
/// nothing.
#[test]
fn kick_counts_when_control_signed_it_for_this_membership() {
    use ed25519_dalek::SigningKey;
    use lanrage_proto::bytes::Signature;
    use lanrage_proto::signed::KickRecord;
    use lanrage_proto::{Epoch, Generation, KeyId, Member};

    let record = party();
    let control = SigningKey::from_bytes(&[5; 32]);
    let keys = [(KeyId(1), control.verifying_key().to_bytes())];
    let kick = KickRecord {
        key_id: KeyId(1),
        member: record.party.you,
        kicker: Member::new(1).unwrap(),
        generation: Generation(2),
        session: record.session(),
        epoch: Epoch(2),
        commitment: lanrage_proto::Commitment([0; 32]),
        issued: 0,
        signature: Signature([0; 64]),
    };
    let kicker = |kick: KickRecord| record.kicker(&kick, &keys[..]);
    assert_eq!(kicker(kick.sign(&control)), Some(kick.kicker));
    assert_eq!(kicker(kick.sign(&SigningKey::from_bytes(&[6; 32]))), None);
    for other in [
        KickRecord { generation: Generation(1), ..kick },
        KickRecord { member: kick.kicker, ..kick },
        KickRecord { session: SessionId(0xdef), ..kick },
        KickRecord { key_id: KeyId(2), ..kick },
    ] {
        assert_eq!(kicker(other.sign(&control)), None, "{other:?}");
    }
}

#[test]
fn newer_map_replaces_an_older_one_when_the_pinned_key_signed_it() {
    use ed25519_dalek::SigningKey;
    use lanrage_proto::DeviceKey;
    use lanrage_proto::map::{RelayMap, root_hash};

    let [root, other] = [3, 4].map(|seed| SigningKey::from_bytes(&[seed; 32]));
    let mut record = party();
    record.server.root = root_hash(&DeviceKey(root.verifying_key().to_bytes()));
    let known = record.map.verify(&record.server.root).unwrap();
    let map = |serial| RelayMap { serial, ..known.clone() };
    let newer = map(5).sign(&root);
    record.take_map(&newer);
    assert_eq!(record.map, newer);
    for refused in [map(4).sign(&root), map(6).sign(&other)] {
        record.take_map(&refused);
        assert_eq!(record.map, newer);
    }
}
