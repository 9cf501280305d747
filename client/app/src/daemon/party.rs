use std::io;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lanrage_client_core::{Client, Config, Event};
use lanrage_proto::api::{Change, PartyState, TicketGrant};
use lanrage_proto::inner::LeaseState;
use lanrage_proto::map::SignedMap;
use lanrage_proto::party::EntryBody;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Member, SessionId};
use tokio::sync::mpsc;

use super::Daemon;
use super::active::{Active, RelayWatch};
use super::unlisted::{decode_kick, is_listed};
use crate::failure::{Failure, FailureKind};
use crate::local::protocol::{ControlStatus, Entered, Reply};
use crate::local::server::Call;
use crate::nic::{Lan, Network, Nic, detour, route_overlaps};
use crate::session::{Control, ControlEvent, ControlLink, brief, random_bytes};
use crate::state::PartyRecord;
use crate::streams::Streams;
use crate::underlay::Underlay;
use crate::wg::WireGuard;

/// News from control that may wait; the stream is not read further meanwhile.
pub(super) const EVENTS_MAX: usize = 64;
/// More than the stamps that one run of the daemon uses up.
const STAMPS_PER_RUN: u64 = 1 << 30;

/// Who waits for a party to come up, and what there is to tell.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) call: Option<Call>,
    pub(super) invite: Option<String>,
    /// Where the party was just made: it is unmade when it cannot come up.
    pub(super) made_at: Option<Control>,
    /// The device was a member before.
    pub(super) again: bool,
}

/// The active party's life.
impl Daemon {
    /// Takes down what is up and brings `session` up; tells `call`, with the invite if there is one.
    pub(super) fn activate(
        &mut self,
        session: SessionId,
        call: Option<Call>,
        invite: Option<String>,
    ) {
        self.bring_up(session, Entry { call, invite, ..Entry::default() });
    }

    /// [`Daemon::activate`], with more to tell.
    pub(super) fn bring_up(&mut self, session: SessionId, entry: Entry) {
        let Entry { call, invite, made_at, again } = entry;
        let before = self.device.active.filter(|before| *before != session);
        self.deactivate();
        self.device.active = Some(session);
        self.writer.save_device(&self.device);
        let Some(record) = self.parties.get(&session) else {
            self.problem = Some(Failure::no_active_party());
            return self.answer_problem(call);
        };
        if self.unlisted.contains(&session) {
            self.wait_for_listing(session);
            return self.answer_problem(call);
        }
        self.busy = true;
        let (lan, name) = (record.lan(), self.options.nic.clone());
        self.spawn(make_nic(name, lan), move |daemon, nic| {
            daemon.busy = false;
            let entered = nic.and_then(|nic| daemon.install(session, nic)).map(|entered| Entered {
                invite,
                replaced: before.and_then(|before| daemon.name_of(before)),
                again,
                ..entered
            });
            daemon.problem = entered.as_ref().err().cloned();
            if let Err(failure) = &entered {
                tracing::warn!(%failure, "the party is not up");
                if let Some(control) = made_at {
                    return daemon.unmake(session, control, before, call, failure.clone());
                }
            }
            if let Some(call) = call {
                call.answer(entered.map(Reply::Entered));
            }
        });
    }

    fn answer_problem(&self, call: Option<Call>) {
        if let Some(call) = call {
            call.answer(Err(self.not_up()));
        }
    }

    /// Why there is no LAN.
    pub(super) fn not_up(&self) -> Failure {
        self.problem.clone().unwrap_or_else(Failure::no_active_party)
    }

