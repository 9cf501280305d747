use lanrage_proto::api::{BadEnrolmentToken, EnrolmentToken};
use lanrage_proto::bytes::{DeviceKey, InviteHash, PartySecret, Token, TunnelKey};
use lanrage_proto::ids::{Epoch, Generation, Member, SessionId};
use lanrage_proto::map::root_hash;
use lanrage_proto::party::{
    BadInvite, BadServerAddress, Entry, EntryBody, EpochCopy, Invite, SealError, SealedSecret,
    ServerAddress, commitment, pre_shared_key, valid_name,
};
use x25519_dalek::StaticSecret;

use crate::golden;
use crate::samples::{
    CLIENT, Counting, EPOCH, GENERATION, NEXT_SECRET, PEER, RELAY_PRIVATE, SECRET, SESSION, device,
    invite_key, kick, member, peer_member, public, root, run,
};

const OTHER_SESSION: SessionId = SessionId(1);

#[test]
fn pre_shared_key_vector() {
    let (client, peer) = (public(CLIENT), public(PEER));
    let expected: [u8; 32] = golden::array("pre_shared_key");
    assert_eq!(*pre_shared_key(&SECRET, SESSION, EPOCH, &client, &peer), expected);
    assert_eq!(*pre_shared_key(&SECRET, SESSION, EPOCH, &peer, &client), expected);
    for other in [
        pre_shared_key(&NEXT_SECRET, SESSION, EPOCH, &client, &peer),
        pre_shared_key(&SECRET, OTHER_SESSION, EPOCH, &client, &peer),
        pre_shared_key(&SECRET, SESSION, EPOCH.next(), &client, &peer),
        pre_shared_key(&SECRET, SESSION, EPOCH, &client, &public(RELAY_PRIVATE)),
    ] {
        assert_ne!(*other, expected);
    }
}

fn entry_body() -> EntryBody {
    EntryBody {
        session: SESSION,
        member: member(),
        generation: GENERATION,
        name: "nora".to_owned(),
        device: DeviceKey(device().verifying_key().to_bytes()),
        tunnel: public(CLIENT),
    }
}

#[test]
fn directory_entry_vector() {
    let entry: Entry = golden::json("entry");
    assert_eq!(entry, entry_body().sign(&device(), &SECRET, EPOCH));
    assert!(entry.body.device.verifies(
        "lanrage entry 1",
        &golden::bytes("entry"),
        &entry.signature
    ));
    let key = golden::array("directory_key");
    let mac = lanrage_proto::mac::mac16(&key, &[&golden::bytes("entry"), &entry.signature.0]);
    assert_eq!(entry.mac.0, mac);
    assert!(entry.is_signed() && entry.is_genuine(&SECRET));
}

#[test]
fn an_entry_is_genuine_for_its_own_fields_secret_and_epoch_only() {
    let entry: Entry = golden::json("entry");
    let with = |change: fn(&mut Entry)| {
        let mut changed = entry.clone();
        change(&mut changed);
        changed
    };
    for (field, changed) in [
        ("session", with(|e| e.body.session = OTHER_SESSION)),
        ("member", with(|e| e.body.member = peer_member())),
        ("generation", with(|e| e.body.generation = Generation(4))),
        ("name", with(|e| e.body.name = "nor".to_owned())),
        ("tunnel", with(|e| e.body.tunnel = public(PEER))),
        ("device", with(|e| e.body.device = DeviceKey(root().verifying_key().to_bytes()))),
        ("signature", with(|e| e.signature.0[0] ^= 1)),
    ] {
        assert!(!changed.is_signed(), "{field}");
        assert!(!changed.vouch(&SECRET, EPOCH).is_genuine(&SECRET), "{field}");
    }
    for (field, changed) in
        [("epoch", with(|e| e.epoch = e.epoch.next())), ("mac", with(|e| e.mac.0[15] ^= 1))]
    {
        assert!(changed.is_signed() && !changed.is_genuine(&SECRET), "{field}");
    }
    assert!(!entry.is_genuine(&NEXT_SECRET));
    let vouched = entry.vouch(&NEXT_SECRET, EPOCH.next());
    assert!(vouched.is_genuine(&NEXT_SECRET) && !vouched.is_genuine(&SECRET));
}

