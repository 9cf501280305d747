//! What a client tells the program around it.

use std::net::SocketAddr;
use std::time::Duration;

use lanrage_proto::frame::bind::Refusal;
use lanrage_proto::inner::LeaseState;
use lanrage_proto::{Epoch, Member, PartySecret, RelayId};

/// A datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The relay's address; the socket follows from its family. Or it stands for a stream: see
    /// [`crate::stream_relay`].
    pub to: SocketAddr,
    /// At most [`lanrage_proto::frame::DATAGRAM_LEN_MAX`] bytes.
    pub payload: Vec<u8>,
}

/// Names one [`crate::Client::ping`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PingId(pub u64);

/// Something the program must act on or may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Must be persisted before the next start: the party's secret of a newer epoch. The program
    /// then publishes its entry under this epoch when control's copy of it has another.
    Epoch {
        /// The secret's version.
        epoch: Epoch,
        /// The secret.
        secret: PartySecret,
    },
    /// Control knows more than this client (a newer epoch or a kick): fetch the party's state.
    PartyWanted,
    /// A relay wants a newer ticket: fetch one and hand it to [`crate::Client::handle_ticket`].
    TicketWanted,
    /// The set of members, their entries or their presence changed; see [`crate::Client::members`].
    MembersChanged,
    /// This device was put out of the party; the client has stopped.
    Removed {
        /// Who did it, when control's kick record says so.
        kicker: Option<Member>,
    },
    /// How this client receives by a relay changed.
    Lease {
        /// The relay.
        relay: RelayId,
        /// `None` when there is no lease.
        state: Option<LeaseState>,
    },
    /// A relay refused to give a lease; it is asked again later by itself.
    Refused {
        /// The relay.
        relay: RelayId,
        /// Why.
        reason: Refusal,
        /// The relay's clock minus this client's idea of control's clock, in seconds.
        clock_skew_s: i64,
    },
    /// A relay stops serving and named another.
    Moving {
        /// The relay that stops.
        relay: RelayId,
        /// Where it sends its clients, when it knows.
        next: Option<RelayId>,
    },
    /// The relays that a stream is wanted to are others: see [`crate::Client::streams`].
    StreamsChanged,
    /// A ping's answer, or `None` after 5 s without.
    Pong {
        /// The ping.
        id: PingId,
        /// The member asked.
        member: Member,
        /// Round trip and the relay the answer came by.
        answer: Option<(Duration, RelayId)>,
    },
}
