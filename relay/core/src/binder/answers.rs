use std::collections::{HashMap, VecDeque};

use super::cookies::Place;

/// How long an answer is kept for a question that comes again.
const KEPT_MS: u64 = 5_000;
/// Answers kept; the oldest goes first.
pub(super) const ANSWERS_MAX: usize = 4096;

/// What makes two BINDs or two RESUMEs the same: the Noise ephemeral key, or the nonce and the
/// cookie's MAC, and the way they came.
pub(super) type Question = ([u8; 32], Place);

/// The answers of the last seconds: the same question again costs no public-key work and changes
/// nothing.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_question: HashMap<Question, Vec<u8>>,
    by_age: VecDeque<(u64, Question)>,
}

impl Answers {
    pub(super) fn find(&self, question: &Question) -> Option<&[u8]> {
        self.by_question.get(question).map(Vec::as_slice)
    }

    pub(super) fn keep(&mut self, now_ms: u64, question: Question, answer: Vec<u8>) {
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
