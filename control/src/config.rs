use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use lanrage_proto::RootHash;
use lanrage_proto::party::{ServerAddress, parse_authority};
use serde::{Deserialize, Serialize};

use crate::domain::limits::TICKET_LIFETIME_MAX_S;
use crate::failure::Failure;

/// The file in the state directory that is read when `--config` names none.
pub(crate) const FILE_NAME: &str = "control.toml";
const TICKET_LIFETIME_MIN_S: u64 = 10;
const PARTY_RELAYS_MAX: u8 = 3;

/// The settings as given: flags win over environment, environment over file, file over defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Options {
    /// State directory; on the command line it goes with every command.
    #[arg(skip)]
    pub dir: Option<PathBuf>,
    /// Addresses to serve on, comma-separated [default: port 443 of every address,
    /// IPv4 and IPv6 as far as the kernel has them]
    #[arg(long, env = "LANRAGE_CONTROL_LISTEN", value_delimiter = ',')]
    pub listen: Option<Vec<SocketAddr>>,
    /// Where clients reach this service: HOST or HOST:PORT; goes into server addresses
    #[arg(long, env = "LANRAGE_CONTROL_PUBLIC", value_name = "HOST:PORT")]
    pub public: Option<String>,
    /// Address of /healthz, /readyz and /metrics; `off`, or empty, for none
    /// [default: 127.0.0.1:9464]
    #[arg(long, env = "LANRAGE_CONTROL_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<String>,
    /// Lifetime of tickets in seconds, 10 to 3600: how long a member that left can still bind
    /// [default: 3600]
    #[arg(long, env = "LANRAGE_CONTROL_TICKET_LIFETIME_S", value_name = "SECONDS")]
    pub ticket_lifetime_s: Option<u64>,
    /// How many relays a party gets, 1 to 3 [default: 2]
    #[arg(long, env = "LANRAGE_CONTROL_PARTY_RELAYS", value_name = "N")]
    pub party_relays: Option<u8>,
    /// How much one network (/24 or /56) may ask in a minute: N registrations, N invite look-ups, ten
    /// times N requests of any kind, twice N changes; one device half of N requests, a fifth of N
    /// changes. Parties, invites and kicks: N at once and a tenth of N in a minute for a network, a
    /// tenth and a hundredth for a device. 0 for no limit [default: 600]
    #[arg(long, env = "LANRAGE_CONTROL_REQUESTS_PER_MINUTE", value_name = "N")]
    pub requests_per_minute: Option<u32>,
    /// TCP connections at once, those of streams too, each up to about 100 KiB of memory; one network
    /// has at most a tenth of them, or 64. Snapshots and changes to be sent take up to 384 MiB beside
    /// that [default: 20000]
    #[arg(long, env = "LANRAGE_CONTROL_CONNECTIONS_MAX", value_name = "N")]
    pub connections_max: Option<usize>,
    /// What is logged, as in RUST_LOG [default: info]
    #[arg(long, env = "LANRAGE_CONTROL_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How logs look [default: text]
    #[arg(long, env = "LANRAGE_CONTROL_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The settings in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// State directory.
    pub dir: PathBuf,
    /// Addresses to serve on.
    pub listen: Vec<SocketAddr>,
    /// Nobody has named them: one of a family that the kernel lacks is left out.
    pub listen_is_default: bool,
    /// Host (as in a URL) and port for clients.
    pub public: Option<(String, u16)>,
    /// Plain HTTP for operators.
    pub metrics_listen: Option<SocketAddr>,
    /// 10..=3600.
    pub ticket_lifetime_s: u64,
    /// 1..=3.
    pub party_relays: u8,
    /// What the shares of networks and devices are of; 0 for no limit.
    pub requests_per_minute: u32,
    /// TCP connections at once.
    pub connections_max: usize,
    /// A `tracing` filter.
    pub log: String,
    /// How logs look.
    pub log_format: LogFormat,
}

impl Options {
    /// Adds the configuration file and the defaults, and checks everything.
    ///
    /// # Errors
    /// [`Failure::Configuration`], naming the key and, for the file, the line.
    pub fn resolve(self, file: Option<&Path>) -> Result<Config, Failure> {
        let dir = self.dir.clone().unwrap_or_else(|| "/var/lib/lanrage-control".into());
        let in_dir = dir.join(FILE_NAME);
        let file = file.or_else(|| in_dir.exists().then_some(&*in_dir));
        let options = match file {
            Some(file) => self.or(read(file)?),
            None => self,
        };
        options.check()
    }

    /// These settings, and from `file` those that are not among them.
    pub(crate) fn or(self, file: Self) -> Self {
        Self {
            dir: self.dir.or(file.dir),
            listen: self.listen.or(file.listen),
            public: self.public.or(file.public),
            metrics_listen: self.metrics_listen.or(file.metrics_listen),
            ticket_lifetime_s: self.ticket_lifetime_s.or(file.ticket_lifetime_s),
            party_relays: self.party_relays.or(file.party_relays),
            requests_per_minute: self.requests_per_minute.or(file.requests_per_minute),
            connections_max: self.connections_max.or(file.connections_max),
            log: self.log.or(file.log),
            log_format: self.log_format.or(file.log_format),
        }
    }

