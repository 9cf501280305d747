use std::collections::{HashMap, VecDeque};
use std::hash::{Hash as _, Hasher as _};

use lanrage_proto::frame::{Cookie, Nonce};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::cookies::{Place, Purpose};
use super::{Binder, Now, Outcome};

/// How long an answer is kept for a question that comes again.
const KEPT_MS: u64 = 5_000;
/// Answers kept; the oldest goes first. When 33,000 leases a second are resumed (100,000 in 3 s), that
/// is 2 s: longer than a client asks again. An answer takes some 450 B, so all of them 30 MB.
pub(super) const ANSWERS_MAX: usize = 65_536;

/// A digest of a BIND or RESUME and the way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question(u128);

/// The answers of the last seconds: the same question again costs no public-key work and changes
/// nothing.
#[derive(Debug)]
pub(super) struct Answers {
    key: [u8; 16],
    by_question: HashMap<Question, Box<[u8]>>,
    by_age: VecDeque<(u64, Question)>,
}

impl Binder {
    /// What BIND and RESUME pass before they cost anything: the cookie of their HELLO for the place
    /// they come from. A question that comes again gets its answer again.
    pub(super) fn admit(
        &mut self,
        (nonce, cookie): (Nonce, Cookie),
        datagram: &[u8],
        place: Place,
    ) -> Result<Question, Outcome> {
        if !self.cookies.holds(cookie, Purpose::Hello(nonce), place) {
            return Err(Outcome::BadCookie);
        }
        let question = self.answers.question(datagram, place);
        if let Some(answer) = self.answers.find(question) {
            let answer = answer.to_vec();
            self.transmit(place, answer);
            return Err(Outcome::Repeated);
        }
        Ok(question)
    }

    /// Answers an admitted question, and keeps the answer.
    pub(super) fn answer(&mut self, now: Now, place: Place, question: Question, answer: Vec<u8>) {
        self.answers.keep(now.ms, question, answer.as_slice().into());
        self.transmit(place, answer);
    }
}

impl Answers {
    /// The key keeps digests from being made to collide.
    pub(super) fn new(key: [u8; 16]) -> Self {
        Self { key, by_question: HashMap::new(), by_age: VecDeque::new() }
    }

    fn question(&self, datagram: &[u8], place: Place) -> Question {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        place.hash(&mut hasher);
        hasher.write(datagram);
        Question(hasher.finish128().as_u128())
    }

    fn find(&self, question: Question) -> Option<&[u8]> {
        self.by_question.get(&question).map(Box::as_ref)
    }

    fn keep(&mut self, now_ms: u64, question: Question, answer: Box<[u8]>) {
        if self.by_age.len() == ANSWERS_MAX {
            self.forget_oldest();
        }
        self.by_age.push_back((now_ms + KEPT_MS, question));
        self.by_question.insert(question, answer);
    }

    pub(super) fn forget_old(&mut self, now_ms: u64) {
        while self.by_age.front().is_some_and(|(until, _)| *until <= now_ms) {
            self.forget_oldest();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_question.len()
    }

    fn forget_oldest(&mut self) {
        if let Some((_, question)) = self.by_age.pop_front() {
            self.by_question.remove(&question);
        }
    }
}
