//! Our binding at one relay: how it is made, kept alive, moved, renewed and given back.
//!
//! While it lives, self-addressed frames show whether it works ([`liveness`]). When they stop, or
//! the relay says that it knows no such lease, it is rebound; when that is not answered either, an
//! [`attempt`] resumes it or makes a new one.

pub(crate) mod attempt;
mod bound;
pub(crate) mod credentials;
pub(crate) mod leases;
mod liveness;
mod rebind;
pub(crate) mod stream;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::frame::bind::{self, BindResult, Refusal};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::frame::data::SelfProbe;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::frame::resume::Resumed;
use lanrage_proto::frame::{Nonce, bind::Bound as BoundFrame};
use lanrage_proto::inner::LeaseState;
use lanrage_proto::map::{RelayEntry, RelayMap};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{Member, RelayId};
use rand_chacha::ChaCha12Rng;
use rand_core::RngCore as _;

use crate::counters::DropReason;
use crate::event::Event;
use crate::outbox::Outbox;
use crate::status::{LeaseStatus, RelayName};
use attempt::{Attempt, NotTaken, Resumption};
use bound::Bound;
use credentials::Credentials;
use stream::{Due, Stream, is_stream, stream_address};

/// A rebound lease is back within this, else a new one is tried for at the same time.
const REBIND_HEAD_START: Duration = Duration::from_millis(300);
/// A relay that gives no lease within this is one to do without.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
/// A hint that the lease is gone is acted on this often.
const HINT_PAUSE: Duration = Duration::from_secs(1);
/// New tickets come to all members of a fleet at once: their renewals spread over this.
const RENEWAL_SPREAD_MS: u64 = 2000;

/// What a lease needs from the client around it.
pub(crate) struct Surroundings<'a> {
    pub(crate) credentials: &'a mut Credentials,
    pub(crate) rng: &'a mut ChaCha12Rng,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) member: Member,
    /// Whether there was traffic in the last seconds.
    pub(crate) active: bool,
    pub(crate) now: Instant,
}

pub(crate) struct Lease {
    relay: RelayId,
    certificate: RelayCertificate,
    offers_stream: bool,
    stream: Option<Stream>,
    since: Instant,
    bound: Option<Bound>,
    attempt: Option<Attempt>,
    retry_at: Option<Instant>,
    hinted_at: Option<Instant>,
    resumption: Option<Resumption>,
    refusal: Option<Refusal>,
    reported: Option<LeaseState>,
}

impl Lease {
    /// Tries for a lease at once.
    pub(crate) const fn new(entry: &RelayEntry, now: Instant) -> Self {
        Self {
            relay: entry.certificate.relay,
            certificate: entry.certificate,
            offers_stream: entry.tls.is_some(),
            stream: None,
            since: now,
            bound: None,
            attempt: None,
            retry_at: Some(now),
            hinted_at: None,
            resumption: None,
            refusal: None,
            reported: None,
        }
    }

    pub(crate) const fn relay(&self) -> RelayId {
        self.relay
    }

    /// `None` without a lease. A relay that is about to stop is not relied on.
    pub(crate) fn state(&self) -> Option<LeaseState> {
        self.bound.as_ref().map(Bound::state)
    }

    /// Whether another relay should stand in: refused, dead, about to stop, or not bound in time.
    pub(crate) fn is_lacking(&self, now: Instant) -> bool {
        match &self.bound {
            Some(bound) => bound.is_leaving() || bound.state() == LeaseState::Dead,
            None => self.refusal.is_some() || now >= self.since + BIND_PATIENCE,
        }
    }

    /// Whether it works, and its relay goes on serving.
    pub(crate) fn is_staying(&self) -> bool {
        let stays = |bound: &Bound| !bound.is_leaving() && bound.state() != LeaseState::Dead;
        self.bound.as_ref().is_some_and(stays)
    }

    pub(crate) fn bound(&self) -> Option<&Bound> {
        self.bound.as_ref()
    }

