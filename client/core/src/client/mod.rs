mod announce;
mod message;
mod party;
mod ping;
mod query;
mod receive;
mod send;
mod timeout;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::api::{Change, Kick, MemberRecord, PartyState, TicketGrant};
use lanrage_proto::map::RelayMap;
use lanrage_proto::party::pre_shared_key;
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Commitment, Epoch, Member, PartySecret, RelayId, TunnelKey};
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};
use x25519_dalek::StaticSecret;

use crate::addresses::Networks;
use crate::counters::Counters;
use crate::event::{Event, PingId, Transmit};
use crate::lease::Surroundings;
use crate::lease::credentials::Credentials;
use crate::lease::leases::Leases;
use crate::membership::Membership;
use crate::outbox::Outbox;
use crate::peer::{self, Peer};
use crate::status::{LeaseStatus, MemberStatus};
use crate::tunnel::{TunnelFactory, TunnelParameters};
use announce::Announcement;
use party::EpochNews;
use ping::Pings;
use receive::Held;

/// What a client starts with.
pub struct Config {
    /// The party as control last described it; from the state directory when control is away.
    pub party: PartyState,
    /// The secrets of the newest epoch known and, when there is one, of the epoch before.
    pub secrets: Vec<(Epoch, PartySecret)>,
    /// The private half of this device's key for the party.
    pub private_key: StaticSecret,
    /// Verified against the pinned root key.
    pub relay_map: RelayMap,
    /// The newest ticket, expired or not: relays that have lost control still take it for a day.
    pub ticket: Option<TicketGrant>,
    /// Control's clock in seconds since 1970, as well as it is known.
    pub unix_time: u64,
    /// Random for each start of the daemon.
    pub instance: [u8; 16],
    /// Above every stamp this device has used: microseconds since 1970 will do.
    pub stamp: u64,
    /// Fresh from the system: the source of all the client's randomness.
    pub seed: [u8; 32],
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").field("session", &self.party.session).finish_non_exhaustive()
    }
}

/// Why a [`Config`] cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No secret at all.
    #[error("the state directory holds no secret of this party: join it again")]
    NoSecret,
    /// `party.you` is not among `party.members`.
    #[error("the party's state does not list this device: fetch it again")]
    NotAMember,
}

/// Why a ping was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PingError {
    /// The number is no other member's.
    #[error("member {0} is not in the party: `lanrage party members` lists who is")]
    NoSuchMember(Member),
    /// 64 pings are under way.
    #[error("too many pings are under way: wait for their answers")]
    TooMany,
}

/// Why a kick cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KickError {
    /// The number is no other member's.
    #[error("member {0} is not in the party: `lanrage party members` lists who is")]
    NoSuchMember(Member),
    /// Only the owner and promoted members kick, and nobody kicks the owner.
    #[error("only the owner and promoted members kick, and nobody kicks the owner")]
    NotAllowed,
    /// Eight kicks wait for control's answer.
    #[error("too many kicks are under way: try again when control has answered")]
    TooMany,
}

/// A member of one party, the active one: binds relays, keeps tunnels to the other members, chooses
/// paths and decides what crosses between them and the NIC.
///
/// **It does nothing by itself: the program around it owns sockets, NIC, clock and control
/// connection.** After every call of a `handle_*` method, [`Client::ping`], [`Client::kick`] or
/// [`Client::release`]:
///
/// 1. Send what [`Client::poll_transmit`] gives, until `None`; a datagram that the socket does not
///    take is dropped. Give the buffer back with [`Client::recycle`].
/// 2. Write what [`Client::poll_nic`] gives to the NIC, until `None`; [`Client::recycle`] too.
/// 3. Act on what [`Client::poll_event`] gives, until `None`.
/// 4. Sleep until a datagram, a NIC packet, news from control, or [`Client::poll_timeout`]; then
///    call the `handle_*` method that fits. Several datagrams may be handled before step 1.
///
/// `now` never goes back.
pub struct Client {
    membership: Membership,
    credentials: Credentials,
    leases: Leases,
    peers: BTreeMap<Member, Peer>,
    factory: Box<dyn TunnelFactory>,
    next_index: u32,
    announcement: Announcement,
    epoch_news: Option<EpochNews>,
    held: Vec<Held>,
    pings: Pings,
    /// The last packet either way, with any member.
    traffic_at: Option<Instant>,
    rng: ChaCha12Rng,
    outbox: Outbox,
    deadline: Option<Instant>,
    is_stopped: bool,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.membership.session)
            .field("member", &self.membership.us)
            .finish_non_exhaustive()
    }
}

