//! Three relays in virtual time, and what passes between them: genuine, forged, replayed, reordered
//! and looping frames.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{Datagram, POOL, Player, World, address, public, relay_address, relay_private};
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::data::{Delivered, Sent};
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::frame::mesh::{EPOCH_S, HEADER_LEN, Moment};
use lanrage_proto::ids::{Destination, Member, RelayId};
use lanrage_relay_core::mesh::{Other, Roster};
use lanrage_relay_core::shard::{COPIES_PER_PASS, RUN_SEGMENTS_MAX};
use lanrage_relay_core::{DropReason, Verdict, runs};
use lanrage_relay_table::{Endpoint, LocalId};
use proptest::collection::vec;
use proptest::prelude::*;

const RELAYS: [RelayId; 3] = [RelayId(5), RelayId(7), RelayId(8)];
const START_NS: u128 = common::START_UNIX as u128 * 1_000_000_000;

fn one(member: u8) -> Destination {
    Destination::One(Member::new(member).unwrap())
}

fn others() -> impl Iterator<Item = Other> {
    RELAYS.into_iter().map(|relay| Other {
        relay,
        key: public(relay_private(relay)),
        to: Endpoint::new(relay_address(relay), LocalId(0)),
    })
}

struct Fleet {
    worlds: [World; 3],
    rosters: [Roster; 3],
    ns: u128,
    /// Every datagram that went from relay to relay.
    crossed: Vec<(usize, Datagram)>,
}

impl Fleet {
    fn new() -> Self {
        let roster = |relay| Roster::new(relay, POOL, &relay_private(relay).into());
        let mut fleet = Self {
            worlds: RELAYS.map(|relay| World::at(relay, 512)),
            rosters: RELAYS.map(roster),
            ns: START_NS,
            crossed: Vec::new(),
        };
        for at in 0..3 {
            fleet.join(at, 6);
        }
        fleet
    }

    fn join(&mut self, at: usize, shard: u8) {
        self.rosters[at].set_others(others());
        self.worlds[at].shard.join_mesh(shard);
        self.follow(at);
    }

    /// What the slow side does when relay map or epoch have changed.
    fn follow(&mut self, at: usize) {
        let peers = self.rosters[at].peers(Moment::new(self.ns));
        self.worlds[at].shard.set_peers(Arc::new(peers));
    }

    fn player(&mut self, relay: usize, member: u8) -> (Player, Lease) {
        let at = address(&format!("192.0.2.{member}:{}", 1_000 + relay));
        let mut player = Player::new(1, member, at);
        self.worlds[relay].advance(10);
        let lease = self.worlds[relay].join(&mut player);
        (player, lease)
    }

    /// Sends to a relay, and passes on what it sends to others; what members get.
    fn send(&mut self, relay: usize, from: SocketAddr, frame: &[u8]) -> Vec<Datagram> {
        self.send_train(relay, from, frame, frame.len())
    }

    fn send_train(
        &mut self,
        relay: usize,
        from: SocketAddr,
        train: &[u8],
        size: usize,
    ) -> Vec<Datagram> {
        let sent = self.worlds[relay].send_train(from, train, size);
        self.pass_on(relay, sent)
    }

    fn pass_on(&mut self, relay: usize, sent: Vec<Datagram>) -> Vec<Datagram> {
        let (between, mut out): (Vec<_>, Vec<_>) =
            sent.into_iter().partition(|sent| relay_of(sent.to).is_some());
        self.crossed.extend(between.iter().map(|datagram| (relay, datagram.clone())));
        for train in between.chunk_by(|one, next| {
            (one.to, one.bytes.len()) == (next.to, next.bytes.len().max(one.bytes.len()))
        }) {
            let size = train[0].bytes.len();
            let bytes: Vec<u8> = train.iter().flat_map(|datagram| datagram.bytes.clone()).collect();
            let to = relay_of(train[0].to).unwrap();
            out.extend(self.send_train(to, relay_address(RELAYS[relay]), &bytes, size));
        }
        out
    }

    fn dropped(&self, relay: usize, reason: DropReason) -> u64 {
        self.worlds[relay].shard.counters().dropped_for(reason)
    }
}

fn relay_of(at: SocketAddr) -> Option<usize> {
    RELAYS.iter().position(|relay| relay_address(*relay) == at)
}

