//! A relay whose way out carries half of what is asked of it: a namespace whose loopback lets what comes
//! from the relay's port through a token bucket (tc-tbf), which drops the rest and tells no socket.
//!
//! Needs CAP_SYS_ADMIN for the namespace, `ip` and `tc`.
#![expect(clippy::print_stdout, reason = "says what came back")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, Relay, prepare};
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::ids::Destination;
use lanrage_relay::Settings;
use lanrage_relay::config::GsoSetting;

/// Set for the test that runs inside the namespace.
const INSIDE: &str = "LANRAGE_TEST_NAMESPACE";
const CLIENTS: usize = 10;
/// What the first client sends for each frame of another.
const LOUD: usize = 10;
const TICK: Duration = Duration::from_millis(5);
const PAYLOAD: [u8; 984] = [7; 984];

#[test]
fn nine_clients_keep_theirs_beside_one_at_ten_times_their_rate() {
    if std::env::var_os(INSIDE).is_some() {
        return share();
    }
    let name = format!("egress-{}", std::process::id());
    run(&format!("ip netns add {name}"));
    let done = Command::new("ip")
        .args(["netns", "exec", &name])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "nine_clients_keep_theirs_beside_one_at_ten_times_their_rate"])
        .arg("--nocapture")
        .env(INSIDE, &name)
        .output();
    run(&format!("ip netns del {name}"));
    let done = done.unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    print!("{}", String::from_utf8_lossy(&done.stdout));
}

fn share() {
    run("ip link set lo up");
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let relay = Relay::start_with(
        dir.path(),
        Settings { gso: Some(GsoSetting::Off), ..Settings::default() },
    );
    let clients: Vec<_> = (1..=CLIENTS)
        .map(|member| {
            let mut client = Client::new(relay.ipv4(), member as u8);
            let lease = client.bind();
            assert!(client.probe(&lease));
            client.socket.set_nonblocking(true).unwrap();
            (client, lease)
        })
        .collect();
    // 19 frames of 1,000 bytes every 5 ms are 32 Mbit/s with their headers; those of nine are 15.
    let port = relay.ipv4().port();
    run("tc qdisc add dev lo root handle 1: htb");
    run("tc class add dev lo parent 1: classid 1:3 htb rate 18mbit");
    run("tc qdisc add dev lo parent 1:3 handle 3: tbf rate 18mbit burst 10k limit 60k");
    run(&format!(
        "tc filter add dev lo parent 1: protocol ip u32 match ip sport {port} 0xffff flowid 1:3"
    ));

    exchange(&clients, 400);
    let got = exchange(&clients, 800);
    println!("of what each has sent came back: {got:.3?}");
    assert!(got[1..].iter().all(|got| *got > 0.9), "{got:?}");
    assert!(got[0] < 0.5, "{got:?}");
    relay.until(|page| {
        let cut = "lanrage_relay_packets_dropped_total{reason=\"egress_share\",fault=\"policy\"} ";
        page.lines().filter_map(|line| line.strip_prefix(cut)).any(|count| count != "0")
    });
    relay.stop();
}

/// For so many ticks each client sends to itself; gives the part of it that has come back.
fn exchange(clients: &[(Client, Lease)], ticks: u32) -> Vec<f64> {
    let begin = Instant::now();
    let mut counts = vec![(0, 0); clients.len()];
    for tick in 1..=ticks {
        for (at, ((client, lease), (sent, received))) in clients.iter().zip(&mut counts).enumerate()
        {
            let frame = client.frame(lease, Destination::One(client.member), &PAYLOAD);
            for _ in 0..if at == 0 { LOUD } else { 1 } {
                *sent += u32::from(client.socket.send(&frame).is_ok());
            }
            while client.receive().is_some() {
                *received += 1;
            }
        }
        std::thread::sleep((begin + TICK * tick).saturating_duration_since(Instant::now()));
    }
    counts.iter().map(|(sent, received)| f64::from(*received) / f64::from(*sent)).collect()
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}
