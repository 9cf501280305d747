use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The text of a vector, without the newline at its end.
pub(crate) fn text(name: &str) -> String {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    text.trim_end().to_owned()
}

/// The bytes of `name.hex`: pairs of hexadecimal digits; `#` begins a comment.
pub(crate) fn bytes(name: &str) -> Vec<u8> {
    let text = text(&format!("{name}.hex"));
    let digits: Vec<u8> = text
        .lines()
        .filter_map(|line| line.split('#').next())
        .flat_map(|line| line.bytes().filter(|b| !b.is_ascii_whitespace()))
        .collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// [`bytes`] of a known length.
pub(crate) fn array<const N: usize>(name: &str) -> [u8; N] {
    let bytes = bytes(name);
    let length = bytes.len();
    bytes.try_into().unwrap_or_else(|_| panic!("{name} has {length} bytes, expected {N}"))
}

/// File stems in a folder of the vectors, sorted.
pub(crate) fn names(folder: &str, extension: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(path(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// Reads `name.json`, and checks that writing it gives the same JSON: no field is lost or added.
pub(crate) fn json<T: Serialize + DeserializeOwned>(name: &str) -> T {
    let text = text(&format!("{name}.json"));
    let value: T = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    let expected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_value(&value).unwrap(), expected, "{name}");
    value
}
