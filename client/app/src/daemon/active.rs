use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use lanrage_client_core::{Client, LeaseStatus, PingId, stream_address, stream_relay};
use lanrage_proto::inner::LeaseState;
use lanrage_proto::map::RelayMap;
use lanrage_proto::{Generation, Member};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::failure::Failure;
use crate::local::protocol::ControlStatus;
use crate::local::server::Call;
use crate::nic::{Nic, Read};
use crate::session::{ControlEvent, ControlLink};
use crate::streams::{StreamEvent, Streams};
use crate::underlay::Underlay;

/// Frames taken from the NIC before others have their turn.
const NIC_BATCH: usize = 64;
/// Datagrams taken from streams before others have their turn.
const STREAM_BATCH: usize = 64;

/// The party that is up: the core and everything it drives.
pub(crate) struct Active {
    pub(crate) client: Client,
    pub(crate) nic: Nic,
    pub(crate) underlay: Underlay,
    pub(crate) streams: Streams,
    pub(crate) link: ControlLink,
    pub(crate) events: mpsc::Receiver<ControlEvent>,
    pub(crate) control: ControlStatus,
    pub(crate) map: RelayMap,
    pub(crate) relays: RelayWatch,
    pub(crate) pings: BTreeMap<PingId, Call>,
    /// Pings of members who are off line or whose entries are still on their way, and when they were
    /// asked for.
    pub(crate) early_pings: Vec<(Member, Instant, Call)>,
    /// Kicks that wait for the party in full.
    pub(crate) refused_kicks: Vec<RefusedKick>,
}

/// Notices that no relay answers.
pub(crate) struct RelayWatch {
    /// The last time that one did, or that the party came up.
    answered: Instant,
    is_reported: bool,
}

/// How long relays may be silent before it is reported: the core gives a lease up and tries another
/// relay within this.
const RELAY_PATIENCE: Duration = Duration::from_secs(3);

impl RelayWatch {
    pub(super) const fn new(now: Instant) -> Self {
        Self { answered: now, is_reported: false }
    }

    /// Takes note once a second; true when it is news that no relay answers or that one does again.
    fn note(&mut self, answers: bool, now: Instant) -> bool {
        if answers {
            self.answered = now;
        }
        let is_over = self.is_over(now);
        std::mem::replace(&mut self.is_reported, is_over) != is_over
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.answered + RELAY_PATIENCE
    }
}

/// A kick that control refused since the party had moved on: made again when it has been read.
pub(crate) struct RefusedKick {
    pub(crate) member: Member,
    pub(crate) generation: Generation,
    pub(crate) tries_left: u32,
    /// What to answer if the party does not come by then.
    pub(crate) refusal: Failure,
    pub(crate) deadline: Instant,
    pub(crate) call: Call,
}

/// What of the active party is ready.
pub(super) enum Ready {
    /// Datagrams.
    Network,
    /// News of streams.
    Stream(StreamEvent),
    /// Frames of the host.
    Host,
    /// The core's timer.
    Timer,
    /// News from control.
    Control(ControlEvent),
}

