//! What the program does with a party while its control service and its relay are gone. Needs root
//! for its network namespaces; reaches no server.

#![expect(clippy::unwrap_used, reason = "helpers of tests stand outside test functions")]

mod common;
#[path = "common/machine.rs"]
mod machine;

use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use lanrage::state::{Device, PartyRecord, Server, StateDir, random_key};
use lanrage_proto::api::{MemberRecord, PartyState, Role};
use lanrage_proto::bytes::Signature;
use lanrage_proto::map::{RelayEntry, RelayMap};
use lanrage_proto::party::{Invite, InviteKey};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{
    Epoch, Generation, KeyId, Member, PartySecret, PoolId, RelayId, SessionId, TunnelKey,
};
use machine::Machine;
use zeroize::Zeroizing;

const RELAY: &str = "127.0.0.9:51820";

fn record(session: u64, name: &str) -> PartyRecord {
    let root = SigningKey::from_bytes(&[3; 32]);
    let certificate = RelayCertificate {
        key_id: KeyId(1),
        pool: PoolId(1),
        relay: RelayId(1),
        ipv4: Some(RELAY.parse().unwrap()),
        ipv6: None,
        key: TunnelKey([5; 32]),
        not_after: u64::MAX,
        signature: Signature([0; 64]),
    };
    let map = RelayMap {
        serial: 1,
        issued: 1,
        pool: PoolId(1),
        signing_keys: Vec::new(),
        relays: vec![RelayEntry { name: "r1".to_owned(), certificate, tls: None }],
    };
    let map = map.sign(&root);
    let you = Member::new(2).unwrap();
    let own = MemberRecord {
        member: you,
        generation: Generation(1),
        role: Role::Owner,
        name: "bert".to_owned(),
        online: true,
        entry: None,
    };
    PartyRecord {
        server: Server {
            host: "127.0.0.1".to_owned(),
            port: 1,
            root: lanrage_proto::map::root_hash(&map.root),
        },
        tunnel: random_key(),
        secrets: vec![(Epoch(1), PartySecret([2; 32]))],
        party: PartyState {
            session: SessionId(session),
            name: name.to_owned(),
            subnet: [10, 66, session as u8, 0].into(),
            prefix: "fd00:1:2:3::".parse().unwrap(),
            epoch: Epoch(1),
            relays: vec![RelayId(1)],
            you,
            members: vec![own],
            copies: Vec::new(),
            kicks: Vec::new(),
        },
        ticket: None,
        map,
        invite: Some(invite().key.hash()),
        stamp: 7,
    }
}

fn invite() -> Invite {
    let key = InviteKey(Zeroizing::new([7; 32]));
    let root = lanrage_proto::RootHash([9; 32]);
    Invite { host: "127.0.0.1".to_owned(), port: 1, key, root }
}

/// A member of two parties, of which `active` is to be up.
fn member_of_two(active: Option<u64>) -> Machine {
    let mut machine = Machine::new();
    let state = StateDir::open(&machine.state()).unwrap();
    let active = active.map(SessionId);
    state.save_device(&Device { active, ..Device::generate() }).unwrap();
    state.save_party(&record(5, "friday")).unwrap();
    state.save_party(&PartyRecord { invite: None, ..record(6, "sunday") }).unwrap();
    drop(state);
    machine.start(machine.daemon_command());
    machine
}

/// The member's address on the NIC, once it has one.
fn wait_for_address(machine: &Machine) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !String::from_utf8_lossy(&machine.lanrage(&["status"]).stdout).contains("10.66.") {
        assert!(Instant::now() < deadline, "the party comes up");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn silent_relays_are_named_after_a_moment() {
    let machine = member_of_two(Some(5));
    // It takes what is sent, and says nothing.
    let _relay = machine.netns.enter(|| std::net::UdpSocket::bind(RELAY).unwrap());
    machine.expect(&["up"], 0, &format!("no relay answers on UDP {RELAY}"));
    let status = machine.lanrage(&["status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("away (") && !text.contains("play goes on"), "{text}");
}

#[test]
fn interface_that_was_taken_down_or_flushed_is_repaired_by_up() {
    let machine = member_of_two(Some(5));
    wait_for_address(&machine);
    for harm in ["link set lanrage0 down", "addr flush dev lanrage0"] {
        machine.netns.ip(harm);
        machine.expect(&["status"], 0, "`lanrage up` repairs it");
        machine.expect(&["up"], 0, "friday");
        let addresses = machine.netns.ip("-o -4 addr show dev lanrage0 up");
        assert!(addresses.contains("10.66.5.2/24"), "{harm}: {addresses}");
        let status = machine.lanrage(&["status"]);
        assert!(!String::from_utf8_lossy(&status.stdout).contains("repairs it"), "{harm}");
    }
}

#[test]
fn party_of_a_dead_server_can_be_forgotten() {
    let machine = member_of_two(None);
    machine.expect(&["up"], 9, "pick one with `lanrage party switch`");
    machine.expect(&["status"], 0, "pick one with `lanrage party switch`");
    machine.expect(&["party", "leave", "friday"], 6, "--forget");
    machine.expect(&["party", "list"], 0, "friday");
    let leave = ["party", "leave", "friday", "--forget"];
    machine.expect(&leave, 0, "you have left the party friday");
    machine.expect(&["party", "switch", "friday"], 9, "no party friday");
    machine.expect(&["party", "list"], 0, "sunday");
}

#[test]
fn party_of_a_name_that_is_taken_is_not_made() {
    let machine = member_of_two(None);
    let root = lanrage_proto::RootHash([9; 32]);
    let server =
        lanrage_proto::party::ServerAddress { host: "127.0.0.1".to_owned(), port: 1, root };
    let create = ["party", "create", "friday", "--server", &server.to_string()];
    machine.expect(&create, 9, "a party called friday already");
}

/// Control does not open an invite again that is used up: who joined by it was told to ask for
/// another one.
#[test]
fn regression_joining_again_by_the_same_invite_brings_the_party_up() {
    let machine = member_of_two(Some(6));
    wait_for_address(&machine);
    let join = ["party", "join", &invite().to_string()];
    machine.expect(&join, 0, "friday (you were in it already)");
    machine.expect(&join, 0, "friday (you were in it already)");
    machine.expect(&["party", "switch", "sunday"], 0, "friday is down meanwhile");
}

#[test]
fn oneself_is_neither_pinged_nor_kicked() {
    let machine = member_of_two(Some(5));
    wait_for_address(&machine);
    for command in [&["ping", "bert"][..], &["party", "kick", "2"], &["party", "promote", "bert"]] {
        machine.expect(command, 2, "is you");
    }
}
