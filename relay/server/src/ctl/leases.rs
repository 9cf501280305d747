use clap::Args;
use lanrage_proto::SessionId;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::failure::Failure;
use super::{Output, table};
use crate::admin::api::{LeaseRow, Leases, Page, PageOf, ROWS_MAX, SessionRow, path};

/// How much of a list.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Limit {
    /// Rows to show, at most
    #[arg(long, value_name = "N", default_value_t = usize::MAX, hide_default_value = true)]
    limit: usize,
}

pub(super) async fn show_sessions(
    client: &mut Client,
    output: Output,
    limit: Limit,
) -> Result<(), Failure> {
    let asked = |page: PageOf<SessionId>| page;
    show(client, path::SESSIONS, limit, asked, |rows| print_sessions(output, rows)).await
}

pub(super) async fn show_leases(
    client: &mut Client,
    output: Output,
    session: Option<SessionId>,
    limit: Limit,
) -> Result<(), Failure> {
    let asked = |page: PageOf<u32>| Leases { session, page };
    show(client, path::LEASES, limit, asked, |rows| print_leases(output, rows)).await
}

/// Page by page.
async fn show<Asked: Serialize, Row: DeserializeOwned, Key: DeserializeOwned>(
    client: &mut Client,
    path: &str,
    Limit { limit }: Limit,
    asked: impl Fn(PageOf<Key>) -> Asked,
    print: impl Fn(&[Row]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut after, mut left) = (None, limit);
    while left > 0 {
        let page = PageOf { after, limit: left.min(ROWS_MAX) };
        let Page { mut rows, next } = client.ask::<Page<Row, Key>>(path, &asked(page)).await?;
        rows.truncate(left);
        left -= rows.len();
        print(&rows)?;
        if next.is_none() {
            break;
        }
        after = next;
    }
    Ok(())
}

fn print_sessions(output: Output, rows: &[SessionRow]) -> Result<(), Failure> {
    output.print_rows(rows, |rows| {
        let names = ["session", "leases", "pending", "packets", "bytes", "dropped", "idle s"];
        let cells: Vec<_> = rows
            .iter()
            .map(|row| {
                [
                    row.session.to_string(),
                    row.leases.to_string(),
                    row.pending.to_string(),
                    row.packets.to_string(),
                    row.bytes.to_string(),
                    row.dropped.to_string(),
                    table::seconds(row.idle_ms),
                ]
            })
            .collect();
        table::rows(names, &cells)
    })
}

fn print_leases(output: Output, rows: &[LeaseRow]) -> Result<(), Failure> {
    output.print_rows(rows, |rows| {
        let names = [
            "session",
            "member",
            "key",
            "state",
            "address",
            "local",
            "class",
            "packets",
            "bytes",
            "dropped",
            "takeovers",
            "idle s",
        ];
        let cells: Vec<_> = rows
            .iter()
            .map(|row| {
                [
                    row.session.to_string(),
                    row.member.to_string(),
                    row.key.clone(),
                    if row.active { "active" } else { "pending" }.to_owned(),
                    row.address.to_string(),
                    row.local.map_or_else(|| "-".to_owned(), |local| local.to_string()),
                    row.rate_class.to_string(),
                    row.packets.to_string(),
                    row.bytes.to_string(),
                    row.dropped.to_string(),
                    row.takeovers.to_string(),
                    table::seconds(row.idle_ms),
                ]
            })
            .collect();
        table::rows(names, &cells)
    })
}
