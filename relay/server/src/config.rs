use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use lanrage_proto::api::EnrolmentToken;
use lanrage_relay_table::Capacity;
use lanrage_relay_uring::probe::BackendChoice;
use lanrage_relay_uring::{GsoMode, MAX_SOCKETS};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

/// The environment's name for the one-time enrolment token; it is no flag, for argv is public.
pub const TOKEN_VARIABLE: &str = "LANRAGE_RELAY_ENROLMENT_TOKEN";
const PORT: u16 = 51820;

/// What the operator says, in flags, environment or file; each leaves out what it likes.
#[derive(Clone, Debug, Default, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Directory for keys and what control said last [default: /var/lib/lanrage-relay]
    #[arg(long, env = "LANRAGE_RELAY_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// UDP addresses to serve, comma-separated. A wildcard answers from the address the route
    /// prefers: name each address on a host with several [default: port 51820 of every address]
    #[arg(long, env = "LANRAGE_RELAY_LISTEN", value_delimiter = ',', value_name = "ADDR:PORT")]
    pub listen: Option<Vec<SocketAddr>>,
    /// Unicast addresses that clients are told, at most one a family [default: those of --listen]
    #[arg(long, env = "LANRAGE_RELAY_ADVERTISE", value_delimiter = ',', value_name = "ADDR:PORT")]
    pub advertise: Option<Vec<SocketAddr>>,
    /// The control service
    #[arg(long, env = "LANRAGE_RELAY_CONTROL", value_name = "HOST:PORT")]
    pub control: Option<String>,
    /// File with the one-time enrolment token; or set LANRAGE_RELAY_ENROLMENT_TOKEN
    #[arg(long, env = "LANRAGE_RELAY_ENROLMENT_TOKEN_FILE", value_name = "FILE")]
    pub enrolment_token_file: Option<PathBuf>,
    /// What operators call this relay [default: the host's name]
    #[arg(long, env = "LANRAGE_RELAY_NAME")]
    pub name: Option<String>,
    /// Threads that forward [default: one for each core]
    #[arg(long, env = "LANRAGE_RELAY_SHARDS")]
    pub shards: Option<usize>,
    /// Leases there is room for, allocated at start [default: 65536]
    #[arg(long, env = "LANRAGE_RELAY_LEASES")]
    pub leases: Option<u32>,
    /// How to talk to the kernel [default: auto]
    #[arg(long, env = "LANRAGE_RELAY_BACKEND")]
    pub backend: Option<BackendSetting>,
    /// UDP segmentation offload [default: auto]
    #[arg(long, env = "LANRAGE_RELAY_GSO")]
    pub gso: Option<GsoSetting>,
    /// Whether STUN Binding requests are answered [default: true]
    #[arg(long, env = "LANRAGE_RELAY_STUN")]
    pub stun: Option<bool>,
    /// TCP address of /metrics, /healthz and /readyz, or `off` [default: 127.0.0.1:9581]
    #[arg(long, env = "LANRAGE_RELAY_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// What is logged, as in `info,lanrage_relay=debug` [default: info]
    #[arg(long, env = "LANRAGE_RELAY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
}

/// See [`BackendChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum BackendSetting {
    /// io_uring, or recvmmsg where that is refused
    Auto,
    /// io_uring, or no start
    IoUring,
    /// recvmmsg and sendmmsg
    Recvmmsg,
}

/// See [`GsoMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GsoSetting {
    /// Off for a device that cannot do it
    Auto,
    /// Whatever failed before
    On,
    /// Every datagram by itself
    Off,
}

/// Why a configuration does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}: correct --config")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The file is not what it should be; names key and line.
    #[error("{path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// By the parser.
        source: toml::de::Error,
    },
    /// One setting does not hold.
    #[error("{key}: {problem}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// What the relay runs with; see [`Settings`] for what each field means.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each field is documented at its setting")]
