use super::client::Client;
use super::failure::Failure;
use super::{Output, table};
use crate::admin::api::{Nothing, ShardRow, path};

pub(super) async fn show(
    client: &mut Client,
    output: Output,
    number: Option<String>,
) -> Result<(), Failure> {
    let mut rows: Vec<ShardRow> = client.ask(path::SHARDS, &Nothing {}).await?;
    let names: Vec<_> = rows.iter().map(|row| row.shard.clone()).collect();
    if let Some(number) = number {
        rows.retain(|row| row.shard == number);
        if rows.is_empty() {
            return Err(Failure::Refused(format!("there are {}", names.join(", "))));
        }
    }
    output.print_rows(&rows, |rows| rows.iter().map(text).collect::<Vec<_>>().join("\n"))
}

fn text(row: &ShardRow) -> String {
    let mean = |sum: u64, of: u64| match of {
        0 => "-".to_owned(),
        _ => format!("{:.1}", sum as f64 / of as f64),
    };
    table::pairs([
        ("shard", row.shard.to_string()),
        ("last turn", format!("{} ms ago", row.last_turn_ms)),
        ("turns that received", row.batches.to_string()),
        ("arrivals a turn", mean(row.arrivals, row.batches)),
        ("datagrams an arrival", mean(row.datagrams, row.arrivals)),
        ("datagrams", row.datagrams.to_string()),
        ("dropped", row.dropped.to_string()),
        ("dropped by the kernel", row.kernel_drops.to_string()),
        ("sent", row.sent.to_string()),
        ("not sent", row.send_failures.to_string()),
        ("system calls a datagram", mean(row.syscalls, row.datagrams)),
        ("buffers ran out", row.pool_exhausted.to_string()),
        ("sockets without GSO", row.gso_disabled_sockets.to_string()),
        ("destinations barred", row.gso_barred_destinations.to_string()),
        ("accounting skew", row.skew.to_string()),
    ])
}
