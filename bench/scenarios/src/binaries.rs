use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use lanrage_lab::Host;

use crate::Answer;

const END_PATIENCE: Duration = Duration::from_secs(20);

/// The path of one of the workspace's programs, built beside this one.
///
/// # Errors
/// The program is not there: `make build` makes it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("find this program")?;
    // A test binary lies in `deps` below the programs.
    let found = this.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|p| p.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("{name} is not built: run `make build-all`"),
    }
}

/// Runs one of the workspace's programs on a host, as an argument of `wrapper` if that has words.
pub(crate) fn program(host: &Host, wrapper: &[String], name: &str) -> anyhow::Result<Command> {
    let program = binary(name)?.display().to_string();
    let Some((first, rest)) = wrapper.split_first() else { return Ok(host.command(&program)) };
    let mut command = host.command(first);
    command.args(rest).arg(program);
    Ok(command)
}

/// Runs on `host` what is to end by itself; all that it says is in `stderr`.
///
/// # Errors
/// It does not end within 20 seconds; then it is killed.
pub fn run_to_end(host: &Host, command: Command) -> anyhow::Result<Answer> {
    let mut process = host.spawn("run-to-end", command)?;
    let code = process.wait(END_PATIENCE)?.code().context("it was killed")?;
    let stderr = fs::read_to_string(process.log()).context("read what it said")?;
    Ok(Answer { code, stdout: String::new(), stderr })
}