#[test]
fn an_entry_with_a_bad_name_is_not_signed_whatever_its_signature() {
    for name in ["", "-a", "a-", "A", "a b", "naïve", &"a".repeat(33), &"a".repeat(256)] {
        assert!(!valid_name(name), "{name}");
        let body = EntryBody { name: name.to_owned(), ..entry_body() };
        assert!(!body.sign(&device(), &SECRET, EPOCH).is_signed(), "{name}");
    }
    for name in ["a", "0", "a-b", &"a".repeat(32)] {
        assert!(valid_name(name), "{name}");
    }
}

fn copy() -> EpochCopy {
    copy_under(Some((EPOCH, &SECRET)))
}

fn copy_under(under: Option<(Epoch, &PartySecret)>) -> EpochCopy {
    EpochCopy::seal(
        SESSION,
        (EPOCH.next(), &NEXT_SECRET),
        under,
        (member(), &StaticSecret::from(CLIENT)),
        (peer_member(), &public(PEER)),
        &mut Counting(0),
    )
    .unwrap()
}

#[test]
fn epoch_copy_vector() {
    let decoded: EpochCopy = golden::json("epoch_copy");
    assert_eq!(decoded, copy());
    assert_eq!(decoded.sealed.0, golden::bytes("epoch_copy"));
    assert_eq!(decoded.open(SESSION, &StaticSecret::from(PEER), (EPOCH, &SECRET)), Ok(NEXT_SECRET));
}

#[test]
fn epoch_copy_under_none_vector() {
    let decoded: EpochCopy = golden::json("epoch_copy_under_none");
    assert_eq!(decoded, copy_under(None));
    assert_eq!(decoded.sealed.0, golden::bytes("epoch_copy_under_none"));
    let peer = StaticSecret::from(PEER);
    for current in [(EPOCH, &SECRET), (Epoch(9), &NEXT_SECRET)] {
        assert_eq!(decoded.open(SESSION, &peer, current), Ok(NEXT_SECRET));
    }
}

#[test]
fn commitment_vector() {
    let made = commitment(&NEXT_SECRET, SESSION, EPOCH.next());
    assert_eq!(made.0, golden::array::<32>("commitment"));
    assert!(kick().is_of(&NEXT_SECRET) && !kick().is_of(&SECRET));
}

/// HKDF's empty salt is a salt of 32 zeros, and an epoch's secret could be those.
#[test]
fn a_copy_under_none_is_never_one_under_an_epoch() {
    let peer = StaticSecret::from(PEER);
    let zeros = PartySecret([0; 32]);
    let under_none = copy_under(None);
    let under_zeros = copy_under(Some((EPOCH, &zeros)));
    assert_eq!(under_zeros.open(SESSION, &peer, (EPOCH, &zeros)), Ok(NEXT_SECRET));
    for (copy, under) in [(under_none, Some(EPOCH)), (under_zeros, None)] {
        let renamed = EpochCopy { under, ..copy };
        assert_eq!(renamed.open(SESSION, &peer, (EPOCH, &zeros)), Err(SealError));
    }
}

#[test]
fn an_epoch_copy_opens_for_its_member_session_epoch_and_old_secret_only() {
    let peer = StaticSecret::from(PEER);
    let kicked = StaticSecret::from(RELAY_PRIVATE);
    assert_eq!(copy().open(SESSION, &kicked, (EPOCH, &SECRET)), Err(SealError), "another member");
    assert_eq!(
        copy().open(OTHER_SESSION, &peer, (EPOCH, &SECRET)),
        Err(SealError),
        "another session"
    );
    assert_eq!(
        copy().open(SESSION, &peer, (EPOCH, &NEXT_SECRET)),
        Err(SealError),
        "another secret"
    );
    let other_epoch = EpochCopy { epoch: Epoch(6), ..copy() };
    assert_eq!(other_epoch.open(SESSION, &peer, (EPOCH, &SECRET)), Err(SealError), "another epoch");
    let other_kicker = EpochCopy { from_key: public(RELAY_PRIVATE), ..copy() };
    assert_eq!(
        other_kicker.open(SESSION, &peer, (EPOCH, &SECRET)),
        Err(SealError),
        "another kicker"
    );
    let other_under = EpochCopy { under: Some(Epoch(3)), ..copy() };
    assert_eq!(other_under.open(SESSION, &peer, (EPOCH, &SECRET)), Err(SealError), "another under");
    assert_eq!(other_under.open(SESSION, &peer, (Epoch(3), &SECRET)), Err(SealError), "renamed");
    let length = copy().sealed.0.len();
    for at in 0..length {
        let mut changed = copy();
        changed.sealed.0[at] ^= 1;
        assert_eq!(changed.open(SESSION, &peer, (EPOCH, &SECRET)), Err(SealError), "byte {at}");
        changed.sealed.0.truncate(at);
        assert_eq!(changed.open(SESSION, &peer, (EPOCH, &SECRET)), Err(SealError), "{at} bytes");
    }
}

