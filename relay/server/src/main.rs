//! `lanrage-relay`: arguments, logs, signals, exit code. The relay is in the library.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};
use lanrage_relay::config::TOKEN_VARIABLE;
use lanrage_relay::failure::{CHECK_EXIT_CODES, EXIT_CODES};
use lanrage_relay::{Config, Failure, Settings, Stop, ctl, logs};
use tokio::signal::unix::{SignalKind, signal};

/// A relay for LANrage. Each setting is a flag, an environment variable, or a key of the file
/// (as in `state_dir = "/srv/relay"`); flags win over the environment, the environment over the file.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM, which lets clients leave, or SIGINT, which does not
    #[command(after_help = EXIT_CODES)]
    Run(Sources),
    /// Print what `run` would run with, as a configuration file, and stop
    #[command(after_help = CHECK_EXIT_CODES)]
    CheckConfig(Sources),
    /// Ask or tell a running relay
    #[command(after_help = ctl::EXIT_CODES)]
    Ctl(ctl::Ctl),
}

#[derive(Debug, clap::Args)]
struct Sources {
    /// TOML file with settings
    #[arg(long, env = "LANRAGE_RELAY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

fn main() -> ExitCode {
    let arguments = Arguments::try_parse().unwrap_or_else(|error| name_variable(error).exit());
    match arguments.command {
        Command::Run(sources) => exit(serve(sources), Failure::exit_code),
        Command::CheckConfig(sources) => exit(check(sources), Failure::exit_code),
        Command::Ctl(ctl) => exit(ctl.run(), ctl::Failure::exit_code),
    }
}

fn exit<E: Display>(done: Result<(), E>, code: impl Fn(&E) -> u8) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // There is nobody to tell when standard error is closed.
            let _ = writeln!(io::stderr(), "lanrage-relay: {failure}");
            ExitCode::from(code(&failure))
        }
    }
}

/// A value from the environment is refused by its variable's name: no flag was given.
fn name_variable(mut error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let flag = argument.split(' ').next().unwrap_or_default();
    let is_given = |word: OsString| {
        let word = word.to_string_lossy();
        word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let command = Arguments::command();
    let variable = command
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(|argument| argument.get_long().is_some_and(|long| flag == format!("--{long}")))
        .and_then(clap::Arg::get_env);
    if let (Some(variable), false) = (variable, std::env::args_os().any(is_given)) {
        let variable = variable.to_string_lossy().into_owned();
        error.insert(ContextKind::InvalidArg, ContextValue::String(variable));
    }
    error
}

impl Sources {
    fn resolve(self) -> Result<Config, Failure> {
        let file = self.config.as_deref().map(Settings::read).transpose()?;
        let settings = self.settings.or(file.unwrap_or_default());
        Ok(settings.resolve(std::env::var(TOKEN_VARIABLE).ok())?)
    }
}

fn check(sources: Sources) -> Result<(), Failure> {
    let config = sources.resolve()?;
    let settings = lanrage_relay::check(&config)?;
    io::stdout().write_all(settings.as_bytes()).context("writing to standard output")?;
    Ok(())
}

fn serve(sources: Sources) -> Result<(), Failure> {
    let config = sources.resolve()?;
    logs::start(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the slow side")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
        let stop = async || {
            tokio::select! {
                _ = terminate.recv() => Stop::Drained,
                _ = interrupt.recv() => Stop::AtOnce,
            }
        };
        lanrage_relay::run(config, stop, |_| {}).await
    })
}
