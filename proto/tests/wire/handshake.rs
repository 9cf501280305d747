use lanrage_proto::bytes::TunnelKey;
use lanrage_proto::datagram::{self, Kind};
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Refusal};
use lanrage_proto::frame::challenge::{Challenge, Unsupported};
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::handshake::{Initiator, NotAuthentic, OVERHEAD, Responder};
use lanrage_proto::ids::RelayId;

use crate::golden;
use crate::samples::{
    CLIENT, CLIENT_EPHEMERAL, NONCE, NOW, OTHER_RELAY, PEER, RELAY, RELAY_EPHEMERAL, RELAY_PRIVATE,
    bind_request, certificate, cookie, lease, public,
};

#[test]
fn hello() {
    let hello = Hello { version_min: 1, version_max: 3, nonce: NONCE };
    let frame = golden::bytes("hello");
    assert_eq!(datagram::kind(&frame), Kind::Hello);
    assert_eq!(Hello::decode(&frame), Ok(hello));
    assert_eq!(hello.encode(), frame);
    assert!(hello.speaks(1) && hello.speaks(3) && !hello.speaks(0) && !hello.speaks(4));
}

#[test]
fn a_hello_is_refused_for_its_length_and_its_versions() {
    let frame = golden::bytes("hello");
    assert!(Hello::decode(&frame[..255]).is_err());
    assert!(Hello::decode(&[&frame[..], &[0]].concat()).is_err());
    for (version_min, version_max) in [(0, 3), (4, 3), (0, 0)] {
        let mut changed = frame.clone();
        changed[1..3].copy_from_slice(&[version_min, version_max]);
        assert!(Hello::decode(&changed).is_err(), "{version_min}..={version_max}");
    }
}

#[test]
fn challenge() {
    let challenge = Challenge { nonce: NONCE, certificate: certificate(), cookie: cookie() };
    let frame = golden::bytes("challenge");
    assert_eq!(datagram::kind(&frame), Kind::Challenge);
    assert_eq!(Challenge::decode(&frame), Ok(challenge));
    assert_eq!(challenge.encode(), frame);
    assert!(frame.len() <= Hello::LEN, "no answer is longer than its question");
    assert!(Challenge::decode(&frame[..frame.len() - 1]).is_err());
    assert!(Challenge::decode(&[&frame[..], &[0]].concat()).is_err());
}

#[test]
fn unsupported() {
    let unsupported = Unsupported { version_min: 2, version_max: 4, nonce: NONCE };
    let frame = golden::bytes("unsupported");
    assert_eq!(datagram::kind(&frame), Kind::Unsupported);
    assert_eq!(Unsupported::decode(&frame), Ok(unsupported));
    assert_eq!(unsupported.encode(), frame);
    assert!(Unsupported::decode(&frame[..19]).is_err());
}

#[test]
fn bind_request_and_results() {
    let payload = golden::bytes("bind_request");
    assert_eq!(BindRequest::decode(&payload), Ok(bind_request()));
    assert_eq!(bind_request().encode(), payload);

    let refused = BindResult::Refused { reason: Refusal::Expired, relay_time: NOW };
    for (name, result) in [("bind_result_lease", lease()), ("bind_result_refused", refused)] {
        let payload = golden::bytes(name);
        assert_eq!(BindResult::decode(&payload), Ok(result.clone()), "{name}");
        assert_eq!(*result.encode(), payload, "{name}");
    }
}

#[test]
fn refusals_keep_their_numbers() {
    let numbers = Refusal::ALL.map(|reason| (reason as u8, reason.as_str()));
    let expected = [
        (1, "bad_ticket"),
        (2, "expired"),
        (3, "not_yet_valid"),
        (4, "wrong_relay"),
        (5, "wrong_key"),
        (6, "revoked"),
        (7, "duplicate"),
        (8, "full"),
        (9, "replayed"),
        (10, "draining"),
        (11, "banned"),
    ];
    assert_eq!(numbers, expected);
    for number in 12..=255 {
        let payload = [&[number][..], &[0; 8]].concat();
        assert!(BindResult::decode(&payload).is_err(), "{number}");
    }
}

fn start() -> (Initiator, [u8; Bind::NOISE_LEN]) {
    let exchange = (NONCE, cookie(), RELAY);
    let payload = bind_request().encode();
    Initiator::start(&CLIENT, &public(RELAY_PRIVATE), exchange, &payload, CLIENT_EPHEMERAL).unwrap()
}

fn accept(bind: &Bind<'_>) -> Result<(Responder, Vec<u8>), NotAuthentic> {
    Responder::accept(&RELAY_PRIVATE, bind, RELAY, RELAY_EPHEMERAL)
}

