use std::time::Instant;

use lanrage_client_core::DropReason;
use lanrage_proto::SessionId;

use super::Daemon;
use super::active::Active;
use crate::failure::Failure;
use crate::local::protocol::{ActiveStatus, Entered, PartySummary, Reply, Status};
use crate::local::server::Call;
use crate::nic::Nic;

/// What the command line is shown.
impl Daemon {
    /// Looks at the NIC first, which takes a moment.
    pub(super) fn answer_status(&self, call: Call) {
        let nic =
            self.active.as_ref().map(|active| (active.nic.name().to_owned(), *active.nic.lan()));
        let looking = async move {
            let (name, lan) = nic?;
            let intact = Nic::is_intact(&name, &lan).await;
            // What cannot be asked is no reason to worry anybody.
            (!intact.unwrap_or(true)).then(|| {
                format!("{name} was taken down or lost its address: `lanrage up` repairs it")
            })
        };
        self.spawn(looking, |daemon, problem| {
            let status = daemon.status(problem, Instant::now());
            call.answer(Ok(Reply::Status(Box::new(status))));
        });
    }

    fn status(&self, nic_problem: Option<String>, now: Instant) -> Status {
        let up = self.device.active;
        let up = up.and_then(|session| self.active_status(session, nic_problem, now));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            state_dir: self.options.state_dir.clone(),
            nic: self.options.nic.clone(),
            metrics: self.options.metrics,
            party: up,
            problem: self.problem.clone(),
        }
    }

    fn active_status(
        &self,
        session: SessionId,
        nic_problem: Option<String>,
        now: Instant,
    ) -> Option<ActiveStatus> {
        let active = self.active.as_ref()?;
        Some(ActiveStatus {
            party: self.summary(session)?,
            nic: active.nic.name().to_owned(),
            nic_problem,
            epoch: active.client.epoch(),
            control: active.control.clone(),
            relays: active.client.leases(),
            relay_problem: active.relay_problem(now),
            members: active.client.members(now),
            drops: active.drops().filter(|(_, count)| *count > 0).collect(),
        })
    }

    /// The party that is up, as the answer to who brought it up.
    pub(super) fn entered(&self, session: SessionId) -> Result<Entered, Failure> {
        let active = self.active.as_ref().ok_or_else(Failure::no_active_party)?;
        let party = self.summary(session).ok_or_else(Failure::no_active_party)?;
        let nic = active.nic.name().to_owned();
        Ok(Entered { party, nic, invite: None, replaced: None, again: false })
    }

    pub(super) fn name_of(&self, session: SessionId) -> Option<String> {
        self.parties.get(&session).map(|record| record.party.name.clone())
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
        let streams = [("stream_full", self.streams.dropped())];
        core.chain(nic)
            .chain(sockets)
            .chain(streams)
            .map(|(reason, count)| (reason.to_owned(), count))
    }
}
