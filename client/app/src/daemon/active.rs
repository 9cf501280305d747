use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use lanrage_client_core::{Client, PingId};
use lanrage_proto::map::RelayMap;
use lanrage_proto::{Generation, Member};
use tokio::sync::mpsc;
use tokio::time::sleep_until;

use crate::failure::Failure;
use crate::local::protocol::ControlStatus;
use crate::local::server::Call;
use crate::nic::{Nic, Read};
use crate::session::{ControlEvent, ControlLink};
use crate::underlay::Underlay;

/// Frames taken from the NIC before others have their turn.
const NIC_BATCH: usize = 64;

/// The party that is up: the core and everything it drives.
pub(crate) struct Active {
    pub(crate) client: Client,
    pub(crate) nic: Nic,
    pub(crate) underlay: Underlay,
    pub(crate) link: ControlLink,
    pub(crate) events: mpsc::Receiver<ControlEvent>,
    pub(crate) control: ControlStatus,
    pub(crate) map: RelayMap,
    pub(crate) pings: BTreeMap<PingId, Call>,
    /// Pings of members whose entries are still on their way, and until when they wait.
    pub(crate) early_pings: Vec<(Member, Instant, Call)>,
    /// Kicks that wait for the party in full.
    pub(crate) refused_kicks: Vec<RefusedKick>,
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
        let Self { client, nic, underlay, .. } = self;
        while let Some(transmit) = client.poll_transmit() {
            underlay.send(transmit.to, &transmit.payload);
            client.recycle(transmit.payload);
        }
        while let Some(packet) = client.poll_nic() {
            nic.write(&packet);
            client.recycle(packet);
        }
    }

    /// Tells the NIC whom the host can find.
    pub(super) fn refresh_online(&mut self, now: Instant) {
        let online = Member::all().filter(|member| self.client.is_online(*member, now)).collect();
        self.nic.set_online(online);
    }
}
