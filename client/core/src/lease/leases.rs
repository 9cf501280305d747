use std::net::SocketAddr;
use std::time::Instant;

use lanrage_proto::datagram::Kind;
use lanrage_proto::frame::bind::Bound;
use lanrage_proto::frame::challenge::{Challenge, Unsupported};
use lanrage_proto::frame::control::Sealed;
use lanrage_proto::frame::data::SelfProbe;
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::frame::resume::Resumed;
use lanrage_proto::inner::LeaseState;
use lanrage_proto::wire::Malformed;
use lanrage_proto::{Member, RelayId};

use super::stream::UDP_PATIENCE;
use super::{Lease, Surroundings};
use crate::counters::DropReason;
use crate::nic::{INNER_MTU_IPV4, INNER_MTU_IPV6};
use crate::outbox::Outbox;
use crate::paths::{Path, RELAYS_MAX, ThisEnd};

/// Relays that every member binds; the party's third stands in for one of them.
const BOUND_ALWAYS: usize = 2;

/// The leases at the party's relays, in its order.
#[derive(Default)]
pub(crate) struct Leases {
    list: Vec<Lease>,
    /// The party's relays; those beyond [`BOUND_ALWAYS`] are bound when one before is lacking, and
    /// then kept.
    relays: Vec<RelayId>,
    /// What [`Leases::states`] gives; follows every change.
    states: Vec<(RelayId, LeaseState)>,
    /// Since when no lease works by UDP.
    blocked_since: Option<Instant>,
}

impl Leases {
    /// The state of every lease in hand, in the party's order.
    pub(crate) fn states(&self) -> &[(RelayId, LeaseState)] {
        &self.states
    }

