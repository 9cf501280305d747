//! The relay's sockets, and which of them the kernel gives a datagram to.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh;
use lanrage_relay_uring::{BindError, DataFrame, SocketOptions, Sockets, Spread, Steering, bind};

use crate::config::SteeringSetting;

/// The data frame (§3.1), a flow of which is a lease's: its handle stands in bytes 8–11; and the two
/// between relays (§3.6), where it is a shard's of another relay: relay, epoch and shard stand in bytes
/// 2–5. A shard sends no more than one can receive.
const DATA: [DataFrame; 3] = [
    DataFrame { first_byte: first_byte::DATA, len_min: HEADER_LEN as u8, flow_at: 8 },
    DataFrame { first_byte: first_byte::MESH, len_min: mesh::HEADER_LEN as u8, flow_at: 2 },
    DataFrame { first_byte: first_byte::MESH_ABSENT, len_min: mesh::HEADER_LEN as u8, flow_at: 2 },
];

/// The sockets of each shard, and those that get everything but data.
#[derive(Debug)]
pub struct Steered {
    /// Of data.
    pub shards: Vec<Sockets>,
    /// `None`: the shards get everything, by the kernel's hash of both addresses.
    pub control: Option<Sockets>,
    /// What came of it.
    pub state: State,
}

/// How datagrams reach the shards.
#[derive(Debug)]
pub enum State {
    /// Data by its lease's handle, all else to sockets of its own.
    Handle,
    /// Data by the CPU it arrived on, all else to sockets of its own.
    Cpu,
    /// Everything by hash, for the operator wants it so.
    Off,
    /// Everything by hash, for the kernel refused the program.
    Refused(io::Error),
}

impl State {
    /// The metric label.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Handle => "handle",
            Self::Cpu => "cpu",
            Self::Off => "off",
            Self::Refused(_) => "refused",
        }
    }

    fn log(&self) {
        match self {
            Self::Refused(error) => tracing::warn!(
                %error,
                "steering is refused, by seccomp or an old kernel: floods share the queues of data; `steering = \"off\"` if that is meant"
            ),
            Self::Handle | Self::Cpu | Self::Off => {
                tracing::info!(steering = self.as_str(), "steering");
            }
        }
    }
}

impl Steered {
    /// Binds the relay's addresses and steers what comes to them.
    ///
    /// # Errors
    /// An address cannot be bound. Without steering a relay works all the same.
    pub fn bind(
        listen: &[SocketAddr],
        shards: usize,
        steering: SteeringSetting,
    ) -> Result<Self, BindError> {
        let (spread, on_success) = match steering {
            SteeringSetting::Off => (None, State::Off),
            SteeringSetting::Auto | SteeringSetting::Handle => (Some(Spread::Flow), State::Handle),
            SteeringSetting::Cpu => (Some(Spread::Cpu), State::Cpu),
        };
        let sets = shards + usize::from(spread.is_some());
        let mut all = bind(listen, sets, &SocketOptions::default())?;
        let attached = match spread {
            Some(spread) => Steering::new(shards, &DATA, spread).attach(&all),
            None => Ok(()),
        };
        // A set left over is closed, and then in no group.
        let control = all.drain(shards..).next();
        let (control, state) = match attached {
            Ok(()) => (control, on_success),
            Err(error) => (None, State::Refused(error)),
        };
        state.log();
        Ok(Self { shards: all, control, state })
    }

    /// Sets of sockets that another process has bound and steers.
    ///
    /// # Errors
    /// They are not as many as its steering has.
    pub(crate) fn adopt(
        mut sets: Vec<Sockets>,
        shards: usize,
        steering: &str,
    ) -> anyhow::Result<Self> {
        let state = match steering {
            "handle" => State::Handle,
            "cpu" => State::Cpu,
            "off" => State::Off,
            "refused" => State::Refused(io::Error::other("by the process before")),
            other => anyhow::bail!("the running relay's steering is {other:?}"),
        };
        let has_control = matches!(state, State::Handle | State::Cpu);
        anyhow::ensure!(
            shards > 0 && sets.len() == shards + usize::from(has_control),
            "{} sets of sockets came for {shards} shards with steering {steering:?}",
            sets.len()
        );
        let control = if has_control { sets.pop() } else { None };
        state.log();
        Ok(Self { shards: sets, control, state })
    }

    /// The sockets of all sets, control's last.
    ///
    /// # Errors
    /// The limit of open files.
    pub fn duplicate(&self) -> io::Result<Vec<Vec<OwnedFd>>> {
        self.shards.iter().chain(&self.control).map(Sockets::duplicate).collect()
    }
}

impl SteeringSetting {
    /// Whether it can have led to this, as its metric says.
    pub(crate) fn may_be(self, steering: &str) -> bool {
        match self {
            Self::Auto | Self::Handle => matches!(steering, "handle" | "refused"),
            Self::Cpu => matches!(steering, "cpu" | "refused"),
            Self::Off => steering == "off",
        }
    }
}
