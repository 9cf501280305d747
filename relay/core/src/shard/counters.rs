use super::Verdict;
use crate::drops::DropReason;

/// What one shard counts. Two identities hold after every call:
///
/// ```text
/// received = unicast + broadcast + self_addressed + to_relay + absent + answered + to_control
///            + Σ dropped
/// planned  = unicast + self_addressed + to_relay + copies + answered + hints
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams received: a train counts each of its segments.
    pub received: u64,
    /// Sent on to another member.
    pub unicast: u64,
    /// Taken for copying to every other member.
    pub broadcast: u64,
    /// Sent back to the member that addressed itself.
    pub self_addressed: u64,
    /// Sent on to another relay.
    pub to_relay: u64,
    /// Of [`Counters::unicast`] and [`Counters::broadcast`], what came from other relays.
    pub from_relay: u64,
    /// Answers of other relays, that a member has no lease there, about a member with one here.
    pub absent: u64,
    /// STUN requests answered.
    pub answered: u64,
    /// Handed to the binder.
    pub to_control: u64,
    /// Forwarded nowhere, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Datagrams the shell was told to send.
    pub planned: u64,
    /// Copies of broadcasts among them.
    pub copies: u64,
    /// Hints among them, and answers to other relays.
    pub hints: u64,
    /// Broadcasts that did not fit one pass and waited.
    pub deferred: u64,
    /// Broadcasts that waited and went to nobody: meanwhile their sender's copies were used up, or
    /// its lease was gone.
    pub broadcasts_cut: u64,
    /// Copies not made because the target's lease was being changed on every look.
    pub copies_torn: u64,
}

/// Counts but for the drops.
const COUNTS: usize = 15;

impl Counters {
    /// Number of words in [`Counters::to_words`].
    pub const WORDS: usize = COUNTS + DropReason::COUNT;

    /// What the identities are off by: 0.
    pub fn skew(&self) -> u64 {
        let dropped: u64 = self.dropped.iter().sum();
        let both = self.unicast + self.self_addressed + self.to_relay + self.answered;
        let taken = both + self.broadcast + self.absent;
        let sent = both + self.copies + self.hints;
        self.received.abs_diff(taken + self.to_control + dropped) + self.planned.abs_diff(sent)
    }

    /// Counts datagrams that go nowhere.
    pub(super) const fn drop(&mut self, reason: DropReason, datagrams: u64) -> Verdict {
        self.dropped[reason as usize] += datagrams;
        Verdict::Drop
    }

    /// Datagrams dropped for this reason.
    pub const fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped[reason as usize]
    }

    /// All counts in a fixed order, for publication to another thread.
    pub fn to_words(&self) -> [u64; Self::WORDS] {
        let mut words = [0; Self::WORDS];
        let (counts, dropped) = words.split_at_mut(COUNTS);
        counts.copy_from_slice(&[
            self.received,
            self.unicast,
            self.broadcast,
            self.self_addressed,
            self.answered,
            self.to_control,
            self.planned,
            self.copies,
            self.hints,
            self.deferred,
            self.broadcasts_cut,
            self.copies_torn,
            self.to_relay,
            self.from_relay,
            self.absent,
        ]);
        dropped.copy_from_slice(&self.dropped);
        words
    }

    /// The inverse of [`Counters::to_words`].
    pub fn from_words(words: &[u64; Self::WORDS]) -> Self {
        let [
            received,
            unicast,
            broadcast,
            self_addressed,
            answered,
            to_control,
            planned,
            copies,
            hints,
            deferred,
            broadcasts_cut,
            copies_torn,
            to_relay,
            from_relay,
            absent,
            dropped @ ..,
        ] = *words;
        Self {
            received,
            unicast,
            broadcast,
            self_addressed,
            answered,
            to_control,
            dropped,
            planned,
            copies,
            hints,
            deferred,
            broadcasts_cut,
            copies_torn,
            to_relay,
            from_relay,
            absent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_carry_every_count() {
        let words = std::array::from_fn(|at| at as u64 + 1);
        assert_eq!(Counters::from_words(&words).to_words(), words);
    }
}
