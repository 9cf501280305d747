//! No decoder allocates from a length it is told: what it allocates is bounded by what it is given.
#![cfg(test)]

use std::hint::black_box;
use std::path::Path;

use allocation_counter::measure;
use lanrage_proto::api::{DeviceDown, Membership, RelayDown};
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound};
use lanrage_proto::frame::challenge::{Challenge, Unsupported};
use lanrage_proto::frame::control::Sealed;
use lanrage_proto::frame::data::{Delivered, SelfProbe};
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::frame::resume::{Resume, Resumed, TICKET_LEN_MAX};
use lanrage_proto::handshake::Initiator;
use lanrage_proto::inner::Message;
use lanrage_proto::party::Invite;
use lanrage_proto::signed::{KickRecord, RelayCertificate, Ticket};
use lanrage_proto::{TunnelKey, stun};

/// A decoded lease or list of leases, beside copies of what was given.
const FIXED: u64 = 512;

fn decode_everything(bytes: &[u8]) {
    black_box(lanrage_proto::datagram::kind(bytes));
    black_box(stun::binding_request(bytes));
    black_box(Delivered::decode(bytes).ok());
    black_box(SelfProbe::decode(bytes));
    black_box(Hint::decode(bytes).ok());
    black_box(Hello::decode(bytes).ok());
    black_box(Challenge::decode(bytes).ok());
    black_box(Unsupported::decode(bytes).ok());
    black_box(Bind::decode(bytes).ok());
    black_box(Bound::decode(bytes).ok());
    black_box(BindRequest::decode(bytes).ok());
    black_box(BindResult::decode(bytes).ok());
    black_box(Resume::decode(bytes).ok());
    black_box(Message::decode(bytes).ok());
    black_box(bytes.try_into().ok().map(Ticket::decode));
    black_box(bytes.try_into().ok().map(RelayCertificate::decode));
    black_box(bytes.try_into().ok().map(KickRecord::decode));
    black_box(Sealed::decode(bytes).and_then(|sealed| sealed.open(&[0; 32])).ok());
    let cookie = lanrage_proto::frame::Cookie([0; 20]);
    black_box(Resumed::decode(bytes).and_then(|resumed| resumed.open(&[0; 32], cookie)).ok());
}

fn assert_bounded(bytes: &[u8], what: &str) {
    let allocated = measure(|| decode_everything(bytes)).bytes_max;
    let bound = 2 * bytes.len() as u64 + FIXED;
    assert!(allocated <= bound, "{what}: {} bytes made it allocate {allocated}", bytes.len());
}

/// The bytes of `name.hex`: pairs of digits; `#` begins a comment.
fn golden(path: &Path) -> Vec<u8> {
    let text = std::fs::read_to_string(path).unwrap();
    let digits: String =
        text.lines().filter_map(|line| line.split('#').next()).flat_map(|l| l.chars()).collect();
    let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn binary_decoders_allocate_no_more_than_they_are_given() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut vectors = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "hex") {
            continue;
        }
        vectors += 1;
        let (name, bytes) = (path.file_stem().unwrap().to_string_lossy(), golden(&path));
        assert_bounded(&bytes, &name);
        for from in 1..bytes.len().min(64) {
            let mut largest = bytes.clone();
            largest[from..].fill(0xff);
            assert_bounded(&largest, &format!("{name}, ff from {from}"));
            let mut cut = bytes.clone();
            cut.truncate(from);
            assert_bounded(&cut, &format!("{name}, cut at {from}"));
        }
    }
    assert!(vectors > 30, "{vectors} vectors found");
    for first in 0..=255 {
        let mut jumbo = vec![0xff; 65_535];
        jumbo[0] = first;
        assert_bounded(&jumbo, &format!("64 KiB of {first:#x}"));
    }
}

/// The counter works: a decoder that copies its ticket is seen.
#[test]
fn a_copy_is_counted() {
    let payload = [&[0_u8; 127][..], &[1; TICKET_LEN_MAX]].concat();
    let allocated = measure(|| drop(black_box(BindResult::decode(&payload).unwrap())));
    assert!(allocated.bytes_max >= TICKET_LEN_MAX as u64);
}

#[test]
fn a_noise_message_of_any_length_needs_the_same_memory() {
    let relay_key = TunnelKey(std::array::from_fn(|at| at as u8));
    let exchange =
        (Nonce([0; 16]), lanrage_proto::frame::Cookie([0; 20]), lanrage_proto::RelayId(1));
    let payload = [0; BindRequest::LEN];
    let (mut initiator, _) =
        Initiator::start(&[4; 32], &relay_key, exchange, &payload, [7; 32]).unwrap();
    let mut allocated = |length| {
        let message = vec![0xff; length];
        measure(|| drop(black_box(initiator.finish(&message)))).bytes_max
    };
    assert_eq!(allocated(65_535), allocated(48));
}

/// A tagged message is buffered before its type is known: at most 32 bytes a value, twice while
/// a list grows, for the two characters of the shortest value.
const JSON_FACTOR: u64 = 64;

#[test]
fn json_decoders_allocate_in_proportion() {
    let many = |value: &str| vec![value; 20_000].join(",");
    for text in [
        format!(r#"{{"type":"snapshot","cursor":1,"parties":[{}]"#, many("{}")),
        format!(r#"{{"type":"snapshot","cursor":1,"revocations":[{}]"#, many("1")),
        format!(r#"{{"cursor":1,"x":[{}],"type":"snapshot""#, many("0")),
        format!(r#"{{"cursor":1,"x":[{}],"type":"tick""#, many("[]")),
        format!(r#"{{"type":"delta","cursor":1,"change":{{"relays":[{}]"#, many("9")),
        format!(r#"{{"party":{{"relays":[{}]"#, many("7")),
        format!(r#"{{"type":"{}""#, "a".repeat(60_000)),
        "[".repeat(60_000),
        r#"{"a":"#.repeat(20_000),
    ] {
        let allocated = measure(|| {
            black_box(serde_json::from_str::<DeviceDown>(&text).ok());
            black_box(serde_json::from_str::<RelayDown>(&text).ok());
            black_box(serde_json::from_str::<Membership>(&text).ok());
            black_box(text.parse::<Invite>().ok());
        });
        let bound = JSON_FACTOR * text.len() as u64 + FIXED;
        let start = &text[..40];
        assert!(allocated.bytes_max <= bound, "{start}…: {} allocated", allocated.bytes_max);
    }
}
