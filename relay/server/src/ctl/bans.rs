use clap::Subcommand;
use lanrage_proto::SessionId;

use super::client::Client;
use super::failure::Failure;
use super::{Output, table};
use crate::admin::api::{BanRow, Banned, KeyName, Nothing, Subject, path};

#[derive(Clone, Debug, Subcommand)]
pub(super) enum Whom {
    /// One member of one party, by its X25519 key
    Key {
        /// Its first 16 hexadecimal digits, as `leases` shows them, or all of it in base64
        key: KeyName,
    },
    /// A whole party
    Session {
        /// 16 hexadecimal digits
        session: SessionId,
    },
}

impl From<Whom> for Subject {
    fn from(whom: Whom) -> Self {
        match whom {
            Whom::Key { key } => Self::Key(key),
            Whom::Session { session } => Self::Session(session),
        }
    }
}

pub(super) async fn ban(client: &mut Client, output: Output, whom: Whom) -> Result<(), Failure> {
    let subject = Subject::from(whom);
    let banned: Banned = client.ask(path::BAN, &subject).await?;
    output.print(&banned, |banned| format!("banned {subject}; leases ended: {}", banned.ended))
}

pub(super) async fn unban(client: &mut Client, output: Output, whom: Whom) -> Result<(), Failure> {
    let subject = Subject::from(whom);
    let nothing: Nothing = client.ask(path::UNBAN, &subject).await?;
    output.print(&nothing, |_| format!("{subject} may bind again"))
}

pub(super) async fn show(client: &mut Client, output: Output) -> Result<(), Failure> {
    let rows: Vec<BanRow> = client.ask(path::BANS, &Nothing {}).await?;
    output.print_rows(&rows, |rows| {
        let cells: Vec<_> =
            rows.iter().map(|row| [row.subject.to_string(), row.since.to_string()]).collect();
        table::rows(["banned", "since (s, 1970)"], &cells)
    })
}
