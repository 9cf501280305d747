use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lanrage_proto::api::EnrolmentToken;
use lanrage_proto::party::{NAME_LEN_MAX, parse_authority, valid_name};
use lanrage_relay_core::ClassLimits;
use lanrage_relay_table::Capacity;
use lanrage_relay_uring::probe::BackendChoice;
use lanrage_relay_uring::{GsoMode, MAX_SOCKETS};
use tracing_subscriber::EnvFilter;

use super::{
    BackendSetting, ConfigError, GsoSetting, LogFormat, Settings, SteeringSetting, classes,
    read_error,
};

const PORT: u16 = 51820;
/// Each thread that forwards has a number of 8 bits among relays: shards, one for control, one for streams.
const SHARDS_MAX: usize = 254;

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
    /// It was not made of the host's name.
    pub name_is_given: bool,
    pub shards: usize,
    pub capacity: Capacity,
    pub backend: BackendSetting,
    pub gso: GsoSetting,
    pub steering: SteeringSetting,
    pub stream_listen: Vec<SocketAddr>,
    pub stun: bool,
    pub metrics_listen: Option<SocketAddr>,
    pub admin_socket: Option<PathBuf>,
    pub stop_timeout: Duration,
    pub log: String,
    pub log_format: LogFormat,
    pub rate_classes: Vec<(u8, ClassLimits)>,
}

impl Settings {
    /// Checks the settings and fills in what they leave out. `token` is the value of
    /// [`super::TOKEN_VARIABLE`].
    ///
    /// # Errors
    /// Names the setting and what to do.
    pub fn resolve(self, token: Option<String>) -> Result<Config, ConfigError> {
        let listen = self.listen.unwrap_or_else(default_listen);
        if listen.is_empty() || listen.len() > MAX_SOCKETS {
            return Err(bad("listen", format!("give 1 to {MAX_SOCKETS} addresses")));
        }
        if let Some(twice) = repeated(&listen) {
            return Err(bad("listen", format!("{twice} stands there twice: give it once")));
        }
        let stream_listen = stream_listen(self.stream_listen)?;
        let control = self.control.as_deref().map(parse_authority).transpose();
        let control = control
            .map_err(|_| bad("control", "give HOST or HOST:PORT, IPv6 in brackets".to_owned()))?;
        let (advertise_ipv4, advertise_ipv6) = advertised(self.advertise, &listen)?;
        if control.is_some() && advertise_ipv4.is_none() && advertise_ipv6.is_none() {
            let problem = "clients need an address: name the relay's public ADDR:PORT".to_owned();
            return Err(bad("advertise", problem));
        }
        let shards = self.shards.unwrap_or_else(cores);
        if !(1..=SHARDS_MAX).contains(&shards) {
            return Err(bad("shards", format!("{shards}: give 1 to {SHARDS_MAX}")));
        }
        let leases = self.leases.unwrap_or(65_536);
        if !(1..=Capacity::MAX).contains(&leases) {
            return Err(bad("leases", format!("{leases}: give 1 to {}", Capacity::MAX)));
        }
        let metrics_listen = match self.metrics_listen.as_deref() {
            None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 9581))),
            Some("off" | "") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                bad("metrics_listen", format!("{text:?}: give ADDR:PORT, or `off` for none"))
            })?),
        };
        let name_is_given = self.name.is_some();
        let name = self.name.unwrap_or_else(host_name);
        if !valid_name(&name) {
            let problem = format!("{name:?}: give --name 1 to 32 of a-z, 0-9 and inner hyphens");
            return Err(bad("name", problem));
        }
        let log = self.log.unwrap_or_else(|| "info".to_owned());
        if let Err(error) = EnvFilter::try_new(&log) {
            let problem = format!("{log:?}: {error}: give LEVEL or TARGET=LEVEL, comma-separated");
            return Err(bad("log", problem));
        }
        let state_dir = self.state_dir.unwrap_or_else(|| "/var/lib/lanrage-relay".into());
        let admin_socket = match self.admin_socket {
            None => Some(state_dir.join("admin.sock")),
            Some(path) if path.as_os_str().is_empty() || path == Path::new("off") => None,
            Some(path) => Some(path),
        };
        Ok(Config {
            state_dir,
            listen,
            advertise_ipv4,
            advertise_ipv6,
            control,
            enrolment_token: enrolment_token(token, self.enrolment_token_file)?,
            name,
            name_is_given,
            shards,
            capacity: Capacity::for_leases(leases),
            backend: self.backend.unwrap_or(BackendSetting::Auto),
            gso: self.gso.unwrap_or(GsoSetting::Auto),
            steering: self.steering.unwrap_or(SteeringSetting::Auto),
            stream_listen,
            stun: self.stun.unwrap_or(true),
            metrics_listen,
            admin_socket,
            stop_timeout: Duration::from_secs(self.stop_timeout.unwrap_or(10).into()),
            log,
            log_format: self.log_format.unwrap_or(LogFormat::Text),
            rate_classes: classes::resolve(&self.rate_class.unwrap_or_default())?,
        })
    }
}

