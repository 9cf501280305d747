//! What each lease may have sent while the way out carries less than is asked of it.
//!
//! Approximates max-min fairness without knowing the link: all leases have the same share, who wants
//! less gets all of it, and the share follows what fails, up slowly and down by parts, as TCP's window
//! does. A shard compares one word a run while nothing fails.

/// How long sends are counted before the share is set anew.
pub(crate) const INTERVAL_MS: u64 = 100;
/// So much of a share may come at once.
pub(crate) const BURST_MS: u64 = 100;
/// Without a failed send and without a lease that wants more than its share for so long, the
/// shortage is over.
const CALM_MS: u64 = 1_000;
/// What a datagram takes of a link beside its payload: Ethernet with preamble and gap 38, IP 20, UDP 8.
const OVERHEAD: u64 = 66;
/// The smallest share, in bytes a second: a datagram of full length every 100 ms.
const SHARE_MIN: u64 = 15_000;

/// What all shards have sent and not sent: counts that only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentTotals {
    /// Datagrams that were to be sent.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams of them that were not sent for lack of room, as far as the kernel says.
    pub failed: u64,
    /// Frames dropped for [`crate::DropReason::EgressShare`].
    pub cut: u64,
}

impl SentTotals {
    const fn since(self, before: Self) -> Self {
        Self {
            datagrams: self.datagrams.saturating_sub(before.datagrams),
            bytes: self.bytes.saturating_sub(before.bytes),
            failed: self.failed.saturating_sub(before.failed),
            cut: self.cut.saturating_sub(before.cut),
        }
    }
}

/// Sets the share.
#[derive(Debug)]
pub(crate) struct Egress {
    shortage: Option<Shortage>,
    /// At the end of the interval before; none at first, for the host has counted before the relay's start.
    before: Option<SentTotals>,
    at_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Shortage {
    /// Bytes a second and lease.
    share: u64,
    /// When a send last failed or a lease was last cut.
    since_ms: u64,
}

impl Egress {
    pub(crate) const fn new(now_ms: u64) -> Self {
        Self { shortage: None, before: None, at_ms: now_ms }
    }

    /// The share of each lease from now on, in bytes a second; `None` while all can be sent.
    pub(crate) fn update(&mut self, now_ms: u64, sent: SentTotals) -> Option<u64> {
        let lasted_ms = now_ms - self.at_ms;
        if lasted_ms >= INTERVAL_MS {
            let since = sent.since(self.before.unwrap_or(sent));
            self.shortage = match self.shortage {
                None if since.failed == 0 => None,
                None => {
                    let asked = wire(since.datagrams, since.bytes) * 1_000 / lasted_ms;
                    Some(Shortage { share: reduced(asked, since), since_ms: now_ms })
                }
                Some(Shortage { share, .. }) if since.failed > 0 => {
                    Some(Shortage { share: reduced(share, since), since_ms: now_ms })
                }
                Some(Shortage { share, since_ms }) => {
                    let since_ms = if since.cut > 0 { now_ms } else { since_ms };
                    let is_over = now_ms - since_ms >= CALM_MS;
                    (!is_over).then(|| Shortage { share: share + share / 32, since_ms })
                }
            };
            (self.before, self.at_ms) = (Some(sent), now_ms);
        }
        self.shortage.map(|shortage| shortage.share)
    }
}

/// The share after failures: at least a sixteenth less, at most halved.
fn reduced(share: u64, SentTotals { datagrams, failed, .. }: SentTotals) -> u64 {
    let lost = share / 2 * failed.min(datagrams) / datagrams.max(1);
    (share - lost.max(share / 16)).max(SHARE_MIN)
}

/// What datagrams take of a link.
pub(crate) const fn wire(datagrams: u64, bytes: u64) -> u64 {
    bytes + datagrams * OVERHEAD
}
