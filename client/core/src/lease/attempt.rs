//! One try to get a lease: HELLO, CHALLENGE, then BIND and BOUND or RESUME and RESUMED (§4, §5.4).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::frame::{Cookie, Nonce, VERSION};
use lanrage_proto::handshake::{Initiator, ephemeral_seed};
use rand_core::RngCore;
use zeroize::Zeroizing;

use super::credentials::Credentials;

/// After the first, second, … sending; the last one repeats.
const HELLO_PAUSES_MS: [u64; 9] = [100, 200, 400, 800, 1000, 1000, 1000, 2000, 5000];
/// The same for BIND and RESUME; after the last, the cookie may be too old: HELLO again.
const BIND_PAUSES_MS: [u64; 4] = [100, 200, 400, 800];
/// Where HELLO's pauses go on after an unanswered BIND.
const HELLO_TRIES_AFTER_BIND: usize = 3;
/// A CHALLENGE may answer any of the last HELLOs.
const NONCES_MAX: usize = 4;

/// Kept from a lease: what a restarted relay takes instead of a BIND.
#[derive(Clone)]
pub(crate) struct Resumption {
    pub(crate) key: Zeroizing<[u8; 32]>,
    pub(crate) ticket: Vec<u8>,
}

pub(crate) struct Attempt {
    step: Step,
    tries: usize,
    next_send: Instant,
    /// Unanswered or refused RESUMEs end with a BIND.
    resumption: Option<Resumption>,
}

enum Step {
    Hello { nonces: VecDeque<Nonce> },
    Bind { nonce: Nonce, to: SocketAddr, frame: Vec<u8>, initiator: Box<Initiator> },
    Resume { nonce: Nonce, cookie: Cookie, to: SocketAddr, frame: Vec<u8> },
}

/// Why a CHALLENGE, BOUND or RESUMED was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotTaken {
    Unasked,
    NotFromRelay,
    NoTicket,
}

impl Attempt {
    pub(crate) fn new(resumption: Option<Resumption>, now: Instant) -> Self {
        let nonces = VecDeque::with_capacity(NONCES_MAX);
        Self { step: Step::Hello { nonces }, tries: 0, next_send: now, resumption }
    }

    pub(crate) const fn deadline(&self) -> Instant {
        self.next_send
    }

    /// Whether nothing but HELLOs have been sent: the attempt can be given up without loss.
    pub(crate) const fn is_hello(&self) -> bool {
        matches!(self.step, Step::Hello { .. })
    }

    /// Sends again what is unanswered; HELLO goes to all `addresses` of the relay.
    pub(crate) fn handle_timeout(
        &mut self,
        addresses: impl Iterator<Item = SocketAddr>,
        rng: &mut impl RngCore,
        now: Instant,
        mut send: impl FnMut(SocketAddr, &[u8]),
    ) {
        if now < self.next_send {
            return;
        }
        if !self.is_hello() && self.tries == BIND_PAUSES_MS.len() {
            if matches!(self.step, Step::Resume { .. }) {
                self.resumption = None;
            }
            self.step = Step::Hello { nonces: VecDeque::with_capacity(NONCES_MAX) };
            self.tries = HELLO_TRIES_AFTER_BIND;
        }
        let pauses: &[u64] = match &mut self.step {
            Step::Hello { nonces } => {
                let mut nonce = Nonce([0; 16]);
                rng.fill_bytes(&mut nonce.0);
                if nonces.len() == NONCES_MAX {
                    nonces.pop_front();
                }
                nonces.push_back(nonce);
                let hello = Hello { version_min: VERSION, version_max: VERSION, nonce }.encode();
                addresses.for_each(|address| send(address, &hello));
                &HELLO_PAUSES_MS
            }
            Step::Bind { to, frame, .. } | Step::Resume { to, frame, .. } => {
                send(*to, frame);
                &BIND_PAUSES_MS
            }
        };
        let pause = pauses[self.tries.min(pauses.len() - 1)];
        self.tries += 1;
        self.next_send = now + Duration::from_millis(pause);
    }

    pub(crate) fn awaits(&self, nonce: Nonce) -> bool {
        match &self.step {
            Step::Hello { nonces } => nonces.contains(&nonce),
            Step::Bind { nonce: sent, .. } | Step::Resume { nonce: sent, .. } => *sent == nonce,
        }
    }

    /// Goes on to BIND or RESUME, due at once. The caller has checked the certificate.
    pub(crate) fn handle_challenge(
        &mut self,
        source: SocketAddr,
        challenge: &Challenge,
        credentials: &mut Credentials,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Result<(), NotTaken> {
        if !self.is_hello() || !self.awaits(challenge.nonce) {
            return Err(NotTaken::Unasked);
        }
        let Challenge { nonce, cookie, certificate } = *challenge;
        self.step = match &self.resumption {
            Some(Resumption { key, ticket }) => {
                let resume = Resume::new(nonce, cookie, ticket, key, certificate.relay);
                Step::Resume { nonce, cookie, to: source, frame: resume.encode() }
            }
            None => {
                let ticket = credentials.ticket.clone().ok_or(NotTaken::NoTicket)?;
                let instance = credentials.instance;
                let stamp = credentials.next_stamp();
                let request = BindRequest { ticket, instance, stamp };
                let (initiator, noise) = Initiator::start(
                    &credentials.private.to_bytes(),
                    &certificate.key,
                    (nonce, cookie, certificate.relay),
                    &request.encode(),
                    ephemeral_seed(rng),
                )
                .map_err(|_| NotTaken::NotFromRelay)?;
                let frame = Bind { nonce, cookie, noise: &noise }.encode();
                Step::Bind { nonce, to: source, frame, initiator: Box::new(initiator) }
            }
        };
        self.tries = 0;
        self.next_send = now;
        Ok(())
    }

    /// The relay's answer to BIND and the address it was bound by.
    pub(crate) fn handle_bound(
        &mut self,
        bound: &Bound<'_>,
    ) -> Result<(BindResult, SocketAddr), NotTaken> {
        let Step::Bind { nonce, to, initiator, .. } = &mut self.step else {
            return Err(NotTaken::Unasked);
        };
        if *nonce != bound.nonce {
            return Err(NotTaken::Unasked);
        }
        let payload = initiator.finish(bound.noise).map_err(|_| NotTaken::NotFromRelay)?;
        let result = BindResult::decode(&payload).map_err(|_| NotTaken::NotFromRelay)?;
        Ok((result, *to))
    }

    /// The relay's answer to RESUME and the address it was bound by. After a refusal the same
    /// attempt goes on with HELLO and BIND.
    pub(crate) fn handle_resumed(
        &mut self,
        resumed: &Resumed<'_>,
        now: Instant,
    ) -> Result<(BindResult, SocketAddr), NotTaken> {
        let (Step::Resume { nonce, cookie, to, .. }, Some(resumption)) =
            (&self.step, &self.resumption)
        else {
            return Err(NotTaken::Unasked);
        };
        if *nonce != resumed.nonce {
            return Err(NotTaken::Unasked);
        }
        let result = resumed.open(&resumption.key, *cookie).map_err(|_| NotTaken::NotFromRelay)?;
        let to = *to;
        if matches!(result, BindResult::Refused { .. }) {
            *self = Self::new(None, now);
        }
        Ok((result, to))
    }
}
