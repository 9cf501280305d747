use std::net::IpAddr;
use std::time::{Duration, Instant};

use lanrage_client_core::{MemberStatus, PingError, PingId, RelayName};
use lanrage_control_client::{Endpoint, Error as ControlError, Method};
use lanrage_proto::api::{ErrorCode, Promote, Role, path};
use lanrage_proto::party::{Invite, ServerAddress, valid_name};
use lanrage_proto::{Member, RelayId, SessionId};
use serde::{Deserialize, Serialize};

use super::Daemon;
use super::enter::{self, Newcomer};
use crate::failure::{Failure, FailureKind};
use crate::local::protocol::{Reply, Request};
use crate::local::server::Call;
use crate::state::{PartyRecord, Server};

/// The first invite of a new party: for a whole evening of friends.
const FIRST_INVITE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const FIRST_INVITE_USES: u16 = 250;

/// How long a ping waits for its member's entry; as long as the core waits for an answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// `{}`, in both directions.
#[derive(Serialize, Deserialize)]
struct Empty {}

/// Requests of the command line.
impl Daemon {
    pub(super) fn handle_call(&mut self, call: Call, now: Instant) {
        match call.request.clone() {
            Request::Status { .. } => {
                let status = self.status(now);
                call.answer(Ok(Reply::Status(Box::new(status))));
            }
            Request::List => {
                let parties = self.parties.keys().filter_map(|id| self.summary(*id)).collect();
                call.answer(Ok(Reply::Parties { parties }));
            }
            Request::Members => {
                let active = self.active.as_ref().ok_or_else(|| self.not_up());
                let members = active.map(|active| active.client.members(now));
                call.answer(members.map(|members| Reply::Members { members }));
            }
            Request::Down => self.ending = Some(Some(call)),
            Request::Ping { member } => self.ping(call, &member, now),
            Request::Invite { lifetime_s, uses } => self.invite(call, lifetime_s, uses),
            Request::Kick { member } => self.kick(call, &member, now),
            Request::SetRole { member, role } => self.set_role(call, &member, role, now),
            // What changes memberships, or which of them is up, goes one at a time.
            _ if self.busy => {
                let message = "another command is under way: try again in a moment";
                call.answer(Err(Failure::new(FailureKind::Conflict, message)));
            }
            Request::Up => self.up(call),
            Request::Create { name, server, member_name, subnet } => {
                self.create(call, name, &server, member_name, subnet);
            }
            Request::Join { invite, member_name } => self.join(call, &invite, member_name),
            Request::Leave { party } => self.leave(call, party.as_deref()),
            Request::Switch { party } => match self.find_party(&party) {
                Ok(session) => self.activate(session, Some(call), None),
                Err(failure) => call.answer(Err(failure)),
            },
        }
    }

    fn up(&mut self, call: Call) {
        match self.device.active {
            Some(session) if self.active.is_none() => self.activate(session, Some(call), None),
            _ => call.answer(Ok(Reply::Done {})),
        }
    }

    fn create(
        &mut self,
        call: Call,
        name: String,
        server: &str,
        member_name: String,
        subnet: Option<std::net::Ipv4Addr>,
    ) {
        let names = check_name(&name).and_then(|()| check_name(&member_name));
        let server = names.and_then(|()| Ok(server.parse::<ServerAddress>()?));
        let server = match server {
            Ok(server) => Server::from(Endpoint::from(&server)),
            Err(failure) => return call.answer(Err(failure)),
        };
        let control = self.control(&server);
        self.busy = true;
        let creation = enter::create(control.clone(), self.newcomer(member_name), name, subnet);
        self.spawn(creation, move |daemon, created| {
            daemon.busy = false;
            let record = match created.and_then(|record| daemon.keep(record)) {
                Ok(record) => record,
                Err(failure) => return call.answer(Err(failure)),
            };
            let session = record.session();
            let secret = record.secrets[0];
            let lifetime_s = FIRST_INVITE_LIFETIME.as_secs();
            let invite = enter::invite(control, session, secret, lifetime_s, FIRST_INVITE_USES);
            daemon.busy = true;
            daemon.spawn(invite, move |daemon, invite| {
                // The party is made all the same; `party invite` tries again.
                daemon.activate(session, Some(call), invite.ok());
            });
        });
    }

    fn join(&mut self, call: Call, invite: &str, member_name: String) {
        let invite = check_name(&member_name).and_then(|()| Ok(invite.parse::<Invite>()?));
        let invite = match invite {
            Ok(invite) => invite,
            Err(failure) => return call.answer(Err(failure)),
        };
        let control = self.control(&Server::from(Endpoint::from(&invite)));
        self.busy = true;
        let joining = enter::join(control, self.newcomer(member_name), invite);
        self.spawn(joining, move |daemon, joined| {
            daemon.busy = false;
            match joined.and_then(|record| daemon.keep(record)) {
                Ok(record) => daemon.activate(record.session(), Some(call), None),
                Err(failure) => call.answer(Err(failure)),
            }
        });
    }

