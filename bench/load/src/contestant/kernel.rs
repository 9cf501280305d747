//! nftables DNAT: a map from a sender's address to its receiver's, and the kernel does the rest.

use std::fmt::Write as _;
use std::net::SocketAddrV4;

use anyhow::Context as _;

use super::{Kept, Running};
use crate::topology::{Topology, tool};
use crate::workload::Workload;

/// Rules in the contestant's namespace, deleted on drop.
#[derive(Debug)]
pub(super) struct Rules {
    namespace: String,
}

impl Drop for Rules {
    fn drop(&mut self) {
        // The namespace goes with the topology, and its rules with it.
        let _ = tool(&["ip", "netns", "exec", &self.namespace, "nft", "delete table ip bench"]);
        let _ = tool(&["ip", "netns", "exec", &self.namespace, "sysctl", "-qw", FORWARDING_OFF]);
        let _ = tool(&["ip", "netns", "exec", &self.namespace, "conntrack", "-F"]);
    }
}

const FORWARDING_ON: &str = "net.ipv4.ip_forward=1";
const FORWARDING_OFF: &str = "net.ipv4.ip_forward=0";

pub(super) fn start(topology: &Topology, workload: &Workload) -> anyhow::Result<Running> {
    let namespace = topology.host().netns().to_owned();
    let addresses: Vec<SocketAddrV4> = workload.addresses().collect();
    let mut elements = String::new();
    for flow in workload.flows() {
        let (source, target) = (addresses[flow.source as usize], addresses[flow.target as usize]);
        writeln!(elements, "{} : {} . {},", source.ip(), target.ip(), target.port())?;
    }
    // The source becomes the relay's, as a relay's would be; masquerade chooses the port.
    let script = format!(
        "table ip bench {{
           map targets {{ type ipv4_addr : ipv4_addr . inet_service; elements = {{ {elements} }} }}
           chain in {{ type nat hook prerouting priority dstnat;
             udp dport {} dnat to ip saddr map @targets; }}
           chain out {{ type nat hook postrouting priority srcnat; oif eth0 masquerade; }}
         }}",
        topology.road().relay.port()
    );
    let directory = topology.directory()?;
    let file = directory.path().join("rules");
    std::fs::write(&file, script).context("writing the rules")?;
    let rules = Rules { namespace: namespace.clone() };
    tool(&["ip", "netns", "exec", &namespace, "sysctl", "-qw", FORWARDING_ON])?;
    let file = file.display().to_string();
    tool(&["ip", "netns", "exec", &namespace, "nft", "-f", &file])?;
    Ok(Running {
        process: None,
        kept: Some(Kept::Rules(rules)),
        prefixes: workload.flows().map(|flow| super::reflector_prefix(flow.target)).collect(),
        answer_prefix_len: 16,
    })
}
