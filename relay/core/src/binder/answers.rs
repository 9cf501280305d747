use std::collections::{HashMap, VecDeque};

use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::mac::mac32;
use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_relay_table::LocalId;

use super::budgets::Budgets;
use super::cookies::{Place, Purpose};
use super::{Binder, Now, Outcome};
use crate::rate::Meter;

/// How long an answer is kept for a question that comes again.
const KEPT_MS: u64 = 5_000;
/// Answers kept; the oldest goes first.
pub(super) const ANSWERS_MAX: usize = 4096;

/// A BIND or RESUME, and the way it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    digest: [u8; 32],
    place: Place,
}

/// The answers of the last seconds: the same question again costs no public-key work and changes
/// nothing.
#[derive(Debug)]
pub(super) struct Answers {
    key: [u8; 32],
    by_question: HashMap<Question, Vec<u8>>,
    by_age: VecDeque<(u64, Question)>,
}

impl Binder {
    /// What BIND and RESUME pass before they cost anything: the cookie of their HELLO for the place
    /// they come from, and the budgets. A question that comes again gets its answer again.
    pub(super) fn admit(
        &mut self,
        now: Now,
        (nonce, cookie): (Nonce, Cookie),
        datagram: &[u8],
        place: Place,
        budget: fn(&mut Budgets) -> &mut Meter,
    ) -> Result<Question, Outcome> {
        if !self.cookies.holds(cookie, Purpose::Hello(nonce), place) {
            return Err(Outcome::BadCookie);
        }
        let question = self.answers.question(datagram, place);
        if let Some(answer) = self.answers.find(&question) {
            let answer = answer.to_vec();
            self.transmit(place, answer);
            return Err(Outcome::Repeated);
        }
        if !self.budgets.prefixes.take(place.remote.ip(), now.ms) {
            return Err(Outcome::PrefixBudget);
        }
        if !budget(&mut self.budgets).take(now.ms) {
            return Err(Outcome::Budget);
        }
        Ok(question)
    }

    /// Answers an admitted question, and keeps the answer.
    pub(super) fn answer(&mut self, now: Now, question: Question, answer: Vec<u8>) {
        self.answers.keep(now.ms, question, answer.clone());
        self.transmit(question.place, answer);
    }
}

impl Answers {
    /// The key keeps digests from being made to collide.
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key, by_question: HashMap::new(), by_age: VecDeque::new() }
    }

    fn question(&self, datagram: &[u8], place: Place) -> Question {
        Question { digest: mac32(&self.key, &[datagram]), place }
    }

    fn find(&self, question: &Question) -> Option<&[u8]> {
        self.by_question.get(question).map(Vec::as_slice)
    }

    fn keep(&mut self, now_ms: u64, question: Question, answer: Vec<u8>) {
        if self.by_age.len() == ANSWERS_MAX {
            self.forget_oldest();
        }
        self.by_age.push_back((now_ms + KEPT_MS, question));
        self.by_question.insert(question, answer);
    }

    /// Key, count, and of each answer: when it is forgotten, its question, its length and bytes.
    pub(super) fn freeze(&self, out: Writer) -> Writer {
        let out = out.bytes(&self.key).u32(self.by_age.len() as u32);
        self.by_age.iter().fold(out, |out, (until, question)| {
            let answer = self.find(question).unwrap_or_default();
            let out = out.u64(*until).bytes(&question.digest).address(question.place.remote);
            out.u16(question.place.local.0).u16(answer.len() as u16).bytes(answer)
        })
    }

    /// The inverse of [`Answers::freeze`].
    pub(super) fn thaw(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut answers = Self::new(reader.array()?);
        for _ in 0..reader.u32()? {
            let until = reader.u64()?;
            let digest = reader.array()?;
            let place = Place { remote: reader.address()?, local: LocalId(reader.u16()?) };
            let len = usize::from(reader.u16()?);
            let answer = reader.take(len)?.to_vec();
            answers.keep(until.saturating_sub(KEPT_MS), Question { digest, place }, answer);
        }
        Ok(answers)
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
