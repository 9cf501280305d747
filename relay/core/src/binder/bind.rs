use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound, Refusal};
use lanrage_proto::handshake::{Responder, ephemeral_seed};
use lanrage_proto::{TunnelKey, signed};

use super::cookies::{Place, Purpose};
use super::leases::{Claim, Granted};
use super::{Binder, CLOCK_LEEWAY_S, Now, Outcome};

impl Binder {
    /// BIND (§4.4): what is cheap to refuse is refused first; the public-key work comes last.
    pub(super) fn handle_bind(&mut self, now: Now, datagram: &[u8], place: Place) -> Outcome {
        let Ok(bind) = Bind::decode(datagram) else {
            return Outcome::Malformed;
        };
        if !self.cookies.holds(bind.cookie, Purpose::Hello(bind.nonce), place) {
            return Outcome::BadCookie;
        }
        let question = (bind.ephemeral(), place);
        if let Some(answer) = self.answers.find(&question) {
            let answer = answer.to_vec();
            self.transmit(place, answer);
            return Outcome::Repeated;
        }
        if !self.budgets.prefixes.take(place.remote.ip(), now.ms) {
            return Outcome::PrefixBudget;
        }
        if !self.budgets.bind.take(now.ms) {
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
        self.answers.keep(now.ms, question, answer.clone());
        self.transmit(place, answer);
        outcome
    }

    /// What a ticket claims, once its signature, its scope, its key and its time hold.
    fn claim(
        &mut self,
        now: Now,
        request: &BindRequest,
        client: TunnelKey,
    ) -> Result<Claim, Refusal> {
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
        let claim = Claim {
            session: ticket.session,
            member: ticket.member,
            generation: ticket.generation,
            rate_class: ticket.rate_class,
            expires: ticket.expires,
            instance: request.instance,
            stamp: request.stamp,
        };
        self.check_standing(now, &claim)?;
        let newer = self.member_records(claim.session, claim.member).any(|(_, record)| {
            record.claim.instance == claim.instance && record.claim.stamp >= claim.stamp
        });
        if newer || !self.stamps.take(claim.session, claim.member, &claim.instance, claim.stamp) {
            return Err(Refusal::Replayed);
        }
        Ok(claim)
    }
}

pub(super) const fn refused(reason: Refusal, now: Now) -> BindResult {
    BindResult::Refused { reason, relay_time: now.unix_s }
}