impl Config {
    /// The addresses that clients are told.
    pub fn advertised(&self) -> impl Iterator<Item = SocketAddr> {
        let ipv4 = self.advertise_ipv4.map(SocketAddr::V4);
        ipv4.into_iter().chain(self.advertise_ipv6.map(SocketAddr::V6))
    }

    /// These settings as the configuration file that says the same; no secret is in it.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let metrics = self.metrics_listen.map(|address| address.to_string());
        toml::to_string(&Settings {
            state_dir: Some(self.state_dir.clone()),
            listen: Some(self.listen.clone()),
            advertise: Some(self.advertised().collect()),
            control: self.control.as_ref().map(|(host, port)| format!("{host}:{port}")),
            enrolment_token_file: None,
            name: Some(self.name.clone()),
            shards: Some(self.shards),
            leases: Some(self.capacity.leases),
            backend: Some(self.backend),
            gso: Some(self.gso),
            steering: Some(self.steering),
            stream_listen: Some(self.stream_listen.clone()),
            stun: Some(self.stun),
            metrics_listen: Some(metrics.unwrap_or_else(|| "off".to_owned())),
            admin_socket: Some(self.admin_socket.clone().unwrap_or_else(|| "off".into())),
            stop_timeout: Some(self.stop_timeout.as_secs() as u16),
            log: Some(self.log.clone()),
            log_format: Some(self.log_format),
            rate_class: (!self.rate_classes.is_empty())
                .then(|| classes::to_settings(&self.rate_classes)),
        })
    }
}

impl From<BackendSetting> for BackendChoice {
    fn from(setting: BackendSetting) -> Self {
        match setting {
            BackendSetting::Auto => Self::Auto,
            BackendSetting::IoUring => Self::Uring,
            BackendSetting::Recvmmsg => Self::Mmsg,
        }
    }
}

impl From<GsoSetting> for GsoMode {
    fn from(setting: GsoSetting) -> Self {
        match setting {
            GsoSetting::Auto => Self::Auto,
            GsoSetting::On => Self::On,
            GsoSetting::Off => Self::Off,
        }
    }
}

impl From<GsoMode> for GsoSetting {
    fn from(mode: GsoMode) -> Self {
        match mode {
            GsoMode::Auto => Self::Auto,
            GsoMode::On => Self::On,
            GsoMode::Off => Self::Off,
        }
    }
}

const fn bad(key: &'static str, problem: String) -> ConfigError {
    ConfigError::Setting { key, problem }
}

fn default_listen() -> Vec<SocketAddr> {
    vec![(Ipv6Addr::UNSPECIFIED, PORT).into(), (Ipv4Addr::UNSPECIFIED, PORT).into()]
}

/// An address that stands there before; each port 0 is another port.
fn repeated(listen: &[SocketAddr]) -> Option<SocketAddr> {
    let is_repeated = |(at, address): &(usize, &SocketAddr)| {
        address.port() != 0 && listen[..*at].contains(address)
    };
    listen.iter().enumerate().find(is_repeated).map(|(_, address)| *address)
}

/// Of one port: the relay map has room for one.
fn stream_listen(listen: Option<Vec<SocketAddr>>) -> Result<Vec<SocketAddr>, ConfigError> {
    let listen = listen.unwrap_or_default();
    if let Some(twice) = repeated(&listen) {
        return Err(bad("stream_listen", format!("{twice} stands there twice: give it once")));
    }
    match listen.windows(2).find(|pair| pair[0].port() != pair[1].port()) {
        Some(pair) => {
            let problem = format!("{} and {}: give one port for all", pair[0], pair[1]);
            Err(bad("stream_listen", problem))
        }
        None => Ok(listen),
    }
}

