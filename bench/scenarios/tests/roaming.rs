//! A member's NAT forgets it: play resumes from a new port, and from a new address.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::thread::sleep;
use std::time::{Duration, Instant};

use lanrage_lab::Rebind;
use lanrage_scenarios::{Deployment, Flow, Plan};

const PROMISED: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(10);

#[test]
fn play_resumes_within_a_second_of_a_new_mapping() {
    let mut lab = Deployment::start(&Plan::with_players(2)).unwrap();
    lab.form_party("roaming").unwrap();
    let address = lab.players[1].address();
    for rebind in [Rebind::NewPort, Rebind::NewAddress] {
        let there = Flow::start(&lab.players[0], &lab.players[1], INTERVAL).unwrap();
        let back = Flow::start(&lab.players[1], &lab.players[0], INTERVAL).unwrap();
        sleep(Duration::from_secs(1));
        let changed = Instant::now();
        lab.nats[1].rebind(rebind).unwrap();
        sleep(Duration::from_secs(3));
        let observed = Instant::now();
        for (way, flow) in [("there", there), ("back", back)] {
            let gap = flow.finish().longest_gap_between(changed, observed);
            assert!(gap <= PROMISED, "{gap:?} without traffic {way} after {rebind:?}");
        }
        assert_eq!(lab.players[1].status().unwrap()["ipv4"], address.to_string());
    }
}