    /// Whether the relay sends from this address.
    pub(crate) fn is_from(&self, source: SocketAddr) -> bool {
        self.bound.as_ref().is_some_and(|bound| bound.address == source)
            || self.certificate.addresses().any(|address| address == source)
            || stream_address(self.relay) == source
    }

    /// Every way to the relay.
    fn addresses(&self) -> impl Iterator<Item = SocketAddr> + use<> {
        let stream = self.stream.as_ref().filter(|stream| stream.is_open);
        let stream = stream.map(|_| stream_address(self.relay));
        let certificate = self.certificate;
        [certificate.ipv4.map(SocketAddr::V4), certificate.ipv6.map(SocketAddr::V6), stream]
            .into_iter()
            .flatten()
    }

    /// Whether the relay can be reached over IPv4 alone, so that no receiver is behind IPv6.
    pub(crate) const fn is_ipv4_only(&self) -> bool {
        self.certificate.ipv6.is_none()
    }

    /// Follows a newer relay map.
    pub(crate) fn follow(&mut self, entry: &RelayEntry, outbox: &mut Outbox) {
        self.certificate = entry.certificate;
        self.offers_stream = entry.tls.is_some();
        if !self.offers_stream {
            self.give_up_stream(outbox);
        }
    }

    /// Whether packets may pass by UDP.
    pub(crate) fn works_by_udp(&self) -> bool {
        self.bound.as_ref().is_some_and(|bound| {
            !is_stream(bound.address) && bound.liveness.state() != LeaseState::Dead
        })
    }

