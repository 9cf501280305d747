//! Any STUN client can ask a relay for its address.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use lanrage_scenarios::{Deployment, Plan};

#[test]
fn coturns_client_gets_its_address_over_both_families() {
    let lab = Deployment::start(&Plan { players: Vec::new(), ..Plan::default() }).unwrap();
    let (asker, relay) = (lab.relays[1].host(), &lab.relays[0]);
    let v6 = relay.host().v6().expect("relays have IPv6");
    let own_v6 = asker.v6().expect("relays have IPv6").to_string();
    for (server, own) in
        [(relay.host().v4().to_string(), asker.v4().to_string()), (v6.to_string(), own_v6)]
    {
        let port = relay.address().port().to_string();
        let output =
            asker.command("turnutils_stunclient").args(["-p", &port, &server]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let mut answers = text.lines().filter(|line| line.contains("UDP reflexive addr"));
        assert!(answers.any(|line| line.contains(&own)), "{text}");
    }
}
