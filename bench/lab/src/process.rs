//! Programs that run in the lab.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::Error;

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A program in a process group of its own, killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    pub(crate) fn spawn(mut command: Command, log: PathBuf) -> Result<Self, Error> {
        let file = File::create(&log).map_err(Error::io(format!("create {}", log.display())))?;
        let errors = file.try_clone().map_err(Error::io("duplicate the log's descriptor"))?;
        let child = command
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .map_err(Error::io(format!("start {command:?}")))?;
        Ok(Self { child, log })
    }

    /// The program's own id: `ip netns exec` becomes the program.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where standard output and error go.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Sends a signal to the program and its children.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if none of them is left.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let action = || format!("send {signal:?} to process group {}", self.child.id());
        kill_process_group(Pid::from_child(&self.child), signal).map_err(Error::io(action()))
    }

    /// SIGSTOP: the program freezes as it is.
    ///
    /// # Errors
    ///
    /// Those of [`Process::signal`].
    pub fn freeze(&self) -> Result<(), Error> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT: the program goes on.
    ///
    /// # Errors
    ///
    /// Those of [`Process::signal`].
    pub fn thaw(&self) -> Result<(), Error> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL, and waits for the end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the program cannot be waited for.
    pub fn kill(&mut self) -> Result<ExitStatus, Error> {
        // The group may have ended by itself.
        let _gone = self.signal(Signal::KILL);
        self.child.wait().map_err(Error::io("wait for a process"))
    }

    /// The exit status, if the program has ended.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the program cannot be waited for.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.child.try_wait().map_err(Error::io("wait for a process"))
    }

    /// Waits for the program to end.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it still runs.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self.timed_out("its end", timeout));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits for `text` to appear in the log.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if it does not, or if the program ends first.
    pub fn wait_for_log(&mut self, text: &str, timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let ended = self.try_wait()?.is_some();
            let log =
                fs::read(&self.log).map_err(Error::io(format!("read {}", self.log.display())))?;
            if String::from_utf8_lossy(&log).contains(text) {
                return Ok(());
            }
            if ended || Instant::now() >= deadline {
                return Err(self.timed_out(&format!("{text:?} in the log"), timeout));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn timed_out(&self, waited_for: &str, timeout: Duration) -> Error {
        Error::Timeout {
            waited_for: waited_for.to_owned(),
            seconds: timeout.as_secs(),
            log: self.log.display().to_string(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _unwaitable = self.kill();
    }
}