    fn install(&mut self, session: SessionId, nic: Nic) -> Result<Entered, Failure> {
        let now = Instant::now();
        let record = self.parties.get(&session).ok_or_else(Failure::no_active_party)?;
        let server = record.server.clone();
        let control = self.control(&server);
        let record = self.parties.get_mut(&session).ok_or_else(Failure::no_active_party)?;
        let map = record.map.verify(&server.root)?;
        let micros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros());
        record.stamp = (micros as u64).max(record.stamp.saturating_add(STAMPS_PER_RUN));
        let unix_time = control.unix_time();
        let ticket = record.ticket.clone().map(|grant| aged(grant, unix_time));
        let ticket_left = ticket
            .as_ref()
            .map(|grant| Duration::from_secs(grant.lifetime_s))
            .filter(|left| !left.is_zero());
        let config = Config {
            party: record.party.clone(),
            secrets: record.secrets.clone(),
            private_key: record.tunnel_private(),
            relay_map: map.clone(),
            ticket,
            unix_time,
            instance: random_bytes(),
            stamp: record.stamp,
            seed: random_bytes(),
        };
        let client = Client::new(config, Box::new(WireGuard), now)?;
        let underlay = Underlay::bind().map_err(|error| {
            Failure::new(FailureKind::Other, format!("cannot open a UDP socket: {error}"))
        })?;
        self.writer.save_party(record);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let link = ControlLink::start(control, session, ticket_left, sender);
        let nic_name = nic.name().to_owned();
        tracing::info!(party = %session, nic = nic_name, "the party is up");
        self.active = Some(Active {
            client,
            nic,
            underlay,
            streams: Streams::new(),
            link,
            events,
            control: ControlStatus::default(),
            map,
            relays: RelayWatch::new(now),
            pings: std::collections::BTreeMap::new(),
            early_pings: Vec::new(),
            refused_kicks: Vec::new(),
        });
        self.publish_entry();
        self.with_active(|active| active.refresh_online(now));
        self.entered(session)
    }

    /// Gives the leases back and takes the NIC down; the membership stays.
    pub(super) fn deactivate(&mut self) {
        if std::mem::take(&mut self.unsaved) {
            self.save_active();
        }
        self.waiting = None;
        let Some(mut active) = self.active.take() else { return };
        active.client.release(Instant::now());
        active.send();
        let pings = active.pings.into_values();
        let early_pings = active.early_pings.into_iter().map(|(_, _, call)| call);
        let kicks = active.refused_kicks.into_iter().map(|kick| kick.call);
        for call in pings.chain(early_pings).chain(kicks) {
            call.answer(Err(Failure::no_active_party()));
        }
        tracing::info!(nic = active.nic.name(), "the party is down");
    }

    /// Forgets a membership that is over.
    pub(super) fn forget(&mut self, session: SessionId) {
        if self.device.active == Some(session) {
            self.unsaved = false;
            self.deactivate();
            self.device.active = None;
            self.writer.save_device(&self.device);
        }
        self.parties.remove(&session);
        self.unlisted.remove(&session);
        self.writer.remove_party(session);
    }

    /// Carries out what the core wants, and what that leads to.
    pub(super) fn flush(&mut self, now: Instant) {
        loop {
            let Some(active) = &mut self.active else { return };
            active.send();
            let Some(event) = active.client.poll_event() else { return };
            self.handle_event(event, now);
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        let Some(active) = &mut self.active else { return };
        match event {
            Event::Epoch { epoch, .. } => {
                tracing::info!(%epoch, "the party has a new secret");
                let secrets = active.client.secrets();
                if let Some(record) = self.active_record() {
                    record.secrets = secrets;
                }
                self.save_active();
                self.publish_entry();
            }
            Event::StreamsChanged => active.follow_streams(),
            Event::PartyWanted => active.link.want_snapshot(),
            Event::TicketWanted => active.link.want_ticket(),
            Event::MembersChanged => {
                active.refresh_online(now);
                self.retry_early_pings(now);
            }
            Event::Removed { kicker } => match (self.device.active, kicker) {
                (Some(session), Some(kicker)) => self.put_out(session, kicker),
                (Some(session), None) => self.unlist(session),
                (None, _) => {}
            },
            Event::Lease { relay, state } => match state {
                Some(LeaseState::Alive) => tracing::info!(%relay, "the relay answers"),
                Some(LeaseState::Suspect) => tracing::debug!(%relay, "the relay is slow to answer"),
                Some(LeaseState::Dead) => tracing::warn!(%relay, "the relay does not answer"),
                None => tracing::warn!(%relay, "the lease at the relay is over"),
            },
            Event::Refused { relay, reason, clock_skew_s } => {
                tracing::warn!(%relay, ?reason, clock_skew_s, "the relay gives no lease");
            }
            Event::Moving { relay, next } => {
                tracing::info!(%relay, ?next, "the relay stops serving");
            }
            Event::Pong { id, member, answer } => self.handle_pong(id, member, answer),
        }
    }

    pub(super) fn handle_lost_nic(&mut self, error: &io::Error) {
        let message = format!("the NIC is gone ({error}): `lanrage up` makes it again");
        tracing::error!(message);
        self.deactivate();
        self.problem = Some(Failure::new(FailureKind::Other, message));
    }

    pub(super) fn handle_control(&mut self, event: ControlEvent, now: Instant) {
        let Some(active) = &mut self.active else { return };
        match event {
            ControlEvent::Connected => {
                active.control = ControlStatus { connected: true, problem: None };
            }
            ControlEvent::Failed(error) => {
                let problem = Some(brief(&error));
                active.control = ControlStatus { connected: false, problem };
            }
            ControlEvent::EntryRefused => active.link.want_snapshot(),
            ControlEvent::Clock => self.read_clock(now),
            ControlEvent::Ticket(grant) => {
                active.client.handle_ticket(grant.clone(), now);
                if let Some(record) = self.active_record() {
                    record.ticket = Some(grant);
                }
                self.read_clock(now);
                self.unsaved = true;
            }
            ControlEvent::Snapshot { parties, put_out, map } => {
                self.handle_map(*map, now);
                self.handle_snapshot(parties, &put_out, now);
            }
            ControlEvent::Change(change) => self.handle_change(*change, now),
        }
    }

    pub(super) fn read_clock(&mut self, now: Instant) {
        let server = self.active_record().map(|record| record.server.clone());
        let control = server.map(|server| self.control(&server));
        if let (Some(control), Some(active)) = (control, &mut self.active) {
            active.client.handle_clock(control.unix_time(), now);
        }
    }

    fn handle_snapshot(&mut self, parties: Vec<PartyState>, put_out: &[KickRecord], now: Instant) {
        if let Some(server) = self.active_record().map(|record| record.server.clone()) {
            self.note_listed(&server, &parties);
        }
        for party in parties {
            self.handle_change(Change::Party { party }, now);
        }
        self.handle_put_out(put_out);
        if let Some(session) = self.device.active.filter(|active| self.unlisted.contains(active)) {
            self.unlist(session);
        }
    }

    fn handle_change(&mut self, change: Change, now: Instant) {
        if let Change::Map { map } = change {
            return self.handle_map(map, now);
        }
        if let Change::Removed { session, kick } = change {
            return self.handle_removed(session, decode_kick(kick).as_ref());
        }
        if let Change::Party { party } = &change
            && !is_listed(party)
        {
            let kick = party.kicks.iter().rfind(|kick| kick.member == party.you);
            return self.handle_removed(party.session, kick);
        }
        for (session, record) in &mut self.parties {
            if self.device.active == Some(*session) {
                record.apply(&change);
            } else {
                record.apply_while_down(&change);
            }
        }
        self.unsaved = true;
        let Some(active) = &mut self.active else { return };
        if let Change::Party { party } = &change {
            if Some(party.session) != self.device.active {
                let record = self.parties.get(&party.session);
                record.into_iter().for_each(|record| self.writer.save_party(record));
                return;
            }
            active.client.handle_party(party, now);
            self.retry_kicks();
        } else {
            active.client.handle_change(&change, now);
        }
        self.publish_entry();
    }

    /// Keeps a newer relay map that the pinned root key signed.
    fn handle_map(&mut self, signed: SignedMap, now: Instant) {
        let Some(root) = self.active_record().map(|record| record.server.root) else { return };
        let map = match signed.verify(&root) {
            Ok(map) => map,
            Err(error) => {
                tracing::warn!(%error, "a relay map is not taken");
                return;
            }
        };
        let Some(active) = &mut self.active else { return };
        if map == active.map {
            return;
        }
        if map.serial <= active.map.serial {
            tracing::warn!(
                serial = map.serial,
                known = active.map.serial,
                "the server sent an older relay map than the last; it is not used: its operator \
                 sets its clock and starts it again"
            );
            return;
        }
        active.map = map.clone();
        active.follow_streams();
        active.client.handle_relay_map(map, now);
        if let Some(record) = self.active_record() {
            record.map = signed;
        }
        self.unsaved = true;
    }

    /// Publishes this device's entry when control has none, or an outdated one.
    fn publish_entry(&mut self) {
        let Some(session) = self.device.active else { return };
        let (Some(record), Some(active)) = (self.parties.get(&session), &self.active) else {
            return;
        };
        let epoch = active.client.epoch();
        let (Some(own), Some(secret)) = (record.own_record(), record.secret(epoch)) else { return };
        let body = EntryBody {
            session,
            member: own.member,
            generation: own.generation,
            name: own.name.clone(),
            device: self.device.public_key(),
            tunnel: record.tunnel_key(),
        };
        // A kicker may have left a worthless MAC.
        let current = |entry: &lanrage_proto::party::Entry| {
            entry.body == body && entry.epoch == epoch && entry.is_genuine(secret)
        };
        if !own.entry.as_ref().is_some_and(current) {
            active.link.publish(body.sign(&self.device.signing_key(), secret, epoch));
        }
    }

    pub(super) fn active_record(&mut self) -> Option<&mut PartyRecord> {
        self.device.active.and_then(|session| self.parties.get_mut(&session))
    }

    pub(super) fn save_active(&mut self) {
        let session = self.device.active;
        if let Some(record) = session.and_then(|session| self.parties.get(&session)) {
            let mut kept = record.clone();
            if let Some(active) = &self.active {
                active.client.vouch(&mut kept.party.members);
            }
            self.writer.save_party(&kept);
        }
    }
}

