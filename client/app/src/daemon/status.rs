use std::time::{Duration, Instant};

use lanrage_client_core::{Connection, DropReason, LeaseStatus, MemberStatus};
use lanrage_proto::inner::LeaseState;
use lanrage_proto::{RelayId, SessionId};

use super::Daemon;
use super::active::Active;
use crate::local::protocol::{
    ActiveStatus, MemberInfo, PartySummary, Quality, RelayInfo, RelayName, Status,
};

/// What the command line is shown.
impl Daemon {
    pub(super) fn status(&self, now: Instant) -> Status {
        let up = self.device.active.and_then(|session| self.active_status(session, now));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            party: up,
            problem: self.problem.clone(),
        }
    }

    fn active_status(&self, session: SessionId, now: Instant) -> Option<ActiveStatus> {
        let active = self.active.as_ref()?;
        Some(ActiveStatus {
            party: self.summary(session)?,
            nic: active.nic.name().to_owned(),
            epoch: active.client.epoch(),
            control: active.control.clone(),
            relays: active.client.leases().into_iter().map(|l| self.relay_info(l)).collect(),
            members: self.member_infos(now)?,
            drops: active.drops().filter(|(_, count)| *count > 0).collect(),
        })
    }

    pub(super) fn summary(&self, session: SessionId) -> Option<PartySummary> {
        let record = self.parties.get(&session)?;
        let (party, networks) = (&record.party, record.networks());
        Some(PartySummary {
            session,
            name: party.name.clone(),
            subnet: party.subnet,
            member: party.you,
            member_name: record.own_record().map(|own| own.name.clone()).unwrap_or_default(),
            ipv4: networks.ipv4(party.you),
            ipv6: networks.ipv6(party.you),
            server: record.server.to_string(),
            active: self.device.active == Some(session),
        })
    }

    pub(super) fn member_infos(&self, now: Instant) -> Option<Vec<MemberInfo>> {
        let active = self.active.as_ref()?;
        Some(active.client.members(now).into_iter().map(|m| self.member_info(m)).collect())
    }

    fn member_info(&self, member: MemberStatus) -> MemberInfo {
        MemberInfo {
            member: member.member,
            name: member.name,
            role: member.role,
            is_self: member.is_self,
            ipv4: member.ipv4,
            ipv6: member.ipv6,
            online: member.online,
            connection: connection(member.connection).to_owned(),
            paths: member.paths.into_iter().map(|relay| self.relay_name(relay)).collect(),
            quality: quality(&member.quality),
            last_handshake_s: member.last_handshake.map(|since| since.as_secs()),
            bytes_sent: member.bytes_sent,
            bytes_received: member.bytes_received,
        }
    }

    fn relay_info(&self, lease: LeaseStatus) -> RelayInfo {
        RelayInfo {
            relay: self.relay_name(lease.relay),
            address: lease.address,
            reflexive: lease.reflexive,
            state: lease_state(lease.state).to_owned(),
            refusal: lease.refusal.map(|refusal| refusal.as_str().to_owned()),
            quality: quality(&lease.quality),
        }
    }

    pub(super) fn relay_name(&self, id: RelayId) -> RelayName {
        let entry = self.active.as_ref().and_then(|active| active.map.relay(id));
        RelayName { id, name: entry.map_or_else(|| id.to_string(), |entry| entry.name.clone()) }
    }
}

impl Active {
    /// Every drop counter on this machine: the core's, the NIC's, the sockets'.
    pub(crate) fn drops(&self) -> impl Iterator<Item = (String, u64)> {
        let counters = self.client.counters();
        let core = DropReason::ALL.into_iter().map(|r| (r.as_str(), counters.dropped(r)));
        let nic = self.nic.drops().iter().map(|(reason, count)| (reason.as_str(), count));
        let sockets = self.underlay.drops();
        let sockets = [
            ("socket_full", sockets.full),
            ("socket_too_long", sockets.too_long),
            ("socket_refused", sockets.refused),
        ];
        core.chain(nic).chain(sockets).map(|(reason, count)| (reason.to_owned(), count))
    }
}

pub(super) const fn lease_state(state: Option<LeaseState>) -> &'static str {
    match state {
        Some(LeaseState::Alive) => "alive",
        Some(LeaseState::Suspect) => "suspect",
        Some(LeaseState::Dead) => "dead",
        None => "unbound",
    }
}

const fn connection(connection: Connection) -> &'static str {
    match connection {
        Connection::Local => "self",
        Connection::NotGenuine => "not_genuine",
        Connection::NoLease => "no_relay",
        Connection::Idle => "idle",
        Connection::Handshaking => "connecting",
        Connection::Connected => "connected",
    }
}

fn quality(quality: &lanrage_client_core::Quality) -> Quality {
    let micros = |time: Duration| time.as_micros() as u64;
    Quality {
        rtt_us: quality.rtt.map(micros),
        rtt_p99_us: quality.rtt_p99.map(micros),
        jitter_us: micros(quality.jitter),
        loss_percent: f32::from(quality.loss_permille) / 10.0,
    }
}
