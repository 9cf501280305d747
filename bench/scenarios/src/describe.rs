use anyhow::Context as _;
use serde::Serialize;

use crate::Deployment;

/// A standing deployment, as `lab.json` describes it.
#[derive(Debug, Serialize)]
pub struct Description {
    lab: String,
    dir: String,
    players: Vec<PlayerEntry>,
    relays: Vec<RelayEntry>,
    control: ControlEntry,
}

#[derive(Debug, Serialize)]
struct PlayerEntry {
    name: String,
    netns: String,
    address: String,
    nic: String,
    socket: String,
    underlay: String,
    nat: String,
}

#[derive(Debug, Serialize)]
struct RelayEntry {
    name: String,
    netns: String,
    address: String,
    metrics: String,
}

#[derive(Debug, Serialize)]
struct ControlEntry {
    netns: String,
    address: String,
    server: String,
}

/// What a program needs to take part: namespaces for `ip netns exec`, addresses, sockets.
///
/// # Errors
/// A daemon does not answer.
pub fn describe(deployment: &Deployment) -> anyhow::Result<Description> {
    let players = deployment.players.iter().zip(&deployment.nats).map(|(player, nat)| {
        Ok(PlayerEntry {
            name: player.name().to_owned(),
            netns: player.host().netns().to_owned(),
            address: player.address().to_string(),
            nic: player.nic().to_owned(),
            socket: player.socket().display().to_string(),
            underlay: player.host().addresses().next().context("no address")?.to_string(),
            nat: format!("{:?}", nat.kind()),
        })
    });
    let relays = deployment.relays.iter().map(|relay| RelayEntry {
        name: relay.name().to_owned(),
        netns: relay.host().netns().to_owned(),
        address: relay.address().to_string(),
        metrics: format!("http://{}/metrics", relay.metrics_address()),
    });
    Ok(Description {
        lab: deployment.lab.id().to_string(),
        dir: deployment.lab.dir().display().to_string(),
        players: players.collect::<anyhow::Result<_>>()?,
        relays: relays.collect(),
        control: ControlEntry {
            netns: deployment.control.host().netns().to_owned(),
            address: deployment.control.address().to_string(),
            server: deployment.control.server().to_owned(),
        },
    })
}
