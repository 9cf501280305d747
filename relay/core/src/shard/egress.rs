//! What each lease may have sent while the way out carries less than is asked of it.

use lanrage_relay_table::Source;

use super::charge::Load;
use crate::rate::Rate;

/// How long failed sends are counted before the share is set anew.
const INTERVAL_MS: u64 = 20;
/// So much of a share may come at once.
const BURST_MS: u64 = 100;
/// Without a failed send and without a lease that wants more than its share for so long, the
/// shortage is over.
const CALM_MS: u64 = 1_000;
/// What a datagram takes of a link beside its payload: Ethernet with preamble and gap 38, IP 20, UDP 8.
const OVERHEAD: u64 = 66;
/// The smallest share, in bytes a second: a datagram of full length every 10 ms.
const SHARE_MIN: u64 = 150_000;

/// Approximates max-min fairness without knowing the link: all leases have the same share, who wants
/// less gets all of it, and the share follows failed sends as TCP's window does (additive increase is
/// in parts of the share here, for a share may be anything from a modem's to a data centre's).
///
/// Costs one comparison a run while nothing fails.
#[derive(Debug)]
pub(super) struct Egress {
    shortage: Option<Shortage>,
    /// Datagrams that were not sent for lack of room, in this interval.
    failed: u64,
    /// Datagrams and bytes that the shell was told to send before this interval, and by now.
    planned: (u64, u64),
    bytes: u64,
    interval_ends_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Shortage {
    /// Bytes a second and lease.
    share: u64,
    rate: Rate,
    /// When a send last failed or a lease was last cut.
    since_ms: u64,
}

impl Shortage {
    fn new(share: u64, since_ms: u64) -> Self {
        let share = share.max(SHARE_MIN);
        Self { share, rate: Rate::per_second(share, BURST_MS), since_ms }
    }
}

impl Egress {
    pub(super) const fn new() -> Self {
        Self { shortage: None, failed: 0, planned: (0, 0), bytes: 0, interval_ends_ms: 0 }
    }

    pub(super) const fn is_short(&self) -> bool {
        self.shortage.is_some()
    }

    /// So many datagrams were not sent for lack of room.
    pub(super) const fn failed(&mut self, datagrams: u64) {
        self.failed += datagrams;
    }

    /// The shell has been told to send so many bytes.
    pub(super) const fn count(&mut self, datagrams: u64, bytes: u64) {
        self.bytes += wire(datagrams, bytes);
    }

    /// Sets the share anew when an interval is over.
    pub(super) fn begin_pass(&mut self, now_ms: u64, planned: u64) {
        if now_ms < self.interval_ends_ms {
            return;
        }
        let (datagrams, bytes) = (planned - self.planned.0, self.bytes - self.planned.1);
        let lasted_ms = (now_ms + INTERVAL_MS - self.interval_ends_ms).clamp(1, CALM_MS);
        self.shortage = match (self.shortage, std::mem::take(&mut self.failed)) {
            (None, 0) => None,
            (None, failed) => {
                let asked = bytes * 1_000 / lasted_ms;
                Some(Shortage::new(cut(asked, failed, datagrams), now_ms))
            }
            (Some(Shortage { share, since_ms, .. }), 0) => {
                let is_over = now_ms - since_ms >= CALM_MS;
                (!is_over).then(|| Shortage::new(share + share / 64, since_ms))
            }
            (Some(Shortage { share, .. }), failed) => {
                Some(Shortage::new(cut(share, failed, datagrams), now_ms))
            }
        };
        self.planned = (planned, self.bytes);
        self.interval_ends_ms = now_ms + INTERVAL_MS;
    }

    /// How many frames of a load its lease's share lets through.
    pub(super) fn admits(&mut self, from: &Source<'_>, load: Load) -> u64 {
        let Some(shortage) = &mut self.shortage else { return load.frames };
        let bytes = wire(1, load.bytes);
        let fit = shortage.rate.admits(from.owner.egress(), load.now_ms, load.frames, bytes);
        if fit < load.frames {
            shortage.since_ms = load.now_ms;
        }
        fit
    }

    /// Charges what was sent for a lease.
    pub(super) fn charge(&self, from: &Source<'_>, now_ms: u64, datagrams: u64, bytes: u64) {
        if let Some(Shortage { rate, .. }) = self.shortage {
            let bytes = wire(datagrams, bytes);
            from.owner.set_egress(rate.charge(from.owner.egress(), now_ms, bytes));
        }
    }
}

/// The share after failures: at least a sixteenth less, at most halved.
fn cut(share: u64, failed: u64, datagrams: u64) -> u64 {
    let kept = share - share / 16;
    kept - share / 2 * failed.min(datagrams) / datagrams.max(1) * 7 / 8
}

const fn wire(datagrams: u64, bytes: u64) -> u64 {
    bytes + datagrams * OVERHEAD
}
