//! The lease table and the maps it is compared with, each asked as a relay asks: by handle for the
//! sender's lease, then, if tag, address and member hold, by session and member for the receiver's.
//!
//! The maps get what favours them: whole leases by value under both keys, a hash that is faster than
//! the standard library's, and one guard a batch where they have guards.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

use dashmap::DashMap;
use foldhash::fast::FixedState;
use lanrage_relay_table::{Endpoint, Handle, Member, Reader, SessionId};

use crate::population::{Kept, Population, Question};

/// Questions at a time: as many as the relay's back ends take in one turn.
pub(crate) const BATCH: usize = 64;

/// What answers.
pub(crate) trait Contestant {
    fn name(&self) -> &'static str;

    /// Where each frame goes, if anywhere.
    fn answer(&self, batch: &[Question], answer: impl FnMut(Option<Endpoint>));
}

/// The lease table, a batch's lines loaded before they are used.
#[derive(Debug)]
pub(crate) struct Prefetched(pub(crate) Reader);

/// The lease table, a frame at a time.
#[derive(Debug)]
pub(crate) struct Plain(pub(crate) Reader);

impl Contestant for Prefetched {
    fn name(&self) -> &'static str {
        "table"
    }

    fn answer(&self, batch: &[Question], answer: impl FnMut(Option<Endpoint>)) {
        let handles = || batch.iter().map(|question| Handle::from_bits(question.handle));
        self.0.touch_sources(handles());
        self.0.touch_sessions(handles());
        self.0.touch_peers(handles().zip(batch.iter().map(|question| question.destination)));
        batch.iter().map(|question| look_up(&self.0, question)).for_each(answer);
    }
}

impl Contestant for Plain {
    fn name(&self) -> &'static str {
        "table, not prefetched"
    }

    fn answer(&self, batch: &[Question], answer: impl FnMut(Option<Endpoint>)) {
        batch.iter().map(|question| look_up(&self.0, question)).for_each(answer);
    }
}

fn look_up(reader: &Reader, question: &Question) -> Option<Endpoint> {
    let lease = reader.source(Handle::from_bits(question.handle)).ok()?.lease;
    let holds = lease.tag == question.tag
        && lease.accepts(question.ip.to_ipv6_mapped(), question.port)
        && lease.member == question.source;
    let peer = || reader.peer(lease.chain, lease.session, question.destination).ok();
    holds.then(peer).flatten().map(|target| target.endpoint)
}

/// Whether the frame is its lease's.
fn holds(lease: &Kept, question: &Question) -> bool {
    lease.tag == question.tag
        && lease.endpoint.ip == question.ip.to_ipv6_mapped()
        && lease.endpoint.port == question.port
        && lease.member == question.source
}

type Of = (SessionId, Member);

fn by_handle(population: &Population) -> impl Iterator<Item = (u32, Kept)> {
    population.leases.iter().map(|lease| (lease.handle, *lease))
}

fn by_member(population: &Population) -> impl Iterator<Item = (Of, Kept)> {
    population.leases.iter().map(|lease| ((lease.session, lease.member), *lease))
}

#[derive(Debug)]
pub(crate) struct Papaya {
    by_handle: papaya::HashMap<u32, Kept, FixedState>,
    by_member: papaya::HashMap<Of, Kept, FixedState>,
}

impl Papaya {
    pub(crate) fn new(population: &Population) -> Self {
        Self {
            by_handle: by_handle(population).collect(),
            by_member: by_member(population).collect(),
        }
    }
}

