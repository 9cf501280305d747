use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use lanrage_client_core::{LeaseStatus, MemberStatus, PathStatus, Quality};
use lanrage_proto::api::Role;
use lanrage_proto::inner::LeaseState;
use serde_json::Value;

use super::LocalArgs;
use crate::failure::{Failure, FailureKind};
use crate::local::protocol::{
    ActiveStatus, Entered, FIRST_INVITE_LIFETIME, FIRST_INVITE_USES, PartySummary, Reply, Status,
};

/// Whether anybody still reads what is printed; `lanrage … | head` stops reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    Listening,
    Gone,
}

/// How answers reach the user.
pub(super) trait Output {
    /// Prints the answer, as JSON or for people.
    fn show(&self, local: &LocalArgs) -> Result<Reader, Failure>;
}

impl Output for Reply {
    fn show(&self, local: &LocalArgs) -> Result<Reader, Failure> {
        let text = if local.json { json(self)? } else { human(self) };
        if text.is_empty() { Ok(Reader::Listening) } else { line(&text) }
    }
}

/// Prints a line.
pub(super) fn line(text: &str) -> Result<Reader, Failure> {
    written(writeln!(io::stdout().lock(), "{}", printable(text.trim_end_matches('\n'))))
}

/// Without control characters but line ends: names and messages of others do not steer a terminal.
pub fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() && c != '\n', "\u{fffd}")
}

/// Says something beside the answer.
pub(super) fn note(text: &str) {
    // Nobody may be left to read it.
    let _closed = writeln!(io::stderr(), "{}", printable(text));
}

/// Moves to the top of an empty screen (ECMA-48 CUP, ED), where there is one.
pub(super) fn clear_screen() -> Result<Reader, Failure> {
    if !io::stdout().is_terminal() {
        return Ok(Reader::Listening);
    }
    written(write!(io::stdout().lock(), "\x1b[H\x1b[2J"))
}

fn written(result: io::Result<()>) -> Result<Reader, Failure> {
    match result {
        Ok(()) => Ok(Reader::Listening),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(Failure::new(FailureKind::Other, format!("standard output: {error}"))),
    }
}

/// The answer without the tag that tells answers apart on the socket.
fn json(reply: &Reply) -> Result<String, Failure> {
    let unreadable = |error| Failure::new(FailureKind::Other, error);
    let mut value = serde_json::to_value(reply).map_err(unreadable)?;
    if let Value::Object(fields) = &mut value {
        fields.remove("reply");
    }
    serde_json::to_string(&value).map_err(unreadable)
}

fn human(reply: &Reply) -> String {
    match reply {
        Reply::Done {} => String::new(),
        Reply::Status(status) => of_status(status),
        Reply::Entered(entered) => of_entered(entered),
        Reply::Parties { parties } => of_parties(parties),
        Reply::Members { members } => of_members(members),
        // What it is good for goes to standard error: this may be read by a script.
        Reply::Invite { invite, .. } => invite.clone(),
        Reply::Left { party, was_owner: false } => format!("you have left the party {party}"),
        Reply::Left { party, was_owner: true } => {
            format!("you have left the party {party}; if others are in it, one of them owns it")
        }
        Reply::Pong { name, address, rtt_us, relay, .. } => match (rtt_us, relay) {
            (Some(rtt_us), Some(relay)) => {
                format!(
                    "{name} ({address}) by relay {}: {}",
                    relay.name,
                    millis(Duration::from_micros(*rtt_us))
                )
            }
            _ => format!("{name} ({address}): no answer"),
        },
    }
}

fn of_entered(entered: &Entered) -> String {
    let PartySummary { name, member_name, ipv4, ipv6, subnet, .. } = &entered.party;
    let again = if entered.again { " (you were in it already)" } else { "" };
    let mut text = format!(
        "party    {name}{again}\nyou      {member_name}\naddress  {ipv4}, {ipv6}\n\
         network  {subnet}/24 on {}",
        entered.nic
    );
    if let Some(invite) = &entered.invite {
        let hours = FIRST_INVITE_LIFETIME.as_secs() / 3600;
        let _infallible = write!(
            text,
            "\ninvite   {invite}\n         for {FIRST_INVITE_USES} devices within {hours} hours"
        );
    }
    if let Some(replaced) = &entered.replaced {
        let _infallible = write!(
            text,
            "\nthe party {replaced} is down meanwhile: `lanrage party switch {replaced}` goes back"
        );
    }
    text
}

fn of_status(status: &Status) -> String {
    match (&status.party, &status.problem) {
        (Some(active), _) => of_active(active),
        (None, Some(problem)) => format!("down: {problem}"),
        (None, None) => Failure::no_active_party().message,
    }
}

