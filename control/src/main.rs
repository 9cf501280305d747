//! `lanrage-control`: parses, runs, and maps to an exit code.

use std::io::Write as _;
use std::process::ExitCode;

use lanrage_control::{Cli, execute};

#[tokio::main]
async fn main() -> ExitCode {
    match execute(Cli::of_process()).await {
        Ok(text) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(failure) => {
            // Nothing else can be done when standard error is closed.
            let _written = writeln!(std::io::stderr(), "lanrage-control: {failure}");
            failure.exit_code()
        }
    }
}
