use std::collections::HashMap;

use lanrage_proto::api::Revocation;
use lanrage_proto::{Generation, Member, SessionId};

/// The lowest generation of a member that still holds, as control says.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    by_session_and_member: HashMap<(SessionId, Member), Minimum>,
}

#[derive(Clone, Copy, Debug)]
struct Minimum {
    generation: Generation,
    forget_after: u64,
}

impl Revocations {
    /// An older revocation of the same member is kept where it asks for more.
    pub(super) fn insert(&mut self, revocation: &Revocation) {
        let key = (revocation.session, revocation.member);
        let minimum = self
            .by_session_and_member
            .entry(key)
            .or_insert(Minimum { generation: Generation(0), forget_after: 0 });
        minimum.generation = minimum.generation.max(revocation.generation);
        minimum.forget_after = minimum.forget_after.max(revocation.forget_after);
    }

    pub(super) fn is_revoked(
        &self,
        session: SessionId,
        member: Member,
        generation: Generation,
    ) -> bool {
        self.by_session_and_member
            .get(&(session, member))
            .is_some_and(|minimum| generation < minimum.generation)
    }

    /// Forgets those whose tickets can no longer bind.
    pub(super) fn forget_old(&mut self, unix_s: u64) {
        self.by_session_and_member.retain(|_, minimum| unix_s <= minimum.forget_after);
    }

    /// By session and member.
    pub(super) fn sorted(&self) -> Vec<Revocation> {
        let all =
            self.by_session_and_member.iter().map(|((session, member), minimum)| Revocation {
                session: *session,
                member: *member,
                generation: minimum.generation,
                forget_after: minimum.forget_after,
            });
        let mut all: Vec<_> = all.collect();
        all.sort_unstable_by_key(|revocation| (revocation.session, revocation.member));
        all
    }

    pub(super) fn clear(&mut self) {
        self.by_session_and_member.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.by_session_and_member.len()
    }
}
