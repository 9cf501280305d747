use std::net::IpAddr;
use std::time::{Duration, Instant};

use lanrage_client_core::{Connection, MemberStatus, PingError, PingId, RelayName};
use lanrage_control_client::{Endpoint, Error as ControlError, Method};
use lanrage_proto::api::{ErrorCode, Promote, Role, path};
use lanrage_proto::party::{Invite, ServerAddress, valid_name};
use lanrage_proto::{Member, RelayId, SessionId};
use serde::{Deserialize, Serialize};

use super::Daemon;
use super::active::Active;
use super::enter::{self, Newcomer};
use super::party::Entry;
use super::pasted::{parse_invite, pasted};
use crate::failure::{Failure, FailureKind};
use crate::local::protocol::{Entered, FIRST_INVITE_LIFETIME, FIRST_INVITE_USES, Reply, Request};
use crate::local::server::Call;
use crate::nic::Nic;
use crate::state::{PartyRecord, Server};

/// How long a ping waits for its member's entry; as long as the core waits for an answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a ping waits for a member to come on line: it may just have joined.
const OFF_LINE_PATIENCE: Duration = Duration::from_millis(500);

/// `{}`, in both directions.
#[derive(Serialize, Deserialize)]
pub(super) struct Empty {}

/// Requests of the command line.
impl Daemon {
    pub(super) fn handle_call(&mut self, call: Call, now: Instant) {
        match call.request.clone() {
            Request::Status { .. } => self.answer_status(call),
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
            Request::Leave { party, forget } => self.leave(call, party.as_deref(), forget),
            Request::Switch { party } => match self.find_party(&party) {
                Ok(session) => self.activate(session, Some(call), None),
                Err(failure) => call.answer(Err(failure)),
            },
        }
    }

    fn up(&mut self, call: Call) {
        match self.device.active {
            Some(session) if self.active.is_none() => self.activate(session, Some(call), None),
            Some(session) => self.repair(session, call),
            // A fresh installation has nothing to bring up; any other had.
            None if self.problem.is_none() && self.parties.is_empty() => {
                call.answer(Ok(Reply::Done {}));
            }
            None => call.answer(Err(self.not_up())),
        }
    }

    /// Makes the NIC anew when somebody has taken it down or flushed its addresses.
    fn repair(&mut self, session: SessionId, call: Call) {
        let Some(active) = &self.active else { return call.answer(Err(self.not_up())) };
        let (name, lan) = (active.nic.name().to_owned(), *active.nic.lan());
        self.busy = true;
        let looking = async move { Nic::is_intact(&name, &lan).await.unwrap_or(true) };
        self.spawn(looking, move |daemon, is_intact| {
            daemon.busy = false;
            if is_intact || daemon.device.active != Some(session) {
                return call.answer(Ok(Reply::Done {}));
            }
            tracing::warn!("the NIC was taken down or lost its address: it is made anew");
            daemon.activate(session, Some(call), None);
        });
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
        let names = names.and_then(|()| self.check_is_new(&name));
        let server = names.and_then(|()| Ok(pasted(server).parse::<ServerAddress>()?));
        let server = match server {
            Ok(server) => Server::from(Endpoint::from(&server)),
            Err(failure) => return call.answer(Err(failure)),
        };
        let control = self.control(&server);
        self.busy = true;
        let creation = enter::create(control.clone(), self.newcomer(member_name), name, subnet);
        self.spawn(creation, move |daemon, created| {
            daemon.busy = false;
            let record = match created {
                Ok(record) => record,
                Err(failure) => return call.answer(Err(failure)),
            };
            let session = record.session();
            if let Err(failure) = daemon.keep(record.clone()) {
                return daemon.unmake(session, control, None, Some(call), failure);
            }
            let secret = record.secrets[0];
            let lifetime_s = FIRST_INVITE_LIFETIME.as_secs();
            let made_at = Some(control.clone());
            let invite = enter::invite(control, session, secret, lifetime_s, FIRST_INVITE_USES);
            daemon.busy = true;
            daemon.spawn(invite, move |daemon, invite| {
                // The party is made all the same; `party invite` tries again.
                let invite = invite.ok();
                daemon.bring_up(session, Entry { call: Some(call), invite, made_at, again: false });
            });
        });
    }

    fn join(&mut self, call: Call, invite: &str, member_name: String) {
        let invite = check_name(&member_name).and_then(|()| parse_invite(invite));
        let invite = match invite {
            Ok(invite) => invite,
            Err(failure) => return call.answer(Err(failure)),
        };
        if let Some(session) = self.joined_by(&invite) {
            return match self.entered(session) {
                Ok(entered) if self.device.active == Some(session) => {
                    call.answer(Ok(Reply::Entered(Entered { again: true, ..entered })));
                }
                _ => {
                    let call = Some(call);
                    self.bring_up(session, Entry { call, again: true, ..Entry::default() });
                }
            };
        }
        let control = self.control(&Server::from(Endpoint::from(&invite)));
        self.busy = true;
        let joining = enter::join(control, self.newcomer(member_name), invite);
        self.spawn(joining, move |daemon, joined| {
            daemon.busy = false;
            let again = |record: &PartyRecord| daemon.parties.contains_key(&record.session());
            let again = joined.as_ref().is_ok_and(again);
            match joined.and_then(|record| daemon.keep(record)) {
                Ok(session) => {
                    let call = Some(call);
                    daemon.bring_up(session, Entry { call, again, ..Entry::default() });
                }
                Err(failure) => call.answer(Err(failure)),
            }
        });
    }

