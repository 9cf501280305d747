//! The targets as ordinary tests: over the committed corpus, over the vectors of `proto` changed
//! at random, and over random bytes.
#![cfg(test)]

use std::path::{Path, PathBuf};

use lanrage_proto_fuzz::TARGETS;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Every file in a folder, by name; folders in it are left out.
fn files(path: &str) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder(path))
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

fn names(path: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder(path))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn every_target_has_a_binary_and_a_corpus() {
    let targets = TARGETS.map(|(name, _)| name);
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("corpus"), targets);
}

#[test]
fn the_corpus_holds_its_properties() {
    for (name, target) in TARGETS {
        let files = files(&format!("corpus/{name}"));
        assert!(files.len() >= 4, "{name} has {} files", files.len());
        for (file, bytes) in files {
            let outcome = std::panic::catch_unwind(|| target(&bytes));
            assert!(outcome.is_ok(), "corpus/{name}/{file}");
        }
    }
}

/// All seeds of all targets: bytes of one kind are hostile to another.
fn seeds() -> Vec<Vec<u8>> {
    TARGETS
        .iter()
        .flat_map(|(name, _)| files(&format!("corpus/{name}")))
        .map(|(_, bytes)| bytes)
        .collect()
}

fn check(bytes: &[u8]) {
    TARGETS.iter().for_each(|(_, target)| target(bytes));
}

#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Truncate(Index),
    Repeat(Index, Index),
    Append(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        1 => any::<Index>().prop_map(Change::Truncate),
        1 => any::<(Index, Index)>().prop_map(|(from, to)| Change::Repeat(from, to)),
        1 => vec(any::<u8>(), 1..40).prop_map(Change::Append),
    ]
}

fn apply(bytes: &mut Vec<u8>, change: Change) {
    if bytes.is_empty() {
        return;
    }
    match change {
        Change::Set(at, value) => {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        Change::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Change::Repeat(from, to) => {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            bytes.extend_from_within(from.min(to)..from.max(to));
        }
        Change::Append(tail) => bytes.extend(tail),
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..400)) {
        check(&bytes);
    }

    #[test]
    fn changed_seeds(seed in select(seeds()), changes in vec(change(), 1..4)) {
        let mut bytes = seed;
        changes.into_iter().for_each(|change| apply(&mut bytes, change));
        check(&bytes);
    }
}
