use std::io;

/// Why the lab could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a lab needs root to make network namespaces: run it as root")]
    NotRoot,
    #[error("`{tool}` is not in PATH: install the Debian package `{package}`")]
    MissingTool { tool: &'static str, package: &'static str },
    #[error("/dev/net/tun is missing: load the kernel module `tun` (modprobe tun)")]
    MissingTun,
    #[error("bad name {0:?}: use 1 to 15 of a-z, A-Z, 0-9 and `-`, and not `lo`, `lan`, `eth0`")]
    BadName(String),
    #[error("the name {0:?} is taken in this lab: choose another")]
    NameTaken(String),
    #[error("no addresses left for {0}: a lab has 254 links and 253 hosts a LAN")]
    Full(String),
    #[error("MTU {0} is out of range: use 576 to 9000")]
    BadMtu(u16),
    #[error("{0} would have no address: IPv6 needs an MTU of 1280 on its link and its gateway's")]
    NoAddress(String),
    #[error("loss {0} is not a probability: use 0.0 to 1.0")]
    BadLoss(f64),
    #[error("a delay of {0:?} is too long: use at most 1 h")]
    BadDelay(std::time::Duration),
    #[error("a rate of 0 bit/s never sends: use a loss of 1.0 to cut the link")]
    ZeroRate,
    #[error("this link is a plain veth: build it with LinkSpec::shaped to set or count it")]
    DirectLink,
    #[error("{0} does not translate addresses: only a NAT has mappings to rebind")]
    NotTranslating(String),
    #[error("`{command}` failed: {stderr}")]
    Command { command: String, stderr: String },
    #[error("{waited_for} did not happen within {seconds} s; see {log}")]
    Timeout { waited_for: String, seconds: u64, log: String },
    #[error("{0} is not a pcap file that tcpdump finished")]
    BadCapture(String),
    #[error("no lab {0}: `lanrage-lab list` shows those that stand")]
    NoSuchLab(String),
    #[error("the lab {0} would not go down: look for what holds it with `lanrage-lab list`")]
    StillUp(String),
    #[error("{action}: {source}")]
    Io { action: String, source: io::Error },
}

impl Error {
    /// For `map_err`: an I/O error with what was being done.
    pub(crate) fn io<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Io { action: action.into(), source: source.into() }
    }
}
