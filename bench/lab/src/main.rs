//! `lanrage-lab`: labs from the shell.

use std::{
    io::{self, Write},
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use lanrage_lab::{Impairment, Lab, LabId, LinkSpec, NatKind, down, list};

#[derive(Parser)]
#[command(about = "Networks of real hosts on one machine.", version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build a lab with relays and one player behind each kind of NAT; runs until `down`.
    Up {
        /// Hosts on the backbone.
        #[arg(long, default_value_t = 2)]
        relays: u8,
    },
    /// List the labs of this machine.
    List,
    /// Take a lab down.
    Down { id: LabId },
    /// Run a program in a host of a lab.
    Exec {
        id: LabId,
        host: String,
        #[arg(trailing_var_arg = true, required = true)]
        command: Vec<String>,
    },
}

fn main() -> anyhow::Result<ExitCode> {
    match Args::parse().verb {
        Verb::Up { relays } => up(relays)?,
        Verb::List => show_labs()?,
        Verb::Down { id } => down(&id)?,
        Verb::Exec { id, host, command } => return exec(&id, &host, &command),
    }
    Ok(ExitCode::SUCCESS)
}

fn up(relays: u8) -> anyhow::Result<()> {
    const KINDS: [(&str, NatKind); 5] = [
        ("routed", NatKind::None),
        ("full", NatKind::FullCone),
        ("restricted", NatKind::RestrictedCone),
        ("port", NatKind::PortRestrictedCone),
        ("symmetric", NatKind::Symmetric),
    ];
    let lab = Lab::new()?;
    let mut out = io::stdout().lock();
    writeln!(out, "lab {} in {}", lab.id(), lab.dir().display())?;
    for number in 1..=relays {
        let relay = lab.host(&format!("relay{number}"), LinkSpec::direct())?;
        writeln!(out, "{}\t{}", relay.name(), relay.v4())?;
    }
    for (name, kind) in KINDS {
        let nat = lab.nat(&format!("nat-{name}"), kind, LinkSpec::direct())?;
        let player = nat.host(name, LinkSpec::shaped(Impairment::NONE))?;
        let outside = nat.public_v4();
        writeln!(out, "{name}\t{}\tbehind {outside}", player.v4())?;
    }
    writeln!(out, "end it with: lanrage-lab down {}", lab.id())?;
    out.flush()?;
    loop {
        thread::park();
    }
}

fn show_labs() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for lab in list()? {
        let state = if lab.owner_alive { "runs" } else { "is gone" };
        writeln!(out, "{}\towner {} {state}\t{}", lab.id, lab.owner, lab.hosts.join(" "))?;
    }
    Ok(())
}

fn exec(id: &LabId, host: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    if !list()?.iter().any(|lab| lab.id == *id) {
        bail!("no lab {id}: `lanrage-lab list` shows those that stand");
    }
    let status = Command::new("ip")
        .args(["netns", "exec", &id.netns(host)])
        .args(command)
        .status()
        .context("start ip netns exec")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
