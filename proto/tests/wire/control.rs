use std::net::SocketAddr;

use lanrage_proto::datagram::{self, Kind};
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::frame::resume::{Resume, Resumed, TICKET_LEN_MAX};
use lanrage_proto::ids::Handle;

use crate::golden;
use crate::samples::{
    HANDLE, NONCE, OTHER_RELAY, RELAY, RESUMPTION, RESUMPTION_TICKET, TO_CLIENT, TO_RELAY, cookie,
    documentation_v6, lease,
};

/// Every control message: its vector, counter, key and meaning.
fn messages() -> [(&'static str, u64, [u8; 32], Message); 6] {
    let rebound = SocketAddr::from((documentation_v6(), 40001));
    let moving = Message::Moving { next: OTHER_RELAY, deadline_s: 90 };
    [
        ("control_rebind", 1, TO_RELAY, Message::Rebind),
        ("control_rebind_challenge", 2, TO_CLIENT, Message::RebindChallenge(cookie())),
        ("control_rebind_answer", 3, TO_RELAY, Message::RebindAnswer(cookie())),
        ("control_rebound", 4, TO_CLIENT, Message::Rebound(rebound)),
        ("control_release", 5, TO_RELAY, Message::Release),
        ("control_moving", 0x0102_0304_0506_0708, TO_CLIENT, moving),
    ]
}

#[test]
fn control_messages() {
    for (name, counter, key, message) in messages() {
        let frame = golden::bytes(name);
        assert_eq!(datagram::kind(&frame), Kind::Control, "{name}");
        let sealed = Sealed::decode(&frame).unwrap();
        assert_eq!((sealed.handle, sealed.counter), (HANDLE, counter), "{name}");
        assert_eq!(sealed.open(&key), Ok(message), "{name}");
        assert_eq!(message.seal(&key, HANDLE, counter), frame, "{name}");
    }
}

#[test]
fn the_challenge_to_an_unproven_address_is_not_longer_than_its_question() {
    let (question, answer) = ("control_rebind", "control_rebind_challenge");
    assert!(golden::bytes(answer).len() <= golden::bytes(question).len());
}

#[test]
fn a_control_message_opens_only_whole_and_with_its_key() {
    for (name, _, key, _) in messages() {
        let frame = golden::bytes(name);
        let other_direction = if key == TO_RELAY { TO_CLIENT } else { TO_RELAY };
        assert!(Sealed::decode(&frame).unwrap().open(&other_direction).is_err(), "{name}");
        for bit in 0..frame.len() * 8 {
            let mut changed = frame.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let opened = Sealed::decode(&changed).and_then(|sealed| sealed.open(&key));
            assert!(opened.is_err(), "{name}, bit {bit}");
        }
        for length in 0..frame.len() {
            let opened = Sealed::decode(&frame[..length]).and_then(|sealed| sealed.open(&key));
            assert!(opened.is_err(), "{name}, {length} bytes");
        }
    }
}

#[test]
fn a_counter_or_handle_of_another_message_does_not_open() {
    let message = Message::Release;
    let frame = message.seal(&TO_RELAY, HANDLE, 8);
    let moved = message.seal(&TO_RELAY, Handle(HANDLE.0 ^ 1), 9);
    let spliced = [&moved[..16], &frame[16..]].concat();
    assert!(Sealed::decode(&spliced).unwrap().open(&TO_RELAY).is_err());
}

#[test]
fn resume() {
    let frame = golden::bytes("resume");
    assert_eq!(datagram::kind(&frame), Kind::Resume);
    let decoded = Resume::decode(&frame).unwrap();
    assert_eq!((decoded.nonce, decoded.cookie), (NONCE, cookie()));
    assert_eq!(decoded.ticket, RESUMPTION_TICKET);
    let made = Resume::new(NONCE, cookie(), &RESUMPTION_TICKET, &RESUMPTION, RELAY);
    assert_eq!(decoded, made);
    assert_eq!(made.encode(), frame);
    assert!(decoded.proves(&RESUMPTION, RELAY));
    assert!(!decoded.proves(&TO_RELAY, RELAY), "another key");
    assert!(!decoded.proves(&RESUMPTION, OTHER_RELAY), "another relay");
    for bit in 4 * 8..(4 + 16 + 20 + 16) * 8 {
        let mut changed = frame.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(!Resume::decode(&changed).unwrap().proves(&RESUMPTION, RELAY), "bit {bit}");
    }
}

#[test]
fn a_resumption_ticket_has_1_to_104_bytes() {
    let mut frame = golden::bytes("resume");
    frame[56..].fill(0);
    for (length, accepted) in
        [(0, false), (1, true), (TICKET_LEN_MAX, true), (TICKET_LEN_MAX + 1, false)]
    {
        frame[2..4].copy_from_slice(&(length as u16).to_be_bytes());
        assert_eq!(Resume::decode(&frame).is_ok(), accepted, "{length}");
    }
}

/// An answer was longer than its question.
#[test]
fn regression_resume_is_as_long_as_its_longest_answer() {
    let mut frame = golden::bytes("resume");
    assert_eq!((frame.len(), Resumed::LEN_MAX), (279, 279));
    assert!(Resume::decode(&frame[..278]).is_err(), "too short");
    assert!(Resume::decode(&[&frame[..], &[0]].concat()).is_err(), "too long");
    *frame.last_mut().unwrap() = 1;
    assert!(Resume::decode(&frame).is_err(), "something in the padding");
}

#[test]
fn resumed() {
    let frame = golden::bytes("resumed");
    assert_eq!(datagram::kind(&frame), Kind::Resumed);
    let decoded = Resumed::decode(&frame).unwrap();
    assert_eq!(decoded.nonce, NONCE);
    assert_eq!(decoded.open(&RESUMPTION, cookie()), Ok(lease()));
    let question = Resume::new(NONCE, cookie(), &RESUMPTION_TICKET, &RESUMPTION, RELAY);
    assert_eq!(Resumed::seal(&question, &RESUMPTION, &lease()), frame);
    assert!(decoded.open(&TO_RELAY, cookie()).is_err(), "another key");
    for bit in 0..frame.len() * 8 {
        let mut changed = frame.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let opened = Resumed::decode(&changed).and_then(|r| r.open(&RESUMPTION, cookie()));
        assert!(opened.is_err(), "bit {bit}");
    }
}

/// Two results for one RESUME under one key and IV would give their difference away.
#[test]
fn regression_two_answers_to_one_resume_share_no_key_stream() {
    use lanrage_proto::frame::bind::{BindResult, Refusal};
    let question = Resume::new(NONCE, cookie(), &RESUMPTION_TICKET, &RESUMPTION, RELAY);
    let refused = |relay_time| BindResult::Refused { reason: Refusal::Full, relay_time };
    let one = Resumed::seal(&question, &RESUMPTION, &refused(1));
    let other = Resumed::seal(&question, &RESUMPTION, &refused(2));
    assert_ne!(one[20..32], other[20..32], "the IV");
    assert_ne!(one[32], other[32], "the first sealed byte, whose plaintext is the same");
}
