use lanrage_proto::datagram::{self, Kind};
use lanrage_proto::frame::data::{
    Delivered, HEADER_LEN, PAYLOAD_LEN_MAX, SelfProbe, Sent, overwrite_for_delivery,
};
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::ids::{Destination, Handle, RelayId};

use crate::golden;
use crate::samples::{HANDLE, OTHER_RELAY, RELAY, TAG, member, peer_member};

fn header(name: &str) -> [u8; HEADER_LEN] {
    *golden::bytes(name).first_chunk().unwrap()
}

#[test]
fn data_as_sent() {
    let sent = Sent::new(RELAY, Destination::One(peer_member()), member(), HANDLE, TAG);
    assert_eq!(datagram::kind(&golden::bytes("data_sent")), Kind::Data);
    assert_eq!(Sent::decode(&header("data_sent")), sent);
    assert_eq!(sent.encode(), header("data_sent"));
    assert_eq!((HANDLE.index(), HANDLE.generation()), (0x102, 5));
    assert_eq!(Handle::new(0x102, 5), HANDLE);
}

#[test]
fn data_for_everyone() {
    let sent = Sent::new(RelayId(0), Destination::Everyone, member(), HANDLE, TAG);
    assert_eq!(Sent::decode(&header("data_everyone")), sent);
    assert_eq!(sent.encode(), header("data_everyone"));
    assert_eq!(Destination::from_wire(sent.destination), Some(Destination::Everyone));
}

#[test]
fn data_as_delivered() {
    let delivered = Delivered {
        egress: RELAY,
        destination: Destination::One(peer_member()),
        source: member(),
        ingress: OTHER_RELAY,
    };
    let frame = golden::bytes("data_delivered");
    assert_eq!(Delivered::decode(&frame), Ok((delivered, &frame[HEADER_LEN..])));
    assert_eq!(delivered.encode(), header("data_delivered"));
}

#[test]
fn delivery_overwrites_handle_and_tag_and_nothing_else() {
    let mut frame = golden::bytes("data_sent");
    overwrite_for_delivery(frame.first_chunk_mut().unwrap(), OTHER_RELAY);
    assert_eq!(frame, golden::bytes("data_delivered"));
}

#[test]
fn a_delivered_frame_is_refused_for_each_field_that_cannot_be() {
    let frame = golden::bytes("data_delivered");
    for (at, value, field) in [
        (0, 0xf0, "type"),
        (1, 1, "flags"),
        (4, 1, "destination above 255"),
        (5, 0, "destination 0"),
        (5, 251, "destination 251"),
        (6, 1, "source above 255"),
        (7, 0, "source 0"),
        (7, 251, "source 251"),
        (10, 1, "zero"),
        (15, 1, "zero"),
    ] {
        let mut changed = frame.clone();
        changed[at] = value;
        assert!(Delivered::decode(&changed).is_err(), "{field}");
    }
    assert!(Delivered::decode(&frame[..HEADER_LEN - 1]).is_err());
    let mut longest = frame;
    longest.resize(HEADER_LEN + PAYLOAD_LEN_MAX, 0);
    assert!(Delivered::decode(&longest).is_ok());
    longest.push(0);
    assert!(Delivered::decode(&longest).is_err());
}

#[test]
fn self_probe() {
    let frame = golden::bytes("data_self_probe");
    let sent = Sent::new(RELAY, Destination::One(member()), member(), HANDLE, TAG);
    let probe = SelfProbe { sequence: 0x0102_0304, cookie: 0x1112_1314_1516_1718 };
    assert_eq!(Sent::decode(&header("data_self_probe")), sent);
    assert_eq!(SelfProbe::decode(&frame[HEADER_LEN..]), Some(probe));
    assert_eq!(probe.encode(), &frame[HEADER_LEN..]);
    for at in 0..4 {
        let mut changed = frame[HEADER_LEN..].to_vec();
        changed[at] ^= 1;
        assert_eq!(SelfProbe::decode(&changed), None, "byte {at}");
    }
    assert_eq!(SelfProbe::decode(&frame[HEADER_LEN + 1..]), None);
}

#[test]
fn hints() {
    let no_lease = Hint { kind: HintKind::NoLease, handle: HANDLE, tag: TAG };
    let no_peer = Hint { kind: HintKind::NoPeer(peer_member()), handle: HANDLE, tag: TAG };
    let there = HintKind::NoPeerThere(peer_member(), OTHER_RELAY);
    let no_peer_there = Hint { kind: there, handle: HANDLE, tag: TAG };
    for (name, hint) in [
        ("hint_no_lease", no_lease),
        ("hint_no_peer", no_peer),
        ("hint_no_peer_there", no_peer_there),
    ] {
        let frame = golden::bytes(name);
        assert_eq!(datagram::kind(&frame), Kind::Hint);
        assert_eq!(Hint::decode(&frame), Ok(hint));
        assert_eq!(hint.encode(&mut [0; Hint::LEN_MAX]), frame);
    }
}

#[test]
fn a_hint_is_refused_for_each_field_that_cannot_be() {
    let frame = golden::bytes("hint_no_peer");
    for (at, value) in [(0, 0xf5), (1, 0), (1, 1), (1, 3), (1, 4), (2, 1), (3, 0), (3, 251)] {
        let mut changed = frame.clone();
        changed[at] = value;
        assert!(Hint::decode(&changed).is_err(), "byte {at} = {value}");
    }
    assert!(Hint::decode(&[&frame[..], &[0]].concat()).is_err());
}