    /// The party that this device joined by the invite and is still in, as far as control has said:
    /// control does not open an invite again that is used up.
    fn joined_by(&self, invite: &Invite) -> Option<SessionId> {
        let hash = Some(invite.key.hash());
        let mut parties = self.parties.iter();
        let (session, _) = parties.find(|(_, record)| record.invite == hash)?;
        (!self.unlisted.contains(session)).then_some(*session)
    }

    /// Two parties of one name could only be told apart by their ids.
    fn check_is_new(&self, name: &str) -> Result<(), Failure> {
        if !self.parties.values().any(|record| record.party.name == name) {
            return Ok(());
        }
        let message = format!(
            "you are in a party called {name} already: choose another name, or leave that one"
        );
        Err(Failure::new(FailureKind::Conflict, message))
    }

    /// Puts a new membership on disk.
    fn keep(&mut self, mut record: PartyRecord) -> Result<SessionId, Failure> {
        let session = record.session();
        if let Some(old) = self.parties.get(&session) {
            record.stamp = old.stamp;
        }
        self.writer.save_party(&record);
        self.writer.settle()?;
        self.unlisted.remove(&session);
        self.parties.insert(session, record);
        Ok(session)
    }

    fn newcomer(&self, member_name: String) -> Newcomer {
        let tunnels =
            self.parties.iter().map(|(session, record)| (*session, record.tunnel.clone()));
        Newcomer {
            nic: self.options.nic.clone(),
            has_nic: self.active.is_some(),
            member_name,
            tunnels: tunnels.collect(),
        }
    }

    fn leave(&mut self, call: Call, party: Option<&str>, forget: bool) {
        let session = match party {
            Some(party) => self.find_party(party),
            None => self.device.active.ok_or_else(Failure::no_active_party),
        };
        let (session, control) = match session.and_then(|session| self.control_of(session)) {
            Ok(found) => found,
            Err(failure) => return call.answer(Err(failure)),
        };
        if forget {
            return self.answer_left(session, call);
        }
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
                Err(error) => {
                    let Failure { kind, mut message } = error.into();
                    if kind == FailureKind::Unreachable {
                        message +=
                            "; if the server is gone for good, `lanrage party leave --forget`";
                    }
                    return call.answer(Err(Failure::new(kind, message)));
                }
            }
            daemon.answer_left(session, call);
        });
    }

    fn answer_left(&mut self, session: SessionId, call: Call) {
        let Some(record) = self.parties.get(&session) else {
            return call.answer(Err(Failure::no_active_party()));
        };
        let party = record.party.name.clone();
        let was_owner = record.own_record().is_some_and(|own| own.role == Role::Owner);
        if self.device.active == Some(session) {
            self.problem = None;
        }
        self.forget(session);
        let settled = self.writer.settle().map_err(Failure::from);
        call.answer(settled.map(|()| Reply::Left { party, was_owner }));
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
            Ok(member) => self.ping_asked(member, now, call, now),
            Err(failure) => call.answer(Err(failure)),
        }
    }

    /// A member just announced is listed before its own signed entry arrives, and may be on line
    /// before control says so: its ping waits.
    fn ping_asked(&mut self, member: Member, asked: Instant, call: Call, now: Instant) {
        let Some(active) = &mut self.active else {
            return call.answer(Err(self.not_up()));
        };
        if let Some(name) = active.off_line(member, now) {
            if now < asked + OFF_LINE_PATIENCE {
                return active.early_pings.push((member, asked, call));
            }
            let message = format!("{name} is off line");
            return call.answer(Err(Failure::new(FailureKind::Other, message)));
        }
        match active.client.ping(member, now) {
            Ok(id) => drop(active.pings.insert(id, call)),
            Err(PingError::NoSuchMember(_)) if now < asked + PING_TIMEOUT => {
                active.early_pings.push((member, asked, call));
            }
            Err(error) => call.answer(Err(error.into())),
        }
    }

    pub(super) fn retry_early_pings(&mut self, now: Instant) {
        let Some(active) = &mut self.active else { return };
        for (member, asked, call) in std::mem::take(&mut active.early_pings) {
            self.ping_asked(member, asked, call, now);
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

    /// Another member, by name, number or address.
    pub(super) fn find_member(&self, text: &str, now: Instant) -> Result<Member, Failure> {
        let active = self.active.as_ref().ok_or_else(|| self.not_up())?;
        pick_member(&active.client.members(now), text)
    }
}

impl Active {
    /// The name of a member that control, which should know, has off line, and that was not heard of
    /// late either.
    fn off_line(&self, member: Member, now: Instant) -> Option<String> {
        let members = self.client.members(now);
        let known = members.into_iter().find(|known| known.member == member)?;
        let is_off =
            self.control.connected && !known.online && known.connection != Connection::NotGenuine;
        is_off.then_some(known.name)
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
        (Some(known), _, _) | (None, Some(known), None) if known.is_self => {
            let message = format!("{text} is you: name another member");
            Err(Failure::new(FailureKind::Usage, message))
        }
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
    use lanrage_client_core::{Networks, Quality};

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

    /// `ping` of oneself was silent for 5 s and then said that the member was not in the party.
    #[test]
    fn regression_oneself_is_told_so() {
        let members = [MemberStatus { is_self: true, ..known(1, "anna") }, known(2, "bert")];
        for text in ["anna", "1", "10.66.5.1"] {
            let failure = pick_member(&members, text).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Usage);
            assert!(failure.message.contains("is you"), "{failure}");
        }
    }
}
