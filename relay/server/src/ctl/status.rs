use super::client::Client;
use super::failure::Failure;
use super::{Output, table};
use crate::admin::api::{Nothing, Status, path};

pub(super) async fn show(client: &mut Client, output: Output) -> Result<(), Failure> {
    let status: Status = client.ask(path::STATUS, &Nothing {}).await?;
    output.print(&status, |status| {
        let number = |number: Option<u16>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        table::pairs([
            ("relay", number(status.relay)),
            ("pool", number(status.pool)),
            ("version", status.version.clone()),
            ("process", status.pid.to_string()),
            ("uptime", format!("{} s", status.uptime_s)),
            (
                "ready",
                status.not_ready.clone().map_or("yes".to_owned(), |why| format!("no: {why}")),
            ),
            ("control", if status.control_connected { "connected" } else { "lost" }.to_owned()),
            ("back end", status.backend.clone()),
            ("leases", format!("{} of {}", status.leases, status.leases_capacity)),
            ("pending", status.leases_pending.to_string()),
            ("sessions", status.sessions.to_string()),
        ])
    })
}
