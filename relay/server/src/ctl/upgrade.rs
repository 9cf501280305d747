use super::Output;
use super::client::Client;
use super::failure::Failure;
use crate::admin::api::{Nothing, Upgraded, path};

pub(super) async fn upgrade(client: &mut Client, output: Output) -> Result<(), Failure> {
    let upgraded: Upgraded = client.ask(path::UPGRADE, &Nothing {}).await?;
    output.print(&upgraded, |upgraded| format!("process {} serves", upgraded.pid))
}
