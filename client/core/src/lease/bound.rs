use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::frame::Cookie;
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::frame::data::{HEADER_LEN, SelfProbe, Sent};
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::inner::LeaseState;
use lanrage_proto::{Destination, Member, RelayId};

use super::Surroundings;
use super::liveness::Liveness;
use super::rebind::{Rebind, Way};
use super::stream::is_stream;
use crate::counters::DropReason;
use crate::outbox::Outbox;

/// A lease in hand.
pub(crate) struct Bound {
    pub(super) lease: Lease,
    pub(super) address: SocketAddr,
    pub(super) liveness: Liveness,
    rebind: Option<Rebind>,
    /// Of the last message sealed under `lease.key_to_relay`.
    sent_counter: u64,
    /// Of the last message opened under `lease.key_to_client`.
    opened_counter: u64,
    leave_by: Option<Instant>,
    /// When to give back a lease whose relay is about to stop.
    leave_at: Option<Instant>,
}

/// From MOVING until the lease is given back, if another serves all the while. Members know by then
/// to send by the other, for it was announced at once.
const LEAVE_AFTER: Duration = Duration::from_secs(5);

impl Bound {
    pub(super) fn new(lease: Lease, address: SocketAddr, now: Instant) -> Self {
        Self {
            lease,
            address,
            liveness: Liveness::new(now),
            rebind: None,
            sent_counter: 0,
            opened_counter: 0,
            leave_by: None,
            leave_at: None,
        }
    }

    /// The same lease with a later end. Its keys are new, so counters begin anew; liveness goes on.
    pub(super) fn renew(&mut self, lease: Lease, address: SocketAddr, now: Instant) {
        self.lease = lease;
        self.address = address;
        self.rebind = None;
        self.sent_counter = 0;
        self.opened_counter = 0;
        self.leave_by = None;
        self.leave_at = None;
        self.liveness.wake(now);
    }

    pub(super) const fn state(&self) -> LeaseState {
        match (self.liveness.state(), self.leave_by) {
            (LeaseState::Alive, Some(_)) => LeaseState::Suspect,
            (state, _) => state,
        }
    }

    pub(super) fn deadline(&self) -> Instant {
        let rebind = self.rebind.as_ref().map(Rebind::deadline);
        let first = rebind.into_iter().chain(self.leave_by).chain(self.leave_at).min();
        first.map_or_else(|| self.liveness.deadline(), |first| first.min(self.liveness.deadline()))
    }

