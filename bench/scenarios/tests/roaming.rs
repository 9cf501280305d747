//! A member's NAT forgets it: play resumes from a new port, and from a new address.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::time::{Duration, Instant};

use lanrage_lab::Rebind;
use lanrage_scenarios::{BothWays, Deployment, Plan};

const PROMISED: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

#[test]
fn play_resumes_within_a_second_of_a_new_mapping() {
    let mut lab = Deployment::start(&Plan::with_players(2)).unwrap();
    lab.form_party("roaming").unwrap();
    let address = lab.players[1].address();
    lab.players[0].ping(address, PATIENCE).unwrap();
    let seen = |lab: &Deployment| {
        lab.players[1].status().unwrap()["relays"][0]["reflexive"].as_str().unwrap().to_owned()
    };
    for rebind in [Rebind::NewPort, Rebind::NewAddress] {
        let play = BothWays::start(&lab.players[0], &lab.players[1]).unwrap();
        let before = seen(&lab);
        let changed = Instant::now();
        lab.nats[1].rebind(rebind).unwrap();
        let gap = play.longest_gap_after(changed).unwrap();
        assert!(gap <= PROMISED, "{gap:?} without traffic after {rebind:?}");
        assert_ne!(seen(&lab), before, "{rebind:?} changed nothing");
        assert_eq!(lab.players[1].status().unwrap()["ipv4"], address.to_string());
    }
}
