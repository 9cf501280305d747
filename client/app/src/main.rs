//! `lanrage`: parses, runs, maps to an exit code; the logic is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use lanrage::cli::{self, Args, Command};
use lanrage::failure::Failure;
use tracing_subscriber::EnvFilter;

/// boringtun reports every ended handshake as an error, quinn-udp every refused datagram; both
/// are counted instead.
const DEFAULT_LOG: &str = "info,boringtun=off,quinn_udp=off,netlink_proto=error";

fn main() -> ExitCode {
    let args = Args::parse();
    if matches!(args.command, Command::Daemon { .. }) {
        let filter = EnvFilter::try_from_env("LANRAGE_LOG");
        let filter = filter.unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli::run(args.command)),
        Err(error) => Err(Failure::new(lanrage::failure::FailureKind::Other, error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure),
    }
}

#[expect(clippy::print_stderr, reason = "the one place where a failure reaches the terminal")]
fn report(failure: &Failure) -> ExitCode {
    eprintln!("lanrage: {failure}");
    ExitCode::from(failure.kind.exit_code())
}
