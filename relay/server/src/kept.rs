//! What control said. Memory is ahead of the disk for as long as the disk takes nothing.

use std::sync::Arc;
use std::time::Duration;

use lanrage_proto::api::Revocation;
use tokio::time::{Instant, sleep_until};

use crate::clock::unix_s;
use crate::every_minute::EveryMinute;
use crate::published::Published;
use crate::state::{StateDir, Told};

/// Revocations that follow one another faster are written together: each write is the whole file.
const SAVE_DELAY: Duration = Duration::from_millis(200);
/// Between attempts while the disk takes nothing.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// What control said, and how much of it is on disk.
#[derive(Debug)]
pub(crate) struct Kept {
    state: Arc<StateDir>,
    told: Told,
    cursor_on_disk: u64,
    is_behind: bool,
    /// When the disk may be written again.
    due: Instant,
    failure: EveryMinute,
    published: Arc<Published>,
}

impl Kept {
    /// `told` is what the disk has.
    pub(crate) fn new(state: Arc<StateDir>, told: Told, published: Arc<Published>) -> Self {
        Self {
            state,
            cursor_on_disk: told.cursor,
            told,
            is_behind: false,
            due: Instant::now(),
            failure: EveryMinute::default(),
            published,
        }
    }

    pub(crate) const fn told(&self) -> &Told {
        &self.told
    }

    /// The last revocation that outlives this process: control is told of no later one.
    pub(crate) const fn cursor_on_disk(&self) -> u64 {
        self.cursor_on_disk
    }

    /// Changes what is known, and writes it.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Told)) {
        change(&mut self.told);
        self.is_behind = true;
        self.write();
    }

    /// One more revocation; written at once, or together with others that follow.
    pub(crate) fn revoke(&mut self, cursor: u64, revocation: Revocation) {
        self.told.revocations.push(revocation);
        self.told.cursor = cursor;
        self.is_behind = true;
        if self.due <= Instant::now() {
            self.write();
        }
    }

    /// Waits for `other`, and writes meanwhile what is due.
    pub(crate) async fn during<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return done,
                () = sleep_until(self.due), if self.is_behind => self.write(),
            }
        }
    }

    /// Writes what is not on disk, or says why it cannot.
    fn write(&mut self) {
        let now = unix_s();
        self.told.revocations.retain(|revocation| now <= revocation.forget_after);
        let written = self.state.set_told(&self.told);
        self.due = Instant::now() + if written.is_ok() { SAVE_DELAY } else { RETRY_DELAY };
        match written {
            Ok(()) => {
                self.is_behind = false;
                self.cursor_on_disk = self.told.cursor;
                if self.failure.end() {
                    self.published.set_unwritten(None);
                    tracing::info!("what control says is kept on disk again");
                }
            }
            Err(error) => {
                self.published.set_unwritten(Some(error.to_string()));
                if self.failure.is_due() {
                    tracing::error!(
                        %error,
                        "what control says is not kept on disk, not ready: revocations hold in \
                         memory, and control is not told that they hold"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::{Generation, Member, RootHash, SessionId};

    use super::*;

    fn kept(dir: &std::path::Path) -> Kept {
        Kept::new(Arc::new(StateDir::open(dir).unwrap()), Told::default(), Arc::default())
    }

    fn revoke(kept: &mut Kept, session: u64) {
        let revocation = Revocation {
            session: SessionId(session),
            member: Member::new(7).unwrap(),
            generation: Generation(2),
            forget_after: u64::MAX,
        };
        kept.revoke(session, revocation);
    }

    fn on_disk(kept: &Kept) -> Told {
        kept.state.told(&RootHash([0; 32])).unwrap()
    }

    /// The whole file was written and synced for each of them: ten thousand at once took minutes.
    #[tokio::test]
    async fn regression_many_revocations_are_written_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        revoke(&mut kept, 1);
        assert_eq!(on_disk(&kept).cursor, 1, "a single one at once");
        let begun = Instant::now();
        (2..=1_000).for_each(|session| revoke(&mut kept, session));
        if begun.elapsed() < SAVE_DELAY {
            assert_eq!((on_disk(&kept).cursor, kept.cursor_on_disk()), (1, 1));
        }
        kept.during(tokio::time::sleep(SAVE_DELAY * 2)).await;
        let told = on_disk(&kept);
        assert_eq!((told.cursor, told.revocations.len()), (1_000, 1_000));
        assert_eq!(kept.cursor_on_disk(), 1_000);
    }

    /// The relay ended when its disk was full: one kick by any player ended them all.
    #[tokio::test(start_paused = true)]
    async fn regression_a_disk_that_takes_nothing_costs_readiness_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut kept = kept(dir.path());
        revoke(&mut kept, 1);
        // A directory in the place of the temporary file stops root, too.
        let obstacle = dir.path().join("control.tmp");
        std::fs::create_dir(&obstacle).unwrap();
        kept.during(tokio::time::sleep(SAVE_DELAY)).await;
        revoke(&mut kept, 2);
        assert_eq!((kept.told().cursor, kept.cursor_on_disk()), (2, 1), "withheld");
        let why = kept.published.unwritten().unwrap();
        assert!(why.contains("control.tmp"), "{why}");

        kept.during(tokio::time::sleep(RETRY_DELAY * 3)).await;
        assert_eq!(on_disk(&kept).cursor, 1);
        std::fs::remove_dir(&obstacle).unwrap();
        kept.during(tokio::time::sleep(RETRY_DELAY * 2)).await;
        assert_eq!((on_disk(&kept).cursor, kept.cursor_on_disk()), (2, 2));
        assert_eq!(kept.published.unwritten(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_said_once_a_minute() {
        let mut failure = EveryMinute::default();
        let mut said = 0;
        for _ in 0..25 {
            said += u32::from(failure.is_due());
            tokio::time::sleep(RETRY_DELAY).await;
        }
        assert_eq!(said, 3, "in two minutes");
        assert!(failure.end() && !failure.end());
        assert!(failure.is_due());
    }
}