/// Input.
impl Client {
    /// A client that binds its relays at once and calls on the members it knows.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn new(
        config: Config,
        factory: Box<dyn TunnelFactory>,
        now: Instant,
    ) -> Result<Self, ConfigError> {
        let Config { party, secrets, private_key, relay_map, ticket, .. } = config;
        if !party.members.iter().any(|record| record.member == party.you) {
            return Err(ConfigError::NotAMember);
        }
        let membership = Membership::new(&party, secrets, private_key.clone());
        let membership = membership.ok_or(ConfigError::NoSecret)?;
        let credentials = Credentials::new(
            private_key,
            ticket.map(|grant| grant.ticket),
            config.instance,
            relay_map,
            (config.unix_time, now),
            config.stamp,
        );
        let mut rng = ChaCha12Rng::from_seed(config.seed);
        let mut client = Self {
            membership,
            credentials,
            leases: Leases::default(),
            peers: BTreeMap::new(),
            factory,
            next_index: rng.next_u32(),
            announcement: Announcement::new(config.unix_time),
            epoch_news: None,
            held: Vec::new(),
            pings: Pings::new(rng.next_u64()),
            traffic_at: None,
            rng,
            outbox: Outbox::default(),
            deadline: Some(now),
            is_stopped: false,
        };
        client.handle_party(&party, now);
        // Who is there already is called on; who comes later calls.
        client.peers.values_mut().for_each(|peer| peer.handshake.restart(now));
        client.deadline = Some(now);
        Ok(client)
    }

    /// A datagram from a UDP socket; `source` is never an IPv4-mapped IPv6 address. Or one from a
    /// stream, whose `source` is [`crate::stream_address`].
    pub fn handle_datagram(&mut self, source: SocketAddr, datagram: &[u8], now: Instant) {
        if self.is_stopped {
            return;
        }
        self.outbox.counters.datagrams_received += 1;
        if let Err(reason) = self.receive(source, datagram, now) {
            self.outbox.drop(reason);
        }
    }

    /// The stream to this relay is open: datagrams for it are sent, and what comes by it is handed
    /// to [`Client::handle_datagram`].
    pub fn handle_stream_opened(&mut self, relay: RelayId, now: Instant) {
        self.with_leases(now, |leases, around| leases.handle_stream_opened(relay, around));
    }

    /// The stream to this relay has ended. The program opens it again as long as
    /// [`Client::streams`] names it.
    pub fn handle_stream_closed(&mut self, relay: RelayId, now: Instant) {
        self.with_leases(now, |leases, around| leases.handle_stream_closed(relay, around));
    }

    /// An IP packet from the NIC; changed in place (TCP MSS).
    pub fn handle_nic_packet(&mut self, packet: &mut [u8], now: Instant) {
        if self.is_stopped {
            return;
        }
        self.outbox.counters.packets_from_nic += 1;
        if let Err(reason) = self.send_packet(packet, now) {
            self.outbox.drop(reason);
        }
    }

    /// The time of [`Client::poll_timeout`] has come; harmless when it has not.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|at| now >= at) && !self.is_stopped {
            self.run_timers(now);
        }
    }

    /// The host's addresses or routes changed: every lease is rebound at once.
    pub fn handle_network_change(&mut self, now: Instant) {
        self.with_leases(now, |leases, around| leases.handle_network_change(around));
    }

    /// The party in full, from control.
    pub fn handle_party(&mut self, party: &PartyState, now: Instant) {
        if party.session == self.membership.session && !self.is_stopped {
            self.take_party(party, now);
        }
    }

    /// One change from control's stream; those of other parties and of the map are ignored (verify
    /// a map and hand it to [`Client::handle_relay_map`]).
    pub fn handle_change(&mut self, change: &Change, now: Instant) {
        if !self.is_stopped {
            self.take_change(change, now);
        }
    }

    /// A newer relay map, verified by the caller; an older one is ignored.
    pub fn handle_relay_map(&mut self, map: RelayMap, now: Instant) {
        if map.serial > self.credentials.relay_map.serial {
            self.credentials.relay_map = map;
            self.with_leases(now, |leases, around| leases.follow_map(around));
        }
    }

    /// A new ticket: leases are renewed in place.
    pub fn handle_ticket(&mut self, grant: TicketGrant, now: Instant) {
        self.credentials.set_clock(grant.now, now);
        self.credentials.ticket = Some(grant.ticket);
        self.with_leases(now, |leases, around| leases.renew(around));
    }

    /// Control's clock, in seconds since 1970.
    pub const fn handle_clock(&mut self, unix_time: u64, now: Instant) {
        self.credentials.set_clock(unix_time, now);
    }

    /// Sends an echo through the member's tunnel, by all its paths; [`Event::Pong`] follows.
    ///
    /// # Errors
    /// See [`PingError`].
    pub fn ping(&mut self, member: Member, now: Instant) -> Result<PingId, PingError> {
        self.send_ping(member, now)
    }

    /// Makes the next epoch without a member: the body of a POST to control. Nothing changes here
    /// until control's record comes, by [`Client::handle_kicked`] or with the party. A kick that
    /// control has refused is to be forgotten: [`Client::handle_kick_refused`].
    ///
    /// # Errors
    /// See [`KickError`].
    pub fn kick(&mut self, member: Member) -> Result<Kick, KickError> {
        self.membership.kick(member, &mut self.rng)
    }

    /// Control's record of the kick that [`Client::kick`] prepared: begins the epoch and tells the
    /// members.
    pub fn handle_kicked(&mut self, record: &KickRecord, now: Instant) {
        let new = self.membership.handle_kicked(record, &self.credentials.relay_map);
        if let Some(new) = new {
            self.begin_epoch(&new, now);
        }
    }

    /// Control has refused the kick with this commitment; one whose answer was lost may still have
    /// been carried out.
    pub fn handle_kick_refused(&mut self, commitment: &Commitment) {
        self.membership.handle_kick_refused(commitment);
    }

    /// Tells the members that this client goes, and gives all leases back; the last thing before
    /// the program ends.
    pub fn release(&mut self, now: Instant) {
        self.announce_end(now);
        self.leases.release(&mut self.outbox);
        self.peers.clear();
        self.is_stopped = true;
        self.deadline = None;
    }
}

