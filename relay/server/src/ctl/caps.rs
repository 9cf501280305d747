use std::num::NonZeroU64;

use clap::Args;
use lanrage_proto::SessionId;

use super::client::Client;
use super::failure::Failure;
use super::{Output, table};
use crate::admin::api::{CapRow, Nothing, path};

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Whom {
    /// 16 hexadecimal digits
    session: SessionId,
    /// This member's lease, and not all leases of the session together
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=250))]
    member: Option<u8>,
}

/// Each left out stays as the rate class says.
#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct Figures {
    /// Frames a second
    #[arg(long, value_name = "N")]
    packets: Option<NonZeroU64>,
    /// Bytes a second
    #[arg(long, value_name = "N")]
    bytes: Option<NonZeroU64>,
    /// Copies of broadcasts a second
    #[arg(long, value_name = "N")]
    copies: Option<NonZeroU64>,
}

pub(super) async fn cap(
    client: &mut Client,
    output: Output,
    Whom { session, member }: Whom,
    Figures { packets, bytes, copies }: Figures,
) -> Result<(), Failure> {
    let asked = CapRow { session, member, packets, bytes, copies };
    let nothing: Nothing = client.ask(path::CAP, &asked).await?;
    output.print(&nothing, |_| format!("capped session {session}"))
}

pub(super) async fn uncap(
    client: &mut Client,
    output: Output,
    Whom { session, member }: Whom,
) -> Result<(), Failure> {
    let asked = CapRow { session, member, packets: None, bytes: None, copies: None };
    let nothing: Nothing = client.ask(path::CAP, &asked).await?;
    output.print(&nothing, |_| format!("session {session} is as its tickets say"))
}

pub(super) async fn show(client: &mut Client, output: Output) -> Result<(), Failure> {
    let rows: Vec<CapRow> = client.ask(path::CAPS, &Nothing {}).await?;
    output.print_rows(&rows, |rows| {
        let figure = |figure: Option<NonZeroU64>| {
            figure.map_or_else(|| "-".to_owned(), |figure| figure.to_string())
        };
        let cells: Vec<_> = rows
            .iter()
            .map(|row| {
                [
                    row.session.to_string(),
                    row.member.map_or_else(|| "all".to_owned(), |member| member.to_string()),
                    figure(row.packets),
                    figure(row.bytes),
                    figure(row.copies),
                ]
            })
            .collect();
        table::rows(["session", "member", "packets/s", "bytes/s", "copies/s"], &cells)
    })
}
