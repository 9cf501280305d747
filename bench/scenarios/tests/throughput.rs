//! What a relay and two tunnels leave of a link.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::Duration;

use anyhow::Context;
use lanrage_lab::{Host, Impairment, LinkSpec, NatKind};
use lanrage_scenarios::{Deployment, Plan, PlayerPlan, eventually};

const RATE_BPS: u64 = 50_000_000;

/// Routed players reach each other bare, over the very links the tunnel uses.
fn plan() -> Plan {
    let line = Impairment {
        rate_bps: Some(RATE_BPS),
        delay: Duration::from_millis(20),
        ..Impairment::NONE
    };
    let player = PlayerPlan::on(NatKind::None, LinkSpec::shaped(line));
    Plan { players: vec![player.clone(), player], ..Plan::default() }
}

#[test]
fn tcp_through_the_relay_gets_four_fifths_of_the_bare_links() {
    let mut lab = Deployment::start(&plan()).unwrap();
    lab.form_party("bulk").unwrap();
    let (from, to) = (&lab.players[0], &lab.players[1]);
    let bare = iperf3(from.host(), to.host(), to.host().v4()).unwrap();
    let relayed = iperf3(from.host(), to.host(), to.address()).unwrap();
    let share = relayed / bare;
    assert!(bare > 0.8 * RATE_BPS as f64, "{bare:.0} bit/s: the machine cannot fill the links");
    println!("{relayed:.0} bit/s through the relay, {bare:.0} bare: {share:.3}");
    assert!(share >= 0.8, "{share:.3} of the bare links");
}

#[test]
fn a_file_arrives_whole() {
    let mut lab = Deployment::start(&plan()).unwrap();
    lab.form_party("file").unwrap();
    let (from, to) = (&lab.players[0], &lab.players[1]);
    let sent = lanrage_scenarios::transfer(from, to, 8 << 20).unwrap();
    assert_eq!(sent.source_digest, sent.target_digest);
}

/// Bits per second that the receiver got in ten seconds.
fn iperf3(from: &Host, to: &Host, address: std::net::Ipv4Addr) -> anyhow::Result<f64> {
    let mut server = to.command("iperf3");
    server.args(["-s", "-1", "-B", &address.to_string()]);
    let _server = to.spawn("iperf3", server)?;
    eventually("iperf3 to measure", Duration::from_secs(60), || {
        let output = from
            .command("iperf3")
            .args(["-c", &address.to_string(), "-t", "10", "-O", "1", "--json"])
            .args(["--connect-timeout", "2000"])
            .output()?;
        let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
        rate.map(Some).with_context(|| report["error"].to_string())
    })
}