fn frame(
    player: &Player,
    lease: &Lease,
    to: Destination,
    egress: usize,
    payload: &[u8],
) -> Vec<u8> {
    let sent = Sent::new(RELAYS[egress], to, player.member, lease.handle, lease.tag);
    [sent.encode().as_slice(), payload].concat()
}

/// A at the first relay, B at the second, and a frame that has crossed from one to the other.
fn crossing() -> (Fleet, [(Player, Lease); 2], Datagram) {
    let mut fleet = Fleet::new();
    let pair = [fleet.player(0, 1), fleet.player(1, 2)];
    let (a, lease) = &pair[0];
    let sent = fleet.worlds[0].send(a.address, &frame(a, lease, one(2), 1, b"over there"));
    let crossed = sent.into_iter().next().unwrap();
    (fleet, pair, crossed)
}

#[test]
fn a_frame_is_delivered_by_the_relay_that_its_sender_names() {
    let (mut fleet, [_, (b, _)], crossed) = crossing();
    assert_eq!(crossed.to, relay_address(RELAYS[1]));
    assert_eq!(kind(&crossed.bytes), Kind::Mesh);
    let out = fleet.worlds[1].send(relay_address(RELAYS[0]), &crossed.bytes);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].to, b.address);
    let expected = Delivered {
        egress: RELAYS[1],
        destination: one(2),
        source: Member::new(1).unwrap(),
        ingress: RELAYS[0],
    };
    assert_eq!(Delivered::decode(&out[0].bytes), Ok((expected, &b"over there"[..])));
    let [ingress, egress, _] = fleet.worlds.each_ref().map(|world| *world.shard.counters());
    assert_eq!((ingress.to_relay, egress.from_relay, egress.unicast), (1, 1, 1));
}

#[test]
fn forged_replayed_looping_and_misplaced_frames_are_dropped_for_their_reason() {
    let (mut fleet, _, crossed) = crossing();
    let from = relay_address(RELAYS[0]);
    let genuine = crossed.bytes;
    let expect = |fleet: &mut Fleet, relay: usize, frame: &[u8], reason: DropReason| {
        let before = fleet.dropped(relay, reason);
        assert_eq!(fleet.worlds[relay].send(from, frame), [], "{}", reason.as_str());
        assert_eq!(fleet.dropped(relay, reason), before + 1, "{}", reason.as_str());
    };
    for (at, reason) in [
        (1, DropReason::MeshMalformed),
        (2, DropReason::MeshUnknownRelay),
        (5, DropReason::MeshForged),
        (6, DropReason::MeshForged),
        (7, DropReason::MeshForged),
        (12, DropReason::MeshForged),
        (16, DropReason::MeshForged),
        (31, DropReason::MeshForged),
    ] {
        let mut frame = genuine.clone();
        frame[at] ^= 0x08;
        expect(&mut fleet, 1, &frame, reason);
    }
    let longer = [genuine.as_slice(), b"!"].concat();
    expect(&mut fleet, 1, &longer, DropReason::MeshForged);
    expect(&mut fleet, 1, &genuine[..31], DropReason::MeshMalformed);
    expect(&mut fleet, 1, &[genuine.as_slice(), &[0; 1488]].concat(), DropReason::MeshMalformed);
    let mut far = genuine.clone();
    far[4] = far[4].wrapping_add(2);
    expect(&mut fleet, 1, &far, DropReason::MeshEpoch);
    let mut next = genuine.clone();
    next[4] = next[4].wrapping_add(1);
    expect(&mut fleet, 1, &next, DropReason::MeshForged);

    expect(&mut fleet, 0, &genuine, DropReason::MeshLoop);
    expect(&mut fleet, 2, &genuine, DropReason::MeshForged);
    let mut looping = genuine.clone();
    looping[3] = RELAYS[1].0 as u8;
    expect(&mut fleet, 1, &looping, DropReason::MeshLoop);

    assert_eq!(
        fleet.worlds[1].send(address("198.51.100.9:9"), &genuine).len(),
        1,
        "none of this harmed it"
    );
    expect(&mut fleet, 1, &genuine, DropReason::MeshReplayed);
}

