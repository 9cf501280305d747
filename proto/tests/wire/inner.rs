use std::net::Ipv4Addr;

use lanrage_proto::ids::{Epoch, RelayId};
use lanrage_proto::inner::{FRAGMENT_OVERHEAD, LeaseState, Message, is_message};

use crate::golden;
use crate::samples::{NEXT_SECRET, OTHER_RELAY, RELAY, kick, run};

const FROM: Ipv4Addr = Ipv4Addr::new(10, 66, 5, 7);
const TO: Ipv4Addr = Ipv4Addr::new(10, 66, 5, 9);
const PIECE: [u8; 21] = run(0x70);

fn messages() -> [(&'static str, Message<'static>); 7] {
    let id = 0x3132_3334_3536_3738;
    let sequence = 0x4142_4344;
    let leases = vec![
        (RELAY, LeaseState::Alive),
        (OTHER_RELAY, LeaseState::Suspect),
        (RelayId(0x0405), LeaseState::Dead),
    ];
    [
        ("inner_echo", Message::Echo { id }),
        ("inner_echo_reply", Message::EchoReply { id }),
        ("inner_leases", Message::Leases { sequence, leases }),
        ("inner_leases_ack", Message::LeasesAck { sequence }),
        ("inner_new_epoch", Message::NewEpoch { record: Box::new(kick()), secret: NEXT_SECRET }),
        ("inner_new_epoch_ack", Message::NewEpochAck { epoch: Epoch(5) }),
        ("inner_fragment", Message::Fragment { id: 0x5152, index: 1, count: 3, piece: &PIECE }),
    ]
}

#[test]
fn inner_messages() {
    for (name, message) in messages() {
        let packet = golden::bytes(name);
        assert!(is_message(&packet), "{name}");
        assert_eq!(Message::decode(&packet), Ok(message.clone()), "{name}");
        assert_eq!(message.encode(FROM, TO), packet, "{name}");
    }
    assert_eq!(golden::bytes("inner_fragment").len(), FRAGMENT_OVERHEAD + PIECE.len());
}

#[test]
fn a_message_of_another_version_type_or_length_is_refused() {
    for (name, _) in messages() {
        let packet = golden::bytes(name);
        for (at, value) in [(20, 0), (20, 2), (21, 0), (21, 8), (22, 0xff)] {
            let mut changed = packet.clone();
            changed[at] = value;
            assert!(Message::decode(&changed).is_err(), "{name}, byte {at} = {value}");
        }
        for length in 0..packet.len() {
            assert!(Message::decode(&packet[..length]).is_err(), "{name}, {length} bytes");
        }
    }
}

#[test]
fn a_fixed_body_must_have_its_length() {
    for (name, _) in messages() {
        if ["inner_leases", "inner_fragment"].contains(&name) {
            continue;
        }
        let mut longer = golden::bytes(name);
        longer.push(0);
        assert!(Message::decode(&longer).is_ok(), "{name}: what follows the length is padding");
        longer[23] += 1;
        assert!(Message::decode(&longer).is_err(), "{name}");
    }
}

#[test]
fn at_most_six_leases_in_known_states() {
    let leases = vec![(RELAY, LeaseState::Alive); 6];
    let six = Message::Leases { sequence: 1, leases };
    let mut packet = six.encode(FROM, TO);
    assert_eq!(Message::decode(&packet), Ok(six));
    packet.extend_from_slice(&[0, 1, 1]);
    packet[23] += 3;
    assert!(Message::decode(&packet).is_err(), "seven");
    for state in [0, 4] {
        let mut packet = golden::bytes("inner_leases");
        *packet.last_mut().unwrap() = state;
        assert!(Message::decode(&packet).is_err(), "state {state}");
    }
}

#[test]
fn a_fragment_has_a_piece_and_an_index_below_its_count() {
    for (index, count, piece, accepted) in [
        (0, 1, &PIECE[..], true),
        (254, 255, &PIECE, true),
        (0, 0, &PIECE, false),
        (3, 3, &PIECE, false),
        (0, 1, &[], false),
    ] {
        let packet = Message::Fragment { id: 1, index, count, piece }.encode(FROM, TO);
        assert_eq!(Message::decode(&packet).is_ok(), accepted, "{index} of {count}");
    }
}

/// Protocol 253 behind IPv4 options must not reach the NIC either.
#[test]
fn regression_options_do_not_hide_a_message() {
    let mut packet = golden::bytes("inner_echo");
    packet[0] = 0x46;
    assert!(is_message(&packet));
    assert!(Message::decode(&packet).is_err());
    packet[0] = 0x65;
    assert!(!is_message(&packet), "IPv6");
    packet[0] = 0x45;
    packet[9] = 17;
    assert!(!is_message(&packet), "UDP");
    assert!(!is_message(&[]) && !is_message(&[0x45; 9]));
}