    /// Whether the relay has stopped, by its own announcement.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.leave_by.is_some_and(|at| now >= at)
    }

    pub(super) const fn is_leaving(&self) -> bool {
        self.leave_by.is_some()
    }

    pub(super) fn leave_by(&mut self, deadline: Instant, now: Instant) {
        self.leave_by = Some(deadline);
        self.leave_at.get_or_insert(now + LEAVE_AFTER);
    }

    /// Whether to give the lease back, as its relay asked; `is_served` while another lease serves.
    pub(super) fn is_to_leave(&mut self, is_served: bool, now: Instant) -> bool {
        match &mut self.leave_at {
            Some(at) if !is_served => {
                *at = now + LEAVE_AFTER;
                false
            }
            Some(at) => now >= *at,
            None => false,
        }
    }

    /// Counts late probes.
    pub(super) fn handle_timeout(&mut self, around: &Surroundings<'_>) {
        self.liveness.handle_timeout(around.active, around.now);
    }

    /// Sends the probe and the control message that are due. REBIND goes to all `addresses` of the
    /// relay: one of the host's address families may be what is lost.
    pub(super) fn send_due(
        &mut self,
        addresses: impl Iterator<Item = SocketAddr>,
        around: &mut Surroundings<'_>,
    ) {
        if let Some(probe) = self.liveness.poll_probe(around.active, around.rng, around.now) {
            self.send_probe(probe, around);
        }
        let message = self.rebind.as_mut().and_then(|rebind| rebind.handle_timeout(around.now));
        match (message, self.rebind.as_ref().map(Rebind::way)) {
            (Some(Message::Rebind), Some(Way::Udp)) => {
                let udp = addresses.filter(|address| !is_stream(*address));
                udp.for_each(|address| self.send_to(address, Message::Rebind, around.outbox));
            }
            (Some(Message::Rebind), _) => {
                self.send(Message::Rebind, around.outbox);
                let used = self.address;
                let others = addresses.filter(|address| *address != used);
                others.for_each(|address| self.send_to(address, Message::Rebind, around.outbox));
            }
            (Some(message), _) => {
                let challenger = self.rebind.as_ref().and_then(Rebind::challenger);
                self.send_to(challenger.unwrap_or(self.address), message, around.outbox);
            }
            (None, _) => {}
        }
        if self.rebind.as_ref().is_some_and(Rebind::is_given_up) {
            self.rebind = None;
        }
    }

    fn send_probe(&self, probe: SelfProbe, around: &mut Surroundings<'_>) {
        let destination = Destination::One(around.member);
        let header = self.header(RelayId(0), destination, around.member);
        let mut frame = around.outbox.copy(&header);
        frame.extend_from_slice(&probe.encode());
        around.outbox.transmit(self.address, frame);
    }

    /// The header of a data frame by this lease.
    pub(crate) fn header(
        &self,
        egress: RelayId,
        destination: Destination,
        source: Member,
    ) -> [u8; HEADER_LEN] {
        Sent::new(egress, destination, source, self.lease.handle, self.lease.tag).encode()
    }

    /// Where frames of this lease go.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Seals and sends a control message.
    pub(super) fn send(&mut self, message: Message, outbox: &mut Outbox) {
        self.send_to(self.address, message, outbox);
    }

    fn send_to(&mut self, address: SocketAddr, message: Message, outbox: &mut Outbox) {
        self.sent_counter += 1;
        let frame = message.seal(&self.lease.key_to_relay, self.lease.handle, self.sent_counter);
        outbox.transmit(address, frame);
    }

    /// Opens a control message whose counter has grown.
    pub(super) fn open(&mut self, sealed: &Sealed<'_>) -> Result<Message, DropReason> {
        if sealed.handle != self.lease.handle || sealed.counter <= self.opened_counter {
            return Err(DropReason::Unasked);
        }
        let message =
            sealed.open(&self.lease.key_to_client).map_err(|_| DropReason::NotFromRelay)?;
        self.opened_counter = sealed.counter;
        Ok(message)
    }

    pub(super) fn rebind(&mut self, now: Instant) {
        if self.rebind.as_ref().is_none_or(|rebind| rebind.way() == Way::Udp) {
            self.rebind_anew(now);
        }
        self.liveness.wake(now);
    }

    /// There is one address more to ask.
    pub(super) fn rebind_anew(&mut self, now: Instant) {
        self.rebind = Some(Rebind::new(Way::Any, now));
    }

    /// The lease is at a stream: asks whether UDP works.
    pub(super) fn return_to_udp(&mut self, now: Instant) {
        self.rebind.get_or_insert_with(|| Rebind::new(Way::Udp, now));
    }

    pub(super) fn answer_challenge(&mut self, source: SocketAddr, cookie: Cookie, now: Instant) {
        let Some(rebind) = &mut self.rebind else { return };
        if rebind.handle_challenge(source, cookie, now) && rebind.way() == Way::Any {
            self.address = source;
        }
    }

    pub(super) fn rebound(&mut self, reflexive: SocketAddr, now: Instant) {
        if let Some(address) = self.rebind.take().and_then(|rebind| rebind.challenger()) {
            self.address = address;
        }
        self.lease.reflexive = reflexive;
        self.liveness.wake(now);
    }

    /// Whether a hint repeats what only this client and its relay know.
    pub(crate) fn is_named_by(&self, hint: &Hint) -> bool {
        hint.handle == self.lease.handle && hint.tag == self.lease.tag
    }
}