    /// Whether the program is to keep a stream to the relay.
    pub(crate) const fn wants_stream(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether there is a stream to be had beside what there is.
    pub(crate) const fn lacks_stream(&self) -> bool {
        self.offers_stream && self.stream.is_none()
    }

    /// UDP seems to be blocked.
    pub(crate) fn want_stream(&mut self, outbox: &mut Outbox) {
        if self.lacks_stream() {
            self.stream = Some(Stream::wanted());
            outbox.event(Event::StreamsChanged);
        }
    }

    /// One more way to the relay is there: the lease takes it, unless UDP works by now.
    pub(crate) fn handle_stream_opened(&mut self, now: Instant) {
        let Some(stream) = &mut self.stream else { return };
        stream.is_open = true;
        if self.works_by_udp() {
            return;
        }
        match &mut self.bound {
            Some(bound) => {
                bound.rebind_anew(now);
                self.attempt = None;
                self.recover(now);
            }
            None => self.restart(now),
        }
    }

    /// The program opens another one as long as one is wanted.
    pub(crate) fn handle_stream_closed(&mut self, now: Instant) {
        let Some(stream) = &mut self.stream else { return };
        stream.is_open = false;
        if self.bound.as_ref().is_some_and(|bound| is_stream(bound.address)) {
            self.recover(now);
        }
    }

    fn give_up_stream(&mut self, outbox: &mut Outbox) {
        if self.stream.take().is_some() {
            outbox.event(Event::StreamsChanged);
        }
    }

    /// Goes back to UDP when that works.
    fn watch_stream(&mut self, around: &mut Surroundings<'_>) {
        let (Some(stream), Some(bound)) = (&mut self.stream, &mut self.bound) else { return };
        let is_alive = bound.liveness.state() == LeaseState::Alive;
        match stream.handle_timeout(bound.address, is_alive, around.now) {
            Some(Due::Return) => bound.return_to_udp(around.now),
            Some(Due::Close) => self.give_up_stream(around.outbox),
            None => {}
        }
    }

    pub(crate) fn awaits(&self, nonce: Nonce) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.awaits(nonce))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref().map(Attempt::deadline);
        let bound = self.bound.as_ref().map(Bound::deadline);
        let stream = self.bound.as_ref().and_then(|_| self.stream.as_ref()?.deadline());
        [attempt, bound, stream, self.retry_at].into_iter().flatten().min()
    }

    pub(crate) fn handle_timeout(&mut self, around: &mut Surroundings<'_>) {
        let now = around.now;
        if self.bound.as_ref().is_some_and(|bound| bound.is_over(now)) {
            self.bound = None;
        }
        let before = self.state();
        if let Some(bound) = &mut self.bound {
            bound.handle_timeout(around);
        }
        match (before, self.state()) {
            (Some(LeaseState::Alive | LeaseState::Suspect), Some(LeaseState::Dead)) => {
                self.recover(now);
            }
            (Some(LeaseState::Alive), Some(LeaseState::Suspect)) => {
                if let Some(bound) = &mut self.bound {
                    bound.rebind(now);
                }
            }
            _ => {}
        }
        self.watch_stream(around);
        let addresses = self.addresses();
        if let Some(bound) = &mut self.bound {
            bound.send_due(addresses, around);
        }
        if self.retry_at.is_some_and(|at| now >= at) {
            self.retry_at = None;
            if self.attempt.is_none() && self.has_ticket(around) {
                self.attempt = Some(Attempt::new(self.resumption.clone(), now));
            }
        }
        let addresses = self.addresses();
        if let Some(attempt) = &mut self.attempt {
            let outbox = &mut *around.outbox;
            attempt.handle_timeout(addresses, around.rng, now, |to, frame| {
                let frame = outbox.copy(frame);
                outbox.transmit(to, frame);
            });
        }
        self.report(around.outbox);
    }

    fn has_ticket(&self, around: &mut Surroundings<'_>) -> bool {
        let has_ticket = around.credentials.ticket.is_some() || self.resumption.is_some();
        if !has_ticket {
            around.outbox.event(Event::TicketWanted);
        }
        has_ticket
    }

    /// The lease may be lost or its address may have changed: rebinds it and, if that takes too
    /// long, tries for a new one.
    pub(crate) fn recover(&mut self, now: Instant) {
        if let Some(bound) = &mut self.bound {
            bound.rebind(now);
            if self.attempt.is_none() {
                self.retry_at = Some(now + REBIND_HEAD_START);
            }
        } else {
            self.restart(now);
        }
    }

    /// Tries for a lease at once, whatever was under way.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.attempt = None;
        self.retry_at = Some(now);
    }

    /// A new ticket has come: the lease is renewed in place by another BIND.
    pub(crate) fn renew(&mut self, around: &mut Surroundings<'_>) {
        if self.bound.is_none() {
            return self.restart(around.now);
        }
        self.resumption = None;
        self.attempt = None;
        let delay = around.rng.next_u64() % RENEWAL_SPREAD_MS;
        self.retry_at = Some(around.now + Duration::from_millis(delay));
    }

    /// Traffic starts after a pause.
    pub(crate) fn wake(&mut self, now: Instant) {
        if let Some(bound) = &mut self.bound {
            bound.liveness.wake(now);
        }
    }

    /// Gives the lease back if its relay has asked for it long enough ago; `is_served` while
    /// another lease serves.
    pub(crate) fn leave(&mut self, is_served: bool, now: Instant, outbox: &mut Outbox) {
        let bound = self.bound.take_if(|bound| bound.is_to_leave(is_served, now));
        if let Some(mut bound) = bound {
            bound.send(Message::Release, outbox);
            self.resumption = None;
            // REBOUND ends what MOVING has set.
            self.retry_at.get_or_insert(now + retry_pause(Refusal::Draining));
            self.report(outbox);
        }
    }

    /// Gives the lease back.
    pub(crate) fn release(&mut self, outbox: &mut Outbox) {
        if let Some(mut bound) = self.bound.take() {
            bound.send(Message::Release, outbox);
        }
        self.attempt = None;
        self.retry_at = None;
        self.give_up_stream(outbox);
        self.report(outbox);
    }

    pub(crate) fn handle_challenge(
        &mut self,
        source: SocketAddr,
        challenge: &Challenge,
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let now = around.now;
        let certificate = challenge.certificate;
        let attempt = self.attempt.as_mut().ok_or(DropReason::Unasked)?;
        if certificate.relay != self.relay || !around.credentials.vouch_for(&certificate, now) {
            return Err(DropReason::NotFromRelay);
        }
        let is_unicast = certificate.addresses().any(|address| address == source);
        if !is_unicast && source != stream_address(self.relay) {
            // Anycast finds a relay; it never carries a session.
            self.certificate = certificate;
            self.restart(now);
            return Ok(());
        }
        self.certificate = certificate;
        match attempt.handle_challenge(source, challenge, around.credentials, around.rng, now) {
            Ok(()) => Ok(()),
            Err(NotTaken::NoTicket) => {
                self.attempt = None;
                self.retry_at = Some(now + retry_pause(Refusal::Expired));
                around.outbox.event(Event::TicketWanted);
                Ok(())
            }
            Err(NotTaken::Unasked) => Err(DropReason::Unasked),
            Err(NotTaken::NotFromRelay) => Err(DropReason::NotFromRelay),
        }
    }

    pub(crate) fn handle_bound(
        &mut self,
        frame: &BoundFrame<'_>,
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let attempt = self.attempt.as_mut().ok_or(DropReason::Unasked)?;
        let (result, address) = attempt.handle_bound(frame).map_err(reason)?;
        match result {
            BindResult::Lease(lease) => self.take(*lease, address, around),
            BindResult::Refused { reason, relay_time } => {
                self.refused(reason, relay_time, around);
            }
        }
        Ok(())
    }

    pub(crate) fn handle_resumed(
        &mut self,
        frame: &Resumed<'_>,
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let attempt = self.attempt.as_mut().ok_or(DropReason::Unasked)?;
        let (result, address) = attempt.handle_resumed(frame, around.now).map_err(reason)?;
        match result {
            BindResult::Lease(lease) => self.take(*lease, address, around),
            BindResult::Refused { .. } => self.resumption = None,
        }
        Ok(())
    }

    fn take(&mut self, lease: bind::Lease, address: SocketAddr, around: &mut Surroundings<'_>) {
        self.attempt = None;
        self.retry_at = None;
        self.refusal = None;
        self.resumption = Some(Resumption {
            key: lease.resumption_key.clone(),
            ticket: lease.resumption_ticket.clone(),
        });
        around.outbox.counters.binds += 1;
        match &mut self.bound {
            Some(bound) if bound.lease.handle == lease.handle && bound.lease.tag == lease.tag => {
                bound.renew(lease, address, around.now);
            }
            _ => {
                self.bound = Some(Bound::new(lease, address, around.now));
            }
        }
        self.report(around.outbox);
    }

    fn refused(&mut self, reason: Refusal, relay_time: u64, around: &mut Surroundings<'_>) {
        let ours = around.credentials.unix_time(around.now);
        let clock_skew_s = relay_time.cast_signed().wrapping_sub(ours.cast_signed());
        around.outbox.event(Event::Refused { relay: self.relay, reason, clock_skew_s });
        match reason {
            Refusal::BadTicket
            | Refusal::Expired
            | Refusal::NotYetValid
            | Refusal::WrongRelay
            | Refusal::WrongKey => around.outbox.event(Event::TicketWanted),
            Refusal::Revoked => {
                self.bound = None;
                around.outbox.event(Event::PartyWanted);
            }
            Refusal::Replayed => around.credentials.raise_stamp(relay_time),
            Refusal::Duplicate | Refusal::Full | Refusal::Draining | Refusal::Banned => {}
        }
        self.refusal = Some(reason);
        self.attempt = None;
        self.retry_at = Some(around.now + retry_pause(reason));
        self.report(around.outbox);
    }

    pub(crate) fn handle_control(
        &mut self,
        source: SocketAddr,
        sealed: &Sealed<'_>,
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let bound = self.bound.as_mut().ok_or(DropReason::Unasked)?;
        match bound.open(sealed)? {
            Message::RebindChallenge(cookie) => {
                bound.answer_challenge(source, cookie, around.now);
            }
            Message::Rebound(reflexive) => {
                bound.rebound(reflexive, around.now);
                around.outbox.counters.binds += 1;
                if self.attempt.as_ref().is_none_or(Attempt::is_hello) {
                    self.attempt = None;
                    self.retry_at = None;
                }
            }
            Message::Moving { next, deadline_s } => {
                // It is repeated until the lease is gone.
                if !bound.is_leaving() {
                    let next = (next.0 != 0).then_some(next);
                    around.outbox.event(Event::Moving { relay: self.relay, next });
                }
                let deadline = around.now + Duration::from_secs(deadline_s.into());
                bound.leave_by(deadline, around.now);
                self.retry_at = Some(around.now + retry_pause(Refusal::Draining));
            }
            Message::Rebind | Message::RebindAnswer(_) | Message::Release => {
                return Err(DropReason::UnknownKind);
            }
        }
        self.report(around.outbox);
        Ok(())
    }

    /// A hint that the lease is unknown: believed when it repeats handle and tag, acted on once a
    /// second, and by asking the relay under the lease's key.
    pub(crate) fn handle_no_lease(&mut self, hint: &Hint, now: Instant) -> Result<(), DropReason> {
        let fits = self.bound.as_ref().is_some_and(|bound| bound.is_named_by(hint));
        if !fits || self.hinted_at.is_some_and(|at| now < at + HINT_PAUSE) {
            return Err(DropReason::Hint);
        }
        self.hinted_at = Some(now);
        self.recover(now);
        Ok(())
    }

    pub(crate) fn handle_self_probe(
        &mut self,
        probe: SelfProbe,
        around: &mut Surroundings<'_>,
    ) -> Result<(), DropReason> {
        let bound = self.bound.as_mut().ok_or(DropReason::SelfProbe)?;
        if !bound.liveness.handle_return(probe, around.now) {
            return Err(DropReason::SelfProbe);
        }
        self.report(around.outbox);
        Ok(())
    }

    fn report(&mut self, outbox: &mut Outbox) {
        let state = self.state();
        if self.reported != state {
            self.reported = state;
            outbox.event(Event::Lease { relay: self.relay, state });
        }
    }

    pub(crate) fn status(&self, map: &RelayMap) -> LeaseStatus {
        let by_udp = self.bound.as_ref().filter(|bound| !is_stream(bound.address));
        LeaseStatus {
            relay: RelayName::new(self.relay, map),
            stream: self.bound.as_ref().is_some_and(|bound| is_stream(bound.address)),
            address: by_udp.map(|bound| bound.address),
            reflexive: by_udp.map(|bound| bound.lease.reflexive),
            state: self.state(),
            refusal: self.refusal,
            quality: self
                .bound
                .as_ref()
                .map_or_else(Default::default, |bound| bound.liveness.window.quality()),
        }
    }
}

const fn reason(not_taken: NotTaken) -> DropReason {
    match not_taken {
        NotTaken::Unasked | NotTaken::NoTicket => DropReason::Unasked,
        NotTaken::NotFromRelay => DropReason::NotFromRelay,
    }
}

/// When a relay that refused is asked again.
const fn retry_pause(reason: Refusal) -> Duration {
    Duration::from_millis(match reason {
        Refusal::Replayed => 200,
        Refusal::NotYetValid | Refusal::Expired | Refusal::BadTicket => 5_000,
        Refusal::WrongRelay
        | Refusal::WrongKey
        | Refusal::Duplicate
        | Refusal::Full
        | Refusal::Draining => 30_000,
        Refusal::Revoked | Refusal::Banned => 60_000,
    })
}

#[cfg(test)]
mod tests;
