use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

mod resolved;
pub use resolved::Config;

mod classes;
pub use classes::{LimitsSetting, RateClassSetting, RateClasses};
mod number;

/// The environment's name for the one-time enrolment token; it is no flag, for argv is public.
pub const TOKEN_VARIABLE: &str = "LANRAGE_RELAY_ENROLMENT_TOKEN";

/// What the operator says, in flags, environment or file; each leaves out what it likes.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
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
    /// The control service; its port is 443 unless another is named
    #[arg(long, env = "LANRAGE_RELAY_CONTROL", value_name = "HOST[:PORT]")]
    pub control: Option<String>,
    /// File with the one-time enrolment token; or set LANRAGE_RELAY_ENROLMENT_TOKEN
    #[arg(long, env = "LANRAGE_RELAY_ENROLMENT_TOKEN_FILE", value_name = "FILE")]
    pub enrolment_token_file: Option<PathBuf>,
    /// What operators call this relay: 1 to 32 of a-z, 0-9 and inner hyphens; a relay that has
    /// enrolled is renamed by a fresh token [default: the host's name, shortened to that]
    #[arg(long, env = "LANRAGE_RELAY_NAME")]
    pub name: Option<String>,
    /// Threads that forward [default: one for each core]
    #[arg(long, env = "LANRAGE_RELAY_SHARDS", value_name = "N")]
    #[serde(deserialize_with = "number::whole")]
    pub shards: Option<usize>,
    /// Leases there is room for, allocated at start [default: 65536]
    #[arg(long, env = "LANRAGE_RELAY_LEASES", value_name = "N")]
    #[serde(deserialize_with = "number::whole")]
    pub leases: Option<u32>,
    /// How to talk to the kernel [default: auto]
    #[arg(long, env = "LANRAGE_RELAY_BACKEND")]
    pub backend: Option<BackendSetting>,
    /// UDP segmentation offload [default: auto]
    #[arg(long, env = "LANRAGE_RELAY_GSO")]
    pub gso: Option<GsoSetting>,
    /// Which shard gets a data frame. But for `off`, all other datagrams go to sockets and a thread of
    /// their own, which a flood of them fills alone [default: auto]
    #[arg(long, env = "LANRAGE_RELAY_STEERING")]
    pub steering: Option<SteeringSetting>,
    /// TCP addresses, all of one port, for members whose network blocks UDP, comma-separated;
    /// clients dial this port of the --advertise addresses, and 443 is the one that gets through.
    /// Not beside another service on that port [default: none]
    #[arg(
        long,
        env = "LANRAGE_RELAY_STREAM_LISTEN",
        value_delimiter = ',',
        value_name = "ADDR:PORT"
    )]
    pub stream_listen: Option<Vec<SocketAddr>>,
    /// Whether STUN Binding requests are answered [default: true]
    #[arg(long, env = "LANRAGE_RELAY_STUN")]
    pub stun: Option<bool>,
    /// TCP address of /metrics, /healthz and /readyz; `off` or empty for none
    /// [default: 127.0.0.1:9581]
    #[arg(long, env = "LANRAGE_RELAY_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<String>,
    /// Unix socket for `ctl`; `off` or empty for none [default: admin.sock in the state directory]
    #[arg(long, env = "LANRAGE_RELAY_ADMIN_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// Seconds that a relay which is terminated gives clients to leave for another, if there are any;
    /// a second signal ends it at once [default: 10]
    #[arg(long, env = "LANRAGE_RELAY_STOP_TIMEOUT", value_name = "SECONDS")]
    #[serde(deserialize_with = "number::whole")]
    pub stop_timeout: Option<u16>,
    /// What is logged, as in `info,lanrage_relay=debug` [default: info]
    #[arg(long, env = "LANRAGE_RELAY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How logs look [default: text]
    #[arg(long, env = "LANRAGE_RELAY_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Rate classes that are not the relay's own, in the file alone.
    #[arg(skip)]
    pub rate_class: Option<RateClasses>,
}

/// See [`lanrage_relay_uring::probe::BackendChoice`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
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

/// See [`lanrage_relay_uring::GsoMode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GsoSetting {
    /// Off for a kernel that spoils trains, and for a device that cannot do it
    Auto,
    /// Whatever was found, whatever failed before
    On,
    /// Every datagram by itself
    Off,
}

impl GsoSetting {
    /// As in the configuration.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }
}

/// How datagrams are shared out between shards; see [`lanrage_relay_uring::Steering`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum SteeringSetting {
    /// `handle`, or `off` where the kernel refuses
    Auto,
    /// All frames of a lease to one shard
    Handle,
    /// By the CPU that a frame arrives on: for a network card with a queue for each shard
    Cpu,
    /// Everything by the kernel's hash of both addresses
    Off,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// Why a configuration does not hold.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that a setting names cannot be read.
    #[error("{path}: {source}: correct {setting}")]
    Read {
        /// The setting, as a flag.
        setting: &'static str,
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

impl Settings {
    /// Reads a TOML file.
    ///
    /// # Errors
    /// It cannot be read, has an unknown key, or a value of the wrong kind.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(read_error("--config", path))?;
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
            steering: self.steering.or(other.steering),
            stream_listen: self.stream_listen.or(other.stream_listen),
            stun: self.stun.or(other.stun),
            metrics_listen: self.metrics_listen.or(other.metrics_listen),
            admin_socket: self.admin_socket.or(other.admin_socket),
            stop_timeout: self.stop_timeout.or(other.stop_timeout),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            rate_class: self.rate_class.or(other.rate_class),
        }
    }
}

fn read_error(setting: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> ConfigError {
    let path = path.to_owned();
    move |source| ConfigError::Read { setting, path, source }
}
