use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hint::{Hint, HintKind};

use super::{Answer, Counters, Verdict};
use crate::rate::{Meter, Rate};

/// Hints a second, shard and kind. NO_LEASE goes to addresses that have proven nothing: a budget of
/// its own keeps those who forge them from silencing NO_PEER.
const BUDGET: Rate = Rate::per_second(1_000, 100);

/// The budgets of both kinds of hints.
#[derive(Debug)]
pub(super) struct Hints {
    no_lease: Meter,
    no_peer: Meter,
}

impl Default for Hints {
    fn default() -> Self {
        Self { no_lease: Meter::new(BUDGET), no_peer: Meter::new(BUDGET) }
    }
}

impl Hints {
    /// A hint about a frame that is already counted as dropped, if the budget has one.
    pub(super) fn answer(
        &mut self,
        kind: HintKind,
        sent: &Sent,
        now_ms: u64,
        counters: &mut Counters,
    ) -> Verdict {
        let budget = match kind {
            HintKind::NoLease => &mut self.no_lease,
            HintKind::NoPeer(_) => &mut self.no_peer,
        };
        if !budget.take(now_ms) {
            return Verdict::Drop;
        }
        counters.hints += 1;
        counters.planned += 1;
        Verdict::Answer(Answer::hint(Hint { kind, handle: sent.handle, tag: sent.tag }))
    }
}
