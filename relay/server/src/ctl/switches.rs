use super::Output;
use super::client::Client;
use super::failure::Failure;
use crate::admin::api::{Gso, Log, path};
use crate::config::GsoSetting;

pub(super) async fn log(
    client: &mut Client,
    output: Output,
    filter: Option<String>,
) -> Result<(), Failure> {
    let log: Log = client.ask(path::LOG, &Log { filter }).await?;
    output.print(&log, |log| log.filter.clone().unwrap_or_else(|| "-".to_owned()))
}

pub(super) async fn gso(
    client: &mut Client,
    output: Output,
    mode: Option<GsoSetting>,
) -> Result<(), Failure> {
    let gso: Gso = client.ask(path::GSO, &Gso { mode }).await?;
    output.print(&gso, |gso| gso.mode.map_or("-", GsoSetting::as_str).to_owned())
}
