use lanrage_proto::datagram::Kind;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_relay_table::{Endpoint, Handle, Lease};

use super::cookies::{Place, Purpose};
use super::leases::Direction;
use super::{Binder, End, Now, Outcome, SETTLE_MS};
use crate::ids::{handle_from_wire, handle_to_wire};

impl Binder {
    /// A sealed control message of a lease (§5.1), from whatever address.
    pub(super) fn handle_control(&mut self, now: Now, datagram: &[u8], place: Place) -> Outcome {
        let Ok(sealed) = Sealed::decode(datagram) else {
            return Outcome::Malformed;
        };
        if !self.budgets.admit(Kind::Control, now.ms) {
            return Outcome::Budget;
        }
        let handle = handle_from_wire(sealed.handle);
        let (Some(lease), Some(record)) = (self.table.lease(handle), self.record(handle)) else {
            return Outcome::NoLease;
        };
        if sealed.counter <= record.counter_in {
            return Outcome::NotAuthentic;
        }
        let key = self.control_key(&lease, &record, Direction::ToRelay);
        let Ok(message) = sealed.open(&key) else {
            return Outcome::NotAuthentic;
        };
        self.change_record(handle, |record| record.counter_in = sealed.counter);
        let purpose = Purpose::Rebind { handle: handle.to_bits(), tag: lease.tag.0 };
        match message {
            Message::Rebind => {
                let cookie = self.cookies.make(purpose, place);
                self.tell(&lease, place, &Message::RebindChallenge(cookie));
                Outcome::RebindChallenged
            }
            Message::RebindAnswer(cookie) => {
                if !self.cookies.holds(cookie, purpose, place) {
                    return Outcome::BadCookie;
                }
                self.move_lease(now, handle, place);
                self.tell(&lease, place, &Message::Rebound(place.remote));
                Outcome::Rebound
            }
            Message::Release => {
                self.end(handle, End::Released);
                Outcome::Released
            }
            Message::RebindChallenge(_) | Message::Rebound(_) | Message::Moving { .. } => {
                Outcome::Malformed
            }
        }
    }

    fn move_lease(&mut self, now: Now, handle: Handle, place: Place) {
        let endpoint = Endpoint::new(place.remote, place.local);
        let has_moved = self.table.lease(handle).is_some_and(|lease| lease.endpoint != endpoint);
        if !has_moved || self.table.rebind(handle, endpoint).is_err() {
            return;
        }
        let settle_at_ms = now.ms + SETTLE_MS;
        self.change_record(handle, |record| record.settle_at_ms = settle_at_ms);
        self.timers.settling(settle_at_ms, handle);
    }

    /// Sends a sealed message to a lease's client at `place`.
    pub(super) fn tell(&mut self, lease: &Lease, place: Place, message: &Message) {
        self.change_record(lease.handle, |record| record.counter_out += 1);
        let record = self.memory.record(lease.handle.index());
        let counter = record.counter_out;
        let key = self.control_key(lease, &record, Direction::ToClient);
        self.transmit(place, message.seal(&key, handle_to_wire(lease.handle), counter));
    }
}