    /// What paths are chosen by.
    pub(crate) fn end(&self) -> ThisEnd<'_> {
        ThisEnd { leases: &self.states, relays: &self.relays }
    }

    /// The way back to who sent by `ingress`; an ingress relay that is not the party's is not
    /// believed.
    pub(crate) fn path_back(&self, by: RelayId, ingress: RelayId) -> Path {
        let egress = if self.relays.contains(&ingress) { ingress } else { by };
        Path { by, egress }
    }

    /// Whether packets may pass by one of them at least.
    pub(crate) fn work(&self) -> bool {
        self.states.iter().any(|(_, state)| *state != LeaseState::Dead)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.list.iter()
    }

    pub(crate) fn by_relay(&self, relay: RelayId) -> Option<&Lease> {
        self.list.iter().find(|lease| lease.relay() == relay)
    }

    pub(crate) fn by_source(&mut self, source: SocketAddr) -> Option<&mut Lease> {
        self.list.iter_mut().find(|lease| lease.is_from(source))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let blocked = self.blocked_since.filter(|_| self.list.iter().any(Lease::lacks_stream));
        let blocked = blocked.map(|since| since + UDP_PATIENCE);
        self.list.iter().filter_map(Lease::deadline).chain(blocked).min()
    }

    /// The relays that the program is to keep a stream to.
    pub(crate) fn streams(&self) -> impl Iterator<Item = RelayId> {
        self.list.iter().filter(|lease| lease.wants_stream()).map(Lease::relay)
    }

    pub(crate) fn handle_stream_opened(&mut self, relay: RelayId, around: &mut Surroundings<'_>) {
        if let Some(lease) = self.list.iter_mut().find(|lease| lease.relay() == relay) {
            lease.handle_stream_opened(around.now);
        }
        self.handle_timeout(around);
    }

    pub(crate) fn handle_stream_closed(&mut self, relay: RelayId, around: &mut Surroundings<'_>) {
        if let Some(lease) = self.list.iter_mut().find(|lease| lease.relay() == relay) {
            lease.handle_stream_closed(around.now);
        }
        self.handle_timeout(around);
    }

    /// Asks for streams when no relay has answered by UDP for a while.
    fn watch_udp(&mut self, around: &mut Surroundings<'_>) {
        if self.list.iter().any(Lease::works_by_udp) {
            self.blocked_since = None;
            return;
        }
        let since = *self.blocked_since.get_or_insert(around.now);
        if around.now >= since + UDP_PATIENCE {
            self.list.iter_mut().for_each(|lease| lease.want_stream(around.outbox));
        }
    }

    /// Follows the party's list and the relay map.
    pub(crate) fn set_relays(&mut self, relays: &[RelayId], around: &mut Surroundings<'_>) {
        let relays = &relays[..relays.len().min(RELAYS_MAX)];
        self.relays = relays.to_vec();
        self.list.retain_mut(|lease| {
            let listed = relays.contains(&lease.relay());
            if !listed {
                lease.release(around.outbox);
            }
            listed
        });
        for lease in &mut self.list {
            if let Some(entry) = around.credentials.relay_map.relay(lease.relay()) {
                lease.follow(entry, around.outbox);
            }
        }
        self.handle_timeout(around);
    }

    /// Begins a lease at every relay that should have one and is in the map, and runs all timers.
    pub(crate) fn handle_timeout(&mut self, around: &mut Surroundings<'_>) {
        let first = self.relays.iter().take(BOUND_ALWAYS);
        let is_lacking = first
            .filter_map(|relay| self.by_relay(*relay))
            .any(|lease| lease.is_lacking(around.now));
        let wanted = if is_lacking { self.relays.len() } else { BOUND_ALWAYS };
        for relay in self.relays.iter().take(wanted) {
            let known = self.list.iter().any(|lease| lease.relay() == *relay);
            let entry = around.credentials.relay_map.relay(*relay);
            if let (false, Some(entry)) = (known, entry) {
                self.list.push(Lease::new(entry, around.now));
            }
        }
        let order = |relay| self.relays.iter().position(|listed| *listed == relay);
        self.list.sort_by_key(|lease| order(lease.relay()));
        self.list.iter_mut().for_each(|lease| lease.handle_timeout(around));
        self.watch_udp(around);
        let is_served = self.list.iter().any(Lease::is_staying);
        self.list.iter_mut().for_each(|lease| lease.leave(is_served, around.now, around.outbox));
        self.note_states();
    }

    /// Traffic starts after a pause.
    pub(crate) fn wake(&mut self, around: &mut Surroundings<'_>) {
        self.list.iter_mut().for_each(|lease| lease.wake(around.now));
        self.handle_timeout(around);
    }

    /// The underlay changed: every lease's address may have.
    pub(crate) fn handle_network_change(&mut self, around: &mut Surroundings<'_>) {
        for lease in &mut self.list {
            match lease.bound() {
                Some(_) => lease.recover(around.now),
                None => lease.restart(around.now),
            }
        }
        self.handle_timeout(around);
    }

    pub(crate) fn renew(&mut self, around: &mut Surroundings<'_>) {
        self.list.iter_mut().for_each(|lease| lease.renew(around));
        self.handle_timeout(around);
    }

    pub(crate) fn release(&mut self, outbox: &mut Outbox) {
        self.list.iter_mut().for_each(|lease| lease.release(outbox));
        self.list.clear();
        self.relays.clear();
        self.states.clear();
        self.blocked_since = None;
    }

    /// A self-addressed frame has come back.
    pub(crate) fn handle_self_probe(
        &mut self,
        source: SocketAddr,
        probe: SelfProbe,
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let lease = self.by_source(source).ok_or(DropReason::UnknownSource)?;
        lease.handle_self_probe(probe, around)?;
        self.note_states();
        Ok(())
    }

    /// The longest IP packet in one datagram: the other end's leg may be IPv6 unless every relay of
    /// the party is IPv4 only.
    pub(crate) fn inner_mtu(&self) -> usize {
        let ipv4_only = self.list.iter().all(Lease::is_ipv4_only);
        if ipv4_only { INNER_MTU_IPV4 } else { INNER_MTU_IPV6 }
    }

    /// Takes certificates from a newer relay map.
    pub(crate) fn follow_map(&mut self, around: &mut Surroundings<'_>) {
        let relays = std::mem::take(&mut self.relays);
        self.set_relays(&relays, around);
    }

    /// A datagram that is neither data nor a hint about a member.
    pub(crate) fn handle(
        &mut self,
        kind: Kind,
        source: SocketAddr,
        datagram: &[u8],
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        match kind {
            Kind::Challenge => {
                let challenge = Challenge::decode(datagram).map_err(malformed)?;
                self.awaiting(|lease| lease.awaits(challenge.nonce))?
                    .handle_challenge(source, &challenge, around)?;
            }
            Kind::Bound => {
                let bound = Bound::decode(datagram).map_err(malformed)?;
                self.awaiting(|lease| lease.awaits(bound.nonce))?.handle_bound(&bound, around)?;
            }
            Kind::Resumed => {
                let resumed = Resumed::decode(datagram).map_err(malformed)?;
                self.awaiting(|lease| lease.awaits(resumed.nonce))?
                    .handle_resumed(&resumed, around)?;
            }
            Kind::Control => {
                let sealed = Sealed::decode(datagram).map_err(malformed)?;
                let lease = self.by_source(source).ok_or(DropReason::UnknownSource)?;
                lease.handle_control(source, &sealed, around)?;
            }
            Kind::Unsupported => {
                let unsupported = Unsupported::decode(datagram).map_err(malformed)?;
                self.awaiting(|lease| lease.awaits(unsupported.nonce))?;
                return Err(DropReason::Unsupported);
            }
            Kind::Stun
            | Kind::Hello
            | Kind::Bind
            | Kind::Resume
            | Kind::Data
            | Kind::Hint
            | Kind::Mesh
            | Kind::MeshAbsent
            | Kind::Unknown => return Err(DropReason::UnknownKind),
        }
        self.handle_timeout(around);
        Ok(())
    }

    /// Acts on a hint about the lease; gives the path and member of one about another member.
    pub(crate) fn handle_hint(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        around: &mut Surroundings<'_>,
    ) -> Result<Option<(Path, Member)>, DropReason> {
        let hint = Hint::decode(datagram).map_err(malformed)?;
        let lease = self.by_source(source).ok_or(DropReason::UnknownSource)?;
        let by = lease.relay();
        let (member, egress) = match hint.kind {
            HintKind::NoLease => {
                lease.handle_no_lease(&hint, around.now)?;
                self.handle_timeout(around);
                return Ok(None);
            }
            HintKind::NoPeer(member) => (member, by),
            HintKind::NoPeerThere(member, egress) => (member, egress),
        };
        let fits = lease.bound().is_some_and(|bound| bound.is_named_by(&hint));
        if fits { Ok(Some((Path { by, egress }, member))) } else { Err(DropReason::Hint) }
    }

    fn awaiting(&mut self, awaits: impl Fn(&Lease) -> bool) -> Result<&mut Lease, DropReason> {
        self.list.iter_mut().find(|lease| awaits(lease)).ok_or(DropReason::Unasked)
    }

    fn note_states(&mut self) {
        self.states.clear();
        let states = self.list.iter().filter_map(|lease| Some((lease.relay(), lease.state()?)));
        self.states.extend(states);
    }
}

const fn malformed(_: Malformed) -> DropReason {
    DropReason::Malformed
}
