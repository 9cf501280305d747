use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use lanrage_relay_uring::Sockets;

use super::carried::{FrozenBinder, Halted, from_memfd};
use super::channel::Channel;
use super::give::Memory;
use super::message::{Message, Offer, VERSION};
use crate::config::Config;
use crate::failure::Failure;
use crate::steering::Steered;

/// Says that standard input is a [`Channel`].
pub(super) const VARIABLE: &str = "LANRAGE_RELAY_HANDOVER";
pub(super) const STDIN: &str = "stdin";

/// The old process gives up long before.
const PATIENCE: Duration = Duration::from_secs(20);

/// What another process has offered.
#[derive(Debug)]
pub(crate) struct Taken {
    channel: Channel,
    pub(crate) clock_origin_ns: u64,
    pub(crate) memory: Memory,
    /// Given out once each.
    pub(crate) lock: Option<OwnedFd>,
    pub(crate) steered: Option<Steered>,
    listeners: Vec<(String, OwnedFd)>,
}

/// What another process offers to this one, if it was started for that.
///
/// # Errors
/// The other process is gone, or its relay cannot be this one's.
pub(crate) fn take(config: &Config) -> Result<Option<Taken>, Failure> {
    if std::env::var_os(VARIABLE).is_none_or(|value| value != STDIN) {
        return Ok(None);
    }
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let channel = Channel::new(socket.context("reading standard input")?);
    match accept(&channel, config) {
        Ok((offer, descriptors, steered)) => {
            let mut descriptors = descriptors.into_iter();
            let mut next = || descriptors.next().ok_or_else(|| anyhow!("a descriptor is missing"));
            let memory = Memory::open(next()?, next()?).context("mapping the leases")?;
            let lock = Some(next()?);
            let listeners = offer.listeners.into_iter().zip(descriptors).collect();
            let clock_origin_ns = offer.clock_origin_ns;
            let steered = Some(steered);
            Ok(Some(Taken { channel, clock_origin_ns, memory, lock, steered, listeners }))
        }
        Err(error) => {
            refuse(&channel, &error);
            Err(Failure::Other(error.context("taking over from the running relay")))
        }
    }
}

fn refuse(channel: &Channel, error: &anyhow::Error) {
    // When the old process is gone there is nobody to tell.
    let _ = channel.send(&Message::Refused(format!("{error:#}")), &[]);
}

type Accepted = (Offer, Vec<OwnedFd>, Steered);

fn accept(channel: &Channel, config: &Config) -> anyhow::Result<Accepted> {
    let (message, descriptors) = channel.receive(PATIENCE).context("waiting for the offer")?;
    let Message::Offer(offer) = message else { bail!("the first message is {message:?}") };
    compare(&offer, config)?;
    let mut all = Vec::new();
    while all.len() < offer.sets * offer.listen.len() {
        let (message, mut sockets) = channel.receive(PATIENCE).context("waiting for sockets")?;
        if message != Message::Sockets || sockets.is_empty() {
            bail!("{message:?} with {} sockets came for sockets", sockets.len());
        }
        all.append(&mut sockets);
    }
    let mut all = all.into_iter();
    let sets = (0..offer.sets)
        .map(|_| Sockets::adopt(all.by_ref().take(offer.listen.len()).collect()))
        .collect::<Result<_, _>>()
        .context("taking the sockets")?;
    let steered = Steered::adopt(sets, offer.shards, &offer.steering)?;
    Ok((offer, descriptors, steered))
}

/// What a process cannot change while it takes over.
fn compare(offer: &Offer, config: &Config) -> anyhow::Result<()> {
    const RESTART: &str = "undo the change, or stop the relay and start it again";
    if offer.version != VERSION {
        bail!(
            "the running relay hands over in version {}, this program in {VERSION}: stop the relay \
             and start this program",
            offer.version
        );
    }
    if offer.listen != config.listen {
        bail!("listen is {:?}, and was {:?}: {RESTART}", config.listen, offer.listen);
    }
    if offer.shards != config.shards {
        bail!("shards is {}, and was {}: {RESTART}", config.shards, offer.shards);
    }
    if !config.steering.may_be(&offer.steering) {
        bail!("steering is {:?}, and was {:?}: {RESTART}", config.steering, offer.steering);
    }
    if offer.leases != config.capacity.leases {
        bail!("leases is {}, and was {}: {RESTART}", config.capacity.leases, offer.leases);
    }
    Ok(())
}

impl Taken {
    /// The listener of this name, if the old process has it.
    pub(crate) fn listener(&mut self, name: &str) -> Option<OwnedFd> {
        let at = self.listeners.iter().position(|(given, _)| given == name)?;
        Some(self.listeners.swap_remove(at).1)
    }

    /// This process can go on; then the old binder stops.
    pub(crate) fn ready(&self) -> anyhow::Result<FrozenBinder> {
        let frozen = self.exchange(&Message::Ready, Message::Frozen)?;
        Ok(FrozenBinder::unpack(&from_memfd(frozen)?)?)
    }

    /// The table is read; then the old shards stop.
    pub(crate) fn adopted(&self) -> anyhow::Result<Halted> {
        let halted = self.exchange(&Message::Adopted, Message::Go)?;
        Ok(Halted::unpack(&from_memfd(halted)?)?)
    }

    /// The shards receive; returns when the relay is this process's.
    pub(crate) fn armed(&self) -> anyhow::Result<()> {
        self.channel.send(&Message::Armed, &[]).context("the old process is gone")?;
        let waiting = "waiting for the old process to let go";
        let (said, _) = self.channel.receive(PATIENCE).context(waiting)?;
        if said != Message::Yours {
            bail!("the old process said {said:?} where it had to let go");
        }
        Ok(())
    }

    /// Says why this process does not take over.
    pub(crate) fn refuse(&self, error: &anyhow::Error) {
        refuse(&self.channel, error);
    }

    fn exchange(&self, say: &Message, hear: Message) -> anyhow::Result<OwnedFd> {
        self.channel.send(say, &[]).context("the old process is gone")?;
        let waiting = || format!("waiting for {hear:?}");
        let (message, descriptors) = self.channel.receive(PATIENCE).with_context(waiting)?;
        match (message == hear, descriptors.into_iter().next()) {
            (true, Some(descriptor)) => Ok(descriptor),
            _ => bail!("the old process did not say {hear:?}"),
        }
    }
}