/// What came over the mesh goes to members, to nobody else, whatever it says.
#[test]
fn a_frame_crosses_once() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    fleet.player(1, 2);
    fleet.player(2, 3);
    let out = fleet.send(0, a.address, &frame(&a, &lease, one(3), 1, b"3 is elsewhere"));
    let hint = Hint::decode(&out[0].bytes).unwrap();
    assert_eq!(hint.kind, HintKind::NoPeerThere(Member::new(3).unwrap(), RELAYS[1]));
    assert_eq!(fleet.crossed.len(), 2, "there, and the answer: {:?}", fleet.crossed);
    assert_eq!(fleet.worlds[2].shard.counters().from_relay, 0);
    let delivered = fleet.send(0, a.address, &frame(&a, &lease, one(2), 1, b"to 2"));
    for world in 0..3 {
        let out = fleet.worlds[world].send(a.address, &delivered[0].bytes);
        assert!(out.iter().all(|out| kind(&out.bytes) == Kind::Hint), "delivered is delivered");
    }
}

#[test]
fn who_is_not_there_is_told_to_the_sender_alone_and_within_a_budget() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    fleet.player(1, 2);
    for (egress, to) in [(1, 9), (2, 2)] {
        let question = frame(&a, &lease, one(to), egress, b"");
        let out = fleet.send(0, a.address, &question);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].to, a.address);
        let hint = Hint::decode(&out[0].bytes).unwrap();
        assert_eq!((hint.handle, hint.tag), (lease.handle, lease.tag));
        assert_eq!(hint.kind, HintKind::NoPeerThere(Member::new(to).unwrap(), RELAYS[egress]));
        assert!(out[0].bytes.len() <= question.len());
        let (there, back) =
            (&fleet.crossed[fleet.crossed.len() - 2].1, &fleet.crossed.last().unwrap().1);
        assert_eq!(kind(&back.bytes), Kind::MeshAbsent);
        assert!(back.bytes.len() <= there.bytes.len());
    }
    let question = frame(&a, &lease, one(9), 1, b"again and again");
    let answers: usize = (0..500).map(|_| fleet.send(0, a.address, &question).len()).sum();
    assert_eq!(answers, 99, "101 in all");
    let broadcast = frame(&a, &lease, Destination::Everyone, 2, b"nobody there");
    assert_eq!(fleet.send(0, a.address, &broadcast), []);
}

#[test]
fn an_answer_is_checked_like_data() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    fleet.send(0, a.address, &frame(&a, &lease, one(9), 1, b""));
    let answer = fleet.crossed.last().unwrap().1.bytes.clone();
    let from = relay_address(RELAYS[1]);
    assert_eq!(fleet.worlds[0].send(from, &answer), []);
    assert_eq!(fleet.dropped(0, DropReason::MeshReplayed), 1);
    assert_eq!(fleet.worlds[0].send(from, &[answer.as_slice(), b"payload"].concat()), []);
    assert_eq!(fleet.dropped(0, DropReason::MeshMalformed), 1);
    let mut data = answer;
    data[0] = 0xfa;
    assert_eq!(fleet.worlds[0].send(from, &data), []);
    assert_eq!(fleet.dropped(0, DropReason::MeshForged), 1);
}

#[test]
fn trains_keep_their_segments_and_their_order() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    let (b, _) = fleet.player(1, 2);
    let segment = |number: u8, len| frame(&a, &lease, one(2), 1, &vec![number; len]);
    let train: Vec<u8> =
        (0..44).flat_map(|at| segment(at, if at == 43 { 700 } else { 1_300 })).collect();
    let size = segment(0, 1_300).len();
    let out = fleet.send_train(0, a.address, &train, size);
    let payloads: Vec<_> = out.iter().map(|out| Delivered::decode(&out.bytes).unwrap().1).collect();
    assert_eq!(payloads.len(), 44);
    assert!(
        payloads
            .iter()
            .zip(0..)
            .all(|(payload, number)| payload.iter().all(|byte| *byte == number))
    );
    assert_eq!(payloads[43].len(), 700);
    assert!(out.iter().all(|out| out.to == b.address));

    // As one verdict each, so that each can leave as one train.
    let mut run = train;
    let world = &mut fleet.worlds[0];
    let verdict = world.shard.handle_run(&mut run, size, a.address);
    assert!(matches!(verdict, Verdict::ToRelay { len, .. } if len == run.len()));
    let crossing: Vec<u8> = run
        .chunks(size)
        .zip(world.shard.mesh_headers())
        .flat_map(|(segment, header)| [&header[..], &segment[16..]].concat())
        .collect();
    let mut crossing = crossing;
    let mut cut = runs(&mut crossing, size + 16);
    let (run, rest) = (cut.next().unwrap(), cut.next());
    assert!(rest.is_none(), "one run");
    let whole = run.len();
    // One segment in the middle is forged: the others close up.
    run[20 * (size + 16) + 31] ^= 1;
    let verdict = fleet.worlds[1].shard.handle_run(run, size + 16, relay_address(RELAYS[0]));
    assert!(matches!(verdict, Verdict::FromRelay { len, .. } if len == whole - 44 * 16 - size));
    let numbers: Vec<_> = run[16..].chunks(size).take(43).map(|frame| frame[16]).collect();
    assert_eq!(numbers, (0..44).filter(|number| *number != 20).collect::<Vec<_>>());
    assert_eq!(fleet.dropped(1, DropReason::MeshForged), 1);
}

