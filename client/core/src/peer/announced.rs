use lanrage_proto::RelayId;
use lanrage_proto::inner::LeaseState;

/// What a peer said last of how it receives (LEASES).
#[derive(Debug, Default)]
pub(super) struct Announced {
    /// `None` when the next one counts from elsewhere.
    sequence: Option<u32>,
    leases: Option<Vec<(RelayId, LeaseState)>>,
}

impl Announced {
    /// `None` before the first.
    pub(super) fn leases(&self) -> Option<&[(RelayId, LeaseState)]> {
        self.leases.as_deref()
    }

    /// Takes a message unless it is older than the one before it.
    pub(super) fn note(&mut self, sequence: u32, leases: Vec<(RelayId, LeaseState)>) {
        let is_newer = |last: u32| sequence.wrapping_sub(last).cast_signed() > 0;
        if self.sequence.is_none_or(is_newer) {
            *self = Self { sequence: Some(sequence), leases: Some(leases) };
        }
    }

    /// Whether its last word is that it has no lease left.
    pub(super) fn has_gone(&self) -> bool {
        self.leases.as_ref().is_some_and(Vec::is_empty)
    }

    /// The peer began a handshake: it may be a new instance that counts from elsewhere.
    pub(super) fn forget_sequence(&mut self) {
        self.sequence = None;
        if self.has_gone() {
            self.leases = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIVE: (RelayId, LeaseState) = (RelayId(1), LeaseState::Alive);
    const DEAD: (RelayId, LeaseState) = (RelayId(1), LeaseState::Dead);

    #[test]
    fn older_messages_change_nothing() {
        let mut announced = Announced::default();
        assert_eq!(announced.leases(), None);
        announced.note(u32::MAX, vec![ALIVE]);
        announced.note(0, vec![DEAD]);
        announced.note(u32::MAX, vec![ALIVE]);
        announced.note(0, vec![ALIVE]);
        assert_eq!(announced.leases(), Some(&[DEAD][..]));
    }

    /// After a member's handshake the sequence was put 2^31 ahead, from where no later one is newer:
    /// what changed at its end was ignored from then on.
    #[test]
    fn regression_after_a_handshake_any_sequence_is_newer() {
        for next in [101, 100, 99, 100 + (1 << 31), 0] {
            let mut announced = Announced::default();
            announced.note(100, vec![ALIVE]);
            announced.forget_sequence();
            assert_eq!(announced.leases(), Some(&[ALIVE][..]), "until the next one");
            announced.note(next, vec![DEAD]);
            assert_eq!(announced.leases(), Some(&[DEAD][..]), "{next}");
        }
    }

    #[test]
    fn who_has_gone_is_back_with_a_handshake_or_a_lease() {
        let mut announced = Announced::default();
        assert!(!announced.has_gone());
        announced.note(1, Vec::new());
        assert!(announced.has_gone());
        announced.forget_sequence();
        assert!(!announced.has_gone());
        announced.note(1, Vec::new());
        announced.note(2, vec![ALIVE]);
        assert!(!announced.has_gone());
    }
}