    /// Puts a new membership on disk.
    fn keep(&mut self, mut record: PartyRecord) -> Result<PartyRecord, Failure> {
        let session = record.session();
        if let Some(old) = self.parties.get(&session) {
            record.stamp = old.stamp;
        }
        self.writer.save_party(&record);
        self.writer.settle()?;
        self.unlisted.remove(&session);
        self.parties.insert(session, record.clone());
        Ok(record)
    }

    fn newcomer(&self, member_name: String) -> Newcomer {
        let tunnels =
            self.parties.iter().map(|(session, record)| (*session, record.tunnel.clone()));
        Newcomer { nic: self.options.nic.clone(), member_name, tunnels: tunnels.collect() }
    }

    fn leave(&mut self, call: Call, party: Option<&str>) {
        let session = match party {
            Some(party) => self.find_party(party),
            None => self.device.active.ok_or_else(Failure::no_active_party),
        };
        let (session, control) = match session.and_then(|session| self.control_of(session)) {
            Ok(found) => found,
            Err(failure) => return call.answer(Err(failure)),
        };
        self.busy = true;
        let leaving = async move {
            let path = path::of_party(path::LEAVE, session);
            control.call::<_, Empty>(Method::POST, &path, &Empty {}).await
        };
        self.spawn(leaving, move |daemon, left| {
            daemon.busy = false;
            match left {
                Ok(Empty {}) => {}
                // Control has put the device out already.
                Err(ControlError::Api(error)) if error.code == ErrorCode::NotFound => {}
                Err(error) => return call.answer(Err(error.into())),
            }
            if daemon.device.active == Some(session) {
                daemon.problem = None;
            }
            daemon.forget(session);
            call.answer(daemon.writer.settle().map(|()| Reply::Done {}).map_err(Failure::from));
        });
    }

    fn invite(&mut self, call: Call, lifetime_s: u64, uses: u16) {
        let active = self.device.active.filter(|session| !self.unlisted.contains(session));
        let active = active.ok_or_else(|| self.not_up());
        let (session, control) = match active.and_then(|session| self.control_of(session)) {
            Ok(found) => found,
            Err(failure) => return call.answer(Err(failure)),
        };
        let newest = self
            .parties
            .get(&session)
            .and_then(|record| record.secrets.iter().max_by_key(|(epoch, _)| *epoch).copied());
        let Some(secret) = newest else { return call.answer(Err(Failure::no_active_party())) };
        let inviting = enter::invite(control, session, secret, lifetime_s, uses);
        self.spawn(inviting, move |_, invite| {
            call.answer(invite.map(|invite| Reply::Invite { invite, lifetime_s, uses }));
        });
    }

    fn set_role(&mut self, call: Call, member: &str, role: Role, now: Instant) {
        let found = self.find_member(member, now).and_then(|member| {
            let session = self.device.active.ok_or_else(Failure::no_active_party)?;
            Ok((member, self.control_of(session)?))
        });
        let (member, (session, control)) = match found {
            Ok(found) => found,
            Err(failure) => return call.answer(Err(failure)),
        };
        let promoting = async move {
            let path = path::of_party(path::PROMOTE, session);
            control.call::<_, Empty>(Method::POST, &path, &Promote { member, role }).await
        };
        self.spawn(promoting, move |_, promoted| {
            call.answer(promoted.map(|Empty {}| Reply::Done {}).map_err(Failure::from));
        });
    }

    fn ping(&mut self, call: Call, member: &str, now: Instant) {
        match self.find_member(member, now) {
            Ok(member) => self.ping_until(member, now + PING_TIMEOUT, call, now),
            Err(failure) => call.answer(Err(failure)),
        }
    }

    /// A member just announced is listed before its own signed entry arrives: its ping waits.
    fn ping_until(&mut self, member: Member, deadline: Instant, call: Call, now: Instant) {
        let Some(active) = &mut self.active else {
            return call.answer(Err(self.not_up()));
        };
        match active.client.ping(member, now) {
            Ok(id) => drop(active.pings.insert(id, call)),
            Err(PingError::NoSuchMember(_)) if now < deadline => {
                active.early_pings.push((member, deadline, call));
            }
            Err(error) => call.answer(Err(error.into())),
        }
    }

    pub(super) fn retry_early_pings(&mut self, now: Instant) {
        let Some(active) = &mut self.active else { return };
        for (member, deadline, call) in std::mem::take(&mut active.early_pings) {
            self.ping_until(member, deadline, call, now);
        }
    }

