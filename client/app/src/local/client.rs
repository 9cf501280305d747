use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::protocol::{ANSWER_LEN_MAX, Answer, Envelope, Reply, Request, VERSION};
use crate::failure::{Failure, FailureKind};

const END_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the daemon.
#[derive(Debug)]
pub struct LocalClient {
    stream: BufReader<UnixStream>,
}

impl LocalClient {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`FailureKind::NoDaemon`]
    pub async fn connect(path: &Path) -> Result<Self, Failure> {
        Self::find(path).await?.ok_or_else(|| {
            let at = path.display();
            let message = format!("no lanrage daemon listens at {at}: start one with `lanrage up`");
            Failure::new(FailureKind::NoDaemon, message)
        })
    }

    /// Connects to the socket at `path`, if a daemon listens there.
    ///
    /// # Errors
    /// [`FailureKind::NoDaemon`]: the socket may not be used.
    pub async fn find(path: &Path) -> Result<Option<Self>, Failure> {
        match UnixStream::connect(path).await {
            Ok(stream) => Ok(Some(Self { stream: BufReader::new(stream) })),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let at = path.display();
                let message = format!(
                    "no right to use the daemon's socket {at}: run as root (sudo lanrage …)"
                );
                Err(Failure::new(FailureKind::NoDaemon, message))
            }
            Err(_) => Ok(None),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The daemon's, or [`FailureKind::NoDaemon`] when it hangs up.
    pub async fn call(&mut self, request: Request) -> Result<Reply, Failure> {
        let mut line = serde_json::to_vec(&Envelope { version: VERSION, request })
            .map_err(|error| Failure::new(FailureKind::Usage, error))?;
        line.push(b'\n');
        // A daemon that refuses before it reads says why; that is in the answer.
        let _refused = self.stream.get_mut().write_all(&line).await;
        self.next().await
    }

    /// The next answer to a request that has several.
    ///
    /// # Errors
    /// Those of [`LocalClient::call`].
    pub async fn next(&mut self) -> Result<Reply, Failure> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.stream).take(ANSWER_LEN_MAX as u64);
        let read = bounded.read_until(b'\n', &mut line).await;
        if read.is_err() || line.last() != Some(&b'\n') {
            let message = "the daemon hung up: see daemon.log in its state directory";
            return Err(Failure::new(FailureKind::NoDaemon, message));
        }
        match serde_json::from_slice(&line) {
            Ok(Answer::Ok(reply)) => Ok(reply),
            Ok(Answer::Error(failure)) => Err(failure),
            Err(error) => {
                let message = format!(
                    "the daemon's answer cannot be read ({error}): restart it after an update"
                );
                Err(Failure::new(FailureKind::Other, message))
            }
        }
    }

    /// Waits for the daemon's end, which comes after it has let go of its state directory: another
    /// one can start.
    ///
    /// # Errors
    /// It goes on for ten seconds.
    pub async fn ended(mut self) -> Result<(), Failure> {
        let mut rest = Vec::new();
        let hang_up = self.stream.read_to_end(&mut rest);
        // Reset or closed, the connection is over.
        timeout(END_TIMEOUT, hang_up).await.map(|_| ()).map_err(|_| {
            let message = "the LAN is down, but the daemon does not end: see daemon.log in its \
                           state directory";
            Failure::new(FailureKind::Other, message)
        })
    }
}
