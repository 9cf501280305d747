//! The lab: its backbone, and what is attached to it.

use std::{
    collections::BTreeSet,
    env,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
};

use crate::{
    Error, Host, LabId, Link, LinkSpec, Nat, NatKind, NatSpec,
    guardian::Guardian,
    link::End,
    netns::{Netns, Role},
};

/// The interface of every host.
pub(crate) const HOST_INTERFACE: &str = "eth0";

/// A network of hosts that goes down when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct Lab {
    shared: Arc<Shared>,
    /// Last, so that the lab goes down when everything else is dropped.
    guardian: Guardian,
}

/// What a NAT needs of its lab to attach hosts.
#[derive(Debug)]
pub(crate) struct Shared {
    id: LabId,
    dir: Arc<Path>,
    pub(crate) backbone: Netns,
    names: Mutex<BTreeSet<String>>,
    links: Mutex<Vec<Link>>,
    next_link: AtomicU8,
}

/// The two ends of a link as IP sees them: a /24, a /64, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subnet {
    /// Host and gateway, as in `v6`.
    pub(crate) v4: Option<(Ipv4Addr, Ipv4Addr)>,
    pub(crate) v6: Option<(Ipv6Addr, Ipv6Addr)>,
}

/// What a host hangs on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Uplink<'a> {
    /// A routed interface of the backbone.
    Backbone,
    /// A port of the bridge `lan` of a gateway.
    Lan(&'a Netns),
}

impl Lab {
    /// A lab with a run directory of its own, removed with the lab.
    ///
    /// # Errors
    ///
    /// [`Error::NotRoot`], [`Error::MissingTool`], [`Error::MissingTun`]; [`Error::Io`] and
    /// [`Error::Command`] if the system refuses.
    pub fn new() -> Result<Self, Error> {
        check_system()?;
        Self::build(Guardian::start(None)?)
    }

    /// A lab that keeps its logs and captures in `dir`, which is made if need be and stays.
    ///
    /// # Errors
    ///
    /// Those of [`Lab::new`].
    pub fn in_dir(dir: &Path) -> Result<Self, Error> {
        check_system()?;
        Self::build(Guardian::start(Some(dir))?)
    }

    fn build(guardian: Guardian) -> Result<Self, Error> {
        let id = guardian.id().clone();
        let backbone = Netns::create(id.netns("backbone"), Role::Router)?;
        backbone.make_hosts_file()?;
        let shared = Shared {
            dir: guardian.dir().into(),
            backbone,
            names: Mutex::new(BTreeSet::from(["backbone".to_owned()])),
            links: Mutex::default(),
            next_link: AtomicU8::new(1),
            id,
        };
        Ok(Self { shared: Arc::new(shared), guardian })
    }

    /// A host with public addresses on the backbone, which all hosts find by its name.
    ///
    /// # Errors
    ///
    /// [`Error::BadName`], [`Error::NameTaken`], [`Error::NoAddress`], [`Error::Full`], a bad `link`;
    /// [`Error::Io`] and [`Error::Command`] if the system refuses.
    pub fn host(&self, name: &str, link: LinkSpec) -> Result<Host, Error> {
        let subnet = public_subnet(self.shared.take_link_number()?, &link);
        let host = self.shared.attach(name, Role::Host, &link, Uplink::Backbone, subnet)?;
        self.shared.publish(&host)?;
        Ok(host)
    }

    /// A NAT gateway with a public address and a LAN of its own.
    ///
    /// # Errors
    ///
    /// Those of [`Lab::host`].
    pub fn nat(&self, name: &str, kind: NatKind, link: LinkSpec) -> Result<Nat, Error> {
        self.nat_with(name, NatSpec::new(kind, link))
    }

    /// A NAT gateway with all its options.
    ///
    /// # Errors
    ///
    /// Those of [`Lab::host`].
    pub fn nat_with(&self, name: &str, spec: NatSpec) -> Result<Nat, Error> {
        let number = self.shared.take_link_number()?;
        let subnet = public_subnet(number, &spec.link);
        let gateway =
            self.shared.attach(name, Role::Router, &spec.link, Uplink::Backbone, subnet)?;
        Nat::build(Arc::clone(&self.shared), gateway, number, spec)
    }

    pub fn id(&self) -> &LabId {
        &self.shared.id
    }

    /// Where logs and captures are.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// Lets the lab outlive this process, until [`crate::down`] or `lanrage-lab down`.
    ///
    /// Shaped links are carried by this process: they run until it ends, and no longer.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the guardian cannot be told; the lab is then torn down.
    pub fn leave_standing(mut self) -> Result<LabId, Error> {
        self.guardian.stand_down()?;
        let id = self.id().clone();
        std::mem::forget(self);
        Ok(id)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for link in lock(&self.shared.links).iter() {
            link.stop();
        }
    }
}