/// One address of each family; two of one would leave open which clients are told.
fn advertised(
    advertise: Option<Vec<SocketAddr>>,
    listen: &[SocketAddr],
) -> Result<(Option<SocketAddrV4>, Option<SocketAddrV6>), ConfigError> {
    let is_usable = |address: &SocketAddr| {
        let ip = address.ip();
        !ip.is_unspecified() && !ip.is_multicast() && address.port() != 0
    };
    let from = advertise.unwrap_or_else(|| listen.iter().copied().filter(is_usable).collect());
    if let Some(address) = from.iter().find(|address| !is_usable(address)) {
        return Err(bad("advertise", format!("{address}: clients cannot send there")));
    }
    let is_served = |address: &&SocketAddr| listen.iter().any(|l| l.is_ipv4() == address.is_ipv4());
    if let Some(address) = from.iter().find(|address| !is_served(address)) {
        let problem = format!("{address}: no address of --listen is of its family; add one");
        return Err(bad("advertise", problem));
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
            std::fs::read_to_string(&path).map_err(read_error("--enrolment-token-file", &path))?,
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
    name_of(&rustix::system::uname().nodename().to_string_lossy())
}

/// What a host's name has in common with a relay's: of its first label, in lower case.
fn name_of(host: &str) -> String {
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let usable: String = label
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .skip_while(|c| *c == '-')
        .take(NAME_LEN_MAX)
        .collect();
    match usable.trim_end_matches('-') {
        "" => "relay".to_owned(),
        name => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A first start on `relay1.example.com` or `Relay1` was refused by control.
    #[test]
    fn regression_every_host_name_gives_a_name_that_control_takes() {
        for (host, expected) in [
            ("relay1.example.com", "relay1"),
            ("Relay1", "relay1"),
            ("DESKTOP-ÄÖÜ", "desktop"),
            ("my_relay", "my-relay"),
            ("--a--", "a"),
            ("", "relay"),
            ("äöü", "relay"),
            (&"x".repeat(64), &"x".repeat(32)),
            (&format!("{}-y", "x".repeat(31)), &"x".repeat(31)),
        ] {
            assert_eq!(name_of(host), expected, "{host}");
            assert!(valid_name(expected));
        }
    }

    fn resolve(toml: &str) -> Result<Config, ConfigError> {
        toml::from_str::<Settings>(toml).unwrap().resolve(None)
    }

    /// `check-config` printed Rust's `Debug`: no file could be made of it.
    #[test]
    fn regression_what_is_printed_is_a_file_that_says_the_same() {
        let given = "listen = [\"127.0.0.1:1\", \"[::1]:1\"]\ncontrol = \"[::1]:443\"\nname = \"a\"\n\
                     metrics_listen = \"\"\nbackend = \"io_uring\"\nlog_format = \"json\"\nleases = 9\n";
        let printed = resolve(given).unwrap().to_toml().unwrap();
        assert_eq!(resolve(&printed).unwrap().to_toml().unwrap(), printed);
        for line in [
            "listen = [\"127.0.0.1:1\", \"[::1]:1\"]",
            "advertise = [\"127.0.0.1:1\", \"[::1]:1\"]",
            "control = \"[::1]:443\"",
            "metrics_listen = \"off\"",
            "backend = \"io_uring\"",
            "log_format = \"json\"",
            "leases = 9",
        ] {
            assert!(printed.lines().any(|printed| printed == line), "{line} is not in {printed}");
        }
    }

    /// `check-config` found nothing wrong with any of them.
    #[test]
    fn regression_what_cannot_serve_is_refused_before_it_is_tried() {
        for (toml, says) in [
            ("listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]", "twice"),
            ("listen = [\"0.0.0.0:1\"]\nadvertise = [\"[2001:db8::1]:1\"]", "family"),
            ("advertise = [\"224.0.0.1:1\"]", "clients cannot send there"),
            ("stream_listen = [\"0.0.0.0:443\", \"[::]:8443\"]", "one port"),
            ("stream_listen = [\"[::]:443\", \"[::]:443\"]", "twice"),
            ("name = \"Relay1\"", "--name"),
            ("name = \"a.b\"", "--name"),
        ] {
            let message = resolve(toml).unwrap_err().to_string();
            assert!(message.contains(says), "{message}");
        }
        assert!(resolve("listen = [\"127.0.0.1:0\", \"127.0.0.1:0\"]").is_ok());
    }

    /// What was said was `expected usize`.
    #[test]
    fn regression_numbers_are_refused_in_an_operators_words() {
        for toml in ["shards = \"two\"", "leases = -1", "leases = 5000000000", "shards = 1.5"] {
            let message = toml::from_str::<Settings>(toml).unwrap_err().to_string();
            assert!(message.contains("expected a whole number"), "{message}");
        }
    }
}
