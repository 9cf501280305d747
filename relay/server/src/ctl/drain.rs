use clap::Args;

use super::Output;
use super::client::Client;
use super::failure::Failure;
use crate::admin::api::{self, Draining, Nothing, path};

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Drain {
    /// Seconds that clients have
    #[arg(long, value_name = "SECONDS", default_value_t = 300,
          value_parser = clap::value_parser!(u16).range(1..))]
    deadline: u16,
    /// Where to send everybody, by the relay's number [default: the next relay of each ticket]
    #[arg(long, value_name = "RELAY")]
    next: Option<u16>,
    /// End the relay once no lease is left, or at the deadline
    #[arg(long)]
    exit: bool,
}

pub(super) async fn drain(client: &mut Client, output: Output, how: Drain) -> Result<(), Failure> {
    let Drain { deadline: deadline_s, next, exit } = how;
    let draining: Draining =
        client.ask(path::DRAIN, &api::Drain { deadline_s, next, exit }).await?;
    output.print(&draining, |draining| {
        format!(
            "draining for {} s: no new leases, and those that there are told to leave",
            draining.left_s
        )
    })
}

pub(super) async fn undrain(client: &mut Client, output: Output) -> Result<(), Failure> {
    let nothing: Nothing = client.ask(path::UNDRAIN, &Nothing {}).await?;
    output.print(&nothing, |_| "no longer draining; clients are back within a minute".to_owned())
}
