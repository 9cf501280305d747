use std::io;
use std::path::Path;
use std::time::Instant;

use rtnetlink::Handle;
use rustix::thread::{CapabilitySet, capabilities};
use tun::{AsyncDevice, Layer};

use super::link::{self, NicError, kernel_error};
use super::netlink;
use crate::nic::ethernet::{self, FromHost, HEADER_LEN};
use crate::nic::neighbour::{self, is_solicitation};
use crate::nic::{Lan, MTU, MacAddress, MemberSet, NicDrop, NicDrops};

/// Bytes of the longest frame the host sends.
const FRAME_LEN_MAX: usize = HEADER_LEN + MTU;
/// A host resolves each of 249 neighbours at most once a second (RFC 4861 §10,
/// `retrans_time_ms`), over ARP and twice over neighbour discovery.
const ANSWERS_PER_SECOND: u32 = 750;

/// A member's network card: a TAP device, down and gone when dropped.
pub struct Nic {
    tap: AsyncDevice,
    name: String,
    index: u32,
    lan: Lan,
    own_mac: MacAddress,
    online: MemberSet,
    answers: Budget,
    drops: NicDrops,
    frame: Box<[u8; FRAME_LEN_MAX]>,
    /// Bytes of a frame that [`Nic::readable`] has read into `frame`.
    waiting: Option<usize>,
    outgoing: Vec<u8>,
}

impl std::fmt::Debug for Nic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Nic")
            .field("name", &self.name)
            .field("lan", &self.lan)
            .finish_non_exhaustive()
    }
}

/// What one read gave.
#[derive(Debug)]
pub enum Read<'a> {
    /// An IP packet of the host.
    Packet(&'a mut [u8]),
    /// A frame that went no further: it was answered, or dropped and counted.
    Consumed,
    /// Nothing to read; wait with [`Nic::readable`].
    Empty,
}

impl Nic {
    /// Makes the interface and brings it up; nobody is online yet.
    ///
    /// # Errors
    /// See [`NicError`].
    pub async fn up(name: &str, lan: Lan) -> Result<Self, NicError> {
        check_name(name)?;
        let netlink = free_name(name).await?;
        let tap = open_tap(name)?;
        let index = link::configure(&netlink, name, &lan).await?;
        Ok(Self {
            tap,
            name: name.to_owned(),
            index,
            lan,
            own_mac: lan.own_mac(),
            online: MemberSet::default(),
            answers: Budget::new(ANSWERS_PER_SECOND),
            drops: NicDrops::default(),
            frame: Box::new([0; FRAME_LEN_MAX]),
            waiting: None,
            outgoing: Vec::with_capacity(FRAME_LEN_MAX),
        })
    }

    /// Whether [`Nic::up`] may work: to be asked before anything is done that it is needed for.
    ///
    /// # Errors
    /// [`NicError::BadName`], [`NicError::Rights`], [`NicError::NoDriver`].
    pub fn check_rights(name: &str) -> Result<(), NicError> {
        check_name(name)?;
        let effective = capabilities(None).map(|sets| sets.effective);
        if !effective.is_ok_and(|effective| effective.contains(CapabilitySet::NET_ADMIN)) {
            return Err(NicError::Rights { name: name.to_owned() });
        }
        Path::new("/dev/net/tun").exists().then_some(()).ok_or(NicError::NoDriver)
    }

    /// Whether [`Nic::up`] may work while there is no NIC yet: [`Nic::check_rights`], the name, and
    /// the driver.
    ///
    /// # Errors
    /// See [`NicError`].
    pub async fn check(name: &str) -> Result<(), NicError> {
        Self::check_rights(name)?;
        free_name(name).await?;
        open_tap(name).map(drop)
    }

