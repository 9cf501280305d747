use std::net::{Ipv6Addr, SocketAddr};

use lanrage_proto::datagram::{self, Kind};
use lanrage_proto::stun::{RESPONSE_LEN_MAX, binding_request, encode_request, encode_response};

use crate::golden;

fn transaction() -> [u8; 12] {
    *golden::bytes("stun_request").last_chunk().unwrap()
}

#[test]
fn a_request_is_told_by_its_magic_cookie() {
    let request = golden::bytes("stun_request");
    let id = binding_request(&request).unwrap();
    assert_eq!(datagram::kind(&request), Kind::Stun);
    assert_eq!(id.0, transaction());
    assert_eq!(encode_request(id), request);
}

#[test]
fn the_request_of_rfc_5769_is_understood() {
    let request = golden::bytes("stun_request_rfc5769");
    assert_eq!(datagram::kind(&request), Kind::Stun);
    assert_eq!(binding_request(&request).unwrap().0, transaction());
}

#[test]
fn responses_carry_the_addresses_of_rfc_5769() {
    let id = binding_request(&golden::bytes("stun_request")).unwrap();
    let v4: SocketAddr = "192.0.2.1:32853".parse().unwrap();
    let v6: Ipv6Addr = "2001:db8:1234:5678:11:2233:4455:6677".parse().unwrap();
    let buffer = &mut [0xa5; RESPONSE_LEN_MAX];
    assert_eq!(encode_response(id, v4, buffer), golden::bytes("stun_response_v4"));
    assert_eq!(encode_response(id, (v6, 32853).into(), buffer), golden::bytes("stun_response_v6"));
    assert_eq!(golden::bytes("stun_response_v6").len(), RESPONSE_LEN_MAX);
}

#[test]
fn what_is_not_a_well_formed_request_gets_no_answer() {
    let request = golden::bytes("stun_request_rfc5769");
    for length in 0..request.len() {
        assert_eq!(binding_request(&request[..length]), None, "{length}");
    }
    assert_eq!(binding_request(&[&request[..], &[0]].concat()), None);
    for at in 0..8 {
        let mut changed = request.clone();
        changed[at] ^= 0x01;
        assert_eq!(binding_request(&changed), None, "byte {at}");
    }
    assert_eq!(binding_request(&golden::bytes("stun_response_v4")), None, "a response");
    let mut one_byte_more = golden::bytes("stun_request");
    one_byte_more[3] = 1;
    one_byte_more.push(0);
    assert_eq!(binding_request(&one_byte_more), None, "attributes are padded to 4 bytes");
}