pub struct Config {
    pub state_dir: PathBuf,
    pub listen: Vec<SocketAddr>,
    pub advertise_ipv4: Option<SocketAddrV4>,
    pub advertise_ipv6: Option<SocketAddrV6>,
    pub control: Option<(String, u16)>,
    pub enrolment_token: Option<EnrolmentToken>,
    pub name: String,
    pub shards: usize,
    pub capacity: Capacity,
    pub backend: BackendChoice,
    pub gso: GsoMode,
    pub stun: bool,
    pub metrics_listen: Option<SocketAddr>,
    pub log: String,
}

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// It cannot be read, has an unknown key, or a value of the wrong kind.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }

    /// What these settings leave out, `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            state_dir: self.state_dir.or(other.state_dir),
            listen: self.listen.or(other.listen),
            advertise: self.advertise.or(other.advertise),
            control: self.control.or(other.control),
            enrolment_token_file: self.enrolment_token_file.or(other.enrolment_token_file),
            name: self.name.or(other.name),
            shards: self.shards.or(other.shards),
            leases: self.leases.or(other.leases),
            backend: self.backend.or(other.backend),
            gso: self.gso.or(other.gso),
            stun: self.stun.or(other.stun),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            log: self.log.or(other.log),
        }
    }

    /// Checks the settings and fills in what they leave out. `token` is the value of
    /// [`TOKEN_VARIABLE`].
    ///
    /// # Errors
    /// Names the setting and what to do.
    pub fn resolve(self, token: Option<String>) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or_else(default_listen);
        if listen.is_empty() || listen.len() > MAX_SOCKETS {
            return Err(bad("listen", format!("give 1 to {MAX_SOCKETS} addresses")));
        }
        let control = self.control.as_deref().map(host_and_port).transpose()?;
        let (advertise_ipv4, advertise_ipv6) = advertised(self.advertise, &listen)?;
        if control.is_some() && advertise_ipv4.is_none() && advertise_ipv6.is_none() {
            let problem = "clients need an address: name the relay's public ADDR:PORT".to_owned();
            return Err(bad("advertise", problem));
        }
        let shards = self.shards.unwrap_or_else(cores);
        if !(1..=256).contains(&shards) {
            return Err(bad("shards", format!("{shards}: give 1 to 256")));
        }
        let leases = self.leases.unwrap_or(65_536);
        if !(1..=Capacity::MAX).contains(&leases) {
            return Err(bad("leases", format!("{leases}: give 1 to {}", Capacity::MAX)));
        }
        let metrics_listen = match self.metrics_listen.as_deref() {
            None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9581))),
            Some("off" | "") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                bad("metrics_listen", format!("{text:?}: give ADDR:PORT or `off`"))
            })?),
        };
        let name = self.name.unwrap_or_else(host_name);
        if name.is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err(bad("name", "give 1 to 64 bytes without control characters".to_owned()));
        }
        let log = self.log.unwrap_or_else(|| "info".to_owned());
        if let Err(error) = EnvFilter::try_new(&log) {
            let problem = format!("{log:?}: {error}: give LEVEL or TARGET=LEVEL, comma-separated");
            return Err(bad("log", problem));
        }
        Ok(Config {
            state_dir: self.state_dir.unwrap_or_else(|| "/var/lib/lanrage-relay".into()),
            listen,
            advertise_ipv4,
            advertise_ipv6,
            control,
            enrolment_token: enrolment_token(token, self.enrolment_token_file)?,
            name,
            shards,
            capacity: Capacity::for_leases(leases),
            backend: match self.backend.unwrap_or(BackendSetting::Auto) {
                BackendSetting::Auto => BackendChoice::Auto,
                BackendSetting::IoUring => BackendChoice::Uring,
                BackendSetting::Recvmmsg => BackendChoice::Mmsg,
            },
            gso: match self.gso.unwrap_or(GsoSetting::Auto) {
                GsoSetting::Auto => GsoMode::Auto,
                GsoSetting::On => GsoMode::On,
                GsoSetting::Off => GsoMode::Off,
            },
            stun: self.stun.unwrap_or(true),
            metrics_listen,
            log,
        })
    }
}

const fn bad(key: &'static str, problem: String) -> ConfigError {
    ConfigError::Setting { key, problem }
}

fn default_listen() -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, PORT).into(), (Ipv4Addr::UNSPECIFIED, PORT).into()]
}

fn host_and_port(text: &str) -> Result<(String, u16), ConfigError> {
    let problem = || bad("control", format!("{text:?}: give HOST:PORT, IPv6 in brackets"));
    let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    if host.is_empty() || (host.contains(':') && !bracketed) {
        return Err(problem());
    }
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(problem)?;
    Ok((host.to_owned(), port))
}

/// One address of each family; two of one would leave open which clients are told.
fn advertised(
    advertise: Option<Vec<SocketAddr>>,
    listen: &[SocketAddr],
) -> Result<(Option<SocketAddrV4>, Option<SocketAddrV6>), ConfigError> {
    let is_usable = |address: &SocketAddr| !address.ip().is_unspecified() && address.port() != 0;
    let from = advertise.unwrap_or_else(|| listen.iter().copied().filter(is_usable).collect());
    if let Some(address) = from.iter().find(|address| !is_usable(address)) {
        return Err(bad("advertise", format!("{address}: clients cannot send there")));
    }
    let (mut ipv4, mut ipv6) = (None, None);
    for address in from {
        let is_second = match address {
            SocketAddr::V4(address) => ipv4.replace(address).is_some(),
            SocketAddr::V6(address) => ipv6.replace(address).is_some(),
        };
        if is_second {
            return Err(bad("advertise", "give at most one address a family".to_owned()));
        }
    }
    Ok((ipv4, ipv6))
}

fn enrolment_token(
    token: Option<String>,
    file: Option<PathBuf>,
) -> Result<Option<EnrolmentToken>, ConfigError> {
    let text = match (token, file) {
        (Some(token), _) => Some(token),
        (None, Some(path)) => Some(
            std::fs::read_to_string(&path).map_err(|source| ConfigError::Read { path, source })?,
        ),
        (None, None) => None,
    };
    let parsed = text.map(|text| text.parse::<EnrolmentToken>()).transpose();
    parsed.map_err(|error| bad("enrolment_token", error.to_string()))
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().chars().take(64).collect()
}