fn of_active(active: &ActiveStatus) -> String {
    let party = &active.party;
    let control = match (&active.control.connected, &active.control.problem) {
        (true, _) => "connected".to_owned(),
        (false, None) => "connecting".to_owned(),
        (false, Some(problem)) if active.relay_problem.is_none() => {
            format!("away, play goes on ({problem})")
        }
        (false, Some(problem)) => format!("away ({problem})"),
    };
    let head = [
        ["party".to_owned(), format!("{} ({})", party.name, party.session)],
        ["you".to_owned(), format!("{}, {} on {}", party.member_name, party.ipv4, active.nic)],
        ["control".to_owned(), format!("{}: {control}", party.server)],
    ];
    let mut text = table(&head);
    if !active.relays.is_empty() {
        let rows: Vec<_> = active.relays.iter().map(relay_row).collect();
        text += "\n";
        text += &table(&[&[RELAY_HEADER.map(str::to_owned)], &rows[..]].concat());
    }
    for problem in [&active.relay_problem, &active.nic_problem].into_iter().flatten() {
        let _infallible = writeln!(text, "\n! {problem}");
    }
    text + "\n" + &of_members(&active.members)
}

const RELAY_HEADER: [&str; 5] = ["RELAY", "STATE", "RTT", "JITTER", "LOSS"];

fn relay_row(relay: &LeaseStatus) -> [String; 5] {
    let state = match relay.state {
        Some(LeaseState::Alive) => "alive",
        Some(LeaseState::Suspect) => "suspect",
        Some(LeaseState::Dead) => "dead",
        None => "unbound",
    };
    let state = if relay.stream { format!("{state} via stream") } else { state.to_owned() };
    let state = match relay.refusal {
        Some(refusal) => format!("{state} ({})", refusal.as_str()),
        None => state,
    };
    let [rtt, jitter, loss] = of_quality(&relay.quality);
    [relay.relay.name.clone(), state, rtt, jitter, loss]
}

/// One relay, or from one to another.
fn of_path(path: &PathStatus) -> String {
    match &path.egress {
        None => path.relay.name.clone(),
        Some(egress) => format!("{}>{}", path.relay.name, egress.name),
    }
}

fn of_members(members: &[MemberStatus]) -> String {
    const HEADER: [&str; 9] =
        ["NO", "MEMBER", "ADDRESS", "ROLE", "STATE", "BY RELAY", "RTT", "JITTER", "LOSS"];
    let row = |member: &MemberStatus| {
        let role = match member.role {
            Role::Owner => "owner",
            Role::Promoted => "promoted",
            Role::Member => "member",
        };
        let state = match (member.online, member.is_self) {
            (false, false) => "offline",
            _ => member.connection.as_str(),
        };
        let [rtt, jitter, loss] = of_quality(&member.quality);
        [
            member.member.to_string(),
            member.name.clone(),
            member.ipv4.to_string(),
            role.to_owned(),
            state.to_owned(),
            member.paths.first().map_or_else(|| "-".to_owned(), of_path),
            rtt,
            jitter,
            loss,
        ]
    };
    let rows: Vec<_> = members.iter().map(row).collect();
    table(&[&[HEADER.map(str::to_owned)], &rows[..]].concat())
}

fn of_parties(parties: &[PartySummary]) -> String {
    const HEADER: [&str; 6] = ["", "PARTY", "ID", "ADDRESS", "YOU", "SERVER"];
    let row = |party: &PartySummary| {
        [
            if party.active { "*" } else { "" }.to_owned(),
            party.name.clone(),
            party.session.to_string(),
            party.ipv4.to_string(),
            party.member_name.clone(),
            if party.listed {
                party.server.clone()
            } else {
                format!("{} (does not list this device)", party.server)
            },
        ]
    };
    if parties.is_empty() {
        return "no parties: create or join one".to_owned();
    }
    let rows: Vec<_> = parties.iter().map(row).collect();
    table(&[&[HEADER.map(str::to_owned)], &rows[..]].concat())
}

fn of_quality(quality: &Quality) -> [String; 3] {
    let Some(rtt) = quality.rtt else { return ["-".into(), "-".into(), "-".into()] };
    let (whole, tenth) = (quality.loss_permille / 10, quality.loss_permille % 10);
    [millis(rtt), millis(quality.jitter), format!("{whole}.{tenth} %")]
}

fn millis(time: Duration) -> String {
    format!("{}.{} ms", time.as_millis(), time.as_micros() % 1000 / 100)
}

/// Columns as wide as their widest cell, two spaces apart.
fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let width =
        |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let joined = cells.collect::<Vec<_>>().join("  ");
        text += joined.trim_end();
        text += "\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_not_padded() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        let text = table(&[row("NAME", "RTT"), row("a", "12.0 ms"), row("žofie", "-")]);
        assert_eq!(text, "NAME   RTT\na      12.0 ms\nžofie  -\n");
    }

    #[test]
    fn others_do_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\r\nc\u{9b}1m"), "a\u{fffd}[2Jb\u{fffd}\nc\u{fffd}1m");
    }

    #[test]
    fn times_have_a_tenth_of_a_millisecond() {
        let millis = |micros| millis(Duration::from_micros(micros));
        assert_eq!(millis(0), "0.0 ms");
        assert_eq!(millis(1_999), "1.9 ms");
        assert_eq!(millis(120_050), "120.0 ms");
    }

    #[test]
    fn json_has_no_tag_of_the_socket() {
        assert_eq!(json(&Reply::Done {}).unwrap(), "{}");
        let invite = Reply::Invite { invite: "x".to_owned(), lifetime_s: 1, uses: 2 };
        assert_eq!(json(&invite).unwrap(), r#"{"invite":"x","lifetime_s":1,"uses":2}"#);
    }
}
