//! A host that does not fit is named: a port in use, a missing right, an overlapping route, a
//! second program; and whatever ends the daemon, the host is as it was.
#![allow(clippy::unwrap_used, reason = "a scenario that cannot go on has failed")]

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use lanrage_lab::{Host, NatKind};
use lanrage_scenarios::{Deployment, Plan, binary, eventually, exit, run_to_end};

const PATIENCE: Duration = Duration::from_secs(20);
/// What `lanrage-relay --help` and `lanrage-control --help` document.
const STATE: i32 = 3;
const BIND: i32 = 4;

fn start(players: usize) -> Deployment {
    Deployment::start(&Plan::behind(NatKind::PortRestrictedCone, players)).unwrap()
}

fn ping_both_ways(lab: &Deployment) {
    lab.players[1].ping(lab.players[0].address(), PATIENCE).unwrap();
    lab.players[0].ping(lab.players[1].address(), PATIENCE).unwrap();
}

fn ip(host: &Host, arguments: &str) -> String {
    let output = host.command("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Links, addresses, routes and rules of a host.
fn network(host: &Host) -> String {
    let questions = [
        "-o link show",
        "-o -4 address show",
        "-o -6 address show",
        "-4 route show table all",
        "-6 route show table all",
        "rule show",
    ];
    questions.map(|question| ip(host, question)).concat()
}

/// Opens a socket on a host once the one that a killed program had is gone: the kernel closes what
/// an io_uring holds after the process has ended.
fn take<T: Send>(host: &Host, open: impl Fn() -> io::Result<T> + Sync + Send) -> T {
    eventually("the port to be free", PATIENCE, || Ok(host.enter(&open)?.ok())).unwrap()
}

#[test]
fn a_port_in_use_is_4_and_names_the_address() {
    let mut lab = start(0);
    let relay = &mut lab.relays[0];
    let (udp, metrics) = (relay.address(), relay.metrics_address());
    relay.kill().unwrap();
    let any = format!("0.0.0.0:{}", udp.port());
    let taken = take(relay.host(), || UdpSocket::bind(&any));
    let answer = run_to_end(relay.host(), relay.command().unwrap()).unwrap();
    answer.expect_failure(BIND, &format!("UDP {any} is in use"));
    drop(taken);

    let taken = take(relay.host(), || TcpListener::bind(metrics));
    let answer = run_to_end(relay.host(), relay.command().unwrap()).unwrap();
    answer.expect_failure(BIND, &format!("TCP {metrics} for metrics cannot be bound"));
    drop(taken);
    relay.restart().unwrap();

    let control = &mut lab.control;
    control.stop().unwrap();
    let any = format!("0.0.0.0:{}", control.address().port());
    let taken = take(control.host(), || TcpListener::bind(&any));
    let answer = run_to_end(control.host(), control.run_command().unwrap()).unwrap();
    answer.expect_failure(BIND, &format!("cannot listen on {any}"));
    drop(taken);
    control.restart().unwrap();
}

#[test]
fn without_the_right_to_make_a_nic_the_code_is_4_and_no_use_is_spent() {
    let mut lab = start(2);
    let server = lab.control.server().to_owned();
    lab.players[0].create_party("rights", &server).unwrap();
    let invite = lab.players[0].invite(1).unwrap();
    let player = &mut lab.players[1];
    player.stop_daemon().unwrap();
    player.run_under(&["setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"]);
    player.start_daemon().unwrap();
    player.try_join(&invite).unwrap().expect_failure(exit::RIGHTS, "CAP_NET_ADMIN");
    let create = ["party", "create", "other", "--server", &server];
    player.run(&create).unwrap().expect_failure(exit::RIGHTS, "CAP_NET_ADMIN");
    let parties = player.run(&["party", "list", "--json"]).unwrap();
    assert_eq!((parties.code, parties.stdout.trim()), (0, r#"{"parties":[]}"#));

    player.stop_daemon().unwrap();
    player.run_under(&[]);
    player.start_daemon().unwrap();
    player.join(&invite).unwrap();
    ping_both_ways(&lab);
}

#[test]
fn an_overlapping_route_is_7_until_it_is_gone() {
    let mut lab = start(2);
    let server = lab.control.server().to_owned();
    let create = |subnet| {
        ["party", "create", "lan", "--server", &server, "--name", "player1", "--subnet", subnet]
    };
    let owner = lab.players[0].host().clone();
    ip(&owner, "address add 10.66.7.9/24 dev eth0");
    let answer = lab.players[0].run(&create("10.66.7.0")).unwrap();
    answer.expect_failure(exit::OVERLAP, "10.66.7.0/24 overlaps 10.66.7.");
    answer.expect_failure(exit::OVERLAP, " on eth0");
    ip(&owner, "address del 10.66.7.9/24 dev eth0");
    assert_eq!(lab.players[0].run(&create("10.66.7.0")).unwrap().code, 0);

    let invite = lab.players[0].invite(1).unwrap();
    let joiner = lab.players[1].host().clone();
    let gateway = ip(&joiner, "route show default").split(' ').nth(2).unwrap().to_owned();
    ip(&joiner, &format!("route add 10.66.0.0/16 via {gateway} dev eth0"));
    let text = "10.66.7.0/24 overlaps 10.66.0.0/16 on eth0";
    lab.players[1].try_join(&invite).unwrap().expect_failure(exit::OVERLAP, text);
    ip(&joiner, "route del 10.66.0.0/16");
    lab.players[1].join(&invite).unwrap();
    let owner_address = "10.66.7.1".parse().unwrap();
    lab.players[1].ping(owner_address, PATIENCE).unwrap();

    // The route comes back while the daemon is down: the membership waits until it is gone.
    lab.players[1].stop_daemon().unwrap();
    ip(&joiner, "route add blackhole 10.66.7.128/25");
    ip(&joiner, &format!("route add 10.66.7.0/25 via {gateway} dev eth0"));
    lab.players[1].start_daemon().unwrap();
    let answer = lab.players[1].run(&["up"]).unwrap();
    answer.expect_failure(exit::OVERLAP, "10.66.7.0/24 overlaps 10.66.7.0/25 on eth0");
    let status = lab.players[1].run(&["status"]).unwrap();
    assert!(status.stdout.contains("10.66.7.0/25 on eth0"), "{status:?}");
    ip(&joiner, "route del 10.66.7.0/25");
    ip(&joiner, "route del blackhole 10.66.7.128/25");
    assert_eq!(lab.players[1].run(&["up"]).unwrap().code, 0);
    lab.players[1].ping(owner_address, PATIENCE).unwrap();
}

#[test]
fn a_second_program_is_refused_and_names_the_first() {
    let mut lab = start(2);
    lab.form_party("twice").unwrap();

    let player = &lab.players[1];
    let pid = player.daemon().id().to_string();
    let answer = run_to_end(player.host(), player.daemon_command().unwrap()).unwrap();
    answer.expect_failure(exit::STATE, &format!("process {pid}"));
    let mut command = player.host().command(binary("lanrage").unwrap().to_str().unwrap());
    command.arg("daemon").arg("--socket").arg(player.socket());
    command.arg("--state-dir").arg(lab.lab.dir().join("elsewhere"));
    let answer = run_to_end(player.host(), command);
    answer.unwrap().expect_failure(exit::STATE, &format!("another daemon (process {pid})"));

    let relay = &lab.relays[0];
    let pid = relay.process().id().to_string();
    let answer = run_to_end(relay.host(), relay.command().unwrap()).unwrap();
    answer.expect_failure(STATE, &format!("process {pid}"));
    let mut command = relay.command().unwrap();
    command.env("LANRAGE_RELAY_STATE_DIR", lab.lab.dir().join("elsewhere-relay"));
    let answer = run_to_end(relay.host(), command).unwrap();
    answer.expect_failure(BIND, &format!("UDP 0.0.0.0:{} is in use", relay.address().port()));

    let control = &lab.control;
    let pid = control.process().id().to_string();
    let answer = run_to_end(control.host(), control.run_command().unwrap()).unwrap();
    answer.expect_failure(STATE, &pid);

    ping_both_ways(&lab);
    let invite = lab.players[0].invite(1).unwrap();
    assert!(invite.starts_with("lanrage://"));
}

#[test]
fn down_and_sigkill_leave_the_host_as_it_was() {
    let mut lab = start(2);
    let before = network(lab.players[1].host());
    lab.form_party("down").unwrap();
    ping_both_ways(&lab);
    assert!(network(lab.players[1].host()).contains("lanrage0"));

    assert_eq!(lab.players[1].run(&["down"]).unwrap().code, 0);
    assert_eq!(network(lab.players[1].host()), before, "after `lanrage down`");
    lab.players[1].run(&["status"]).unwrap().expect_failure(exit::NO_DAEMON, "lanrage up");
    lab.players[1].start_daemon().unwrap();
    ping_both_ways(&lab);

    lab.players[1].kill_daemon().unwrap();
    assert_eq!(network(lab.players[1].host()), before, "after SIGKILL");
    lab.players[1].run(&["status"]).unwrap().expect_failure(exit::NO_DAEMON, "lanrage up");
    lab.players[1].start_daemon().unwrap();
    ping_both_ways(&lab);
}