#[test]
fn bind() {
    let (_, noise) = start();
    let bind = Bind { nonce: NONCE, cookie: cookie(), noise: &noise };
    let frame = golden::bytes("bind");
    assert_eq!(datagram::kind(&frame), Kind::Bind);
    assert_eq!(bind.encode(), frame);
    let decoded = Bind::decode(&frame).unwrap();
    assert_eq!(decoded, bind);
    assert_eq!(TunnelKey(decoded.ephemeral()), public(CLIENT_EPHEMERAL));

    let (responder, payload) = accept(&decoded).unwrap();
    assert_eq!(responder.client(), public(CLIENT));
    assert_eq!(BindRequest::decode(&payload), Ok(bind_request()));
}

#[test]
fn bound() {
    let (mut initiator, noise) = start();
    let bind = Bind { nonce: NONCE, cookie: cookie(), noise: &noise };
    let message = accept(&bind).unwrap().0.answer(&lease());
    let bound = Bound { nonce: NONCE, noise: &message };
    let frame = golden::bytes("bound");
    assert_eq!(datagram::kind(&frame), Kind::Bound);
    assert_eq!(bound.encode(), frame);
    let decoded = Bound::decode(&frame).unwrap();
    assert_eq!(decoded, bound);
    assert_eq!(BindResult::decode(&initiator.finish(decoded.noise).unwrap()), Ok(lease()));
}

#[test]
fn a_bind_holds_for_its_nonce_cookie_relay_and_key_only() {
    let (_, noise) = start();
    let bind = Bind { nonce: NONCE, cookie: cookie(), noise: &noise };
    let other_nonce = Bind { nonce: Nonce([0; 16]), ..bind };
    let other_cookie = Bind { cookie: Cookie([0; 20]), ..bind };
    assert!(accept(&bind).is_ok());
    assert!(accept(&other_nonce).is_err());
    assert!(accept(&other_cookie).is_err());
    for relay in [OTHER_RELAY, RelayId(0)] {
        assert!(Responder::accept(&RELAY_PRIVATE, &bind, relay, RELAY_EPHEMERAL).is_err());
    }
    assert!(Responder::accept(&PEER, &bind, RELAY, RELAY_EPHEMERAL).is_err(), "another relay key");
}

#[test]
fn a_bind_with_any_byte_changed_is_not_authentic() {
    let frame = golden::bytes("bind");
    for at in 4..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 0x40;
        assert!(accept(&Bind::decode(&changed).unwrap()).is_err(), "byte {at}");
    }
}

#[test]
fn a_bound_of_another_relay_or_another_handshake_does_not_finish() {
    let (mut initiator, noise) = start();
    let bind = Bind { nonce: NONCE, cookie: cookie(), noise: &noise };
    let right = accept(&bind).unwrap().0.answer(&lease());

    let (_, other_noise) = Initiator::start(
        &CLIENT,
        &public(RELAY_PRIVATE),
        (NONCE, cookie(), RELAY),
        &bind_request().encode(),
        [9; 32],
    )
    .unwrap();
    let other = Bind { noise: &other_noise, ..bind };
    let other = accept(&other).unwrap().0.answer(&lease());
    assert_eq!(initiator.finish(&other), Err(NotAuthentic));

    for at in 0..right.len() {
        let mut changed = right.clone();
        changed[at] ^= 0x40;
        assert!(initiator.finish(&changed).is_err(), "byte {at}");
    }
    assert!(initiator.finish(&[]).is_err());
    assert!(initiator.finish(&[0; 65_535]).is_err());
    assert!(initiator.finish(&right).is_ok(), "what went before does no harm");
    assert_eq!(initiator.finish(&right), Err(NotAuthentic), "message 2 replayed");
}

#[test]
fn the_shortest_and_longest_results_pass_and_no_others() {
    for (length, accepted) in [
        (OVERHEAD, false),
        (OVERHEAD + 1, true),
        (OVERHEAD + BindResult::LEN_MAX, true),
        (OVERHEAD + BindResult::LEN_MAX + 1, false),
    ] {
        let frame = Bound { nonce: NONCE, noise: &vec![0; length] }.encode();
        assert_eq!(Bound::decode(&frame).is_ok(), accepted, "{length}");
    }
    for length in [Bind::LEN - 1, Bind::LEN + 1] {
        let mut frame = golden::bytes("bind");
        frame.resize(length, 0);
        assert!(Bind::decode(&frame).is_err(), "{length}");
    }
}