    /// Whether the interface is up and has its IPv4 address, as [`Nic::up`] left it; somebody may
    /// have taken it down or flushed its addresses since.
    ///
    /// # Errors
    /// rtnetlink cannot be asked.
    pub async fn is_intact(name: &str, lan: &Lan) -> io::Result<bool> {
        link::is_intact(&netlink()?, name, lan).await.map_err(kernel_error)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The LAN the card is on.
    pub const fn lan(&self) -> &Lan {
        &self.lan
    }

    /// Frames and packets that did not cross.
    pub const fn drops(&self) -> &NicDrops {
        &self.drops
    }

    /// Whom the host can find from here on.
    pub const fn set_online(&mut self, members: MemberSet) {
        self.online = members;
    }

    /// Waits until the host has sent something.
    ///
    /// # Cancel safety
    /// No frame is lost.
    ///
    /// # Errors
    /// The device is gone.
    pub async fn readable(&mut self) -> io::Result<()> {
        if self.waiting.is_none() {
            self.waiting = Some(self.tap.recv(&mut self.frame[..]).await?);
        }
        Ok(())
    }

    /// Reads one frame, without waiting.
    ///
    /// # Errors
    /// The device is gone.
    pub fn read(&mut self, now: Instant) -> io::Result<Read<'_>> {
        let length = match self.waiting.take() {
            Some(length) => length,
            None => match device(&self.tap).recv(&mut self.frame[..]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Read::Empty),
                received => received?,
            },
        };
        match ethernet::parse(&self.frame[..length], self.own_mac) {
            Ok(FromHost::Packet(at)) if !is_solicitation(&self.frame[at.clone()]) => {
                return Ok(Read::Packet(&mut self.frame[at]));
            }
            Ok(question) => self.answer(question, now),
            Err(reason) => self.drops.count(reason),
        }
        Ok(Read::Consumed)
    }

    fn answer(&mut self, question: FromHost, now: Instant) {
        let (lan, online) = (&self.lan, &self.online);
        let sent = match question {
            _ if !self.answers.take(now) => Err(NicDrop::NeighbourLimit),
            FromHost::Arp(at) => neighbour::answer_arp(lan, online, &self.frame[at])
                .and_then(|reply| send_frame(&self.tap, &reply)),
            FromHost::Packet(at) => neighbour::answer_solicitation(lan, online, &self.frame[at])
                .and_then(|reply| send_frame(&self.tap, &reply)),
        };
        if let Err(reason) = sent {
            self.drops.count(reason);
        }
    }

    /// Gives the host an IP packet from another member.
    pub fn write(&mut self, packet: &[u8]) {
        let sent = ethernet::header_for_host(&self.lan, packet).and_then(|header| {
            self.outgoing.clear();
            self.outgoing.extend_from_slice(&header);
            self.outgoing.extend_from_slice(packet);
            send_frame(&self.tap, &self.outgoing)
        });
        if let Err(reason) = sent {
            self.drops.count(reason);
        }
    }
}

/// `write(2)` on a TAP never waits for room: the frame goes to the host's receive path at once
/// (`tun_get_user` in drivers/net/tun.c).
fn send_frame(tap: &AsyncDevice, frame: &[u8]) -> Result<(), NicDrop> {
    match device(tap).send(frame) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(NicDrop::HostFull),
        Err(_) => Err(NicDrop::HostRefused),
    }
}

/// The device below the asynchronous wrapper: its calls return at once with `WouldBlock`.
fn device(tap: &AsyncDevice) -> &tun::Device {
    tap
}

fn check_name(name: &str) -> Result<(), NicError> {
    const IFNAMSIZ: usize = 16;
    let usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let valid = (1..IFNAMSIZ).contains(&name.len())
        && name.bytes().all(usual)
        && name.bytes().any(|byte| byte != b'.');
    valid.then_some(()).ok_or_else(|| NicError::BadName { name: name.to_owned() })
}

/// A connection to rtnetlink, if no interface has that name: TUNSETIFF would attach to a persistent
/// TAP of another program.
async fn free_name(name: &str) -> Result<Handle, NicError> {
    let refused = |action, source| NicError::Refused { action, name: name.to_owned(), source };
    let netlink = netlink().map_err(|error| refused("open rtnetlink for the link", error))?;
    let existing = link::find(&netlink, name).await;
    match existing.map_err(|error| refused("look up the name", kernel_error(error)))? {
        Some(_) => Err(NicError::NameTaken { name: name.to_owned() }),
        None => Ok(netlink),
    }
}

fn open_tap(name: &str) -> Result<AsyncDevice, NicError> {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).layer(Layer::L2);
    let opened = tun::create_as_async(&configuration).map_err(io::Error::from);
    opened.map_err(|source| {
        let name = name.to_owned();
        let errors = [
            (io::ErrorKind::PermissionDenied, NicError::Rights { name: name.clone() }),
            (io::ErrorKind::NotFound, NicError::NoDriver),
            (io::ErrorKind::ResourceBusy, NicError::NameTaken { name: name.clone() }),
        ];
        let known = errors.into_iter().find(|(kind, _)| *kind == source.kind());
        let refused = NicError::Refused { action: "open the TAP", name, source };
        known.map_or(refused, |(_, error)| error)
    })
}

/// At most so many a second, counted in whole seconds.
#[derive(Debug)]
struct Budget {
    per_second: u32,
    left: u32,
    since: Option<Instant>,
}

impl Budget {
    const fn new(per_second: u32) -> Self {
        Self { per_second, left: per_second, since: None }
    }

    fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since).as_secs() >= 1 {
            self.since = Some(now);
            self.left = self.per_second;
        }
        let enough = self.left > 0;
        self.left = self.left.saturating_sub(1);
        enough
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn budget_refills_by_the_second() {
        let start = Instant::now();
        let mut budget = Budget::new(3);
        assert_eq!((0..5).filter(|_| budget.take(start)).count(), 3);
        assert!(!budget.take(start + Duration::from_millis(999)));
        assert_eq!((0..5).filter(|_| budget.take(start + Duration::from_secs(1))).count(), 3);
    }

    #[test]
    fn names_the_kernel_refuses_are_refused() {
        for good in ["lanrage0", "a", "party-lan_1.2345"] {
            assert!(check_name(&good[..good.len().min(15)]).is_ok(), "{good}");
        }
        for bad in ["", "sixteen-bytes-xx", "a/b", "a b", "..", "ü"] {
            assert!(matches!(check_name(bad), Err(NicError::BadName { .. })), "{bad}");
        }
    }
}
