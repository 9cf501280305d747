use std::time::Instant;

use lanrage_client_core::DropReason;
use lanrage_proto::SessionId;

use super::Daemon;
use super::active::Active;
use crate::local::protocol::{ActiveStatus, PartySummary, Status};

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
            relays: active.client.leases(),
            members: active.client.members(now),
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
            listed: !self.unlisted.contains(&session),
        })
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
