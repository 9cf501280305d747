use std::io::Read as _;
use std::time::Duration;

use lanrage_proto::api::Role;
use lanrage_proto::party::NAME_LEN_MAX;
use tokio::time::sleep;

use super::output::{self, Output, Reader};
use super::{Command, LocalArgs, PartyCommand, start};
use crate::daemon::{self, Options};
use crate::failure::{Failure, FailureKind};
use crate::local::client::LocalClient;
use crate::local::protocol::{Reply, Request};

const PING_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of the longest invite that is read from standard input.
const INVITE_LEN_MAX: u64 = 1024;

/// Runs one command.
///
/// # Errors
/// Its failure, for the exit code.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Daemon { daemon, socket } => {
            let (state_dir, nic, metrics) = (daemon.state_dir, daemon.nic, daemon.metrics);
            daemon::run(Options { state_dir, socket, nic, metrics }).await
        }
        Command::Up { daemon, local } => {
            start::ensure_daemon(&daemon, &local.socket).await?;
            ask(&local, Request::Up).await?;
            print(&local, Request::Status { watch: false }).await
        }
        Command::Down { local } => {
            let mut client = LocalClient::connect(&local.socket).await?;
            let reply = client.call(Request::Down).await?;
            client.ended().await?;
            reply.show(&local).map(|_| ())
        }
        Command::Party(command) => party(command).await,
        Command::Status { watch: false, local } => {
            print(&local, Request::Status { watch: false }).await
        }
        Command::Status { watch: true, local } => watch(&local).await,
        Command::Ping { member, count, local } => ping(&member, count, &local).await,
    }
}

async fn party(command: PartyCommand) -> Result<(), Failure> {
    let (request, local) = match command {
        PartyCommand::Create { name, server, member_name, subnet, local } => {
            let member_name = member_name.unwrap_or_else(host_name);
            (Request::Create { name, server, member_name, subnet }, local)
        }
        PartyCommand::Join { invite, member_name, local } => {
            let invite = if invite == "-" { read_invite()? } else { invite };
            let member_name = member_name.unwrap_or_else(host_name);
            (Request::Join { invite, member_name }, local)
        }
        PartyCommand::Leave { party, local } => (Request::Leave { party }, local),
        PartyCommand::Switch { party, local } => (Request::Switch { party }, local),
        PartyCommand::List { local } => (Request::List, local),
        PartyCommand::Members { local } => (Request::Members, local),
        PartyCommand::Invite { expires, uses, local } => {
            (Request::Invite { lifetime_s: expires.as_secs(), uses }, local)
        }
        PartyCommand::Kick { member, local } => (Request::Kick { member }, local),
        PartyCommand::Promote { member, demote, local } => {
            let role = if demote { Role::Member } else { Role::Promoted };
            (Request::SetRole { member, role }, local)
        }
    };
    print(&local, request).await
}

async fn ask(local: &LocalArgs, request: Request) -> Result<Reply, Failure> {
    LocalClient::connect(&local.socket).await?.call(request).await
}

async fn print(local: &LocalArgs, request: Request) -> Result<(), Failure> {
    ask(local, request).await?.show(local).map(|_| ())
}

async fn watch(local: &LocalArgs) -> Result<(), Failure> {
    let mut client = LocalClient::connect(&local.socket).await?;
    let mut reply = client.call(Request::Status { watch: true }).await?;
    loop {
        if !local.json {
            output::clear_screen()?;
        }
        if reply.show(local)? == Reader::Gone {
            return Ok(());
        }
        reply = client.next().await?;
    }
}

async fn ping(member: &str, count: u32, local: &LocalArgs) -> Result<(), Failure> {
    let mut client = LocalClient::connect(&local.socket).await?;
    let mut answered = 0;
    for sequence in 1..=count {
        let reply = client.call(Request::Ping { member: member.to_owned() }).await?;
        answered += u32::from(matches!(reply, Reply::Pong { rtt_us: Some(_), .. }));
        if reply.show(local)? == Reader::Gone {
            return Ok(());
        }
        if sequence < count {
            sleep(PING_INTERVAL).await;
        }
    }
    if !local.json {
        output::line(&format!("{answered} of {count} answered"))?;
    }
    let message = format!("{member} did not answer: `lanrage status` shows how far its tunnel is");
    if answered > 0 { Ok(()) } else { Err(Failure::new(FailureKind::Other, message)) }
}

fn read_invite() -> Result<String, Failure> {
    let mut invite = String::new();
    let read = std::io::stdin().take(INVITE_LEN_MAX).read_to_string(&mut invite);
    read.map_err(|error| Failure::new(FailureKind::Usage, format!("standard input: {error}")))?;
    Ok(invite.trim().to_owned())
}

/// This machine's name as a member's name.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    member_name_of(&name)
}

fn member_name_of(host: &str) -> String {
    let short = host.split('.').next().unwrap_or_default();
    let usable: String =
        short.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let cut = usable.trim_matches('-').get(..NAME_LEN_MAX).unwrap_or(usable.trim_matches('-'));
    let name = cut.trim_end_matches('-');
    if name.is_empty() { "player".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::party::valid_name;

    use super::*;

    #[test]
    fn every_host_name_gives_a_valid_member_name() {
        for (host, expected) in [
            ("anna", "anna"),
            ("annas_pc.example.org", "annas-pc"),
            ("-x-", "x"),
            ("", "player"),
            ("...", "player"),
            ("žluťoučký", "lu-ou-k"),
        ] {
            assert_eq!(member_name_of(host), expected);
        }
        assert!(valid_name(&member_name_of(&"a-".repeat(40))));
        assert!(valid_name(&member_name_of(&"x".repeat(64))));
    }
}
