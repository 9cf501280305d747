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