/// The all-zero point makes every shared secret zero: anybody could open the copy.
#[test]
fn no_copy_is_sealed_to_or_opened_from_a_low_order_key() {
    let zero = TunnelKey([0; 32]);
    for under in [None, Some((EPOCH, &SECRET))] {
        let sealed = EpochCopy::seal(
            SESSION,
            (EPOCH.next(), &NEXT_SECRET),
            under,
            (member(), &StaticSecret::from(CLIENT)),
            (peer_member(), &zero),
            &mut Counting(0),
        );
        assert_eq!(sealed, Err(SealError));
        let from_zero = EpochCopy { from_key: zero, ..copy_under(under) };
        let opened = from_zero.open(SESSION, &StaticSecret::from(PEER), (EPOCH, &SECRET));
        assert_eq!(opened, Err(SealError));
    }
}

/// The seven encodings below 2^255 of points whose order divides 8 (cr.yp.to/ecdh.html#validate);
/// X25519 ignores the highest bit.
#[test]
fn a_key_of_low_order_is_not_usable() {
    let hex = |text: &str| -> [u8; 32] {
        std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
    };
    for text in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        let mut key = TunnelKey(hex(text));
        assert!(!key.is_usable(), "{text}");
        key.0[31] |= 0x80;
        assert!(!key.is_usable(), "{text} with the highest bit");
    }
    for private in [CLIENT, PEER, RELAY_PRIVATE] {
        assert!(public(private).is_usable());
    }
}

#[test]
fn sealed_invite_vector() {
    let sealed = invite_key().seal(SESSION, EPOCH, &SECRET, &mut Counting(0));
    assert_eq!(sealed.0.0, golden::bytes("sealed_secret"));
    assert_eq!(invite_key().open(SESSION, &sealed), Ok((EPOCH, SECRET)));
    assert_eq!(invite_key().hash(), InviteHash(golden::array("invite_hash")));

    assert_eq!(invite_key().open(OTHER_SESSION, &sealed), Err(SealError));
    let mut other_key = invite_key();
    other_key.0[0] ^= 1;
    assert_eq!(other_key.open(SESSION, &sealed), Err(SealError));
    for at in 0..sealed.0.0.len() {
        let mut changed = sealed.clone();
        changed.0.0[at] ^= 1;
        assert_eq!(invite_key().open(SESSION, &changed), Err(SealError), "byte {at}");
        changed.0.0.truncate(at);
        assert_eq!(invite_key().open(SESSION, &changed), Err(SealError), "{at} bytes");
    }
    let empty = SealedSecret(lanrage_proto::bytes::Blob(vec![]));
    assert_eq!(invite_key().open(SESSION, &empty), Err(SealError));
}

fn root_key_hash() -> lanrage_proto::RootHash {
    root_hash(&DeviceKey(root().verifying_key().to_bytes()))
}

#[test]
fn invite_vectors() {
    for (name, host, port) in
        [("invite.txt", "play.example.org", 443), ("invite_port_v6.txt", "[2001:db8::1]", 8443)]
    {
        let text = golden::text(name);
        let invite =
            Invite { host: host.to_owned(), port, key: invite_key(), root: root_key_hash() };
        assert_eq!(text.parse(), Ok(invite.clone()), "{name}");
        assert_eq!(invite.to_string(), text, "{name}");
        assert_eq!(format!("\t{text} \r\n").parse(), Ok(invite), "{name} with space around it");
    }
}

