//! TURN servers: an allocation for each client, a channel for each flow, payload as ChannelData.

use std::fs;
use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::Context as _;
use lanrage_lab::Process;

use super::START_PATIENCE;
use super::rival::{Started, payload_lens};
use super::turn_client::{Client, REALM, USER};
use crate::population::Flow;
use crate::topology::Topology;
use crate::workload::Workload;

pub(super) const COTURN_SETTINGS: &str = "4.6.1 of Debian; relay-threads=1, no TCP, TLS, DTLS, CLI, RFC 5780, \
     Software attribute; long-term credentials, channel data from the client, plain datagrams to \
     the peer, from a socket of each allocation; it has no setting for batched calls or GSO";
pub(super) const TURN_SERVER_SETTINGS: &str = "4.1.5, built with the feature udp alone, LTO; max-threads=1, log \
     level error; long-term credentials; its peers are its own clients, so channel data on both \
     sides, by one socket";

/// Beyond this a server that is up has failed.
const PATIENCE: Duration = Duration::from_secs(2);
const FIRST_CHANNEL: u16 = 0x4000;

/// The numbers a server's relayed ports are from, clear of the one it listens at.
const RELAYED_PORTS: [u16; 2] = [52_000, 65_535];

pub(super) fn start_coturn(
    program: &str,
    topology: &Topology,
    workload: &Workload,
) -> anyhow::Result<Started> {
    let relay = topology.road().relay;
    let directory = topology.directory()?;
    let here = directory.path().display();
    let [first, last] = RELAYED_PORTS;
    let settings = format!(
        "listening-ip={0}\nrelay-ip={0}\nlistening-port={1}\nmin-port={first}\nmax-port={last}\n\
         relay-threads=1\nno-tcp\nno-tls\nno-dtls\nno-tcp-relay\nno-cli\nno-rfc5780\n\
         no-stun-backward-compatibility\nno-software-attribute\nno-dynamic-ip-list\n\
         no-dynamic-realms\nno-auth-pings\nlt-cred-mech\nrealm={REALM}\nuser={USER}:{USER}\n\
         userdb={here}/users\npidfile={here}/pid\nlog-file=stdout\nsimple-log\n",
        relay.ip(),
        relay.port(),
    );
    let file = directory.path().join("turnserver.conf");
    fs::write(&file, settings).context("writing its settings")?;
    let mut command = topology.command(program);
    command.arg("-c").arg(&file);
    let process = topology.host().spawn("coturn", command)?;
    set_up(topology, workload, &process, |flow, channels, addresses, _| {
        [(flow.source, channels.there, addresses[flow.target as usize])]
    })?;
    Ok(Started { process, directory, prefixes: prefixes(workload), answer_prefix_len: 0 })
}

pub(super) fn start_turn_server(
    program: &str,
    topology: &Topology,
    workload: &Workload,
) -> anyhow::Result<Started> {
    let relay = topology.road().relay;
    let directory = topology.directory()?;
    let [first, last] = RELAYED_PORTS;
    let settings = format!(
        "[server]\nrealm = \"{REALM}\"\nport-range = \"{first}..{last}\"\nmax-threads = 1\n\
         [[server.interfaces]]\ntransport = \"udp\"\nlisten = \"{relay}\"\nexternal = \"{relay}\"\n\
         [log]\nlevel = \"error\"\n[auth.static-credentials]\n{USER} = \"{USER}\"\n"
    );
    let file = directory.path().join("turn-server.toml");
    fs::write(&file, settings).context("writing its settings")?;
    let mut command = topology.command(program);
    command.arg(format!("--config={}", file.display()));
    let process = topology.host().spawn("turn-server", command)?;
    // It relays only between allocations that have a channel to one another.
    set_up(topology, workload, &process, |flow, channels, _, relayed| {
        [
            (flow.source, channels.there, relayed[flow.target as usize]),
            (flow.target, channels.back, relayed[flow.source as usize]),
        ]
    })?;
    Ok(Started { process, directory, prefixes: prefixes(workload), answer_prefix_len: 4 })
}

/// Whose channel, its number, and to which address.
type Wanted = (u32, u16, SocketAddrV4);

/// An allocation for each client, and for each flow what `wanted` makes of where the clients are and
/// where they are relayed.
fn set_up<const N: usize>(
    topology: &Topology,
    workload: &Workload,
    process: &Process,
    wanted: impl Fn(&Flow, &Channels, &[SocketAddrV4], &[SocketAddrV4]) -> [Wanted; N] + Sync + Send,
) -> anyhow::Result<()> {
    let addresses: Vec<SocketAddrV4> = workload.addresses().collect();
    topology
        .enter(|| {
            let clients = clients(topology.road().relay, &addresses)?;
            let (mut clients, relayed): (Vec<_>, Vec<_>) = clients.into_iter().unzip();
            for (flow, channels) in workload.flows().zip(channels(workload)) {
                for (of, number, peer) in wanted(&flow, &channels, &addresses, &relayed) {
                    let client = &mut clients[of as usize];
                    client.create_permission(peer, PATIENCE)?;
                    client.bind_channel(number, peer, PATIENCE)?;
                }
            }
            anyhow::Ok(())
        })?
        .with_context(|| format!("its log is {}", process.log().display()))
}

/// A client with an allocation at each address, and its relayed address.
fn clients(
    server: SocketAddrV4,
    addresses: &[SocketAddrV4],
) -> anyhow::Result<Vec<(Client, SocketAddrV4)>> {
    let mut patience = START_PATIENCE;
    addresses
        .iter()
        .map(|address| {
            let mut client = Client::new(server, *address);
            let relayed = client.allocate(patience).with_context(|| address.to_string())?;
            patience = PATIENCE;
            Ok((client, relayed))
        })
        .collect()
}

/// The sender's channel to the receiver, and the receiver's to the sender.
struct Channels {
    there: u16,
    back: u16,
}

/// By flow. A client has a channel for each other member of its party, by the member's number.
fn channels(workload: &Workload) -> impl Iterator<Item = Channels> {
    let members: Vec<u8> = workload.memberships().map(|(_, member)| member).collect();
    let channel = move |lease: u32| FIRST_CHANNEL + u16::from(members[lease as usize]);
    let flows: Vec<_> = workload.flows().collect();
    flows
        .into_iter()
        .map(move |flow| Channels { there: channel(flow.target), back: channel(flow.source) })
}

/// ChannelData headers: channel and length.
fn prefixes(workload: &Workload) -> Vec<Vec<u8>> {
    channels(workload)
        .zip(payload_lens(workload))
        .map(|(channel, len)| [channel.there.to_be_bytes(), (len as u16).to_be_bytes()].concat())
        .collect()
}