#[test]
fn runs_are_no_longer_than_what_headers_there_are() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    fleet.player(1, 2);
    let one = frame(&a, &lease, one(2), 1, b"x");
    let train = one.repeat(3 * RUN_SEGMENTS_MAX / 2);
    assert_eq!(fleet.send_train(0, a.address, &train, one.len()).len(), 3 * RUN_SEGMENTS_MAX / 2);
}

#[test]
fn a_broadcast_reaches_all_at_the_other_relay_but_its_source() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    fleet.player(0, 5);
    fleet.player(1, 1);
    let to: Vec<_> = (2..=4).map(|member| fleet.player(1, member).0.address).collect();
    let out = fleet.send(0, a.address, &frame(&a, &lease, Destination::Everyone, 1, b"all there"));
    assert_eq!(out.iter().map(|out| out.to).collect::<Vec<_>>(), to);
    let (header, payload) = Delivered::decode(&out[0].bytes).unwrap();
    assert_eq!((header.destination, payload), (Destination::Everyone, &b"all there"[..]));
    let counters = fleet.worlds[1].shard.counters();
    assert_eq!((counters.broadcast, counters.copies, counters.from_relay), (1, 3, 1));
}

#[test]
fn a_large_party_at_the_other_relay_is_served_in_passes() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 250);
    for member in 1..=200 {
        fleet.player(1, member);
    }
    let sent = frame(&a, &lease, Destination::Everyone, 1, b"all of you");
    let mut got = fleet.send(0, a.address, &sent);
    assert_eq!(got.len(), COPIES_PER_PASS);
    while fleet.worlds[1].shard.is_backlogged() {
        got.extend(fleet.worlds[1].pass());
    }
    assert_eq!(got.len(), 200);
    assert!(got.iter().all(|copy| Delivered::decode(&copy.bytes).unwrap().1 == b"all of you"));
}

/// The session pays at the relay that makes the copies: a lease's own budget is at another relay.
#[test]
fn copies_at_the_other_relay_are_charged_to_the_session() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 250);
    for member in 1..=50 {
        fleet.player(1, member);
    }
    let sent = frame(&a, &lease, Destination::Everyone, 1, b"all of you");
    let mut copies = 0;
    for _ in 0..600 {
        copies += fleet.send(0, a.address, &sent).len();
        while fleet.worlds[1].shard.is_backlogged() {
            copies += fleet.worlds[1].pass().len();
        }
    }
    let burst = 4 * 10_000 / 4;
    assert!((burst..=burst + 50).contains(&copies), "{copies} of {burst}");
    assert_eq!(fleet.dropped(1, DropReason::RateSession), 600 - copies as u64 / 50);
}

