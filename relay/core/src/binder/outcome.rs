use lanrage_proto::frame::bind::Refusal;

/// What became of a datagram that the binder was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// HELLO: challenged.
    Challenged,
    /// HELLO: no version in common, and told so.
    Unsupported,
    /// BIND: a new lease, pending.
    Bound,
    /// BIND: the lease it has goes on.
    Renewed,
    /// RESUME: a new lease, pending, or the one it has goes on.
    Resumed,
    /// BIND or RESUME: came again, and got the same answer.
    Repeated,
    /// BIND or RESUME: refused, and told why.
    Refused(Refusal),
    /// REBIND: the new address challenged.
    RebindChallenged,
    /// REBIND_ANSWER: the lease has moved.
    Rebound,
    /// RELEASE: the lease has ended.
    Released,
    /// Dropped: not the format of its first byte.
    Malformed,
    /// Dropped: the class's budget is used up.
    Budget,
    /// Dropped: the source prefix's budget is used up.
    PrefixBudget,
    /// Dropped: the cookie is old, or not for this address.
    BadCookie,
    /// Dropped: a handshake, proof, seal or counter that does not hold.
    NotAuthentic,
    /// Dropped: control messages of no lease.
    NoLease,
    /// Dropped: the relay has no certificate from control yet.
    NoCertificate,
}

impl Outcome {
    /// Number of outcomes; all refusals are one.
    pub const COUNT: usize = 17;

    /// Every outcome in order with its metric label; [`Outcome::Refused`] stands for all refusals.
    pub const TABLE: [(Self, &'static str); Self::COUNT] = [
        (Self::Challenged, "challenged"),
        (Self::Unsupported, "unsupported"),
        (Self::Bound, "bound"),
        (Self::Renewed, "renewed"),
        (Self::Resumed, "resumed"),
        (Self::Repeated, "repeated"),
        (Self::Refused(Refusal::BadTicket), "refused"),
        (Self::RebindChallenged, "rebind_challenged"),
        (Self::Rebound, "rebound"),
        (Self::Released, "released"),
        (Self::Malformed, "malformed"),
        (Self::Budget, "budget"),
        (Self::PrefixBudget, "prefix_budget"),
        (Self::BadCookie, "bad_cookie"),
        (Self::NotAuthentic, "not_authentic"),
        (Self::NoLease, "no_lease"),
        (Self::NoCertificate, "no_certificate"),
    ];

    const fn index(self) -> usize {
        match self {
            Self::Challenged => 0,
            Self::Unsupported => 1,
            Self::Bound => 2,
            Self::Renewed => 3,
            Self::Resumed => 4,
            Self::Repeated => 5,
            Self::Refused(_) => 6,
            Self::RebindChallenged => 7,
            Self::Rebound => 8,
            Self::Released => 9,
            Self::Malformed => 10,
            Self::Budget => 11,
            Self::PrefixBudget => 12,
            Self::BadCookie => 13,
            Self::NotAuthentic => 14,
            Self::NoLease => 15,
            Self::NoCertificate => 16,
        }
    }
}

/// Why a lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its client released it.
    Released,
    /// Its member has a newer one.
    Replaced,
    /// No frame used it while it was pending.
    Unused,
    /// No frame for a while.
    Idle,
    /// Its ticket's time is over.
    Expired,
    /// Control has revoked its generation.
    Revoked,
    /// The operator has banned its key or session.
    Banned,
}

impl End {
    /// Every cause in the order of declaration.
    pub const ALL: [Self; 7] = [
        Self::Released,
        Self::Replaced,
        Self::Unused,
        Self::Idle,
        Self::Expired,
        Self::Revoked,
        Self::Banned,
    ];

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Replaced => "replaced",
            Self::Unused => "unused",
            Self::Idle => "idle",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Banned => "banned",
        }
    }
}

/// What the binder counts: `received = Σ outcomes`, `Σ refused = outcome(Refused)` and
/// `begun = Σ ended + leases now`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BinderCounters {
    /// Datagrams given to the binder.
    pub received: u64,
    /// Leases that have begun.
    pub begun: u64,
    /// Leases that a first frame has made their member's own.
    pub activated: u64,
    /// MOVING sent.
    pub moving: u64,
    outcomes: [u64; Outcome::COUNT],
    refused: [u64; Refusal::ALL.len()],
    ended: [u64; End::ALL.len()],
}

impl BinderCounters {
    pub(super) fn count(&mut self, outcome: Outcome) {
        self.received += 1;
        self.outcomes[outcome.index()] += 1;
        if let Outcome::Refused(reason) = outcome {
            self.refused[reason as usize - 1] += 1;
        }
    }

    pub(super) const fn count_end(&mut self, end: End) {
        self.ended[end as usize] += 1;
    }

    /// All counts in a fixed order.
    pub(super) fn to_words(self) -> Vec<u64> {
        let parts = [&self.outcomes[..], &self.refused, &self.ended];
        let Self { received, begun, activated, moving, .. } = self;
        [&[received, begun, activated, moving][..], &parts.concat()].concat()
    }

    /// The inverse of [`BinderCounters::to_words`]; `None` if there are more or fewer.
    pub(super) fn from_words(words: &[u64]) -> Option<Self> {
        let (&[received, begun, activated, moving], rest) = words.split_first_chunk()?;
        let (&outcomes, rest) = rest.split_first_chunk()?;
        let (&refused, rest) = rest.split_first_chunk()?;
        let ended = *<&[u64; End::ALL.len()]>::try_from(rest).ok()?;
        Some(Self { received, begun, activated, moving, outcomes, refused, ended })
    }

    /// How often this was the outcome.
    pub const fn outcome(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome.index()]
    }

    /// Refusals for this reason.
    pub const fn refused(&self, reason: Refusal) -> u64 {
        self.refused[reason as usize - 1]
    }

    /// Leases that have ended for this cause.
    pub const fn ended(&self, end: End) -> u64 {
        self.ended[end as usize]
    }

    /// What the identities are off by with this many leases: 0.
    pub fn skew(&self, leases: u64) -> u64 {
        let sum =
            |counts: &[u64]| counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        let refused = self.outcomes[Outcome::Refused(Refusal::BadTicket).index()];
        self.received
            .abs_diff(sum(&self.outcomes))
            .saturating_add(refused.abs_diff(sum(&self.refused)))
            .saturating_add(self.begun.abs_diff(sum(&self.ended).saturating_add(leases)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_order() {
        for (at, (outcome, label)) in Outcome::TABLE.iter().enumerate() {
            assert_eq!(outcome.index(), at, "{label}");
        }
        for (at, reason) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at + 1, "{}", reason.as_str());
        }
        for (at, end) in End::ALL.iter().enumerate() {
            assert_eq!(*end as usize, at, "{}", end.as_str());
        }
    }
}
