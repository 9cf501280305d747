//! Instructions the relay's core takes for each datagram, counted by callgrind: a figure that a noisy
//! machine does not disturb.
//!
//! ```text
//! lanrage-instructions check  counts.txt    compares with what the file says
//! lanrage-instructions update counts.txt    writes the file
//! lanrage-instructions run NAME             what callgrind watches
//! ```
#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the figures are the program's output"
)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};

mod workload;
use workload::Workload;

/// How far a count may be from the file's. The same source and compiler count the same; this leaves
/// room for edits elsewhere that move the compiler's choices.
const TOLERANCE: f64 = 0.02;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check", file] => check(Path::new(file)),
        ["update", file] => update(Path::new(file)),
        ["run", name] => {
            Workload::named(name).with_context(|| format!("there is no workload {name}"))?.run();
            Ok(())
        }
        _ => bail!("usage: lanrage-instructions check FILE | update FILE | run NAME"),
    }
}

fn update(file: &Path) -> Result<()> {
    let mut text = format!("compiler: {}\n", compiler()?);
    for workload in Workload::ALL {
        writeln!(text, "{}: {:.1}", workload.name, count(&workload)?)?;
    }
    print!("{text}");
    std::fs::write(file, text).with_context(|| format!("{}", file.display()))
}

fn check(file: &Path) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let kept = |name| {
        let lines = text.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
    };
    let is_comparable = kept("compiler") == Some(&compiler()?);
    let mut has_moved = false;
    for workload in Workload::ALL {
        let (name, now) = (workload.name, count(&workload)?);
        let then: f64 = kept(name)
            .with_context(|| format!("{} has no {name}: make instructions-update", file.display()))?
            .parse()?;
        let change = now / then - 1.0;
        has_moved |= change.abs() > TOLERANCE;
        println!("{name:<20}{now:>10.1}{then:>10.1}{:>+8.1} %", change * 100.0);
    }
    if !is_comparable {
        println!("another compiler than the file's: not judged");
        return Ok(());
    }
    ensure!(!has_moved, "a count has moved: mend it, or say why and run make instructions-update");
    Ok(())
}

/// Instructions a datagram received.
fn count(workload: &Workload) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--collect-atstart=no", "--toggle-collect=*measured*"])
        .arg(std::env::current_exe()?)
        .args(["run", workload.name])
        .output()
        .context("valgrind is missing: run make setup")?;
    let log = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} under callgrind: {log}", workload.name);
    let collected = log
        .lines()
        .find_map(|line| line.split_once("Collected : "))
        .and_then(|(_, count)| count.trim().parse::<f64>().ok())
        .with_context(|| format!("callgrind has collected nothing: {log}"))?;
    Ok(collected / workload.datagrams() as f64)
}

fn compiler() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().context("rustc --version")?;
    let version = String::from_utf8_lossy(&output.stdout);
    Ok(format!("{} {}", version.trim(), std::env::consts::ARCH))
}
