//! The demo: a party of machines behind NATs, playing through a relay, step by step.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Parser;
use lanrage_lab::{Impairment, LinkSpec, NatKind};
use lanrage_scenarios::{Deployment, Plan, PlayerPlan, transfer};

const PING_PATIENCE: Duration = Duration::from_secs(10);
const FILE_LEN: usize = 16 << 20;

#[derive(Debug, Parser)]
#[command(about = "Control, two relays and three players behind NATs, in one party")]
struct Arguments {
    /// Leave everything running until Enter or SIGTERM, and say how to look around.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    match play(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing else can be done when standard error is closed.
            let _written = writeln!(std::io::stderr(), "demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says what a step does, does it, and says how long it took.
fn step<T>(what: &str, act: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut out = std::io::stdout();
    write!(out, "{what:<64}")?;
    out.flush()?;
    let started = Instant::now();
    let done = act()?;
    writeln!(out, "{:>8.0} ms", started.elapsed().as_secs_f64() * 1e3)?;
    Ok(done)
}

fn say(text: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

fn play(arguments: &Arguments) -> anyhow::Result<()> {
    let line = Impairment { delay: Duration::from_millis(10), ..Impairment::NONE };
    let kinds = [NatKind::FullCone, NatKind::PortRestrictedCone, NatKind::Symmetric];
    let behind = |kind| PlayerPlan::on(kind, LinkSpec::shaped(line));
    let plan = Plan { players: kinds.map(behind).to_vec(), ..Plan::default() };

    let mut lab =
        step("start control, two relays, three players behind NATs", || Deployment::start(&plan))?;
    let server = lab.control.server().to_owned();
    step("player1 makes the party `friday`", || lab.players[0].create_party("friday", &server))?;
    for joiner in 1..lab.players.len() {
        let name = lab.players[joiner].name().to_owned();
        let invite =
            step(&format!("player1 makes an invite for {name}"), || lab.players[0].invite(1))?;
        step(&format!("{name} joins by it, and pings player1"), || {
            lab.players[joiner].join(&invite)?;
            lab.players[joiner].ping(lab.players[0].address(), PING_PATIENCE)
        })?;
    }
    step("every player pings every other by virtual address", || {
        lab.players.iter().try_for_each(|from| {
            let others = lab.players.iter().filter(|to| to.name() != from.name());
            others.into_iter().try_for_each(|to| from.ping(to.address(), PING_PATIENCE))
        })
    })?;
    let moved = step("player3 sends player2 a file of 16 MiB over TCP", || {
        transfer(&lab.players[2], &lab.players[1], FILE_LEN)
    })?;
    ensure!(moved.source_digest == moved.target_digest, "the file arrived damaged");
    let rate = FILE_LEN as f64 * 8e-6 / moved.took.as_secs_f64();
    say(&format!("  arrived whole (SHA-256 {}…), {rate:.0} Mbit/s\n", &moved.target_digest[..16]))?;

    say("What player1 sees (`lanrage status`):\n")?;
    say(lab.players[0].run(&["status"])?.stdout.trim_end())?;
    say("\nMetrics for Prometheus:")?;
    for relay in &lab.relays {
        let (netns, address) = (relay.host().netns(), relay.metrics_address());
        say(&format!("  ip netns exec {netns} curl -s http://{address}/metrics"))?;
    }
    if arguments.keep {
        keep(&lab)?;
    }
    Ok(())
}

/// Says how to look around, and waits.
fn keep(lab: &Deployment) -> anyhow::Result<()> {
    say("\nThe lab stays up. Each player is a network namespace:")?;
    for player in &lab.players {
        let (netns, socket) = (player.host().netns(), player.socket());
        say(&format!(
            "  {}: {}  ip netns exec {netns} bash  LANRAGE_SOCKET={}",
            player.name(),
            player.address(),
            socket.display()
        ))?;
    }
    say(&format!("Logs are in {}. Press Enter to end it.", lab.lab.dir().display()))?;
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        // No terminal: the lab stays until SIGTERM ends this process.
        loop {
            std::thread::park();
        }
    }
    Ok(())
}
