use std::collections::BTreeMap;

use lanrage_proto::SessionId;
use lanrage_relay_core::LeaseView;
use lanrage_relay_table::State;

use super::api::{LeaseRow, Leases, Page, PageOf, ROWS_MAX, SessionRow};
use super::{Admin, Refused, slices};

impl Admin {
    /// A part of all leases, or those of one session.
    pub(super) async fn leases(&self, asked: Leases) -> Result<Page<LeaseRow, u32>, Refused> {
        let Leases { session, page: PageOf { after, limit } } = asked;
        let limit = limit.min(ROWS_MAX);
        let mut views: Vec<LeaseView> = Vec::new();
        if let Some(session) = session {
            let leases = move |binder: &mut super::Binder, now| -> Vec<LeaseView> {
                binder.leases_of(now, session).collect()
            };
            views = self.ask(leases).await?;
        } else {
            let slots = self.ask(|binder, _| binder.slot_count()).await?;
            for range in slices(after.map_or(0, |after| after.saturating_add(1))..slots) {
                let room = limit - views.len();
                let leases = move |binder: &mut super::Binder, now| -> Vec<LeaseView> {
                    binder.leases_in(now, range).take(room).collect()
                };
                views.extend(self.ask(leases).await?);
                if views.len() == limit {
                    break;
                }
            }
        }
        let is_full = session.is_none() && views.len() == limit;
        let next = views.last().map(|view| view.slot).filter(|_| is_full);
        Ok(Page { rows: views.into_iter().map(|view| self.row(&view)).collect(), next })
    }

    /// The sessions that follow `after`, by number. Each part looks through the whole table, but
    /// keeps no more than it gives.
    pub(super) async fn sessions(
        &self,
        PageOf { after, limit }: PageOf<SessionId>,
    ) -> Result<Page<SessionRow, SessionId>, Refused> {
        let limit = limit.clamp(1, ROWS_MAX);
        let mut rows: BTreeMap<SessionId, SessionRow> = BTreeMap::new();
        let mut is_cut = false;
        let slots = self.ask(|binder, _| binder.slot_count()).await?;
        for range in slices(0..slots) {
            let leases = move |binder: &mut super::Binder, now| -> Vec<LeaseView> {
                binder.leases_in(now, range).collect()
            };
            for view in self.ask(leases).await? {
                if after.is_some_and(|after| view.session <= after) {
                    continue;
                }
                add(rows.entry(view.session).or_insert_with(|| empty(view.session)), &view);
                if rows.len() > limit {
                    rows.pop_last();
                    is_cut = true;
                }
            }
        }
        let next = rows.keys().last().copied().filter(|_| is_cut);
        Ok(Page { rows: rows.into_values().collect(), next })
    }

    fn row(&self, view: &LeaseView) -> LeaseRow {
        LeaseRow {
            session: view.session,
            member: view.member,
            generation: view.generation.0,
            key: view.key.to_string(),
            active: view.state == State::Active,
            address: view.address,
            local: self.health.facts.listen.get(usize::from(view.local.0)).copied(),
            rate_class: view.rate_class.0,
            expires: view.expires,
            idle_ms: view.idle_ms,
            packets: view.received.packets,
            bytes: view.received.bytes,
            dropped: view.dropped,
            takeovers: view.takeovers,
        }
    }
}

const fn empty(session: SessionId) -> SessionRow {
    SessionRow {
        session,
        leases: 0,
        pending: 0,
        packets: 0,
        bytes: 0,
        dropped: 0,
        idle_ms: u64::MAX,
    }
}

fn add(row: &mut SessionRow, view: &LeaseView) {
    match view.state {
        State::Active => row.leases += 1,
        State::Pending => row.pending += 1,
    }
    row.packets += view.received.packets;
    row.bytes += view.received.bytes;
    row.dropped += view.dropped;
    row.idle_ms = row.idle_ms.min(view.idle_ms);
}
