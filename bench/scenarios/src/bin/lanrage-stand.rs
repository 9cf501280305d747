//! Leaves a deployment standing, with a party formed, for any program that wants to play in it.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use lanrage_scenarios::{Deployment, Plan, describe, eventually};

/// Building, joining and the first handshakes of twenty players stay well below this.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Debug, Parser)]
#[command(about = "A standing lab: control, two relays and players behind NATs, in one party")]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build it, write its description and leave it running.
    Up {
        /// Players in the party.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
        players: u8,
        /// Where the description goes.
        #[arg(long, default_value = "lab.json")]
        out: PathBuf,
    },
    /// What `up` leaves behind: holds the lab until SIGTERM.
    #[command(hide = true)]
    Hold {
        #[arg(long)]
        players: u8,
        #[arg(long)]
        out: PathBuf,
    },
    /// End it.
    Down {
        /// The description that `up` wrote.
        #[arg(long, default_value = "lab.json")]
        out: PathBuf,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Verb::Up { players, out } => up(players, &out),
        Verb::Hold { players, out } => hold(players, &out),
        Verb::Down { out } => down(&out),
    }
}

fn up(players: u8, out: &Path) -> anyhow::Result<()> {
    if out.exists() {
        bail!("{} describes a lab: end it with `make lab-down`, or remove the file", out.display());
    }
    let log = out.with_extension("log");
    let output = fs::File::create(&log).with_context(|| format!("create {}", log.display()))?;
    let mut holder = Command::new(std::env::current_exe().context("find this program")?)
        .args(["hold", "--players", &players.to_string(), "--out"])
        .arg(out)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("share the log")?)
        .stderr(output)
        .spawn()
        .context("start the lab's holder")?;
    eventually("the lab to stand", PATIENCE, || {
        if let Some(status) = holder.try_wait()? {
            let log = fs::read_to_string(&log).unwrap_or_default();
            eprint_and_exit(&format!("the lab did not come up ({status}):\n{log}"));
        }
        Ok(out.exists().then_some(()))
    })?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{} describes the lab; end it with `make lab-down`", out.display())?;
    Ok(())
}

fn eprint_and_exit(message: &str) -> ! {
    // Standard error may be closed; the exit status says it all the same.
    let _closed = writeln!(std::io::stderr(), "{message}");
    std::process::exit(1)
}

fn hold(players: u8, out: &Path) -> anyhow::Result<()> {
    let mut deployment = Deployment::start(&Plan::with_players(players.into()))?;
    deployment.form_party("lab")?;
    let description = serde_json::to_vec_pretty(&describe(&deployment)?)?;
    let draft = out.with_extension("tmp");
    fs::write(&draft, description).with_context(|| format!("write {}", draft.display()))?;
    fs::rename(&draft, out).with_context(|| format!("write {}", out.display()))?;
    loop {
        // The lab's guardian tears all down when SIGTERM ends this process.
        std::thread::park();
    }
}

fn down(out: &Path) -> anyhow::Result<()> {
    let text = fs::read(out)
        .with_context(|| format!("read {}: no lab was left standing here", out.display()))?;
    let description: serde_json::Value = serde_json::from_slice(&text)
        .with_context(|| format!("{} is no description of a lab", out.display()))?;
    let id = description["lab"].as_str().context("the description names no lab")?;
    match lanrage_lab::down(&id.parse()?) {
        Ok(()) | Err(lanrage_lab::Error::NoSuchLab(_)) => {}
        Err(error) => return Err(error.into()),
    }
    fs::remove_file(out).with_context(|| format!("remove {}", out.display()))
}
