//! The relay's sockets, and which of them the kernel gives a datagram to.

use std::io;

use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_relay_uring::{BindError, DataFrame, SocketOptions, Sockets, Spread, Steering, bind};

use crate::config::{Config, SteeringSetting};

/// The data frame (§3.1); a lease's handle stands in bytes 8–11.
const DATA: DataFrame =
    DataFrame { first_byte: first_byte::DATA, len_min: HEADER_LEN as u8, flow_at: 8 };

/// The sockets of each shard, and those that get everything but data.
#[derive(Debug)]
pub(crate) struct Steered {
    pub(crate) shards: Vec<Sockets>,
    /// `None`: the shards get everything, by the kernel's hash of both addresses.
    pub(crate) control: Option<Sockets>,
    pub(crate) state: State,
}

/// How datagrams reach the shards.
#[derive(Debug)]
pub(crate) enum State {
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
    pub(crate) const fn as_str(&self) -> &'static str {
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

/// Binds the relay's addresses and steers what comes to them.
///
/// # Errors
/// An address cannot be bound. Without steering a relay works all the same.
pub(crate) fn bind_steered(config: &Config) -> Result<Steered, BindError> {
    let (spread, on_success) = match config.steering {
        SteeringSetting::Off => (None, State::Off),
        SteeringSetting::Auto | SteeringSetting::Handle => (Some(Spread::Flow), State::Handle),
        SteeringSetting::Cpu => (Some(Spread::Cpu), State::Cpu),
    };
    let sets = config.shards + usize::from(spread.is_some());
    let mut shards = bind(&config.listen, sets, &SocketOptions::default())?;
    let attached = match spread {
        Some(spread) => Steering::new(config.shards, &[DATA], spread).attach(&shards),
        None => Ok(()),
    };
    // A set left over is closed, and then in no group.
    let control = shards.drain(config.shards..).next();
    let (control, state) = match attached {
        Ok(()) => (control, on_success),
        Err(error) => (None, State::Refused(error)),
    };
    state.log();
    Ok(Steered { shards, control, state })
}
