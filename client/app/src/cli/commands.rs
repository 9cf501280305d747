use std::io::Read as _;
use std::time::Duration;

use lanrage_client_core::LeaseStatus;
use lanrage_proto::api::Role;
use lanrage_proto::inner::LeaseState;
use lanrage_proto::party::NAME_LEN_MAX;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::output::{self, Output, Reader};
use super::{Command, LocalArgs, PartyCommand, start};
use crate::daemon::{self, Options};
use crate::failure::{Failure, FailureKind};
use crate::local::client::LocalClient;
use crate::local::protocol::{Reply, Request};

const PING_INTERVAL: Duration = Duration::from_secs(1);
/// An answer that takes longer is said to.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longer than the daemon takes to find that no relay answers.
const RELAY_TIMEOUT: Duration = Duration::from_secs(5);
const STATUS_INTERVAL: Duration = Duration::from_millis(100);
/// Bytes of the longest invite that is read from standard input.
const INVITE_LEN_MAX: u64 = 1024;

/// Runs one command.
///
/// # Errors
/// Its failure, for the exit code.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Daemon { daemon, socket } => {
            let (state_dir, nic) = (daemon.state_dir(), daemon.nic().to_owned());
            daemon::run(Options { state_dir, socket, nic, metrics: daemon.metrics }).await
        }
        Command::Up { daemon, local } => {
            start::ensure_daemon(&daemon, &local.socket).await?;
            ask(&local, Request::Up).await?;
            wait_for_relay(&local).await?.show(&local).map(|_| ())
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
    // What is said when it is done and the daemon has nothing to add.
    let mut done = String::new();
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
        PartyCommand::Leave { party, forget, local } => (Request::Leave { party, forget }, local),
        PartyCommand::Switch { party, local } => (Request::Switch { party }, local),
        PartyCommand::List { local } => (Request::List, local),
        PartyCommand::Members { local } => (Request::Members, local),
        PartyCommand::Invite { expires, uses, local } => {
            (Request::Invite { lifetime_s: expires.as_secs(), uses }, local)
        }
        PartyCommand::Kick { member, local } => {
            done = format!("{member} is out of the party, which has a new secret");
            (Request::Kick { member }, local)
        }
        PartyCommand::Promote { member, demote: true, local } => {
            done = format!("{member} may not invite and kick any more");
            (Request::SetRole { member, role: Role::Member }, local)
        }
        PartyCommand::Promote { member, demote: false, local } => {
            done = format!("{member} may invite and kick");
            (Request::SetRole { member, role: Role::Promoted }, local)
        }
    };
    let reply = patiently(ask(&local, request)).await?;
    if reply == (Reply::Done {}) && !local.json {
        return output::line(&done).map(|_| ());
    }
    if let (Reply::Invite { lifetime_s, uses, .. }, false) = (&reply, local.json) {
        output::note(&scope_of_invite(*lifetime_s, *uses));
    }
    reply.show(&local).map(|_| ())
}

fn scope_of_invite(lifetime_s: u64, uses: u16) -> String {
    let units = [(24 * 3600, "d"), (3600, "h"), (60, "m"), (1, "s")];
    let unit = units.into_iter().find(|(seconds, _)| lifetime_s.is_multiple_of(*seconds));
    let (seconds, unit) = unit.unwrap_or((1, "s"));
    let devices = if uses == 1 { "one device" } else { &format!("{uses} devices") };
    let lifetime = lifetime_s / seconds;
    format!("for {devices} within {lifetime}{unit}; --uses and --expires make another one")
}

/// Says so when the answer takes long: the daemon may have to wait for control or for a name server.
async fn patiently<T>(answer: impl Future<Output = T>) -> T {
    let mut answer = std::pin::pin!(answer);
    if let Ok(answer) = timeout(PATIENCE, &mut answer).await {
        return answer;
    }
    output::note("waiting for the control service …");
    answer.await
}

/// The status once a relay answers, or once it is known that none does.
async fn wait_for_relay(local: &LocalArgs) -> Result<Reply, Failure> {
    let deadline = Instant::now() + RELAY_TIMEOUT;
    loop {
        let reply = ask(local, Request::Status { watch: false }).await?;
        let Reply::Status(status) = &reply else { return Ok(reply) };
        let is_clear = status.party.as_ref().is_none_or(|party| {
            let answers = |relay: &LeaseStatus| relay.state == Some(LeaseState::Alive);
            party.relay_problem.is_some() || party.relays.iter().any(answers)
        });
        if is_clear || Instant::now() >= deadline {
            return Ok(reply);
        }
        sleep(STATUS_INTERVAL).await;
    }
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
    let mut interrupts = signal(SignalKind::interrupt())
        .map_err(|error| Failure::new(FailureKind::Other, format!("SIGINT: {error}")))?;
    let (mut asked, mut answered) = (0, 0);
    while asked < count {
        if asked > 0 {
            tokio::select! {
                () = sleep(PING_INTERVAL) => {}
                _ = interrupts.recv() => break,
            }
        }
        let reply = tokio::select! {
            reply = client.call(Request::Ping { member: member.to_owned() }) => reply?,
            _ = interrupts.recv() => break,
        };
        asked += 1;
        answered += u32::from(matches!(reply, Reply::Pong { rtt_us: Some(_), .. }));
        if reply.show(local)? == Reader::Gone {
            return Ok(());
        }
    }
    if !local.json {
        output::line(&format!("{answered} of {asked} answered"))?;
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
    fn invites_say_for_how_many_and_how_long() {
        for (lifetime_s, uses, expected) in [
            (24 * 3600, 1, "for one device within 1d; "),
            (36 * 3600, 3, "for 3 devices within 36h; "),
            (90, 250, "for 250 devices within 90s; "),
        ] {
            let text = scope_of_invite(lifetime_s, uses);
            assert!(text.starts_with(expected), "{text}");
        }
    }

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
