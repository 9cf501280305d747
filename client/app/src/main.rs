//! `lanrage`: parses, runs, maps to an exit code; the logic is in the library.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use lanrage::cli::{self, Args, Command, printable};
use lanrage::failure::{Failure, FailureKind};
use tracing_subscriber::EnvFilter;

/// boringtun reports every ended handshake as an error, quinn-udp every refused datagram; both
/// are counted instead.
const DEFAULT_LOG: &str = "info,boringtun=off,quinn_udp=off,netlink_proto=error";

/// At TRACE they log headers and messages, and with these tokens, whatever `--log` asks for.
const TOO_TALKATIVE: [&str; 5] = ["h2", "hyper", "rustls", "tokio_tungstenite", "tungstenite"];

fn main() -> ExitCode {
    let args = Args::parse();
    if let Command::Daemon { daemon, .. } = &args.command {
        let filter = match EnvFilter::try_new(daemon.log.as_deref().unwrap_or(DEFAULT_LOG)) {
            Ok(filter) => filter,
            Err(error) => {
                let message = format!("--log: {error}: use a filter such as info,lanrage=debug");
                return report(&Failure::new(FailureKind::Usage, message));
            }
        };
        let filter = TOO_TALKATIVE.into_iter().fold(filter, |filter, target| {
            filter.add_directive(format!("{target}=off").parse().expect("a directive"))
        });
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(args.command)),
        Err(error) => Err(Failure::new(FailureKind::Other, error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    // Nobody may be left to read it; the exit code says it, too.
    let _closed = writeln!(std::io::stderr(), "lanrage: {}", printable(&failure.to_string()));
    ExitCode::from(failure.kind.exit_code())
}