#[test]
fn counters_go_on_over_restarts_maps_and_epochs() {
    let (mut fleet, [(a, lease), _], crossed) = crossing();
    let to_b = frame(&a, &lease, one(2), 1, b"x");
    assert_eq!(fleet.pass_on(0, vec![crossed]).len(), 1);

    // A new map in the same epoch, 3 s later.
    fleet.ns += 3_000_000_000;
    fleet.follow(0);
    assert_eq!(fleet.send(0, a.address, &to_b).len(), 1);

    // The sender starts again within the millisecond: it has sent two, and begins above.
    fleet.ns += 1_000_000;
    fleet.worlds[0].shard.join_mesh(6);
    fleet.follow(0);
    assert_eq!(fleet.send(0, a.address, &to_b).len(), 1);
    let recorded = fleet.crossed.last().unwrap().1.bytes.clone();

    // The sender's clock is ahead by an epoch, then the receiver's.
    for (at, ahead) in [(0, 1), (1, 2), (0, 2)] {
        fleet.ns = START_NS + u128::from(EPOCH_S) * ahead * 1_000_000_000;
        fleet.follow(at);
        assert_eq!(fleet.send(0, a.address, &to_b).len(), 1, "relay {at} in epoch {ahead}");
    }
    assert_eq!(fleet.worlds[1].send(relay_address(RELAYS[0]), &recorded), []);
    assert_eq!(fleet.dropped(1, DropReason::MeshEpoch), 1, "a recording is worth nothing any more");
    assert_eq!(fleet.dropped(1, DropReason::MeshReplayed), 0);
}

/// A clock that was two hours ahead when the relay started made windows that began there: every
/// frame of another relay was a replay until the true time had caught up.
#[test]
fn regression_a_clock_that_was_ahead_at_the_start_is_forgiven() {
    let (mut fleet, [(a, lease), _], _) = crossing();
    let to_b = frame(&a, &lease, one(2), 1, b"x");
    fleet.rosters[1] = Roster::new(RELAYS[1], POOL, &relay_private(RELAYS[1]).into());
    fleet.rosters[1].set_others(others());
    for ahead_s in [7_200, 0] {
        fleet.ns = START_NS + ahead_s * 1_000_000_000;
        fleet.follow(1);
    }
    assert_eq!(fleet.send(0, a.address, &to_b).len(), 1);
    assert_eq!(fleet.dropped(1, DropReason::MeshReplayed), 0);
}

#[test]
fn a_relay_that_leaves_the_map_is_neither_sent_to_nor_believed() {
    let (mut fleet, [(a, lease), _], crossed) = crossing();
    for at in [0, 1] {
        let gone = RELAYS[1 - at];
        fleet.rosters[at].set_others(others().filter(|other| other.relay != gone));
        fleet.follow(at);
    }
    assert_eq!(fleet.worlds[1].send(relay_address(RELAYS[0]), &crossed.bytes), []);
    assert_eq!(fleet.dropped(1, DropReason::MeshUnknownRelay), 1);
    let out = fleet.send(0, a.address, &frame(&a, &lease, one(2), 1, b"x"));
    assert_eq!(
        Hint::decode(&out[0].bytes).unwrap().kind,
        HintKind::NoPeerThere(Member::new(2).unwrap(), RELAYS[1])
    );
    assert_eq!(fleet.dropped(0, DropReason::NoMesh), 1);
}

/// Forged frames leave nothing behind, and the shard allocates for none, nor for genuine ones once
/// their sender's window is there.
#[test]
fn the_hot_path_allocates_nothing() {
    let mut fleet = Fleet::new();
    let (a, lease) = fleet.player(0, 1);
    fleet.player(1, 2);
    let to_b = frame(&a, &lease, one(2), 1, &[7; 100]);
    fleet.send(0, a.address, &to_b);
    let train = to_b.repeat(44);
    let crossing = fleet.worlds[0].send_train(a.address, &train, to_b.len());
    let crossing: Vec<u8> = crossing.into_iter().flat_map(|sent| sent.bytes).collect();
    let mut forged = crossing.clone();
    forged.chunks_mut(to_b.len() + 16).enumerate().for_each(|(at, frame)| {
        (frame[5], frame[31]) = (at as u8, frame[31] ^ 1);
    });
    let worlds = &mut fleet.worlds;
    let counted = allocation_counter::measure(|| {
        for (relay, mut bytes, size) in
            [(0, train, to_b.len()), (1, forged, to_b.len() + 16), (1, crossing, to_b.len() + 16)]
        {
            let shard = &mut worlds[relay].shard;
            shard.begin_pass(5_000);
            shard.prefetch(&bytes);
            for run in runs(&mut bytes, size) {
                shard.handle_run(run, size, a.address);
            }
        }
    });
    assert_eq!(counted.count_total, 0, "{counted:?}");
    let counters = fleet.worlds[1].shard.counters();
    assert_eq!((counters.from_relay, counters.dropped_for(DropReason::MeshForged)), (45, 44));
}