/// Output.
impl Client {
    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.poll_transmit()
    }

    /// The next IP packet for the NIC.
    pub fn poll_nic(&mut self) -> Option<Vec<u8>> {
        self.outbox.poll_nic()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.outbox.poll_event()
    }

    /// When [`Client::handle_timeout`] is due; `None` once the client has stopped.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Takes back a buffer of [`Client::poll_transmit`] or [`Client::poll_nic`], so that the next
    /// packet allocates nothing.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        self.outbox.recycle(buffer);
    }
}

/// Questions.
impl Client {
    /// This client's number.
    pub const fn member(&self) -> Member {
        self.membership.us
    }

    /// The party's networks.
    pub const fn networks(&self) -> Networks {
        self.membership.networks
    }

    /// The newest epoch whose secret this client has.
    pub const fn epoch(&self) -> Epoch {
        self.membership.epoch()
    }

    /// The secrets to persist: of the newest epoch, and of the one before.
    pub fn secrets(&self) -> Vec<(Epoch, PartySecret)> {
        self.membership.secrets()
    }

    /// Vouches for the entries that this client believes, for the party's state on disk: control's
    /// list may be of an epoch whose secret this client lacks, or its MACs may be worthless.
    pub fn vouch(&self, members: &mut [MemberRecord]) {
        self.membership.vouch(members);
    }

    /// Whether the NIC answers ARP and neighbour solicitations for this member: another member that
    /// is on line or has a tunnel in use.
    pub fn is_online(&self, member: Member, now: Instant) -> bool {
        self.answers_for(member, now)
    }

    /// All members, by number.
    pub fn members(&self, now: Instant) -> Vec<MemberStatus> {
        self.member_statuses(now)
    }

    /// The party's relays, in its order.
    pub fn leases(&self) -> Vec<LeaseStatus> {
        self.leases.iter().map(|lease| lease.status(&self.credentials.relay_map)).collect()
    }

    /// The relays that the program is to keep a stream to, over TLS as the relay map says: UDP is
    /// blocked, or was a moment ago. [`Event::StreamsChanged`] tells of every change.
    pub fn streams(&self) -> impl Iterator<Item = RelayId> {
        self.leases.streams()
    }

    /// What was counted since the start.
    pub const fn counters(&self) -> &Counters {
        &self.outbox.counters
    }
}

/// What the parts of a client share.
impl Client {
    /// Lets the leases act, then follows what changed about them.
    fn with_leases<R>(
        &mut self,
        now: Instant,
        act: impl FnOnce(&mut Leases, &mut Surroundings<'_>) -> R,
    ) -> R {
        let active = self.traffic_at.is_some_and(|at| now < at + peer::ACTIVE);
        let mut around = Surroundings {
            credentials: &mut self.credentials,
            rng: &mut self.rng,
            outbox: &mut self.outbox,
            member: self.membership.us,
            active,
            now,
        };
        let result = act(&mut self.leases, &mut around);
        self.announce_changes(now);
        self.note_deadline(self.leases.deadline());
        result
    }

    /// Traffic with a member: leases are watched closely for a while.
    fn note_traffic(&mut self, now: Instant) {
        let was_active = self.traffic_at.is_some_and(|at| now < at + peer::ACTIVE);
        self.traffic_at = Some(now);
        if !was_active {
            self.with_leases(now, |leases, around| leases.wake(around));
        }
    }

    /// A tunnel to a member under the current secret.
    fn make_slot(&mut self, member: Member, key: &TunnelKey) -> peer::Slot {
        let epoch = self.membership.epoch();
        let psk = pre_shared_key(
            self.membership.secret(),
            self.membership.session,
            epoch,
            &self.membership.key(),
            key,
        );
        self.next_index = self.next_index.wrapping_add(1) & INDEX_MASK;
        let index = self.next_index;
        let tunnel = self.factory.make(TunnelParameters {
            member,
            private: self.membership.private(),
            peer: key,
            pre_shared_key: &psk,
            index,
        });
        peer::Slot { tunnel, index, epoch }
    }

    fn note_deadline(&mut self, at: Option<Instant>) {
        self.deadline = [self.deadline, at].into_iter().flatten().min();
    }
}

/// WireGuard's receiver index is 32 bits, of which the tunnel counts in the lowest 8.
const INDEX_MASK: u32 = (1 << 24) - 1;
/// How long a newcomer has to call before it is called on.
const NEWCOMER_HEAD_START: Duration = Duration::from_secs(3);
