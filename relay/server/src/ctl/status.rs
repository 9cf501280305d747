use super::client::Client;
use super::failure::Failure;
use super::{Output, table};
use crate::admin::api::{Draining, Nothing, Queues, Status, path};

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
            ("draining", draining(status.draining)),
            ("bans", status.bans.to_string()),
            ("queued", queued(status.queues)),
            ("log", status.log.clone().unwrap_or_else(|| "-".to_owned())),
            ("gso", status.gso.as_str().to_owned()),
        ])
    })
}

fn draining(draining: Option<Draining>) -> String {
    let Some(Draining { left_s, next, told, exit }) = draining else { return "no".to_owned() };
    let to = next.map_or_else(String::new, |relay| format!(" to relay {relay}"));
    let then = if exit { ", then the relay ends" } else { "" };
    format!("{left_s} s left{to}, {told} messages sent{then}")
}

fn queued(Queues { activations, established, hellos, binds }: Queues) -> String {
    format!("{activations} activations, {established} of clients, {hellos} HELLO, {binds} BIND")
}
