use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use lanrage_lab::{Host, Process};
use rustix::process::Signal;

use crate::binaries::program;
use crate::{Control, binary, eventually};

/// The relay's UDP port.
const PORT: u16 = 51820;
const METRICS_PORT: u16 = 9100;
const START_PATIENCE: Duration = Duration::from_secs(10);
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// Which back end a relay is told to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The relay's own choice.
    Auto,
    /// io_uring or nothing.
    Uring,
    /// recvmmsg and sendmmsg.
    Mmsg,
}

impl Backend {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Uring => "io_uring",
            Self::Mmsg => "recvmmsg",
        }
    }
}

/// How a relay is started.
#[derive(Clone, Debug)]
pub struct RelayPlan {
    /// See [`Backend`].
    pub backend: Backend,
    /// The program: `lanrage-relay`, or one that a scenario needs instead.
    pub program: &'static str,
    /// The error that `io_uring_setup` gives the relay, `EPERM` or `ENOSYS`.
    pub refuse_io_uring: Option<&'static str>,
    /// Whether it serves streams, on TCP 443.
    pub streams: bool,
}

impl Default for RelayPlan {
    /// The environment's `LANRAGE_LAB_BACKEND=recvmmsg` puts every scenario on that back end.
    fn default() -> Self {
        let forced = std::env::var("LANRAGE_LAB_BACKEND").is_ok_and(|name| name == "recvmmsg");
        let backend = if forced { Backend::Mmsg } else { Backend::Auto };
        Self { backend, program: "lanrage-relay", refuse_io_uring: None, streams: false }
    }
}

/// A relay on a host of its own.
#[derive(Debug)]
pub struct Relay {
    host: Host,
    dir: PathBuf,
    plan: RelayPlan,
    wrapper: Vec<String>,
    control: SocketAddrV4,
    process: Option<Process>,
    starts: usize,
}

impl Relay {
    /// Starts a relay that enrols with control.
    ///
    /// # Errors
    /// It is not ready within ten seconds; its log says why.
    pub fn start(
        host: Host,
        dir: &Path,
        control: &Control,
        plan: RelayPlan,
    ) -> anyhow::Result<Self> {
        let dir = dir.join(host.name());
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        fs::write(dir.join("token"), control.relay_token()?).context("write the token")?;
        let control = control.address();
        let wrapper = Vec::new();
        let mut relay = Self { host, dir, plan, wrapper, control, process: None, starts: 0 };
        relay.restart()?;
        Ok(relay)
    }

    /// The host the relay runs on.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The relay's name, which is its host's.
    pub fn name(&self) -> &str {
        self.host.name()
    }

    /// The relay's state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// From the next start on, the relay runs as an argument of `wrapper`, as in `faketime …`.
    pub fn run_under(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Where clients reach it.
    pub fn address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.host.v4(), PORT)
    }

    /// Where Prometheus would scrape it, inside its namespace.
    pub fn metrics_address(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, METRICS_PORT)
    }

    /// The running relay.
    ///
    /// # Panics
    /// After [`Relay::kill`].
    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the relay runs")
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// It does not end within half a minute, or not well.
    pub fn terminate(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::TERM)?;
            let status = process.wait(STOP_PATIENCE)?;
            ensure!(status.success(), "{} ended with {status}", self.name());
        }
        Ok(())
    }

    /// Has an operator say something to the relay.
    ///
    /// # Errors
    /// `lanrage-relay ctl` fails; says what it said.
    pub fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new(binary("lanrage-relay")?)
            .arg("ctl")
            .args(arguments)
            .env("LANRAGE_RELAY_ADMIN_SOCKET", self.state_dir().join("admin.sock"))
            .output()
            .context("run lanrage-relay ctl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "ctl {}: {said}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Starts the relay, killing the one that runs, and waits until it serves.
    ///
    /// # Errors
    /// It is not ready within ten seconds.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        eventually("the relay to be ready", START_PATIENCE, || {
            Ok(self.get("/readyz")?.starts_with("HTTP/1.1 200").then_some(()))
        })
    }

    /// Starts the relay without waiting.
    ///
    /// # Errors
    /// The program is not built or cannot be started.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        self.kill()?;
        self.starts += 1;
        let log = format!("relay-{}", self.starts);
        self.process = Some(self.host.spawn(&log, self.command()?)?);
        Ok(())
    }

    /// What starts the relay, for a scenario that wants to change it.
    ///
    /// # Errors
    /// The program is not built.
    pub fn command(&self) -> anyhow::Result<Command> {
        let mut wrapper = self.wrapper.clone();
        if let Some(errno) = self.plan.refuse_io_uring {
            let without = binary("without-io-uring")?.display().to_string();
            wrapper.extend([without, errno.to_owned()]);
        }
        let mut command = program(&self.host, &wrapper, self.plan.program)?;
        let advertise =
            [Some(self.address().to_string()), self.host.v6().map(|ip| format!("[{ip}]:{PORT}"))];
        command
            .arg("run")
            .env("LANRAGE_RELAY_STATE_DIR", self.state_dir())
            .env("LANRAGE_RELAY_NAME", self.host.name())
            .env("LANRAGE_RELAY_LISTEN", format!("0.0.0.0:{PORT},[::]:{PORT}"))
            .env(
                "LANRAGE_RELAY_ADVERTISE",
                advertise.into_iter().flatten().collect::<Vec<_>>().join(","),
            )
            .env("LANRAGE_RELAY_CONTROL", self.control.to_string())
            .env("LANRAGE_RELAY_ENROLMENT_TOKEN_FILE", self.dir.join("token"))
            .env("LANRAGE_RELAY_METRICS_LISTEN", self.metrics_address().to_string())
            .env("LANRAGE_RELAY_BACKEND", self.plan.backend.as_str());
        if self.plan.streams {
            command.env("LANRAGE_RELAY_STREAM_LISTEN", "0.0.0.0:443,[::]:443");
        }
        Ok(command)
    }

    /// The relay's metrics: each sample's name and labels, and its value.
    ///
    /// # Errors
    /// The relay does not answer.
    pub fn metrics(&self) -> anyhow::Result<BTreeMap<String, f64>> {
        let text = self.get("/metrics")?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        Ok(samples
            .filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                Some((name.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// The sum of a metric over the samples whose labels contain `label`.
    ///
    /// # Errors
    /// The relay does not answer, or has no such sample.
    pub fn metric(&self, name: &str, label: &str) -> anyhow::Result<f64> {
        let is_meant = |sample: &str| {
            let labels = sample.strip_prefix(name);
            labels.is_some_and(|labels| {
                (labels.is_empty() || labels.starts_with('{')) && labels.contains(label)
            })
        };
        let metrics = self.metrics()?;
        let mut samples = metrics.iter().filter(|(sample, _)| is_meant(sample)).peekable();
        ensure!(samples.peek().is_some(), "{} has no {name} with {label:?}", self.name());
        Ok(samples.map(|(_, value)| value).sum())
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let address = self.metrics_address();
        self.host.enter(|| {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })?
    }
}