/// Waits for the active party; for ever when there is none.
///
/// # Cancel safety
/// Nothing is lost.
pub(super) async fn ready(active: Option<&mut Active>) -> Ready {
    let Some(active) = active else { return std::future::pending().await };
    let timeout = active.client.poll_timeout();
    let timer = async {
        match timeout {
            Some(at) => sleep_until(at.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = active.underlay.readable() => Ready::Network,
        event = active.streams.next() => Ready::Stream(event),
        // An error is met again when the frame is read.
        _ = active.nic.readable() => Ready::Host,
        () = timer => Ready::Timer,
        Some(event) = active.events.recv() => Ready::Control(event),
    }
}

impl Active {
    /// Feeds the core one batch of datagrams; its output waits for [`Active::send`].
    pub(super) fn read_network(&mut self, now: Instant) {
        let Self { client, underlay, .. } = self;
        underlay.receive(|source, datagram| client.handle_datagram(source, datagram, now));
    }

    /// Feeds the core one batch of what streams brought, beginning with `event`.
    pub(super) fn read_streams(&mut self, event: StreamEvent, now: Instant) {
        let Self { client, streams, .. } = self;
        let others = std::iter::from_fn(|| streams.try_next()).take(STREAM_BATCH);
        for event in std::iter::once(event).chain(others) {
            match event {
                StreamEvent::Opened(relay) => client.handle_stream_opened(relay, now),
                StreamEvent::Closed(relay) => client.handle_stream_closed(relay, now),
                StreamEvent::Datagram(relay, datagram) => {
                    client.handle_datagram(stream_address(relay), &datagram, now);
                }
            }
        }
    }

    /// Opens the streams that the core wants, as the relay map says, and closes the others.
    pub(super) fn follow_streams(&mut self) {
        self.streams.follow(self.client.streams(), &self.map);
    }

    /// Feeds the core one batch of the host's packets.
    ///
    /// # Errors
    /// The NIC is gone. The kernel reports that as EPOLLERR alone (`tun_chr_poll` in
    /// drivers/net/tun.c), which wakes no reader: call this now and then.
    pub(super) fn read_host(&mut self, now: Instant) -> io::Result<()> {
        let Self { client, nic, .. } = self;
        for _ in 0..NIC_BATCH {
            match nic.read(now)? {
                Read::Packet(packet) => client.handle_nic_packet(packet, now),
                Read::Consumed => {}
                Read::Empty => break,
            }
        }
        Ok(())
    }

    /// Carries out what the core wants sent and written.
    pub(super) fn send(&mut self) {
        let Self { client, nic, underlay, streams, .. } = self;
        while let Some(transmit) = client.poll_transmit() {
            match stream_relay(transmit.to) {
                Some(relay) => streams.send(relay, &transmit.payload),
                None => underlay.send(transmit.to, &transmit.payload),
            }
            client.recycle(transmit.payload);
        }
        while let Some(packet) = client.poll_nic() {
            nic.write(&packet);
            client.recycle(packet);
        }
    }

    /// Reports, once, that no relay answers any more or that one does again.
    pub(super) fn watch_relays(&mut self, now: Instant) {
        if !self.relays.note(self.has_relay(), now) {
            return;
        }
        match self.relay_problem(now) {
            Some(problem) => tracing::warn!("{problem}"),
            None => tracing::info!("a relay answers again"),
        }
    }

    /// Whether packets may pass by a relay.
    pub(crate) fn has_relay(&self) -> bool {
        let answers = |lease: &LeaseStatus| lease.state.is_some_and(|s| s != LeaseState::Dead);
        self.client.leases().iter().any(answers)
    }

    /// Why no packets cross, when no relay has answered for a while.
    pub(super) fn relay_problem(&self, now: Instant) -> Option<String> {
        if !self.relays.is_over(now) {
            return None;
        }
        let leases = self.client.leases();
        if leases.iter().any(|lease| lease.refusal.is_some()) {
            return Some("no relay gives a lease: the table says why".to_owned());
        }
        let addresses = leases.iter().filter_map(|lease| {
            let certificate = self.map.relay(lease.relay.id).map(|entry| entry.certificate);
            lease.address.or_else(|| certificate?.addresses().next())
        });
        let addresses: Vec<_> = addresses.map(|address| address.to_string()).collect();
        Some(if addresses.is_empty() {
            "the party has no relay: ask the server's operator".to_owned()
        } else {
            let by_tls = match self.client.streams().next() {
                Some(_) => ", nor by TLS",
                None => "",
            };
            let addresses = addresses.join(", ");
            format!("no relay answers on UDP {addresses}{by_tls}: does a firewall block it?")
        })
    }

    /// Tells the NIC whom the host can find.
    pub(super) fn refresh_online(&mut self, now: Instant) {
        let online = Member::all().filter(|member| self.client.is_online(*member, now)).collect();
        self.nic.set_online(online);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_of_all_relays_is_news_once_and_so_is_its_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut watch = RelayWatch::new(start);
        assert!((1..3).all(|second| !watch.note(false, at(second))), "they may be slow");
        assert!(watch.note(false, at(3)));
        assert!(!watch.note(false, at(4)));
        assert!(watch.note(true, at(5)));
        assert!(!watch.note(true, at(6)) && !watch.note(false, at(8)));
        assert!(watch.note(false, at(9)));
    }
}
