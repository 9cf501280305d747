use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305};
use lanrage_proto::datagram::Kind;
use lanrage_proto::frame::bind::BindResult;
use lanrage_proto::frame::resume::{Resume, Resumed, TICKET_LEN_MAX};
use lanrage_proto::mac::mac32;
use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_proto::{Generation, Member, RateClass, RelayId, SessionId};
use rand_core::RngCore as _;
use zeroize::Zeroizing;

use super::bans::KeyPrefix;
use super::bind::refused;
use super::cookies::Place;
use super::leases::Claim;
use super::ranks::Rank;
use super::{Binder, Now, Outcome};

const VERSION: u8 = 3;
const NONCE_LEN: usize = 24;
const BODY_LEN: usize = 1 + 1 + 2 + 1 + 4 + 8 + 8 + 8 + 16 + 8 + 4;
const _: () = assert!(NONCE_LEN + BODY_LEN + 16 <= TICKET_LEN_MAX);

impl Binder {
    /// RESUME (§5.4): the lease of a relay that has forgotten it, without public-key work.
    pub(super) fn handle_resume(&mut self, now: Now, datagram: &[u8], place: Place) -> Outcome {
        let Ok(resume) = Resume::decode(datagram) else {
            return Outcome::Malformed;
        };
        let exchange = (resume.nonce, resume.cookie);
        let question = match self.admit(exchange, datagram, place) {
            Ok(question) => question,
            Err(outcome) => return outcome,
        };
        let ip = place.remote.ip();
        if !self.budgets.forgeries.has(ip, now.ms) {
            return Outcome::PrefixBudget;
        }
        if !self.budgets.admit(Kind::Resume, now.ms) {
            return Outcome::Budget;
        }
        let opened = self.open_ticket(resume.ticket);
        let relay = self.identity.relay;
        let Some((key, claim)) = opened.filter(|(key, _)| resume.proves(key, relay)) else {
            self.budgets.forgeries.take(ip, now.ms);
            return Outcome::NotAuthentic;
        };
        let (result, outcome) = match self.grant(now, place, &claim) {
            Ok((lease, _)) => (BindResult::Lease(lease), Outcome::Resumed),
            Err(reason) => (refused(reason, now), Outcome::Refused(reason)),
        };
        let answer = Resumed::seal(&resume, &key, &result);
        self.answer(now, place, question, answer);
        outcome
    }

    /// A fresh key, and the ticket by which the relay will know it after a crash. The key is a MAC of
    /// the ticket, whose nonce is random: not stored in it, it leaves BOUND shorter than BIND.
    ///
    /// ```text
    /// nonce 24 B | XChaCha20-Poly1305(version u8 | member u8 | rate class u8 | next u16 |
    ///              generation u32 | member's key, 8 B of it | session u64 | expires u64 |
    ///              instance 16 B | stamp u64 | resumed u32)
    /// ```
    pub(super) fn resumption(&mut self, claim: &Claim) -> (Zeroizing<[u8; 32]>, Vec<u8>) {
        let mut nonce = [0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        let body = Writer::with_capacity(BODY_LEN)
            .bytes(&[VERSION, claim.member.number(), claim.rate_class.0])
            .u16(claim.next.0)
            .u32(claim.generation.0)
            .bytes(&claim.key.0)
            .u64(claim.session.0)
            .u64(claim.expires)
            .bytes(&claim.instance)
            .u64(claim.rank.stamp)
            .u32(claim.rank.resumed)
            .finish();
        let sealed = self
            .resumption_cipher()
            .encrypt(&nonce.into(), Payload { msg: &body, aad: &self.resumption_scope() })
            .expect("the ticket is far below the cipher's limit");
        let ticket = [nonce.as_slice(), &sealed].concat();
        (self.resumption_key(&ticket), ticket)
    }

    fn resumption_key(&self, ticket: &[u8]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(mac32(&self.identity.resumption, &[b"lanrage resumption key", ticket]))
    }

    fn open_ticket(&self, ticket: &[u8]) -> Option<(Zeroizing<[u8; 32]>, Claim)> {
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_LEN>()?;
        let body = self
            .resumption_cipher()
            .decrypt(&(*nonce).into(), Payload { msg: sealed, aad: &self.resumption_scope() })
            .ok()?;
        Some((self.resumption_key(ticket), read_body(&body).ok()?))
    }

    fn resumption_cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.identity.resumption).into())
    }

    fn resumption_scope(&self) -> [u8; 4] {
        let ([p0, p1], [r0, r1]) =
            (self.identity.pool.0.to_be_bytes(), self.identity.relay.0.to_be_bytes());
        [p0, p1, r0, r1]
    }
}

/// The claim of who resumes by a ticket.
fn read_body(body: &[u8]) -> Result<Claim, Malformed> {
    let mut reader = Reader::new(body, "resumption ticket");
    let [version, member, rate_class] = reader.array()?;
    if version != VERSION {
        return Err(Malformed("resumption ticket version"));
    }
    let claim = Claim {
        member: Member::new(member).ok_or(Malformed("resumption ticket member"))?,
        rate_class: RateClass(rate_class),
        next: RelayId(reader.u16()?),
        generation: Generation(reader.u32()?),
        key: KeyPrefix(reader.array()?),
        session: SessionId(reader.u64()?),
        expires: reader.u64()?,
        instance: reader.array()?,
        rank: Rank { stamp: reader.u64()?, resumed: reader.u32()? }.resumed(),
    };
    reader.finish()?;
    Ok(claim)
}
