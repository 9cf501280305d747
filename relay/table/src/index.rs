//! The writer's index from a session to the head of its chain.
//!
//! Hash buckets of linked nodes, a node for each line number: no growth, no rehash, no tombstones.

use std::{
    collections::TryReserveError,
    hash::{BuildHasher, RandomState},
};

use crate::{
    chain::END,
    ids::{ChainHead, SessionId},
    slabs::allocate,
};

#[derive(Debug)]
pub(crate) struct SessionIndex {
    /// Keyed, so that session numbers cannot be chosen to collide.
    hasher: RandomState,
    /// First node of each bucket; a power of two of them.
    buckets: Box<[u32]>,
    /// By line number; in use for the heads of chains.
    nodes: Box<[Node]>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    session: SessionId,
    next: u32,
}

impl SessionIndex {
    pub(crate) fn new(session_lines: u32) -> Result<Self, TryReserveError> {
        let node = Node { session: SessionId(0), next: END };
        Ok(Self {
            hasher: RandomState::new(),
            buckets: allocate(session_lines.next_power_of_two() as usize, || END)?,
            nodes: allocate(session_lines as usize + 1, || node)?,
            len: 0,
        })
    }

    pub(crate) const fn footprint(session_lines: u32) -> usize {
        session_lines.next_power_of_two() as usize * size_of::<u32>()
            + (session_lines as usize + 1) * size_of::<Node>()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn find(&self, session: SessionId) -> Option<ChainHead> {
        let mut at = self.buckets[self.bucket(session)];
        while at != END {
            let node = self.nodes[at as usize];
            if node.session == session {
                return Some(ChainHead(at));
            }
            at = node.next;
        }
        None
    }

    /// The session must be new, and the line the head of no other.
    pub(crate) fn insert(&mut self, session: SessionId, ChainHead(line): ChainHead) {
        let bucket = self.bucket(session);
        self.nodes[line as usize] = Node { session, next: self.buckets[bucket] };
        self.buckets[bucket] = line;
        self.len += 1;
    }

    pub(crate) fn remove(&mut self, session: SessionId) {
        let bucket = self.bucket(session);
        let mut before = END;
        let mut at = self.buckets[bucket];
        while at != END {
            let Node { session: here, next } = self.nodes[at as usize];
            if here == session {
                match before {
                    END => self.buckets[bucket] = next,
                    _ => self.nodes[before as usize].next = next,
                }
                self.len -= 1;
                return;
            }
            before = at;
            at = next;
        }
    }

    fn bucket(&self, session: SessionId) -> usize {
        self.hasher.hash_one(session) as usize & (self.buckets.len() - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Few lines, hence long buckets.
        #[test]
        fn agrees_with_a_map(toggles in prop::collection::vec((0..12u64, 1..=5u32), 0..60)) {
            let mut index = SessionIndex::new(5).unwrap();
            let mut model: HashMap<SessionId, u32> = HashMap::new();
            for (session, line) in toggles {
                let session = SessionId(session);
                if model.remove(&session).is_some() {
                    index.remove(session);
                } else if !model.values().any(|used| *used == line) {
                    model.insert(session, line);
                    index.insert(session, ChainHead(line));
                }
                prop_assert_eq!(index.len(), model.len());
                for session in (0..12).map(SessionId) {
                    prop_assert_eq!(index.find(session), model.get(&session).copied().map(ChainHead));
                }
            }
        }
    }
}