impl Contestant for Papaya {
    fn name(&self) -> &'static str {
        "papaya"
    }

    fn answer(&self, batch: &[Question], mut answer: impl FnMut(Option<Endpoint>)) {
        let (by_handle, by_member) = (self.by_handle.pin(), self.by_member.pin());
        for question in batch {
            let lease = by_handle.get(&question.handle).filter(|lease| holds(lease, question));
            let to = lease.and_then(|lease| by_member.get(&(lease.session, question.destination)));
            answer(to.map(|to| to.endpoint));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Dashmap {
    by_handle: DashMap<u32, Kept, FixedState>,
    by_member: DashMap<Of, Kept, FixedState>,
}

impl Dashmap {
    pub(crate) fn new(population: &Population) -> Self {
        Self {
            by_handle: by_handle(population).collect(),
            by_member: by_member(population).collect(),
        }
    }
}

impl Contestant for Dashmap {
    fn name(&self) -> &'static str {
        "dashmap"
    }

    fn answer(&self, batch: &[Question], mut answer: impl FnMut(Option<Endpoint>)) {
        for question in batch {
            let lease = self.by_handle.get(&question.handle).filter(|lease| holds(lease, question));
            let of = lease.map(|lease| (lease.session, question.destination));
            answer(of.and_then(|of| self.by_member.get(&of)).map(|to| to.endpoint));
        }
    }
}

#[derive(Debug)]
pub(crate) struct Locked {
    by_handle: RwLock<HashMap<u32, Kept, FixedState>>,
    by_member: RwLock<HashMap<Of, Kept, FixedState>>,
}

impl Locked {
    pub(crate) fn new(population: &Population) -> Self {
        Self {
            by_handle: RwLock::new(by_handle(population).collect()),
            by_member: RwLock::new(by_member(population).collect()),
        }
    }
}

impl Contestant for Locked {
    fn name(&self) -> &'static str {
        "RwLock<HashMap>"
    }

    fn answer(&self, batch: &[Question], mut answer: impl FnMut(Option<Endpoint>)) {
        let by_handle = self.by_handle.read().unwrap_or_else(PoisonError::into_inner);
        let by_member = self.by_member.read().unwrap_or_else(PoisonError::into_inner);
        for question in batch {
            let lease = by_handle.get(&question.handle).filter(|lease| holds(lease, question));
            let to = lease.and_then(|lease| by_member.get(&(lease.session, question.destination)));
            answer(to.map(|to| to.endpoint));
        }
    }
}

#[cfg(test)]
mod tests {
    use lanrage_relay_table::Tag;

    use super::*;

    fn answers(contestant: &impl Contestant, questions: &[Question]) -> Vec<Option<Endpoint>> {
        let mut answers = Vec::new();
        for batch in questions.chunks(BATCH) {
            contestant.answer(batch, |answer| answers.push(answer));
        }
        answers
    }

    #[test]
    fn all_agree() {
        let population = Population::new(400).expect("a small table fits");
        let mut questions = population.questions.clone();
        for (at, question) in questions.iter_mut().enumerate() {
            match at % 8 {
                0 => question.handle ^= 1 << 24,
                1 => question.tag = Tag(!question.tag.0),
                2 => question.port ^= 1,
                3 => question.source = question.destination,
                4 => question.destination = Member::new(5).expect("5 is a member number"),
                _ => {}
            }
        }
        let session = |question: &Question| {
            population
                .leases
                .iter()
                .find(|lease| lease.handle == question.handle)
                .map(|lease| lease.session)
        };
        let wanted: Vec<_> = questions
            .iter()
            .enumerate()
            .map(|(at, question)| {
                let of = session(question).filter(|_| at % 8 > 4)?;
                let is_it = |to: &&Kept| to.session == of && to.member == question.destination;
                population.leases.iter().find(is_it).map(|to| to.endpoint)
            })
            .collect();
        assert_eq!(wanted.iter().flatten().count(), 150);
        assert_eq!(answers(&Prefetched(population.reader.clone()), &questions), wanted);
        assert_eq!(answers(&Plain(population.reader.clone()), &questions), wanted);
        assert_eq!(answers(&Papaya::new(&population), &questions), wanted);
        assert_eq!(answers(&Dashmap::new(&population), &questions), wanted);
        assert_eq!(answers(&Locked::new(&population), &questions), wanted);
    }
}
