use std::collections::BTreeMap;
use std::io;
use std::time::Instant;

use lanrage_client_core::{Client, PingId};
use lanrage_proto::Member;
use lanrage_proto::map::RelayMap;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

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
    /// The NIC, by its error.
    Gone(io::Error),
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
        readable = active.nic.readable() => readable.map_or_else(Ready::Gone, |()| Ready::Host),
        () = timer => Ready::Timer,
        Some(event) = active.events.recv() => Ready::Control(event),
    }
}

impl Active {
    /// Feeds the core one batch; its output waits for [`Active::send`].
    pub(super) fn handle(&mut self, ready: Ready, now: Instant) {
        let Self { client, nic, underlay, .. } = self;
        match ready {
            Ready::Network => {
                underlay.receive(|source, datagram| client.handle_datagram(source, datagram, now));
            }
            Ready::Host => {
                for _ in 0..NIC_BATCH {
                    match nic.read(now) {
                        Ok(Read::Packet(packet)) => client.handle_nic_packet(packet, now),
                        Ok(Read::Consumed) => {}
                        // An error comes back when the NIC is waited for.
                        Ok(Read::Empty) | Err(_) => break,
                    }
                }
            }
            Ready::Timer => client.handle_timeout(now),
            Ready::Control(_) | Ready::Gone(_) => {}
        }
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
