//! Another member: its tunnels, what it announced, and what is under way to it.

mod announced;
mod echo;
mod handshake;
mod notice;
mod queue;
mod size;
mod tunnels;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lanrage_proto::inner::LeaseState;
use lanrage_proto::{Epoch, Generation, Member, RelayId, TunnelKey};

use crate::nic::fragment::Reassembly;
use crate::paths::{self, OtherEnd, Path, Paths, ThisEnd};
use crate::tunnel;
use announced::Announced;
pub(crate) use echo::Echoes;
pub(crate) use handshake::Handshake;
pub(crate) use notice::Notice;
pub(crate) use queue::Queue;
pub(crate) use size::Size;
pub(crate) use tunnels::{Slot, Tunnels};

/// How long after the last packet a peer counts as in use.
pub(crate) const ACTIVE: Duration = Duration::from_secs(5);
/// Handshake messages remembered: two that cross each way, and the ones before.
const HANDSHAKE_MACS_MAX: usize = 8;
/// How long a relay's word that the peer has no lease there is believed.
const ABSENT: Duration = Duration::from_secs(1);

pub(crate) struct Peer {
    pub(crate) member: Member,
    pub(crate) generation: Generation,
    pub(crate) key: TunnelKey,
    pub(crate) tunnels: Tunnels,
    pub(crate) handshake: Handshake,
    pub(crate) queue: Queue,
    pub(crate) reassembly: Reassembly,
    pub(crate) echoes: Echoes,
    pub(crate) size: Size,
    /// LEASES that it has not acknowledged.
    pub(crate) leases_notice: Option<Notice>,
    /// The sequence it acknowledged last.
    pub(crate) leases_acked: Option<u32>,
    /// NEW_EPOCH that it has not acknowledged.
    pub(crate) epoch_notice: Option<Notice>,
    announced: Announced,
    last_path: Option<Path>,
    /// The MACs of its last handshake messages.
    handshake_macs: VecDeque<[u8; 16]>,
    absent: Vec<(Path, Instant)>,
    heard_at: Option<Instant>,
    /// Echoes or a ping stayed without an answer since it was heard.
    is_unanswered: bool,
    /// The last IP packet either way.
    used_at: Option<Instant>,
    fragment_id: u16,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
}

impl Peer {
    pub(crate) fn new(member: Member, generation: Generation, key: TunnelKey, slot: Slot) -> Self {
        Self {
            member,
            generation,
            key,
            tunnels: Tunnels::new(slot),
            handshake: Handshake::default(),
            queue: Queue::default(),
            reassembly: Reassembly::default(),
            echoes: Echoes::default(),
            size: Size::default(),
            leases_notice: None,
            leases_acked: None,
            epoch_notice: None,
            announced: Announced::default(),
            last_path: None,
            handshake_macs: VecDeque::with_capacity(HANDSHAKE_MACS_MAX),
            absent: Vec::new(),
            heard_at: None,
            is_unanswered: false,
            used_at: None,
            fragment_id: 0,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [
            self.handshake.deadline(),
            self.queue.deadline(),
            self.echoes.deadline(),
            self.leases_notice.as_ref().map(Notice::deadline),
            self.epoch_notice.as_ref().map(Notice::deadline),
            self.tunnels.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Whether this is a handshake message that has come by another path already: it would cost
    /// public-key work and the tunnel's budget of handshakes.
    pub(crate) fn is_copy(&mut self, datagram: &[u8]) -> bool {
        let Some(mac) = tunnel::handshake_mac(datagram) else { return false };
        if self.handshake_macs.contains(&mac) {
            return true;
        }
        if self.handshake_macs.len() == HANDSHAKE_MACS_MAX {
            self.handshake_macs.pop_front();
        }
        self.handshake_macs.push_back(mac);
        false
    }

    /// An authentic datagram came by this path.
    pub(crate) fn heard(&mut self, path: Path, now: Instant) {
        self.last_path = Some(path);
        self.heard_at = Some(now);
        self.is_unanswered = false;
        self.absent.retain(|(absent, _)| *absent != path);
        self.echoes.heard();
    }

    /// Whether it was heard, and has not said since that it goes.
    pub(crate) fn is_heard_within(&self, time: Duration, now: Instant) -> bool {
        self.heard_at.is_some_and(|at| now < at + time) && !self.announced.has_gone()
    }

    /// A ping that was sent at `sent` has not been answered in time.
    pub(crate) fn note_unanswered(&mut self, sent: Instant) {
        self.is_unanswered |= self.heard_at.is_none_or(|at| at <= sent);
    }

    /// An echo was sent; whether the peer seems to have lost its session.
    pub(crate) fn note_echo(&mut self, id: u64, now: Instant) -> bool {
        self.echoes.sent(id, now);
        let is_silent = self.echoes.is_silent();
        self.is_unanswered |= is_silent;
        is_silent
    }

    /// See [`crate::Connection::Silent`].
    pub(crate) fn is_silent(&self) -> bool {
        self.is_unanswered || self.announced.has_gone()
    }

    /// An IP packet crossed; whether it is the first after a pause.
    pub(crate) fn used(&mut self, now: Instant) -> bool {
        let was_active = self.is_active(now);
        self.used_at = Some(now);
        !was_active
    }

    pub(crate) fn is_active(&self, now: Instant) -> bool {
        self.used_at.is_some_and(|at| now < at + ACTIVE)
    }

    /// A relay says that the peer has no lease at this path's end.
    pub(crate) fn note_absent(&mut self, path: Path, now: Instant) {
        self.absent.retain(|(absent, until)| *absent != path && now < *until);
        if self.absent.len() < paths::RELAYS_MAX {
            self.absent.push((path, now + ABSENT));
        }
    }

    /// Takes a LEASES message unless it is older than the one before it.
    pub(crate) fn note_announced(&mut self, sequence: u32, leases: Vec<(RelayId, LeaseState)>) {
        self.announced.note(sequence, leases);
    }

    /// The peer began a handshake: it may be a new instance that counts from elsewhere.
    pub(crate) fn forget_announced_sequence(&mut self) {
        self.announced.forget_sequence();
    }

    /// The paths of one packet. While echoes stay unanswered every relay is tried: something
    /// between the relays and the peer fails that neither end has noticed.
    pub(crate) fn paths(&self, mine: ThisEnd<'_>, now: Instant) -> Paths {
        if self.echoes.is_doubtful() {
            return self.everywhere(mine);
        }
        let mut absent = [Path::direct(RelayId(0)); paths::RELAYS_MAX];
        let mut length = 0;
        for (path, until) in &self.absent {
            if now < *until {
                absent[length] = *path;
                length += 1;
            }
        }
        let other = OtherEnd {
            announced: self.announced.leases(),
            last: self.last_path,
            absent: &absent[..length],
        };
        paths::choose(mine, other)
    }

    /// Every path that might work.
    pub(crate) fn everywhere(&self, mine: ThisEnd<'_>) -> Paths {
        paths::everywhere(mine, self.announced.leases())
    }

    pub(crate) const fn next_fragment_id(&mut self) -> u16 {
        self.fragment_id = self.fragment_id.wrapping_add(1);
        self.fragment_id
    }

    /// Begins an epoch: the old tunnel stays for a while.
    pub(crate) fn begin_epoch(&mut self, slot: Slot, now: Instant) {
        self.tunnels.replace(slot, now);
        self.leases_acked = None;
    }

    pub(crate) const fn epoch(&self) -> Epoch {
        self.tunnels.current.epoch
    }
}