impl Shared {
    pub(crate) fn attach(
        &self,
        name: &str,
        role: Role,
        spec: &LinkSpec,
        uplink: Uplink<'_>,
        subnet: Subnet,
    ) -> Result<Host, Error> {
        spec.check()?;
        if subnet.v4.is_none() && subnet.v6.is_none() {
            return Err(Error::NoAddress(name.to_owned()));
        }
        self.take_name(name)?;
        let netns = Netns::create(self.id.netns(name), role)?;
        netns.share_hosts_file(&self.backbone)?;
        let network = match uplink {
            Uplink::Backbone => &self.backbone,
            Uplink::Lan(gateway) => gateway,
        };
        let host_end = End { netns: &netns, interface: HOST_INTERFACE };
        let network_end = End { netns: network, interface: name };
        let (link, setup) = Link::create(spec, host_end, network_end, seed(name))?;
        lock(&self.links).push(link.clone());
        network.ip(&(setup.network + &subnet.network_lines(name, uplink)))?;
        netns.ip(&(setup.host + &subnet.host_lines()))?;
        network.ip(&uplink.settle_lines(name))?;
        Ok(Host {
            name: name.to_owned(),
            netns,
            v4: subnet.v4.map(|(host, _)| host),
            v6: subnet.v6.map(|(host, _)| host),
            link,
            dir: Arc::clone(&self.dir),
        })
    }

    /// Lets every host of the lab find this one by its name.
    fn publish(&self, host: &Host) -> Result<(), Error> {
        let lines: String =
            host.addresses().map(|address| format!("{address} {}\n", host.name())).collect();
        self.backbone.add_to_hosts_file(&lines)
    }

    fn take_name(&self, name: &str) -> Result<(), Error> {
        // The name is also an interface's (IFNAMSIZ - 1 = 15 bytes) beside these.
        let legal = (1..=15).contains(&name.len())
            && !name.starts_with('-')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !["lo", "lan", HOST_INTERFACE].contains(&name);
        if !legal {
            return Err(Error::BadName(name.to_owned()));
        }
        if !lock(&self.names).insert(name.to_owned()) {
            return Err(Error::NameTaken(name.to_owned()));
        }
        Ok(())
    }

    /// 1 to 254.
    fn take_link_number(&self) -> Result<u8, Error> {
        let next = |number: u8| (number < u8::MAX).then(|| number + 1);
        self.next_link
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_err(|_| Error::Full("links of the backbone".to_owned()))
    }
}

impl Uplink<'_> {
    /// An interface whose peer came up later drops what it sends until the kernel's link watch has
    /// run; asking for it runs that at once (`rtnl_getlink`, net/core/rtnetlink.c, since 6.8).
    fn settle_lines(self, interface: &str) -> String {
        match self {
            Self::Backbone => format!("link show dev {interface}\n"),
            Self::Lan(_) => format!("link show dev {interface}\nlink show dev lan\n"),
        }
    }
}

impl Subnet {
    fn network_lines(&self, interface: &str, uplink: Uplink<'_>) -> String {
        let mut lines = match uplink {
            Uplink::Lan(_) => return format!("link set dev {interface} master lan up\n"),
            Uplink::Backbone => format!("link set dev {interface} up\n"),
        };
        if let Some((_, gateway)) = self.v4 {
            lines += &format!("addr add {gateway}/24 dev {interface}\n");
        }
        if let Some((_, gateway)) = self.v6 {
            lines += &format!("addr add {gateway}/64 dev {interface} nodad\n");
        }
        lines
    }

    fn host_lines(&self) -> String {
        let mut lines = String::from("link set dev lo up\nlink set dev eth0 up\n");
        if let Some((host, gateway)) = self.v4 {
            lines += &format!("addr add {host}/24 dev eth0\nroute add default via {gateway}\n");
        }
        if let Some((host, gateway)) = self.v6 {
            lines += &format!("addr add {host}/64 dev eth0 nodad\nroute add ::/0 via {gateway}\n");
        }
        lines
    }
}

fn public_subnet(number: u8, link: &LinkSpec) -> Subnet {
    let v4 = |last| Ipv4Addr::new(198, 18, number, last);
    let v6 = |last| Ipv6Addr::new(0x2001, 0xdb8, number.into(), 0, 0, 0, 0, last);
    Subnet { v4: Some((v4(2), v4(1))), v6: link.has_ipv6().then(|| (v6(2), v6(1))) }
}

/// The same host of the same scenario draws the same losses in each run.
fn seed(name: &str) -> u64 {
    name.bytes().fold(0, |seed: u64, byte| seed.wrapping_mul(31).wrapping_add(byte.into()))
}

fn check_system() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    require_tool("ip", "iproute2")?;
    require_tool("nft", "nftables")?;
    require_tool("conntrack", "conntrack")?;
    if !Path::new("/dev/net/tun").exists() {
        return Err(Error::MissingTun);
    }
    Ok(())
}

pub(crate) fn require_tool(tool: &'static str, package: &'static str) -> Result<(), Error> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|dir| dir.join(tool).is_file()) {
        return Ok(());
    }
    Err(Error::MissingTool { tool, package })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
