use std::net::SocketAddr;

use lanrage_proto::bytes::RootHash;
use lanrage_proto::ids::{KeyId, RelayId};
use lanrage_proto::map::{BadMap, RelayMap, SignedMap, root_hash};
use lanrage_proto::signed::{KickRecord, RelayCertificate, SigningKeys, Ticket};

use crate::golden;
use crate::samples::{KEY_ID, POOL, RELAY, certificate, keys, kick, root, signing, ticket};

const NOT_AFTER: u64 = crate::samples::NOW + 30 * 86_400;

#[test]
fn ticket_vector() {
    let bytes = golden::array("ticket");
    let decoded = Ticket::decode(&bytes).unwrap();
    assert_eq!(decoded, ticket());
    assert_eq!(decoded.verify(keys().as_slice()), Ok(&ticket().body));
    assert_eq!(ticket().encode(), bytes);
}

#[test]
fn relay_certificate_vectors() {
    let bytes = golden::array("relay_certificate");
    let decoded = RelayCertificate::decode(&bytes).unwrap();
    assert_eq!(decoded, certificate());
    assert_eq!(decoded.verify(keys().as_slice(), NOT_AFTER), Ok(()));
    assert_eq!(decoded.encode(), bytes);
    let addresses: Vec<SocketAddr> = decoded.addresses().collect();
    let expected: [SocketAddr; 2] =
        ["192.0.2.1:51820".parse().unwrap(), "[2001:db8::1]:51821".parse().unwrap()];
    assert_eq!(addresses, expected);

    let bytes = golden::array("relay_certificate_v4_only");
    let v4_only = RelayCertificate { ipv6: None, ..certificate() }.sign(&signing());
    assert_eq!(RelayCertificate::decode(&bytes), Ok(v4_only));
    assert_eq!(v4_only.encode(), bytes);
    assert_eq!(v4_only.addresses().count(), 1);
}

#[test]
fn kick_record_vector() {
    let bytes = golden::array("kick_record");
    let decoded = KickRecord::decode(&bytes).unwrap();
    assert_eq!(decoded, kick());
    assert_eq!(decoded.verify(keys().as_slice()), Ok(()));
    assert_eq!(decoded.encode(), bytes);
}

/// Flips every bit of `bytes` in turn; `holds` must refuse each.
fn assert_every_bit_counts<const N: usize>(bytes: [u8; N], holds: impl Fn(&[u8; N]) -> bool) {
    assert!(holds(&bytes));
    for bit in 0..N * 8 {
        let mut changed = bytes;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!holds(&changed), "bit {bit}");
    }
}

#[test]
fn a_signature_holds_for_no_other_bit_pattern() {
    assert_every_bit_counts(golden::array("ticket"), |bytes| {
        Ticket::decode(bytes).is_ok_and(|it| it.verify(keys().as_slice()).is_ok())
    });
    assert_every_bit_counts(golden::array("relay_certificate"), |bytes| {
        RelayCertificate::decode(bytes)
            .is_ok_and(|it| it.verify(keys().as_slice(), NOT_AFTER).is_ok())
    });
    assert_every_bit_counts(golden::array("kick_record"), |bytes| {
        KickRecord::decode(bytes).is_ok_and(|it| it.verify(keys().as_slice()).is_ok())
    });
}

#[test]
fn a_signature_holds_for_its_key_and_its_time_only() {
    let other_id = [(KeyId(6), keys()[0].1)];
    let other_key = [(KEY_ID, root().verifying_key().to_bytes())];
    for keys in [&other_id[..], &other_key, &[]] {
        assert!(ticket().verify(keys).is_err());
        assert!(certificate().verify(keys, NOT_AFTER).is_err());
        assert!(kick().verify(keys).is_err());
    }
    assert!(certificate().verify(keys().as_slice(), NOT_AFTER + 1).is_err());
}

#[test]
fn half_an_address_and_relay_0_are_refused() {
    let bytes: [u8; RelayCertificate::LEN] = golden::array("relay_certificate");
    for (field, range) in [
        ("relay", 4..6),
        ("IPv4 port", 6..8),
        ("IPv4", 8..12),
        ("IPv6", 12..28),
        ("IPv6 port", 28..30),
    ] {
        let mut changed = bytes;
        changed[range].fill(0);
        assert!(RelayCertificate::decode(&changed).is_err(), "{field}");
    }
}

#[test]
fn relay_map_vector() {
    let signed: SignedMap = golden::json("signed_map");
    let pinned = root_hash(&signed.root);
    let map = signed.verify(&pinned).unwrap();
    assert_eq!((map.serial, map.issued, map.pool), (12, crate::samples::NOW, POOL));
    assert_eq!(map.key(KEY_ID), Some(keys()[0].1));
    assert_eq!(map.key(KeyId(6)), None);
    assert_eq!(map.relay(RELAY).unwrap().certificate, certificate());
    assert_eq!(map.relay(RELAY).unwrap().name, "fra1");
    assert_eq!(map.relay(RelayId(1)), None);
    assert_eq!(map.sign(&root()), signed);
}

#[test]
fn a_relay_map_is_refused_for_its_root_its_text_and_its_shape() {
    let signed: SignedMap = golden::json("signed_map");
    let pinned = root_hash(&signed.root);
    assert_eq!(signed.verify(&RootHash([0; 32])), Err(BadMap::OtherRoot));

    let mut changed = signed.clone();
    changed.map = changed.map.replace("fra1", "fra2");
    assert_eq!(changed.verify(&pinned), Err(BadMap::BadSignature));
    let mut spaced = signed.clone();
    spaced.map.push(' ');
    assert_eq!(spaced.verify(&pinned), Err(BadMap::BadSignature), "the text is signed as it is");

    let unreadable = SignedMap {
        map: "{}".to_owned(),
        signature: lanrage_proto::signed::sign(&root(), "lanrage map 1", b"{}"),
        ..signed
    };
    assert_eq!(unreadable.verify(&pinned), Err(BadMap::Unreadable));
}

#[test]
fn a_map_without_relays_round_trips() {
    let map = RelayMap { serial: 0, issued: 0, pool: POOL, signing_keys: vec![], relays: vec![] };
    let signed = map.sign(&root());
    assert_eq!(signed.verify(&root_hash(&signed.root)), Ok(map));
}
