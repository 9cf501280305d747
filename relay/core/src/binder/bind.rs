use lanrage_proto::datagram::Kind;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Refusal};
use lanrage_proto::handshake::{Responder, ephemeral_seed};
use lanrage_proto::{RelayId, TunnelKey, signed};

use super::bans::KeyPrefix;
use super::cookies::Place;
use super::leases::{Claim, Granted};
use super::ranks::Rank;
use super::{Binder, CLOCK_LEEWAY_S, Now, Outcome};

impl Binder {
    /// BIND (§4.4): what is cheap to refuse is refused first; the public-key work comes last.
    pub(super) fn handle_bind(&mut self, now: Now, datagram: &[u8], place: Place) -> Outcome {
        let Ok(bind) = Bind::decode(datagram) else {
            return Outcome::Malformed;
        };
        let exchange = (bind.nonce, bind.cookie);
        let question = match self.admit(exchange, datagram, place) {
            Ok(question) => question,
            Err(outcome) => return outcome,
        };
        if !self.budgets.binds.take(place.remote.ip(), now.ms) {
            return Outcome::PrefixBudget;
        }
        if !self.budgets.admit(Kind::Bind, now.ms) {
            return Outcome::Budget;
        }
        let seed = ephemeral_seed(&mut self.rng);
        let (key, relay) = (&self.identity.key, self.identity.relay);
        let Ok((responder, payload)) = Responder::accept(key, &bind, relay, seed) else {
            return Outcome::NotAuthentic;
        };
        let Ok(request) = BindRequest::decode(&payload) else {
            return Outcome::Malformed;
        };

        let granted = self
            .claim(now, &request, responder.client())
            .and_then(|claim| self.grant(now, place, &claim));
        let (result, outcome) = match granted {
            Ok((lease, Granted::New)) => (BindResult::Lease(lease), Outcome::Bound),
            Ok((lease, Granted::Renewed)) => (BindResult::Lease(lease), Outcome::Renewed),
            Err(reason) => (refused(reason, now), Outcome::Refused(reason)),
        };
        let noise = responder.answer(&result);
        let answer = Bound { nonce: bind.nonce, noise: &noise }.encode();
        self.answer(now, place, question, answer);
        outcome
    }

    /// What a ticket claims, once its signature, its scope and its key hold and it has begun.
    fn claim(&self, now: Now, request: &BindRequest, client: TunnelKey) -> Result<Claim, Refusal> {
        let ticket = request
            .ticket
            .verify(self.signing_keys.as_slice())
            .map_err(|signed::BadSignature| Refusal::BadTicket)?;
        if ticket.pool != self.identity.pool || !ticket.relays.contains(&self.identity.relay) {
            return Err(Refusal::WrongRelay);
        }
        if ticket.key != client {
            return Err(Refusal::WrongKey);
        }
        if now.unix_s + CLOCK_LEEWAY_S < ticket.not_before {
            return Err(Refusal::NotYetValid);
        }
        Ok(Claim {
            session: ticket.session,
            member: ticket.member,
            generation: ticket.generation,
            key: KeyPrefix::of(&ticket.key),
            next: after(self.identity.relay, &ticket.relays),
            rate_class: ticket.rate_class,
            expires: ticket.expires,
            instance: request.instance,
            rank: Rank::of_bind(request.stamp),
        })
    }
}

pub(super) const fn refused(reason: Refusal, now: Now) -> BindResult {
    BindResult::Refused { reason, relay_time: now.unix_s }
}

/// The relay that follows this one in a ticket's list, which begins again at its end.
fn after(relay: RelayId, list: &[RelayId]) -> RelayId {
    let at = list.iter().position(|listed| *listed == relay).map_or(0, |at| at + 1);
    let others = list[at..].iter().chain(list);
    let mut others = others.filter(|listed| listed.0 != 0 && **listed != relay);
    others.next().copied().unwrap_or(RelayId(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_relay_is_the_following_one_of_the_list() {
        let next = |relay, list: [u16; 3]| after(RelayId(relay), &list.map(RelayId)).0;
        assert_eq!(next(1, [1, 2, 3]), 2);
        assert_eq!(next(2, [1, 2, 3]), 3);
        assert_eq!(next(3, [1, 2, 3]), 1);
        assert_eq!(next(2, [1, 2, 0]), 1);
        assert_eq!(next(1, [1, 0, 0]), 0);
    }
}
