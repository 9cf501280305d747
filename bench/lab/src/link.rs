//! Links: the pair of interfaces between two namespaces, and what lies between them.

use std::{
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Instant,
};

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::{
    Error,
    netns::Netns,
    pump::Pump,
    wire::{Counters, Direction, Impairment, Wire},
};

/// Frames a TAP holds before the link reads them: 120 ms of 1,500 B frames at 400 Mbit/s. What it
/// drops beyond is in the interface's own `tx_dropped`, not in [`Counters`].
const TAP_QUEUE_FRAMES: u32 = 4_096;

/// Ethernet header and one VLAN tag.
const ETHERNET_HEADER_LEN: usize = 14 + 4;

/// RFC 791: every host takes 576 bytes; 9,000 is the usual jumbo frame.
const MTU_MIN: u16 = 576;
const MTU_MAX: u16 = 9_000;

/// RFC 8200 §5: IPv6 requires that every link has an MTU of 1280 octets or greater.
const IPV6_MTU_MIN: u16 = 1_280;

/// Who cuts a large send into packets on a veth. (A shaped link never carries more than its MTU.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segmentation {
    /// Nobody: trains of up to 64 KiB cross whole, which no real network does.
    Offloaded,
    /// The sending kernel, before the interface, as with a NIC that has no offload.
    Software,
}

/// How a link is built.
#[derive(Debug, Clone)]
pub struct LinkSpec {
    medium: Medium,
    mtu: u16,
}

#[derive(Debug, Clone)]
enum Medium {
    Veth(Segmentation),
    UserSpace { up: Impairment, down: Impairment, seed: Option<u64> },
}

impl LinkSpec {
    /// A veth pair: as fast as the machine, and with nothing to set or count.
    pub fn direct() -> Self {
        Self { medium: Medium::Veth(Segmentation::Offloaded), mtu: 1_500 }
    }

    /// A veth pair on which every packet is at most one MTU long.
    pub fn segmented() -> Self {
        Self { medium: Medium::Veth(Segmentation::Software), mtu: 1_500 }
    }

    /// A user-space link, the same in both directions; [`Impairment::NONE`] may be set later.
    pub fn shaped(both: Impairment) -> Self {
        Self::asymmetric(both, both)
    }

    /// A user-space link with its directions seen from the host.
    pub fn asymmetric(up: Impairment, down: Impairment) -> Self {
        let medium = Medium::UserSpace { up, down, seed: None };
        Self { medium, mtu: 1_500 }
    }

    /// Bytes of IP packet, 576 to 9,000, default 1,500. Below 1,280 the link has no IPv6.
    pub fn mtu(self, mtu: u16) -> Self {
        Self { mtu, ..self }
    }

    /// Seeds loss and jitter of a shaped link; by default each link of a lab has its own seed.
    pub fn seed(mut self, value: u64) -> Self {
        if let Medium::UserSpace { seed, .. } = &mut self.medium {
            *seed = Some(value);
        }
        self
    }

    pub(crate) fn has_ipv6(&self) -> bool {
        self.mtu >= IPV6_MTU_MIN
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            return Err(Error::BadMtu(self.mtu));
        }
        match &self.medium {
            Medium::Veth(_) => Ok(()),
            Medium::UserSpace { up, down, .. } => up.check().and(down.check()),
        }
    }
}

/// One end of a link: an interface in a namespace.
#[derive(Debug, Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) netns: &'a Netns,
    pub(crate) interface: &'a str,
}

/// Lines of `ip` that make or finish a link's interfaces: first the network's, then the host's.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) host: String,
    pub(crate) network: String,
}

/// A link that is up. Clones name the same link.
#[derive(Debug, Clone)]
pub struct Link {
    /// `None` is a veth pair.
    pumps: Option<Arc<Pumps>>,
}

#[derive(Debug)]
struct Pumps {
    up: Pump,
    down: Pump,
}

impl Link {
    /// Makes a link, whose interfaces are there once the returned lines have run.
    pub(crate) fn create(
        spec: &LinkSpec,
        host: End<'_>,
        network: End<'_>,
        default_seed: u64,
    ) -> Result<(Self, Setup), Error> {
        match spec.medium {
            Medium::Veth(segmentation) => {
                let network = veth_lines(spec.mtu, segmentation, host, network);
                Ok((Self { pumps: None }, Setup { host: String::new(), network }))
            }
            Medium::UserSpace { up, down, seed } => {
                let pumps =
                    Pumps::start(spec.mtu, up, down, seed.unwrap_or(default_seed), host, network)?;
                let setup = Setup { host: tap_lines(host), network: tap_lines(network) };
                Ok((Self { pumps: Some(Arc::new(pumps)) }, setup))
            }
        }
    }

