use lanrage_proto::datagram::{self, Kind};
use lanrage_proto::frame::data::Delivered;
use lanrage_proto::frame::mesh::{
    COUNTER_END, DATAGRAM_LEN_MAX, DELIVERED, EPOCH_S, HEADER_LEN, MeshEpoch, MeshHeader, MeshKey,
    MeshKind, MeshSecret, Moment,
};
use lanrage_proto::ids::Destination;
use proptest::prelude::*;
use x25519_dalek::StaticSecret;

use crate::samples::{
    NOW, OTHER_RELAY, PEER, POOL, RELAY, RELAY_PRIVATE, SESSION, member, peer_member, public,
};
use crate::{arbitrary as arb, golden};

const EPOCH: MeshEpoch = MeshEpoch((NOW / EPOCH_S) as u32);

fn secret(private: [u8; 32], other: [u8; 32]) -> MeshSecret {
    MeshSecret::agree(&StaticSecret::from(private), &public(other), POOL).unwrap()
}

fn key() -> MeshKey {
    secret(RELAY_PRIVATE, PEER).key(RELAY, OTHER_RELAY, EPOCH)
}

fn header() -> MeshHeader {
    MeshHeader {
        kind: MeshKind::Data,
        sender: RELAY,
        epoch: EPOCH.to_wire(),
        shard: 6,
        source: member(),
        destination: Destination::One(peer_member()),
        counter: 0x0001_0203_0405 >> 4,
        session: SESSION,
    }
}

#[test]
fn frames_between_relays() {
    let data = header();
    let everyone = MeshHeader { destination: Destination::Everyone, ..data };
    let absent = MeshHeader {
        kind: MeshKind::Absent,
        source: peer_member(),
        destination: Destination::One(member()),
        ..data
    };
    for (name, kind, expected) in [
        ("mesh_data", Kind::Mesh, data),
        ("mesh_everyone", Kind::Mesh, everyone),
        ("mesh_absent", Kind::MeshAbsent, absent),
    ] {
        let frame = golden::bytes(name);
        let header = frame.first_chunk().unwrap();
        assert_eq!(datagram::kind(&frame), kind, "{name}");
        assert_eq!(MeshHeader::decode(header), Ok(expected), "{name}");
        assert!(key().verifies(header, frame.len()), "{name}");
        assert_eq!(expected.encode(&key(), frame.len()), *header, "{name}");
    }
    assert_eq!(golden::bytes("mesh_absent").len(), HEADER_LEN, "never longer than what it answers");
}

#[test]
fn it_becomes_the_frame_as_delivered_in_place() {
    let mut frame = golden::bytes("mesh_data");
    let payload = frame[HEADER_LEN..].to_vec();
    header().deliver(frame.first_chunk_mut().unwrap(), OTHER_RELAY);
    let delivered = Delivered {
        egress: OTHER_RELAY,
        destination: Destination::One(peer_member()),
        source: member(),
        ingress: RELAY,
    };
    assert_eq!(Delivered::decode(&frame[DELIVERED]), Ok((delivered, &payload[..])));
    assert_eq!(DATAGRAM_LEN_MAX, 1_488);
}

#[test]
fn the_tag_covers_every_byte_before_it_and_the_length() {
    let frame = golden::bytes("mesh_data");
    let header: [u8; HEADER_LEN] = *frame.first_chunk().unwrap();
    for bit in 0..HEADER_LEN * 8 {
        let mut changed = header;
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!key().verifies(&changed, frame.len()), "bit {bit}");
    }
    assert!(!key().verifies(&header, frame.len() - 1));
    let others = [
        secret(RELAY_PRIVATE, PEER).key(OTHER_RELAY, RELAY, EPOCH),
        secret(RELAY_PRIVATE, PEER).key(RELAY, OTHER_RELAY, MeshEpoch(EPOCH.0 + 1)),
        secret([9; 32], PEER).key(RELAY, OTHER_RELAY, EPOCH),
    ];
    assert!(others.iter().all(|other| !other.verifies(&header, frame.len())));
    assert!(
        secret(PEER, RELAY_PRIVATE).key(RELAY, OTHER_RELAY, EPOCH).verifies(&header, frame.len())
    );
}

#[test]
fn a_header_is_refused_for_each_field_that_cannot_be() {
    let data = *golden::bytes("mesh_data").first_chunk().unwrap();
    let absent = *golden::bytes("mesh_absent").first_chunk().unwrap();
    for (frame, at, value) in [
        (data, 0, 0xf1),
        (data, 1, 2),
        (data, 6, 0),
        (data, 6, 251),
        (data, 6, 255),
        (data, 7, 0),
        (data, 7, 251),
        (data, 7, 7),
        (data, 11, 4),
        (data, 8, 1),
        (absent, 7, 255),
        (absent, 7, 9),
    ] {
        let mut changed: [u8; HEADER_LEN] = frame;
        changed[at] = value;
        assert!(MeshHeader::decode(&changed).is_err(), "byte {at} = {value}");
    }
}

#[test]
fn a_key_of_low_order_makes_no_secret() {
    let other = lanrage_proto::TunnelKey([0; 32]);
    assert!(MeshSecret::agree(&StaticSecret::from([1; 32]), &other, POOL).is_none());
}

#[test]
fn a_frame_names_the_epoch_of_either_clock() {
    for now in [5, 255, 256, 1 << 20] {
        let now = MeshEpoch(now);
        for ahead in [-1, 0, 1] {
            let other = MeshEpoch(now.0.wrapping_add_signed(ahead));
            assert_eq!(now.named(other.to_wire()), Some(other));
        }
        assert_eq!(now.named(now.to_wire().wrapping_add(2)), None);
        assert_eq!(now.named(now.to_wire().wrapping_sub(2)), None);
    }
    assert_eq!(MeshEpoch(0).named(255), None, "there is none before the first");
}

#[test]
fn a_later_start_counts_from_above() {
    let at = |ns: u64| Moment::new(u128::from(NOW / EPOCH_S * EPOCH_S * 1_000_000_000 + ns));
    assert_eq!(at(0), Moment { epoch: EPOCH, first_counter: 0 });
    assert_eq!(at(1_000_000).first_counter, 15_625, "no socket sends as many in a millisecond");
    let last = at(EPOCH_S * 1_000_000_000 - 1);
    assert_eq!(last.epoch, EPOCH);
    assert!(last.first_counter < COUNTER_END / 3 * 2, "room for the rest");
    assert_eq!(at(EPOCH_S * 1_000_000_000).epoch, MeshEpoch(EPOCH.0 + 1));
}

proptest! {
    #[test]
    fn round_trip(source in arb::member(), destination in arb::destination(), sender in arb::relay(),
                  (epoch, shard) in any::<(u8, u8)>(), counter in 0..COUNTER_END,
                  session in arb::session(), len in HEADER_LEN..DATAGRAM_LEN_MAX) {
        prop_assume!(destination != Destination::One(source));
        let header =
            MeshHeader { kind: MeshKind::Data, sender, epoch, shard, source, destination, counter, session };
        let bytes = header.encode(&key(), len);
        prop_assert_eq!(MeshHeader::decode(&bytes), Ok(header));
        prop_assert!(key().verifies(&bytes, len));
    }
}