    pub(super) fn handle_pong(
        &mut self,
        id: PingId,
        member: Member,
        answer: Option<(Duration, RelayId)>,
    ) {
        let Some(active) = &mut self.active else { return };
        let (call, map) = (active.pings.remove(&id), active.map.clone());
        let (Some(call), Some(record)) = (call, self.active_record()) else { return };
        let of_member = |known: &&lanrage_proto::api::MemberRecord| known.member == member;
        let known = record.party.members.iter().find(of_member);
        let name = known.map_or_else(|| member.to_string(), |known| known.name.clone());
        let address = IpAddr::from(record.networks().ipv4(member));
        let rtt_us = answer.map(|(rtt, _)| rtt.as_micros() as u64);
        let relay = answer.map(|(_, relay)| RelayName::new(relay, &map));
        call.answer(Ok(Reply::Pong { member, name, address, rtt_us, relay }));
    }

    pub(super) fn control_of(
        &mut self,
        session: SessionId,
    ) -> Result<(SessionId, crate::session::Control), Failure> {
        let record = self.parties.get(&session).ok_or_else(Failure::no_active_party)?;
        let server = record.server.clone();
        Ok((session, self.control(&server)))
    }

    fn find_party(&self, text: &str) -> Result<SessionId, Failure> {
        let mut named = self
            .parties
            .values()
            .filter(|record| record.party.name == text || record.session().to_string() == text);
        match (named.next(), named.next()) {
            (Some(record), None) => Ok(record.session()),
            (Some(_), Some(_)) => Err(Failure::new(
                FailureKind::Conflict,
                format!("several parties are called {text}: use the id from `lanrage party list`"),
            )),
            (None, _) => Err(Failure::new(
                FailureKind::NotFound,
                format!("there is no party {text}: `lanrage party list` shows yours"),
            )),
        }
    }

    /// By name, number or address.
    pub(super) fn find_member(&self, text: &str, now: Instant) -> Result<Member, Failure> {
        let active = self.active.as_ref().ok_or_else(|| self.not_up())?;
        pick_member(&active.client.members(now), text)
    }
}

/// By number or address, or else by a name that only one member has: members choose their names,
/// which may look like another's number.
fn pick_member(members: &[MemberStatus], text: &str) -> Result<Member, Failure> {
    let number = text.parse().ok();
    let address: Option<IpAddr> = text.parse().ok();
    let by_number = members.iter().find(|known| {
        Some(known.member.number()) == number
            || address.is_some_and(|ip| ip == known.ipv4 || ip == known.ipv6)
    });
    let mut by_name = members.iter().filter(|known| known.name == text);
    match (by_number, by_name.next(), by_name.next()) {
        (Some(known), _, _) | (None, Some(known), None) => Ok(known.member),
        (None, Some(_), Some(_)) => Err(Failure::new(
            FailureKind::Conflict,
            format!("several members are called {text}: use the number from `lanrage status`"),
        )),
        (None, None, _) => Err(Failure::new(
            FailureKind::NotFound,
            format!("{text} is not in the party: `lanrage party members` shows who is"),
        )),
    }
}

fn check_name(name: &str) -> Result<(), Failure> {
    valid_name(name).then_some(()).ok_or_else(|| {
        let message =
            format!("{name:?} cannot be a name: use 1 to 32 of a-z, 0-9 and inner hyphens");
        Failure::new(FailureKind::Usage, message)
    })
}

#[cfg(test)]
mod tests {
    use lanrage_client_core::{Connection, Networks, Quality};

    use super::*;

    fn known(number: u8, name: &str) -> MemberStatus {
        let networks =
            Networks { subnet: [10, 66, 5, 0].into(), prefix: "fd00:1:2:3::".parse().unwrap() };
        let member = Member::new(number).unwrap();
        MemberStatus {
            member,
            name: name.to_owned(),
            role: Role::Member,
            is_self: false,
            ipv4: networks.ipv4(member),
            ipv6: networks.ipv6(member),
            online: true,
            connection: Connection::Idle,
            paths: Vec::new(),
            quality: Quality::default(),
            last_handshake: None,
            bytes_sent: 0,
            bytes_received: 0,
        }
    }

    /// Member 2 called itself 7: who meant to kick number 7 kicked number 2.
    #[test]
    fn regression_number_names_its_member_and_an_ambiguous_name_nobody() {
        let members = [known(2, "7"), known(3, "anna"), known(7, "bert"), known(8, "anna")];
        let pick = |text| pick_member(&members, text).map(Member::number).map_err(|e| e.kind);
        assert_eq!(pick("7"), Ok(7));
        assert_eq!(pick("2"), Ok(2));
        assert_eq!(pick("bert"), Ok(7));
        assert_eq!(pick("10.66.5.3"), Ok(3));
        assert_eq!(pick("fd00:1:2:3::8"), Ok(8));
        assert_eq!(pick("anna"), Err(FailureKind::Conflict));
        assert_eq!(pick("9"), Err(FailureKind::NotFound));
        assert_eq!(pick("carl"), Err(FailureKind::NotFound));
    }
}
