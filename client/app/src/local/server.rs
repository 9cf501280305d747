use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::socket_peercred;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::protocol::{Answer, Envelope, REQUEST_LEN_MAX, Request, VERSION};
use crate::failure::{Failure, FailureKind};

/// Command lines at the same time.
const CONNECTIONS_MAX: usize = 64;
/// A caller that says nothing for so long is hung up on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// A request, and where its answer goes. Dropping it unanswered tells the caller that it failed.
#[derive(Debug)]
pub struct Call {
    /// What is asked; never with `watch`.
    pub request: Request,
    /// For exactly one answer.
    pub answer: mpsc::Sender<Answer>,
}

impl Call {
    /// Answers; a caller that has hung up does not matter.
    pub fn answer(self, result: Result<super::protocol::Reply, Failure>) {
        let answer = result.map_or_else(Answer::Error, Answer::Ok);
        let _hung_up = self.answer.try_send(answer);
    }
}

/// The socket; its file is removed when dropped.
#[derive(Debug)]
pub struct LocalServer {
    listener: UnixListener,
    path: PathBuf,
}

impl LocalServer {
    /// Listens at `path`, for the daemon's own user (0600) and root.
    ///
    /// # Errors
    /// A daemon listens there already, the path is something else than a socket, or the kernel
    /// refuses.
    pub fn bind(path: &Path) -> Result<Self, Failure> {
        let failed = |kind, what: &dyn std::fmt::Display| {
            Failure::new(kind, format!("cannot listen at {}: {what}", path.display()))
        };
        if let Ok(other) = std::os::unix::net::UnixStream::connect(path) {
            let pid = socket_peercred(&other).map_or_else(
                |_| "unknown".to_owned(),
                |peer| peer.pid.as_raw_nonzero().to_string(),
            );
            let what =
                format!("another daemon (process {pid}) does: stop it, or name another --socket");
            return Err(failed(FailureKind::StateInUse, &what));
        }
        let refused = |error: io::Error| failed(FailureKind::of_io(&error), &error);
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o755).create(dir).map_err(refused)?;
        }
        match fs::symlink_metadata(path) {
            Ok(file) if file.file_type().is_socket() => fs::remove_file(path).map_err(refused)?,
            Ok(_) => return Err(failed(FailureKind::Usage, &"a file that is no socket is there")),
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(refused)?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(refused)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Serves callers for ever.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let calls = calls.clone();
                    tokio::spawn(async move {
                        // A caller that hangs up in the middle has nobody left to tell.
                        let _hung_up = converse(stream, calls).await;
                        drop(place);
                    });
                }
                // Out of descriptors: others will be closed.
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        let _already_gone = fs::remove_file(&self.path);
    }
}

async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let own = rustix::process::geteuid().as_raw();
    if peer.uid() != 0 && peer.uid() != own {
        let message = format!("the daemon answers root and user {own} only");
        let failure = Failure::new(FailureKind::NoDaemon, message);
        return send(&mut writer, &Answer::Error(failure)).await;
    }
    let mut reader = BufReader::new(reader);
    loop {
        let line = timeout(REQUEST_TIMEOUT, read_line(&mut reader)).await;
        let Ok(line) = line else { return Ok(()) };
        let request = match line.and_then(|line| line.map(|line| parse(&line)).transpose()) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            // What follows a line that cannot be read cannot be trusted to be a line.
            Err(failure) => return send(&mut writer, &Answer::Error(failure)).await,
        };
        let watch = request == Request::Status { watch: true };
        let request = if watch { Request::Status { watch: false } } else { request };
        loop {
            let answer = ask(&calls, request.clone()).await;
            let failed = matches!(answer, Answer::Error(_));
            send(&mut writer, &answer).await?;
            if !watch || failed {
                break;
            }
            sleep(WATCH_INTERVAL).await;
        }
    }
}

async fn ask(calls: &mpsc::Sender<Call>, request: Request) -> Answer {
    let (answer, mut answers) = mpsc::channel(1);
    let sent = calls.send(Call { request, answer }).await;
    let answer = if sent.is_ok() { answers.recv().await } else { None };
    answer.unwrap_or_else(|| {
        Answer::Error(Failure::new(FailureKind::NoDaemon, "the daemon is ending"))
    })
}

/// `None` at the end of the stream.
async fn read_line(
    reader: &mut BufReader<tokio::net::unix::OwnedReadHalf>,
) -> Result<Option<Vec<u8>>, Failure> {
    let mut line = Vec::new();
    let mut bounded = reader.take(REQUEST_LEN_MAX as u64);
    let read = bounded.read_until(b'\n', &mut line).await;
    match (read, line.last()) {
        (Ok(_), Some(b'\n')) => Ok(Some(line)),
        (Ok(REQUEST_LEN_MAX), _) => {
            let message = format!("a request is at most {REQUEST_LEN_MAX} bytes long");
            Err(Failure::new(FailureKind::Usage, message))
        }
        _ => Ok(None),
    }
}

fn parse(line: &[u8]) -> Result<Request, Failure> {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let unreadable = |error: serde_json::Error| {
        Failure::new(FailureKind::Usage, format!("the daemon cannot read the request: {error}"))
    };
    let Versioned { version } = serde_json::from_slice(line).map_err(unreadable)?;
    if version != VERSION {
        let message = format!(
            "the daemon speaks version {VERSION} of its interface, the request version {version}: \
             restart the daemon after an update"
        );
        return Err(Failure::new(FailureKind::Usage, message));
    }
    let envelope: Envelope = serde_json::from_slice(line).map_err(unreadable)?;
    Ok(envelope.request)
}

async fn send(writer: &mut tokio::net::unix::OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    writer.write_all(&line).await
}
