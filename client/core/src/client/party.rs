//! Control's news about the party, and what follows for the tunnels.

use std::time::Instant;

use lanrage_proto::api::{Change, PartyState};
use lanrage_proto::bytes::Blob;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Generation, Member, PartySecret, TunnelKey};

use super::{Client, NEWCOMER_HEAD_START};
use crate::event::Event;
use crate::membership::{NewEpoch, Outcome};
use crate::peer::{Notice, Peer};

/// What NEW_EPOCH tells the members about the current epoch.
pub(super) struct EpochNews {
    pub(super) record: KickRecord,
    pub(super) secret: PartySecret,
}

impl Client {
    pub(super) fn take_party(&mut self, party: &PartyState, now: Instant) {
        let outcome = self.membership.handle_party(party, &self.credentials.relay_map);
        let Outcome { epochs, removed } = outcome;
        if let Some(kicker) = removed {
            return self.remove(kicker, now);
        }
        for new in &epochs {
            self.begin_epoch(new, now);
        }
        self.follow_members(now);
        self.with_leases(now, |leases, around| leases.set_relays(&party.relays, around));
    }

    pub(super) fn take_change(&mut self, change: &Change, now: Instant) {
        let ours = self.membership.session;
        match change {
            Change::Party { party } => self.handle_party(party, now),
            Change::Member { session, member } if *session == ours => {
                self.membership.handle_member(member);
                let epoch = member.entry.as_ref().map(|entry| entry.epoch);
                if epoch.is_some_and(|epoch| epoch > self.membership.epoch()) {
                    self.outbox.event(Event::PartyWanted);
                }
                self.follow_members(now);
            }
            Change::Left { session, member } if *session == ours => {
                self.membership.handle_left(*member);
                self.follow_members(now);
            }
            Change::Removed { session, kick } if *session == ours => {
                let kicker = kick.as_ref().and_then(|kick| self.kicker(kick));
                self.remove(kicker, now);
            }
            Change::Relays { session, relays } if *session == ours => {
                self.with_leases(now, |leases, around| leases.set_relays(relays, around));
            }
            Change::Member { .. }
            | Change::Left { .. }
            | Change::Removed { .. }
            | Change::Relays { .. }
            | Change::Map { .. } => {}
        }
    }

    fn kicker(&self, kick: &Blob) -> Option<Member> {
        let record = KickRecord::decode(kick.0.as_slice().try_into().ok()?).ok()?;
        let ours = record.session == self.membership.session
            && record.member == self.membership.us
            && record.verify(&self.credentials.relay_map).is_ok();
        ours.then_some(record.kicker)
    }

    fn remove(&mut self, kicker: Option<Member>, now: Instant) {
        self.outbox.event(Event::Removed { kicker });
        self.release(now);
    }

    /// Tunnels follow the directory: one for every other member with a genuine entry.
    pub(super) fn follow_members(&mut self, now: Instant) {
        let wanted: Vec<(Member, Generation, TunnelKey, bool)> = self
            .membership
            .others()
            .map(|(known, entry)| {
                let body = &entry.body;
                (body.member, body.generation, body.tunnel, known.record.online)
            })
            .collect();
        self.peers.retain(|member, peer| {
            wanted.iter().any(|(wanted, generation, key, _)| {
                wanted == member && *generation == peer.generation && *key == peer.key
            })
        });
        for (member, generation, key, is_online) in wanted {
            if !self.peers.contains_key(&member) {
                let slot = self.make_slot(member, &key);
                self.peers.insert(member, Peer::new(member, generation, key, slot));
                self.receive_held(member, now);
            }
            if let Some(peer) = self.peers.get_mut(&member)
                && is_online
                && !peer.tunnels.has_session()
            {
                peer.handshake.want(now + NEWCOMER_HEAD_START);
            }
            self.note_deadline_of(member);
        }
        self.outbox.event(Event::MembersChanged);
    }

    /// New tunnels with the new secret's keys; the old ones carry NEW_EPOCH and what is under way.
    pub(super) fn begin_epoch(&mut self, new: &NewEpoch, now: Instant) {
        self.outbox.event(Event::Epoch { epoch: new.epoch, secret: new.secret });
        let secret = new.secret;
        self.epoch_news = Some(EpochNews { record: new.record, secret });
        self.follow_members(now);
        let members: Vec<_> = self.peers.values().map(|peer| (peer.member, peer.key)).collect();
        for (member, key) in members {
            let slot = self.make_slot(member, &key);
            let Some(peer) = self.peers.get_mut(&member) else { continue };
            if peer.epoch() == new.epoch {
                continue;
            }
            let had_session = peer.tunnels.has_session();
            peer.begin_epoch(slot, now);
            if had_session {
                peer.epoch_notice = Some(Notice::new(now));
            }
            self.note_deadline_of(member);
        }
    }
}