    /// Changes one direction from this moment; frames already on their way arrive as planned.
    ///
    /// # Errors
    ///
    /// [`Error::DirectLink`] for a veth; [`Error::BadLoss`], [`Error::BadDelay`] and
    /// [`Error::ZeroRate`] for an impossible impairment.
    pub fn set(&self, direction: Direction, impairment: Impairment) -> Result<(), Error> {
        impairment.check()?;
        let pump = self.pump(direction)?;
        pump.wire().set(Instant::now(), impairment);
        pump.wake();
        Ok(())
    }

    /// What one direction has counted.
    ///
    /// # Errors
    ///
    /// [`Error::DirectLink`] for a veth.
    pub fn counters(&self, direction: Direction) -> Result<Counters, Error> {
        Ok(self.pump(direction)?.wire().counters)
    }

    /// Ends the threads; the TAPs vanish with their descriptors.
    pub(crate) fn stop(&self) {
        if let Some(pumps) = &self.pumps {
            pumps.up.stop();
            pumps.down.stop();
        }
    }

    fn pump(&self, direction: Direction) -> Result<&Pump, Error> {
        let pumps = self.pumps.as_deref().ok_or(Error::DirectLink)?;
        Ok(match direction {
            Direction::Up => &pumps.up,
            Direction::Down => &pumps.down,
        })
    }
}

impl Pumps {
    fn start(
        mtu: u16,
        up: Impairment,
        down: Impairment,
        seed: u64,
        host: End<'_>,
        network: End<'_>,
    ) -> Result<Self, Error> {
        let host_tap = create_tap(mtu, host)?;
        let network_tap = create_tap(mtu, network)?;
        let frame_max = usize::from(mtu) + ETHERNET_HEADER_LEN;
        let now = Instant::now();
        // The two directions draw from seeds of their own.
        let seed = seed.wrapping_mul(2);
        let up = Wire::new(up, seed, now);
        let down = Wire::new(down, seed.wrapping_add(1), now);
        let (from_host, to_host) = (Arc::clone(&host_tap), host_tap);
        let (from_network, to_network) = (Arc::clone(&network_tap), network_tap);
        Ok(Self {
            up: Pump::start(network.interface, up, frame_max, from_host, to_network)?,
            down: Pump::start(network.interface, down, frame_max, from_network, to_host)?,
        })
    }
}

fn veth_lines(mtu: u16, segmentation: Segmentation, host: End<'_>, network: End<'_>) -> String {
    // One segment a packet turns off GSO in every sender (gso_features_check, net/core/dev.c).
    let segments = match segmentation {
        Segmentation::Offloaded => "",
        Segmentation::Software => " gso_max_segs 1",
    };
    format!(
        "link add name {} mtu {mtu}{segments} type veth peer name {} mtu {mtu}{segments} netns {}\n",
        network.interface,
        host.interface,
        host.netns.name(),
    )
}

fn tap_lines(end: End<'_>) -> String {
    format!("link set dev {} txqueuelen {TAP_QUEUE_FRAMES}\n", end.interface)
}

fn create_tap(mtu: u16, end: End<'_>) -> Result<Arc<OwnedFd>, Error> {
    let action = format!("make TAP {} in {}", end.interface, end.netns.name());
    let tap = end.netns.enter(|| open_tap(end.interface, mtu))?;
    Ok(Arc::new(tap.map_err(Error::io(action))?))
}

/// A TAP that was never given TUNSETOFFLOAD hands over whole, checksummed frames of at most one
/// MTU (`tun_net_fix_features`, drivers/net/tun.c).
fn open_tap(interface: &str, mtu: u16) -> std::io::Result<OwnedFd> {
    let mut config = tun::Configuration::default();
    config.tun_name(interface).layer(tun::Layer::L2).mtu(mtu);
    let device = tun::create(&config).map_err(std::io::Error::other)?;
    // `tun` lends out only a raw descriptor; this is the way to own a duplicate without `unsafe`.
    let this_process = pidfd_open(getpid(), PidfdFlags::empty())?;
    let tap = pidfd_getfd(this_process, device.as_raw_fd(), PidfdGetfdFlags::empty())?;
    rustix::io::ioctl_fionbio(&tap, true)?;
    Ok(tap)
}