#[test]
fn a_damaged_invite_says_what_is_wrong() {
    let text = golden::text("invite.txt");
    let (front, fragment) = text.split_once('#').unwrap();
    for at in 0..fragment.len() {
        let wrong = if fragment.as_bytes()[at] == b'A' { "B" } else { "A" };
        let typo = [front, "#", &fragment[..at], wrong, &fragment[at + 1..]].concat();
        assert_eq!(typo.parse::<Invite>(), Err(BadInvite::Damaged), "character {at}");
        let short = [front, "#", &fragment[..at]].concat();
        assert_eq!(short.parse::<Invite>(), Err(BadInvite::Damaged), "{at} characters");
    }
    for (front, problem) in [
        ("", BadInvite::Shape),
        ("https://play.example.org/", BadInvite::Shape),
        ("lanrage://play.example.org", BadInvite::Shape),
        ("lanrage:///", BadInvite::Host),
        ("lanrage://a b/", BadInvite::Host),
        ("lanrage://user@host/", BadInvite::Host),
        ("lanrage://host:/", BadInvite::Host),
        ("lanrage://host:0/", BadInvite::Host),
        ("lanrage://host:65536/", BadInvite::Host),
        ("lanrage://[2001:db8::1/", BadInvite::Host),
        ("lanrage://[192.0.2.1]/", BadInvite::Host),
        ("lanrage://2001:db8::1/", BadInvite::Host),
        ("lanrage://host/path/", BadInvite::Host),
    ] {
        let text = [front, "#", fragment].concat();
        assert_eq!(text.parse::<Invite>(), Err(problem), "{front}");
    }
    let long = format!("lanrage://{}/#{fragment}", "a".repeat(254));
    assert_eq!(long.parse::<Invite>(), Err(BadInvite::Host));
}

/// `u16` reads `+443`; a URL's port has digits only.
#[test]
fn regression_a_port_with_a_sign_is_no_port() {
    let text = golden::text("invite.txt").replace(".org/", ".org:+443/");
    assert_eq!(text.parse::<Invite>(), Err(BadInvite::Host));
}

#[test]
fn server_address_vector() {
    let text = golden::text("server_address.txt");
    let host = "play.example.org".to_owned();
    let address = ServerAddress { host, port: 8443, root: root_key_hash() };
    assert_eq!(text.parse(), Ok(address.clone()));
    assert_eq!(address.to_string(), text);
    let (front, fragment) = text.split_once('#').unwrap();
    for at in 0..fragment.len() {
        let wrong = if fragment.as_bytes()[at] == b'A' { "B" } else { "A" };
        let typo = [front, "#", &fragment[..at], wrong, &fragment[at + 1..]].concat();
        assert_eq!(typo.parse::<ServerAddress>(), Err(BadServerAddress::Damaged), "character {at}");
    }
}

#[test]
fn enrolment_token_vector() {
    let text = golden::text("enrolment_token.txt");
    let token = EnrolmentToken { root: root_key_hash(), secret: Token(run(0xb0)) };
    assert_eq!(text.parse(), Ok(token.clone()));
    assert_eq!(token.to_string(), text);
    assert_eq!(text[..text.len() - 1].parse::<EnrolmentToken>(), Err(BadEnrolmentToken));
    assert_eq!(text.replace("-1.", "-2.").parse::<EnrolmentToken>(), Err(BadEnrolmentToken));
}

#[test]
fn secrets_are_not_shown_by_debug() {
    let token = EnrolmentToken { root: root_key_hash(), secret: Token(run(0xb0)) };
    let invite = golden::text("invite.txt").parse::<Invite>().unwrap();
    for shown in [
        format!("{SECRET:?}"),
        format!("{token:?}"),
        format!("{:?}", Token(run(0xb0))),
        format!("{:?}", invite.key),
        format!("{:?}", invite_key()),
    ] {
        assert!(shown.contains("secret"), "{shown}");
        assert!(!shown.contains("QEFC") && !shown.contains("sLGy"), "{shown}");
    }
    let shown = format!("{:?}", crate::samples::lease());
    assert!(!shown.contains("key") && !shown.contains("tag"), "{shown}");
}

#[test]
fn member_numbers_run_from_1_to_250() {
    assert_eq!(Member::new(0), None);
    assert_eq!(Member::new(251), None);
    let all: Vec<u8> = Member::all().map(Member::number).collect();
    assert_eq!(all, (1..=250).collect::<Vec<u8>>());
}
