//! A network in virtual time: real clients, real relay cores, links with latency, loss, copies and
//! reordering, and what breaks.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use lanrage_client_core::{Client, Config, DropReason, Event, stream_address, stream_relay};
use lanrage_proto::frame::DATAGRAM_LEN_MAX;
use lanrage_proto::{Epoch, PartySecret, RelayId};
use lanrage_relay_core::binder::Now;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

pub(crate) mod control;
pub(crate) mod packets;
pub(crate) mod relay;
pub(crate) mod tcp;
pub(crate) mod tunnel;

use control::{Control, UNIX_TIME, member, private};
use relay::Relay;
use tcp::Tcp;
use tunnel::{Checksums, Clock, Lie};

pub(crate) const SECRET: PartySecret = PartySecret([42; 32]);

/// What a link does to datagrams, each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) latency: Duration,
    /// Added at random, which also reorders.
    pub(crate) jitter: Duration,
    pub(crate) loss_permille: u32,
    /// Only this member's; everybody's when 0.
    pub(crate) loss_of: u8,
    pub(crate) copies_permille: u32,
    /// Longer ones vanish.
    pub(crate) datagram_len_max: usize,
}

impl Link {
    pub(crate) const GOOD: Self = Self {
        latency: Duration::from_millis(10),
        jitter: Duration::from_millis(1),
        loss_permille: 0,
        loss_of: 0,
        copies_permille: 0,
        datagram_len_max: DATAGRAM_LEN_MAX,
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cut {
    ToRelay(u8, u16),
    FromRelay(u8, u16),
}

pub(crate) struct Node {
    pub(crate) client: Client,
    pub(crate) address: SocketAddr,
    pub(crate) delivered: Vec<(Instant, Vec<u8>)>,
    pub(crate) events: Vec<(Instant, Event)>,
    /// While the network is tapped: what it received, and from where.
    pub(crate) received: Vec<(SocketAddr, Vec<u8>)>,
    /// The same of what it sent, and to where.
    pub(crate) sent: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) is_on: bool,
    pub(crate) tcp: Tcp,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Instant,
    order: u64,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

pub(crate) struct Net {
    pub(crate) start: Instant,
    pub(crate) now: Instant,
    clock: Clock,
    pub(crate) control: Control,
    pub(crate) nodes: BTreeMap<u8, Node>,
    pub(crate) relays: BTreeMap<u16, Relay>,
    pub(crate) link: Link,
    pub(crate) cuts: BTreeSet<Cut>,
    /// Members whose network lets no UDP through.
    pub(crate) udp_blocked: BTreeSet<u8>,
    pub(crate) dead: BTreeSet<u16>,
    /// What waits in the sockets of relays that do not run.
    frozen: BTreeMap<u16, Vec<Flight>>,
    pub(crate) is_tapped: bool,
    set_back: Duration,
    /// Members that start from now on are liars.
    pub(crate) lie: Option<Lie>,
    flights: BinaryHeap<Reverse<Flight>>,
    order: u64,
    rng: ChaCha8Rng,
    seed: u64,
    starts: u64,
}

impl Net {
    pub(crate) fn new(seed: u64, relays: u16) -> Self {
        let start = Instant::now();
        let mut control = Control::new();
        let mut relays: BTreeMap<_, _> = (1..=relays)
            .map(|number| (number, Relay::new(number, &control, Now { ms: 0, unix_s: UNIX_TIME })))
            .collect();
        let map: Vec<_> = relays.values().map(Relay::certificate).collect();
        relays.values_mut().for_each(|relay| relay.set_map(&map));
        control.relays = relays.keys().map(|number| RelayId(*number)).collect();
        Self {
            start,
            now: start,
            clock: Arc::new(AtomicU64::new(0)),
            control,
            nodes: BTreeMap::new(),
            relays,
            link: Link::GOOD,
            cuts: BTreeSet::new(),
            udp_blocked: BTreeSet::new(),
            dead: BTreeSet::new(),
            frozen: BTreeMap::new(),
            is_tapped: false,
            set_back: Duration::ZERO,
            lie: None,
            flights: BinaryHeap::new(),
            order: 0,
            rng: ChaCha8Rng::seed_from_u64(seed),
            seed,
            starts: 0,
        }
    }

    /// A party of `count` members that all run and are connected.
    pub(crate) fn with_members(seed: u64, relays: u16, count: u8) -> Self {
        let mut net = Self::new(seed, relays);
        for number in 1..=count {
            net.control.add(number, &SECRET);
        }
        for number in 1..=count {
            net.turn_on(number);
        }
        net.run_for(Duration::from_secs(3));
        net
    }

    pub(crate) fn config(&mut self, number: u8) -> Config {
        self.starts += 1;
        let mut seed = [number; 32];
        seed[..8].copy_from_slice(&(self.seed << 8 | self.starts).to_be_bytes());
        Config {
            party: self.control.party(number),
            secrets: vec![(Epoch(1), SECRET)],
            private_key: private(number),
            relay_map: self.control.map(self.relays.values().map(Relay::certificate)),
            ticket: Some(self.control.ticket(number, UNIX_TIME)),
            unix_time: self.unix_time(),
            instance: [self.starts as u8; 16],
            stamp: self.unix_time() * 1_000_000 + self.starts * 1000,
            seed,
        }
    }

    pub(crate) fn turn_on(&mut self, number: u8) {
        let config = self.config(number);
        self.turn_on_with(number, config);
    }

    pub(crate) fn turn_on_with(&mut self, number: u8, config: Config) {
        let factory = Box::new(Checksums::new(self.clock.clone(), self.set_back, self.lie.clone()));
        let client = Client::new(config, factory, self.now).unwrap();
        let address = SocketAddr::from((Ipv4Addr::new(203, 0, 113, number), 40_000));
        let node = Node {
            client,
            address,
            delivered: Vec::new(),
            events: Vec::new(),
            received: Vec::new(),
            sent: Vec::new(),
            is_on: true,
            tcp: Tcp::default(),
        };
        self.nodes.insert(number, node);
        self.drain(number);
    }

    pub(crate) fn client(&mut self, number: u8) -> &mut Client {
        &mut self.nodes.get_mut(&number).unwrap().client
    }

    /// Calls a client and carries out what follows.
    pub(crate) fn act<R>(&mut self, number: u8, act: impl FnOnce(&mut Client, Instant) -> R) -> R {
        let now = self.now;
        let result = act(self.client(number), now);
        self.drain(number);
        result
    }

    /// Members that start from now on have a clock this much behind.
    pub(crate) fn set_back(&mut self, by: Duration) {
        self.set_back = by;
    }

    /// A NAT forgets its mapping: another port from now on.
    pub(crate) fn change_port(&mut self, number: u8) {
        let node = self.nodes.get_mut(&number).unwrap();
        node.address.set_port(node.address.port() + 1);
    }

    /// The relay's process stops; its socket goes on to take datagrams.
    pub(crate) fn freeze(&mut self, relay: u16) {
        self.frozen.insert(relay, Vec::new());
    }

    /// The process goes on with what waits.
    pub(crate) fn thaw(&mut self, relay: u16) {
        for flight in self.frozen.remove(&relay).unwrap_or_default() {
            self.arrive(flight);
        }
    }

    pub(crate) fn restart_relay(&mut self, number: u16) {
        let now = self.relay_now();
        self.dead.remove(&number);
        self.relays.get_mut(&number).unwrap().restart(now);
    }

    pub(crate) fn unix_time(&self) -> u64 {
        UNIX_TIME + (self.now - self.start).as_secs()
    }

    pub(crate) fn relay_now(&self) -> Now {
        Now { ms: (self.now - self.start).as_millis() as u64, unix_s: self.unix_time() }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.set_now(at.max(self.now));
            self.step();
        }
        self.set_now(end);
    }

    /// Runs until `done`, at most for `time`; how long it took.
    pub(crate) fn run_until(
        &mut self,
        time: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !done(self) {
            if self.now - start >= time {
                return None;
            }
            self.run_for(Duration::from_millis(5));
        }
        Some(self.now - start)
    }

    fn set_now(&mut self, now: Instant) {
        self.now = now;
        self.clock.store((now - self.start).as_micros() as u64, Ordering::Relaxed);
    }

    fn next_at(&self) -> Option<Instant> {
        let flight = self.flights.peek().map(|Reverse(flight)| flight.at);
        let on = self.nodes.values().filter(|node| node.is_on);
        let client = on.filter_map(|node| node.client.poll_timeout()).min();
        let relay = self.relays.values().map(|relay| relay.next_timeout_ms()).min();
        let relay = relay.map(|ms| self.start + Duration::from_millis(ms));
        let tcp = self.nodes.values().filter_map(|node| node.tcp.deadline()).min();
        [flight, client, relay, tcp].into_iter().flatten().min()
    }

    fn step(&mut self) {
        let now = self.now;
        while self.flights.peek().is_some_and(|Reverse(flight)| flight.at <= now) {
            let Reverse(flight) = self.flights.pop().unwrap();
            self.arrive(flight);
        }
        let relay_now = self.relay_now();
        let mut sent = Vec::new();
        for relay in self.relays.values_mut() {
            if relay.next_timeout_ms() <= relay_now.ms {
                let from = relay.address;
                let transmits = relay.handle_timeout(relay_now).into_iter();
                sent.extend(transmits.map(|(to, bytes)| (from, to, bytes)));
            }
        }
        sent.into_iter().for_each(|(from, to, bytes)| self.send(from, to, bytes));
        for number in self.nodes.keys().copied().collect::<Vec<_>>() {
            let node = self.nodes.get_mut(&number).unwrap();
            if node.is_on && node.client.poll_timeout().is_some_and(|at| at <= now) {
                node.client.handle_timeout(now);
                let next = node.client.poll_timeout();
                assert!(next.is_none_or(|at| at > now), "a timeout that is due stays due");
                self.drain(number);
            }
            let node = self.nodes.get_mut(&number).unwrap();
            while let Some(relay) = node.tcp.opened(now) {
                node.client.handle_stream_opened(relay, now);
            }
            self.drain(number);
        }
    }

    fn arrive(&mut self, flight: Flight) {
        let relay_now = self.relay_now();
        if let Some(relay) = stream_relay(flight.to) {
            return self.arrive_by_stream(relay, flight);
        }
        if let Some(relay) = self.relays.values_mut().find(|relay| relay.address == flight.to) {
            if self.dead.contains(&relay.id.0) {
                return;
            }
            if let Some(waiting) = self.frozen.get_mut(&relay.id.0) {
                waiting.push(flight);
                return;
            }
            let from = relay.address;
            for (to, bytes) in relay.handle(flight.from, &flight.bytes, relay_now) {
                self.send(from, to, bytes);
            }
            return;
        }
        let from = tcp::source(flight.to).map_or(flight.from, stream_address);
        let found = self
            .nodes
            .iter_mut()
            .find(|(_, node)| node.address == flight.to || node.tcp.has(flight.to));
        if let Some((number, node)) = found
            && node.is_on
        {
            if self.is_tapped {
                node.received.push((from, flight.bytes.clone()));
            }
            node.client.handle_datagram(from, &flight.bytes, self.now);
            let number = *number;
            self.drain(number);
        }
    }

    /// A client's datagram at the other end of its stream.
    fn arrive_by_stream(&mut self, relay: RelayId, flight: Flight) {
        let now = self.relay_now();
        let node = self.nodes.values().find(|node| node.address == flight.from).unwrap();
        let Some(source) = node.tcp.address(relay) else { return };
        if self.dead.contains(&relay.0) {
            return;
        }
        let relay = self.relays.get_mut(&relay.0).unwrap();
        let from = relay.address;
        for (to, bytes) in relay.handle(source, &flight.bytes, now) {
            self.send(from, to, bytes);
        }
    }

    /// A member's stream breaks; its client opens another one.
    pub(crate) fn break_streams(&mut self, number: u8) {
        for relay in self.nodes.get_mut(&number).unwrap().tcp.break_all() {
            self.act(number, |client, now| client.handle_stream_closed(relay, now));
        }
    }

    /// Does what the driving contract says.
    fn drain(&mut self, number: u8) {
        let node = self.nodes.get_mut(&number).unwrap();
        let mut sent = Vec::new();
        while let Some(transmit) = node.client.poll_transmit() {
            assert!(transmit.payload.len() <= DATAGRAM_LEN_MAX);
            sent.push((transmit.to, transmit.payload));
        }
        while let Some(packet) = node.client.poll_nic() {
            node.delivered.push((self.now, packet));
        }
        while let Some(event) = node.client.poll_event() {
            node.events.push((self.now, event));
        }
        // TCP's handshake and TLS's take a round trip each.
        let opening = self.now + self.link.latency * 4;
        node.tcp.follow(number, node.client.streams(), opening);
        if self.is_tapped {
            node.sent.extend(sent.iter().cloned());
        }
        let from = node.address;
        for (to, bytes) in sent {
            self.send(from, to, bytes);
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if let Some(relay) = stream_relay(to).or_else(|| tcp::source(to)) {
            // In order, and nothing is lost as long as the stream lives.
            let is_open = self
                .nodes
                .values()
                .any(|node| node.tcp.has(to) || node.address == from && node.tcp.is_open(relay));
            if is_open {
                self.order += 1;
                let (at, order) = (self.now + self.link.latency, self.order);
                self.flights.push(Reverse(Flight { at, order, from, to, bytes }));
            }
            return;
        }
        let lossy = self.nodes.get(&self.link.loss_of).map(|node| node.address);
        let loses = lossy.is_none_or(|address| address == from || address == to);
        let lost = self.rng.next_u32() % 1000 < self.link.loss_permille;
        let too_long = bytes.len() > self.link.datagram_len_max;
        if self.is_cut(from, to) || loses && lost || too_long {
            return;
        }
        let copies = 1 + u32::from(self.rng.next_u32() % 1000 < self.link.copies_permille);
        for _ in 0..copies {
            let jitter = self.link.jitter.as_micros().max(1) as u64;
            let jitter = Duration::from_micros(self.rng.next_u64() % jitter);
            self.order += 1;
            let (at, order) = (self.now + self.link.latency + jitter, self.order);
            self.flights.push(Reverse(Flight { at, order, from, to, bytes: bytes.clone() }));
        }
    }

    fn is_cut(&self, from: SocketAddr, to: SocketAddr) -> bool {
        let node = |at| self.nodes.iter().find(|(_, node)| node.address == at).map(|(n, _)| *n);
        let relay = |at| self.relays.values().find(|r| r.address == at).map(|r| r.id.0);
        match (node(from), relay(to), relay(from), node(to)) {
            (Some(node), Some(relay), ..) => {
                self.udp_blocked.contains(&node) || self.cuts.contains(&Cut::ToRelay(node, relay))
            }
            (.., Some(relay), Some(node)) => {
                self.udp_blocked.contains(&node) || self.cuts.contains(&Cut::FromRelay(node, relay))
            }
            _ => false,
        }
    }

    /// A UDP packet of one member for another, from its NIC.
    pub(crate) fn send_udp(&mut self, from: u8, to: u8, payload: &[u8]) {
        let networks = self.client(from).networks();
        let mut packet = packets::udp(
            networks.ipv4(member(from)).into(),
            networks.ipv4(member(to)).into(),
            (5000, 5001),
            payload,
        );
        self.act(from, |client, now| client.handle_nic_packet(&mut packet, now));
    }

    pub(crate) fn delivered(&self, number: u8) -> usize {
        self.nodes[&number].delivered.len()
    }

    /// The relays by which packets of one member to another go.
    pub(crate) fn paths(&mut self, of: u8, about: u8) -> Vec<RelayId> {
        self.status(of, about).paths.into_iter().map(|path| path.relay.id).collect()
    }

    /// The same where they cross from one relay to another: both.
    pub(crate) fn crossings(&mut self, of: u8, about: u8) -> Vec<(u16, u16)> {
        let paths = self.status(of, about).paths.into_iter();
        paths.filter_map(|path| Some((path.relay.id.0, path.egress?.id.0))).collect()
    }

    pub(crate) fn status(&mut self, of: u8, about: u8) -> lanrage_client_core::MemberStatus {
        let now = self.now;
        let members = self.client(of).members(now);
        members.into_iter().find(|status| status.member == member(about)).unwrap()
    }

    /// What a client has dropped, by reason.
    pub(crate) fn drops(&self, number: u8) -> Vec<(&'static str, u64)> {
        let counters = self.nodes[&number].client.counters();
        DropReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), counters.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    pub(crate) fn epochs(&self, number: u8) -> Vec<(Epoch, PartySecret)> {
        let events = self.nodes[&number].events.iter();
        events
            .filter_map(|(_, event)| match event {
                Event::Epoch { epoch, secret } => Some((*epoch, *secret)),
                _ => None,
            })
            .collect()
    }
}
