use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hint::{Hint, HintKind};

use super::{Answer, Counters, Verdict};
use crate::rate::{Meter, Rate};

/// Hints a second, shard and kind. NO_LEASE goes to addresses that have proven nothing: a budget of
/// its own keeps those who forge them from silencing NO_PEER.
const BUDGET: Rate = Rate::per_second(1_000, 100);

/// The budgets of all kinds of hints.
#[derive(Debug)]
pub(super) struct Hints {
    no_lease: Meter,
    no_peer: Meter,
    no_peer_there: Meter,
}

impl Default for Hints {
    fn default() -> Self {
        let [no_lease, no_peer, no_peer_there] = [Meter::new(BUDGET); 3];
        Self { no_lease, no_peer, no_peer_there }
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
        let hint = Hint { kind, handle: sent.handle, tag: sent.tag };
        self.make(hint, now_ms, counters).map_or(Verdict::Drop, Verdict::Answer)
    }

    /// A hint, if the budget has one.
    pub(super) fn make(
        &mut self,
        hint: Hint,
        now_ms: u64,
        counters: &mut Counters,
    ) -> Option<Answer> {
        let budget = match hint.kind {
            HintKind::NoLease => &mut self.no_lease,
            HintKind::NoPeer(_) => &mut self.no_peer,
            HintKind::NoPeerThere(..) => &mut self.no_peer_there,
        };
        budget.take(now_ms).then(|| {
            counters.hints += 1;
            counters.planned += 1;
            Answer::hint(hint)
        })
    }
}
