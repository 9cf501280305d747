use std::collections::BTreeMap;

use lanrage_proto::api::{Change, PUT_OUT_MAX, PartyState};
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Member, SessionId};
use tokio::sync::mpsc;

use super::Daemon;
use super::party::EVENTS_MAX;
use crate::failure::{Failure, FailureKind};
use crate::session::{ControlEvent, ControlLink};
use crate::state::Server;

/// Follows control for the active party while control does not list this device in it.
pub(super) struct Waiting {
    link: ControlLink,
    events: mpsc::Receiver<ControlEvent>,
    is_listed: bool,
}

/// Waits for control's news on the party that is not listed; for ever when there is none.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn news(waiting: Option<&mut Waiting>) -> ControlEvent {
    let Some(waiting) = waiting else { return std::future::pending().await };
    match waiting.events.recv().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

/// Whether the party has its own reader among its members.
pub(super) fn is_listed(party: &PartyState) -> bool {
    party.members.iter().any(|record| record.member == party.you)
}

/// A membership ends by control's signed record of a kick, or by the user's own leave. Control's
/// mere silence ends none: after it was restored from an older backup it lists nobody who joined
/// later, and the records here hold the only copies of their secrets.
impl Daemon {
    /// Control says that this device is out of a party.
    pub(super) fn handle_removed(&mut self, session: SessionId, kick: Option<&KickRecord>) {
        if !self.parties.contains_key(&session) {
            return;
        }
        match kick.and_then(|kick| self.kicker(session, kick)) {
            Some(kicker) => self.put_out(session, kicker),
            None => self.unlist(session),
        }
    }

    /// Control's records of kicks that this device may have missed.
    pub(super) fn handle_put_out(&mut self, kicks: &[KickRecord]) {
        let kicks = kicks.iter().take(PUT_OUT_MAX);
        // All before the first ends the active party, which has the newest keys.
        let kickers: BTreeMap<SessionId, Member> = kicks
            .filter_map(|kick| Some((kick.session, self.kicker(kick.session, kick)?)))
            .collect();
        for (session, kicker) in kickers {
            self.put_out(session, kicker);
        }
    }

    /// Who put this device out of a party, if control signed that for its membership.
    fn kicker(&self, session: SessionId, kick: &KickRecord) -> Option<Member> {
        let record = self.parties.get(&session)?;
        match self.active.as_ref().filter(|_| self.serves_active(&record.server)) {
            Some(active) => record.kicker(kick, &active.map),
            None => record.kicker(kick, &record.map.verify(&record.server.root).ok()?),
        }
    }

    /// A signed record says so.
    pub(super) fn put_out(&mut self, session: SessionId, kicker: Member) {
        let name = self.parties.get(&session).map_or("", |record| &record.party.name);
        let message = format!("this device was put out of the party {name} by member {kicker}");
        tracing::warn!(message);
        if self.device.active == Some(session) {
            self.problem = Some(Failure::new(FailureKind::NotFound, message));
        }
        self.forget(session);
    }

    /// Keeps the membership, but does not play in it until control lists it again.
    pub(super) fn unlist(&mut self, session: SessionId) {
        self.unlisted.insert(session);
        if self.device.active == Some(session) {
            self.deactivate();
            self.wait_for_listing(session);
        }
    }

    /// Follows control for a party that is active and not listed; says so in `problem`.
    pub(super) fn wait_for_listing(&mut self, session: SessionId) {
        let Some(record) = self.parties.get(&session) else { return };
        let server = record.server.clone();
        let failure = Failure::unlisted(&record.party.name, &server);
        tracing::warn!(%failure, "the party is not up");
        self.problem = Some(failure);
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        // Asks for a ticket again and again: the first one tells that the party is listed.
        let link = ControlLink::start(self.control(&server), session, None, sender);
        self.waiting = Some(Waiting { link, events, is_listed: false });
    }

    pub(super) fn handle_waiting(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Snapshot { parties, put_out, map } => {
                if let Some(server) = self.active_record().map(|record| record.server.clone()) {
                    let theirs = self.parties.values_mut().filter(|party| party.server == server);
                    theirs.for_each(|party| party.take_map(&map));
                    self.note_listed(&server, &parties);
                }
                parties.into_iter().for_each(|party| self.take_listing(party));
                self.handle_put_out(&put_out);
            }
            ControlEvent::Change(change) => {
                if let Change::Party { party } = *change {
                    self.take_listing(party);
                } else if let Change::Removed { session, kick } = *change {
                    self.handle_removed(session, decode_kick(kick).as_ref());
                }
            }
            ControlEvent::Ticket(_) => {
                if let Some(waiting) = &self.waiting {
                    waiting.link.want_snapshot();
                }
            }
            ControlEvent::Clock
            | ControlEvent::Connected
            | ControlEvent::Failed(_)
            | ControlEvent::EntryRefused => {}
        }
    }

    fn take_listing(&mut self, party: PartyState) {
        let session = party.session;
        if !is_listed(&party) {
            return;
        }
        self.unlisted.remove(&session);
        let Some(record) = self.parties.get_mut(&session) else { return };
        record.apply(&Change::Party { party });
        self.writer.save_party(record);
        if let Some(waiting) = self.waiting.as_mut().filter(|_| self.device.active == Some(session))
        {
            waiting.is_listed = true;
        }
    }

    /// Plays again in the active party, once control lists it and no command is under way.
    pub(super) fn resume_listed(&mut self) {
        let is_listed = self.waiting.as_ref().is_some_and(|waiting| waiting.is_listed);
        if let Some(session) = self.device.active.filter(|_| is_listed && !self.busy) {
            tracing::info!(party = %session, "control lists this device again");
            self.activate(session, None, None);
        }
    }

    /// Remembers which of a server's parties its snapshot leaves out.
    pub(super) fn note_listed(&mut self, server: &Server, parties: &[PartyState]) {
        let theirs = self.parties.iter().filter(|(_, record)| record.server == *server);
        for (session, _) in theirs {
            if parties.iter().any(|party| party.session == *session && is_listed(party)) {
                self.unlisted.remove(session);
            } else if self.unlisted.insert(*session) {
                tracing::info!(party = %session, "control does not list this device");
            }
        }
    }

    fn serves_active(&self, server: &Server) -> bool {
        let active = self.device.active.and_then(|session| self.parties.get(&session));
        active.is_some_and(|record| record.server == *server)
    }
}

/// The record that came with a [`Change::Removed`], not yet verified.
pub(super) fn decode_kick(kick: Option<lanrage_proto::bytes::Blob>) -> Option<KickRecord> {
    KickRecord::decode(kick?.0.as_slice().try_into().ok()?).ok()
}
