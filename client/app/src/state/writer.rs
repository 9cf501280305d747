use std::collections::BTreeMap;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use lanrage_proto::SessionId;

use super::{Device, PartyRecord, StateDir, StateError};

/// Writes records on a thread of its own: an fsync(2) never delays the data path. A record that
/// changes while the disk is slow is written once, as it is by then. All that was asked is on disk
/// when this is dropped.
#[derive(Debug)]
pub struct StateWriter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    wanted: Mutex<Wanted>,
    changed: Condvar,
}

/// What is to be on disk and may not be yet: at most one record for each file.
#[derive(Debug, Default)]
struct Wanted {
    /// `None` is a membership to forget.
    parties: BTreeMap<SessionId, Option<Box<PartyRecord>>>,
    /// Written after the parties, one of which it names.
    device: Option<Device>,
    /// Get the first failure since the last report.
    reports: Vec<SyncSender<Result<(), StateError>>>,
    is_ending: bool,
}

impl StateWriter {
    /// Writes into `state`.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(state: Arc<StateDir>) -> std::io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let wanted = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || write_until_end(&state, &wanted))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Replaces the device's record, soon.
    pub fn save_device(&self, device: &Device) {
        self.want(|wanted| wanted.device = Some(device.clone()));
    }

    /// Replaces a membership's record, soon.
    pub fn save_party(&self, party: &PartyRecord) {
        let record = Some(Box::new(party.clone()));
        self.want(|wanted| drop(wanted.parties.insert(party.session(), record)));
    }

    /// Forgets a membership, soon.
    pub fn remove_party(&self, session: SessionId) {
        self.want(|wanted| drop(wanted.parties.insert(session, None)));
    }

    /// Waits until all that was asked is on disk.
    ///
    /// # Errors
    /// The first failure since this was last called.
    pub fn settle(&self) -> Result<(), StateError> {
        let (to, report) = sync_channel(1);
        self.want(|wanted| wanted.reports.push(to));
        report.recv().expect("the writer lives as long as its handle")
    }

    fn want(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_one();
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        self.want(|wanted| wanted.is_ending = true);
        if let Some(thread) = self.thread.take() {
            // A panic on the thread was reported there.
            let _panicked = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something is wanted, and takes it.
    fn take(&self) -> Wanted {
        let idle = |wanted: &mut Wanted| {
            wanted.parties.is_empty()
                && wanted.device.is_none()
                && wanted.reports.is_empty()
                && !wanted.is_ending
        };
        let wanted = self.changed.wait_while(self.lock(), idle);
        std::mem::take(&mut *wanted.unwrap_or_else(PoisonError::into_inner))
    }
}

fn write_until_end(state: &StateDir, shared: &Shared) {
    let mut outcome = Ok(());
    loop {
        let Wanted { parties, device, reports, is_ending } = shared.take();
        let parties = parties.into_iter().map(|(session, record)| match record {
            Some(record) => state.save_party(&record),
            None => state.remove_party(session),
        });
        for done in parties.chain(device.map(|device| state.save_device(&device))) {
            if let Err(error) = &done {
                tracing::error!(%error, "the state directory is behind");
            }
            outcome = outcome.and(done);
        }
        for report in reports {
            let _not_waiting = report.send(std::mem::replace(&mut outcome, Ok(())));
        }
        if is_ending {
            return;
        }
    }
}
