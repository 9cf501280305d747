//! What a turn costs beside the datagrams, with real sockets and the real decision core.

use std::net::UdpSocket;

use lanrage_proto::frame::data::Sent;
use lanrage_proto::ids::{self, Destination, PoolId, RelayId};
use lanrage_relay_core::mesh::Roster;
use lanrage_relay_core::{Classes, Stun};
use lanrage_relay_table::{self as table, Capacity, Member, NewLease, SessionId, Tag, Writer};
use lanrage_relay_uring::{BackendKind, Options, SocketOptions, bind};

use super::*;
use crate::mesh::{Mesh, Sources};
use crate::role::Role;

const TAG: u32 = 0x7a97a9;
/// Without limits: for measuring.
const RATE_CLASS: u8 = 2;
const MEMBERS: u8 = 8;
const TRAIN_LEN: usize = 20;

struct Scene {
    backend: Backend,
    relayer: Relayer,
    relay: SocketAddr,
    /// Sends trains, as member 1.
    source: Backend,
    /// Members 2 and up.
    members: Vec<UdpSocket>,
    handles: Vec<u32>,
    _writer: Writer,
}

/// Forwards one train a turn.
struct Trains {
    socket: SocketId,
    to: SocketAddr,
    train: Vec<u8>,
    size: u16,
}

impl Handler for Trains {
    fn receive(&mut self, _: Received<'_>, _: &mut Tx<'_>) {}

    fn batch_end(&mut self, tx: &mut Tx<'_>) {
        tx.forward(self.socket, self.to, &self.train, Some(self.size));
    }
}

fn open(kind: BackendKind) -> (Backend, SocketId, SocketAddr) {
    let sockets = bind(&["127.0.0.1:0".parse().unwrap()], 1, &SocketOptions::default());
    let sockets = sockets.unwrap().remove(0);
    let (id, address) = sockets.locals().next().unwrap();
    (Backend::open(kind, sockets, &Options::default()).unwrap(), id, address)
}

impl Scene {
    fn new(kind: BackendKind) -> (Self, Trains) {
        let (backend, id, relay) = open(kind);
        let (source, source_id, source_address) = open(BackendKind::Mmsg);
        let (mut writer, reader) = table::new(Capacity::for_leases(64)).unwrap();
        let members: Vec<_> =
            (2..=MEMBERS).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = members.iter().map(|member| member.local_addr().unwrap());
        let handles: Vec<_> = std::iter::once(source_address)
            .chain(addresses)
            .zip(1..)
            .map(|(address, number)| {
                let lease = NewLease {
                    session: SessionId(1),
                    member: Member::new(number).unwrap(),
                    endpoint: Endpoint::new(address, LocalId(0)),
                    tag: Tag(TAG),
                    rate_class: RATE_CLASS,
                };
                let inserted = writer.insert_pending(&lease, number.into(), 0).unwrap();
                writer.activate(inserted.handle).unwrap();
                inserted.handle.to_bits()
            })
            .collect();
        let roster = Roster::new(RelayId(7), PoolId(1), &[7; 32].into());
        let relayer = Relayer {
            core: Shard::new(RelayId(7), reader, Classes::default(), Stun::Answer),
            sockets: [id].into(),
            queues: Arc::new(Queues::new()),
            binder: std::thread::current(),
            clock: Clock::start(),
            view: Arc::new(ShardView::new(Role::Shard(0), backend.counters())),
            outlet: Outlet::closed(),
            mesh: Arc::new(Mesh::new(roster, Sources::new(&[], &[]))).subscribe(),
            pass: Pass::default(),
            number: 0,
            gate: Arc::new(Gate::open()),
        };
        let scene = Self { backend, relayer, relay, source, members, handles, _writer: writer };
        let segment = scene.frame(1, 2, 400);
        let size = segment.len() as u16;
        (scene, Trains { socket: source_id, to: relay, train: segment.repeat(TRAIN_LEN), size })
    }

    fn frame(&self, from: u8, to: u16, len: usize) -> Vec<u8> {
        let sent = Sent::new(
            RelayId(0),
            Destination::from_wire(to).unwrap(),
            ids::Member::new(from).unwrap(),
            ids::Handle(self.handles[usize::from(from) - 1]),
            ids::Tag(TAG),
        );
        [sent.encode().as_slice(), &vec![0x5a; len]].concat()
    }

    /// Turns until the shard has received so many datagrams in all; allocations meanwhile.
    fn turn_until(&mut self, received: u64) -> u64 {
        let Self { backend, relayer, .. } = self;
        let counters = backend.counters();
        let counted = allocation_counter::measure(|| {
            while counters.rx_segments.get() < received || relayer.core.is_backlogged() {
                backend.turn(relayer, Duration::from_millis(100)).unwrap();
            }
            backend.turn(relayer, Duration::ZERO).unwrap();
        });
        counted.count_total
    }
}

/// Unicast, self-addressed, broadcasts, trains, hints, and what goes to the binder: nothing on the
/// way allocates, once pools have grown; and a system call serves many datagrams.
fn allocates_nothing(kind: BackendKind) {
    let (mut scene, mut trains) = Scene::new(kind);
    let mut arrivals = Vec::new();
    for from in 2..=MEMBERS {
        for to in 1..=u16::from(MEMBERS) {
            arrivals.push((from, scene.frame(from, to, 104)));
        }
        arrivals.push((from, scene.frame(from, 0xffff, 200)));
        arrivals.push((from, scene.frame(from, 250, 50)));
        arrivals.push((from, vec![0xf0; 256]));
        arrivals.push((from, vec![0xff; 30]));
    }
    let per_round = (arrivals.len() + TRAIN_LEN) as u64;
    let (mut received, mut syscalls_before) = (0, 0);
    for round in 0..60 {
        for (from, frame) in &arrivals {
            scene.members[usize::from(*from) - 2].send_to(frame, scene.relay).unwrap();
        }
        scene.source.turn(&mut trains, Duration::ZERO).unwrap();
        received += per_round;
        let allocations = scene.turn_until(received);
        while scene.relayer.queues.round().next().is_some() {}
        if round < 10 {
            // Pools grow, the log's and the queues' first use is behind.
            syscalls_before = scene.backend.counters().syscalls.get();
            continue;
        }
        assert_eq!(allocations, 0, "round {round}");
    }
    let kernel = scene.backend.counters();
    let core = scene.relayer.core.counters();
    assert_eq!(core.skew(), 0);
    assert_eq!(core.received, 60 * per_round);
    assert_eq!(core.broadcast, 60 * u64::from(MEMBERS - 1));
    assert!(core.unicast > 60 * TRAIN_LEN as u64);
    assert_eq!(kernel.tx_planned.get(), kernel.tx_datagrams.get() + kernel.tx_failed_total());
    assert!(kernel.tx_joined.get() > 0, "{kernel:#?}");
    let syscalls = kernel.syscalls.get() - syscalls_before;
    assert!(syscalls * 10 <= 50 * per_round, "{syscalls} for {} datagrams", 50 * per_round);
}

#[test]
fn a_turn_of_io_uring_allocates_nothing() {
    allocates_nothing(BackendKind::Uring);
}

#[test]
fn a_turn_of_recvmmsg_allocates_nothing() {
    allocates_nothing(BackendKind::Mmsg);
}