/// A step of a random story between relays.
#[derive(Clone, Debug)]
enum Step {
    Send {
        from: usize,
        to: u8,
        egress: usize,
        segments: usize,
    },
    Broadcast {
        from: usize,
        egress: usize,
    },
    /// An earlier datagram between relays comes again, to its receiver or to another relay.
    Replay {
        which: usize,
        to: usize,
    },
    Forge {
        which: usize,
        byte: usize,
    },
    Rotate {
        relay: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..6usize, 1..=7u8, 0..3usize, 1..5usize)
            .prop_map(|(from, to, egress, segments)| Step::Send { from, to, egress, segments }),
        2 => (0..6usize, 0..3usize).prop_map(|(from, egress)| Step::Broadcast { from, egress }),
        2 => (any::<usize>(), 0..3usize).prop_map(|(which, to)| Step::Replay { which, to }),
        2 => (any::<usize>(), 0..HEADER_LEN).prop_map(|(which, byte)| Step::Forge { which, byte }),
        1 => (0..3usize).prop_map(|relay| Step::Rotate { relay }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Six members, two at each relay: who gets what is what a list of who is where says, every
    /// count adds up (`World` checks it after each step), and nothing is delivered twice.
    #[test]
    fn members_get_what_was_sent_to_them_once(steps in vec(step(), 1..60)) {
        let mut fleet = Fleet::new();
        let members: Vec<_> = (0..6).map(|at| fleet.player(at / 2, at as u8 + 1)).collect();
        let home = |member: usize| member / 2;
        for step in steps {
            match step {
                Step::Send { from, to, egress, segments } => {
                    let (player, lease) = &members[from];
                    let sent = frame(player, lease, one(to), egress, &[to; 40]);
                    let own = usize::from(to) == from + 1;
                    let out = fleet.send_train(home(from), player.address, &sent.repeat(segments), sent.len());
                    let is_there = own || (to <= 6 && home(usize::from(to) - 1) == egress);
                    let wanted = if is_there { segments } else { 0 };
                    let got = out.iter().filter(|out| kind(&out.bytes) == Kind::Data);
                    let to = members.get(usize::from(to) - 1).map(|(player, _)| player.address);
                    prop_assert_eq!(got.clone().count(), wanted);
                    prop_assert!(got.into_iter().all(|out| Some(out.to) == to));
                    let hints = out.iter().filter(|out| kind(&out.bytes) == Kind::Hint);
                    prop_assert!(hints.clone().all(|hint| hint.to == player.address));
                    prop_assert_eq!(hints.count() > 0, !is_there);
                }
                Step::Broadcast { from, egress } => {
                    let (player, lease) = &members[from];
                    let sent = frame(player, lease, Destination::Everyone, egress, b"all");
                    let out = fleet.send(home(from), player.address, &sent);
                    let wanted: Vec<_> = (0..6)
                        .filter(|at| home(*at) == egress && *at != from)
                        .map(|at| members[at].0.address)
                        .collect();
                    prop_assert_eq!(out.iter().map(|out| out.to).collect::<Vec<_>>(), wanted);
                }
                Step::Replay { which, to } if !fleet.crossed.is_empty() => {
                    let (from, datagram) = fleet.crossed[which % fleet.crossed.len()].clone();
                    prop_assert_eq!(fleet.worlds[to].send(relay_address(RELAYS[from]), &datagram.bytes), []);
                }
                Step::Forge { which, byte } if !fleet.crossed.is_empty() => {
                    let (from, mut datagram) = fleet.crossed[which % fleet.crossed.len()].clone();
                    datagram.bytes[byte] ^= 0x10;
                    let to = relay_of(datagram.to).unwrap();
                    let sent = fleet.worlds[to].send(relay_address(RELAYS[from]), &datagram.bytes);
                    prop_assert_eq!(sent, []);
                }
                Step::Rotate { relay } => {
                    // Clocks run apart by less than an epoch.
                    fleet.ns += 1_000_000_000 * u128::from(EPOCH_S) / 70;
                    (0..3).filter(|at| *at != relay).for_each(|at| fleet.follow(at));
                }
                Step::Replay { .. } | Step::Forge { .. } => {}
            }
        }
    }
}