    fn check(self) -> Result<Config, Failure> {
        let wrong = |key: &str, what: &str| Failure::Configuration(format!("{key}: {what}"));
        let public = self.public.map(|text| parse_authority(&text)).transpose();
        let metrics_listen = match self.metrics_listen.as_deref() {
            Some("" | "off") => None,
            Some(address) => Some(address.parse().map_err(|_| {
                wrong(
                    "metrics_listen",
                    "expected `off`, or address and port such as 127.0.0.1:9464",
                )
            })?),
            None => Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
        };
        let config = Config {
            dir: self.dir.unwrap_or_else(|| "/var/lib/lanrage-control".into()),
            listen_is_default: self.listen.is_none(),
            listen: self.listen.unwrap_or_else(|| {
                vec![SocketAddr::from(([0; 4], 443)), SocketAddr::from(([0_u16; 8], 443))]
            }),
            public: public.map_err(|_| wrong("public", "expected HOST or HOST:PORT"))?,
            metrics_listen,
            ticket_lifetime_s: self.ticket_lifetime_s.unwrap_or(TICKET_LIFETIME_MAX_S),
            party_relays: self.party_relays.unwrap_or(2),
            requests_per_minute: self.requests_per_minute.unwrap_or(600),
            connections_max: self.connections_max.unwrap_or(20_000),
            log: self.log.unwrap_or_else(|| "info".to_owned()),
            log_format: self.log_format.unwrap_or(LogFormat::Text),
        };
        if config.listen.is_empty() {
            return Err(wrong("listen", "name at least one address"));
        }
        if !(TICKET_LIFETIME_MIN_S..=TICKET_LIFETIME_MAX_S).contains(&config.ticket_lifetime_s) {
            return Err(wrong("ticket_lifetime_s", "expected 10 to 3600"));
        }
        if !(1..=PARTY_RELAYS_MAX).contains(&config.party_relays) {
            return Err(wrong("party_relays", "expected 1 to 3"));
        }
        if config.connections_max == 0 {
            return Err(wrong("connections_max", "expected at least 1"));
        }
        Ok(config)
    }
}

impl Config {
    /// What users give to `lanrage party create --server`.
    ///
    /// # Errors
    /// [`Failure::Configuration`] when `public` is not set.
    pub fn server_address(&self, root: RootHash) -> Result<ServerAddress, Failure> {
        let (host, port) = self.public.clone().ok_or_else(|| {
            Failure::Configuration(
                "public: not set; say where clients reach this service: --public HOST:PORT"
                    .to_owned(),
            )
        })?;
        Ok(ServerAddress { host, port, root })
    }
}

/// What serde calls the numbers of [`Options`], and what it means by that.
const NUMBERS: [(&str, &str); 4] = [
    ("expected u8", "expected a whole number from 0 to 255"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u64", "expected a whole number, 0 or more"),
    ("expected usize", "expected a whole number, 0 or more"),
];

/// The settings in a configuration file.
///
/// # Errors
/// [`Failure::Configuration`], naming the file, the line and the key.
pub(crate) fn read(file: &Path) -> Result<Options, Failure> {
    let wrong = |what: &str| Failure::Configuration(format!("{}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        let plain = |text: String, (rust, plain): &(&str, &str)| text.replace(rust, plain);
        wrong(&NUMBERS.iter().fold(error.to_string(), plain))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(options: Options, file: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, file).unwrap();
        options.resolve(Some(&path)).map_err(|failure| failure.to_string())
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let flags = Options { party_relays: Some(3), ..Options::default() };
        let file = "party_relays = 1\nticket_lifetime_s = 60\npublic = \"[::1]:8443\"\n";
        let config = resolve(flags, file).unwrap();
        assert_eq!((config.party_relays, config.ticket_lifetime_s), (3, 60));
        assert_eq!(config.public, Some(("[::1]".to_owned(), 8443)));
        assert_eq!(config.requests_per_minute, 600);
        for off in ["metrics_listen = \"\"", "metrics_listen = \"off\""] {
            assert!(resolve(Options::default(), off).unwrap().metrics_listen.is_none(), "{off}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |file| resolve(Options::default(), file).unwrap_err();
        let unknown = error("party_relays = 1\nparty_relais = 1\n");
        assert!(unknown.contains("party_relais") && unknown.contains("line 2"), "{unknown}");
        for (file, key) in [
            ("ticket_lifetime_s = 9", "ticket_lifetime_s"),
            ("ticket_lifetime_s = 3601", "ticket_lifetime_s"),
            ("party_relays = 0", "party_relays"),
            ("party_relays = 4", "party_relays"),
            ("listen = []", "listen"),
            ("listen = [\"x\"]", "listen"),
            ("metrics_listen = \"x\"", "metrics_listen"),
            ("public = \"a b\"", "public"),
            ("connections_max = 0", "connections_max"),
            ("log_format = \"xml\"", "log_format"),
        ] {
            assert!(error(file).contains(key), "{file}: {}", error(file));
        }
    }

    /// A wrong number was answered with the names of Rust's types.
    #[test]
    fn regression_a_wrong_number_is_told_in_plain_words() {
        for file in [
            "party_relays = 300",
            "connections_max = \"many\"",
            "requests_per_minute = -1",
            "ticket_lifetime_s = 1.5",
        ] {
            let error = resolve(Options::default(), file).unwrap_err();
            assert!(error.contains("whole number"), "{error}");
            assert!(!["u8", "u32", "u64", "usize"].iter().any(|t| error.contains(t)), "{error}");
        }
    }
}
