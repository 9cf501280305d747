//! Everything this client drops is counted once, by reason.

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why something was dropped; the label is the metric's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// All reasons, in the order of declaration.
            pub const ALL: [Self; [$($label),*].len()] = [$(Self::$name),*];

            /// The metric's label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

drop_reasons! {
    // From the network.
    /// A datagram from an address that is no relay of the party.
    UnknownSource = "unknown_source",
    /// A datagram of no known kind, or one that only relays receive.
    UnknownKind = "unknown_kind",
    /// A frame whose fields do not fit its kind.
    Malformed = "malformed",
    /// An answer to a question that is not open: late, repeated or forged.
    Unasked = "unasked",
    /// An answer whose signature or seal does not hold.
    NotFromRelay = "not_from_relay",
    /// A relay's word that it speaks no version of ours; not authentic, so the lease is asked for
    /// again all the same.
    Unsupported = "unsupported",
    /// A hint that names another handle or tag than the lease's, or one too many.
    Hint = "hint",
    /// A data frame for another member.
    NotForUs = "not_for_us",
    /// A data frame from a number that is no member with a genuine entry.
    UnknownMember = "unknown_member",
    /// A WireGuard datagram for a tunnel that does not exist (any more).
    UnknownIndex = "unknown_index",
    /// A WireGuard datagram before there is a session.
    NoSession = "no_session",
    /// A WireGuard datagram seen before, usually by another path.
    Duplicate = "duplicate",
    /// A handshake initiation not newer than the last: its sender's clock went back, or a replay.
    Stale = "stale",
    /// A WireGuard datagram that is not by the member it says, or not with the party's secret.
    NotAuthentic = "not_authentic",
    /// A self-addressed frame that was not asked for, or came back twice.
    SelfProbe = "self_probe",
    /// Traffic to everyone: a sealed broadcast from the network, a broadcast or multicast packet
    /// from the NIC.
    GroupTraffic = "group_traffic",

    // From inside a tunnel.
    /// A message that cannot be read, or not with its sender's and our addresses.
    InnerMalformed = "inner_malformed",
    /// A packet that has not the sending member's address as source, or not ours as destination.
    ForeignAddress = "foreign_address",
    /// A kick that control has not signed or that is told by the one who is out, or a secret that is
    /// not the one of the kick's epoch.
    BadEpoch = "bad_epoch",
    /// A piece of a packet that cannot be joined.
    Fragment = "fragment",

    // From the NIC.
    /// Not an IPv4 or IPv6 packet.
    NotIp = "not_ip",
    /// Longer than the NIC's MTU.
    TooLong = "too_long",
    /// Not from one of our three addresses.
    ForeignSource = "foreign_source",
    /// For an address of no member with a genuine entry.
    NoSuchMember = "no_such_member",
    /// More packets than a member's queue holds while its tunnel is made.
    QueueFull = "queue_full",
    /// A queued packet whose tunnel was not made in time.
    QueueTimeout = "queue_timeout",
    /// No relay gives us a lease.
    NoPath = "no_path",

    // Both ways.
    /// Router and neighbour discovery, redirects: never cross.
    Discovery = "discovery",
    /// DHCP and DHCPv6: never cross.
    Dhcp = "dhcp",
    /// Name answers that could redirect a host (LLMNR, WPAD): never cross.
    NameAnswer = "name_answer",

    // The program did not keep up.
    /// Datagrams not polled in time.
    TransmitQueueFull = "transmit_queue_full",
    /// Packets for the NIC not polled in time.
    NicQueueFull = "nic_queue_full",
}

/// Plain counts; the program exports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    drops: [u64; DropReason::ALL.len()],
    /// Datagrams received.
    pub datagrams_received: u64,
    /// Datagrams queued for sending.
    pub datagrams_sent: u64,
    /// Packets taken from the NIC.
    pub packets_from_nic: u64,
    /// Packets queued for the NIC.
    pub packets_to_nic: u64,
    /// BINDs, RESUMEs and REBINDs that gave a lease.
    pub binds: u64,
    /// Handshake initiations sent.
    pub initiations: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            drops: [0; DropReason::ALL.len()],
            datagrams_received: 0,
            datagrams_sent: 0,
            packets_from_nic: 0,
            packets_to_nic: 0,
            binds: 0,
            initiations: 0,
        }
    }
}

impl Counters {
    /// Drops for one reason.
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    pub(crate) const fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}