/// Makes the NIC, if the party's networks are free on this host and lead to it.
async fn make_nic(name: String, lan: Lan) -> Result<Nic, Failure> {
    let other = |error: io::Error| {
        Failure::new(FailureKind::Other, format!("cannot ask the kernel for its routes: {error}"))
    };
    for network in Network::of_party(&lan.networks) {
        let overlaps = route_overlaps(network, &name).await.map_err(other)?;
        if let Some(conflict) = overlaps.conflict {
            return Err(Failure::overlap(network, &conflict));
        }
        if let Some(wider) = overlaps.wider {
            tracing::info!(%network, route = %wider, "the party's network is taken out of a route");
        }
    }
    let nic = Nic::up(&name, lan).await?;
    let network = Network::of_subnet(lan.networks.subnet);
    let other_member = Member::all().find(|member| *member != lan.me);
    let address = other_member.map(|member| lan.networks.ipv4(member));
    match detour(address.expect("there are 250"), nic.index()).await.map_err(other)? {
        Some(detour) => Err(Failure::overlap(network, &detour)),
        None => Ok(nic),
    }
}

/// A kept ticket counts its lifetime from the day it was granted.
fn aged(mut grant: TicketGrant, unix_time: u64) -> TicketGrant {
    grant.lifetime_s = grant.ticket.body.expires.saturating_sub(unix_time);
    grant.now = unix_time;
    grant
}
