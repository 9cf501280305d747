use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use lanrage_proto::SessionId;

use super::{Device, PartyRecord, StateDir, StateError};

/// Writes records on a thread of its own, in order: an fsync(2) never delays the data path. All
/// that was asked is on disk when it is dropped.
#[derive(Debug)]
pub struct StateWriter {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

enum Job {
    SaveDevice(Device),
    SaveParty(Box<PartyRecord>),
    RemoveParty(SessionId),
    /// Reports the first failure since the last report.
    Report(SyncSender<Result<(), StateError>>),
}

impl StateWriter {
    /// Writes into `state`.
    ///
    /// # Errors
    /// No thread is to be had.
    pub fn start(state: Arc<StateDir>) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let thread = std::thread::Builder::new().name("state".to_owned()).spawn(move || {
            let mut outcome = Ok(());
            for job in queue {
                let done = match job {
                    Job::SaveDevice(device) => state.save_device(&device),
                    Job::SaveParty(party) => state.save_party(&party),
                    Job::RemoveParty(session) => state.remove_party(session),
                    Job::Report(to) => {
                        let _not_waiting = to.send(std::mem::replace(&mut outcome, Ok(())));
                        continue;
                    }
                };
                if let Err(error) = &done {
                    tracing::error!(%error, "the state directory is behind");
                }
                outcome = outcome.and(done);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Replaces the device's record, soon.
    pub fn save_device(&self, device: &Device) {
        self.push(Job::SaveDevice(device.clone()));
    }

    /// Replaces a membership's record, soon.
    pub fn save_party(&self, party: &PartyRecord) {
        self.push(Job::SaveParty(Box::new(party.clone())));
    }

    /// Forgets a membership, soon.
    pub fn remove_party(&self, session: SessionId) {
        self.push(Job::RemoveParty(session));
    }

    /// Waits until all that was asked is on disk.
    ///
    /// # Errors
    /// The first failure since this was last called.
    pub fn settle(&self) -> Result<(), StateError> {
        let (to, report) = sync_channel(1);
        self.push(Job::Report(to));
        report.recv().expect("the writer lives as long as its handle")
    }

    fn push(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("taken in drop only");
        jobs.send(job).expect("the writer lives as long as its handle");
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // A panic on the thread was reported there.
            let _panicked = thread.join();
        }
    }
}
