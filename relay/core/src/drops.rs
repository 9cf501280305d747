/// Why a shard forwards a datagram nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// The first byte names no frame.
    UnknownType,
    /// A frame that only relays send: CHALLENGE, BOUND, UNSUPPORTED, HINT, RESUMED.
    RelayOnlyType,
    /// Too short or too long for its type.
    Length,
    /// Data: no lease has the handle.
    Handle,
    /// Data: the tag is not the lease's.
    Tag,
    /// Data: the source address is not the lease's.
    Address,
    /// Data: the source is not the lease's member.
    Source,
    /// Data: a flag of a later version.
    Flags,
    /// Data: the destination names nobody.
    Destination,
    /// Data: the lease's rate is used up.
    RateLease,
    /// Data: the session's rate is used up.
    RateSession,
    /// Data: what is sent falls short of what is asked for, and the lease's share is used up.
    EgressShare,
    /// Data: the egress relay is another one.
    NoMesh,
    /// Data: the destination has no lease here.
    NoPeer,
    /// Data: the lease or the destination was being changed on every look.
    TableBusy,
    /// Data: too many broadcasts, or too many of its session, wait to be copied.
    BroadcastBacklog,
    /// The binder's queue is full.
    ControlQueue,
    /// STUN, but no Binding request.
    StunMalformed,
    /// STUN is switched off.
    StunOff,
    /// STUN's budget of answers is used up.
    StunBudget,
}

/// Whose doing a drop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The sender's.
    Client,
    /// The relay's: it lacks something.
    Relay,
    /// The kernel's.
    Kernel,
    /// Nobody's: a limit or a switch that the operator set.
    Policy,
}

impl Fault {
    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Relay => "relay",
            Self::Kernel => "kernel",
            Self::Policy => "policy",
        }
    }
}

impl DropReason {
    /// Every reason in the order of declaration, with its metric label and whose fault it is.
    const TABLE: [(Self, &'static str, Fault); Self::COUNT] = [
        (Self::UnknownType, "unknown_type", Fault::Client),
        (Self::RelayOnlyType, "relay_only_type", Fault::Client),
        (Self::Length, "length", Fault::Client),
        (Self::Handle, "handle", Fault::Client),
        (Self::Tag, "tag", Fault::Client),
        (Self::Address, "address", Fault::Client),
        (Self::Source, "source", Fault::Client),
        (Self::Flags, "flags", Fault::Client),
        (Self::Destination, "destination", Fault::Client),
        (Self::RateLease, "rate_lease", Fault::Policy),
        (Self::RateSession, "rate_session", Fault::Policy),
        (Self::EgressShare, "egress_share", Fault::Policy),
        (Self::NoMesh, "no_mesh", Fault::Relay),
        (Self::NoPeer, "no_peer", Fault::Client),
        (Self::TableBusy, "table_busy", Fault::Relay),
        (Self::BroadcastBacklog, "broadcast_backlog", Fault::Relay),
        (Self::ControlQueue, "control_queue", Fault::Relay),
        (Self::StunMalformed, "stun_malformed", Fault::Client),
        (Self::StunOff, "stun_off", Fault::Policy),
        (Self::StunBudget, "stun_budget", Fault::Policy),
    ];

    /// Number of reasons.
    pub const COUNT: usize = Self::StunBudget as usize + 1;

    /// Every reason in the order of declaration.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::TABLE.into_iter().map(|(reason, ..)| reason)
    }

    /// The metric label.
    pub const fn as_str(self) -> &'static str {
        Self::TABLE[self as usize].1
    }

    /// Whose doing it is.
    pub const fn fault(self) -> Fault {
        Self::TABLE[self as usize].2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_lists_every_reason_at_its_own_index() {
        for (index, reason) in DropReason::all().enumerate() {
            assert_eq!(reason as usize, index, "{}", reason.as_str());
        }
        let labels: HashSet<_> = DropReason::all().map(DropReason::as_str).collect();
        assert_eq!(labels.len(), DropReason::COUNT);
    }
}
