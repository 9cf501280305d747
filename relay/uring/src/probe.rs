//! Picks the back end when the relay starts, by building the ring as it will be used.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::backend::{BackendKind, Options};
use crate::sockets::{self, SocketOptions};
use crate::uring::Uring;

/// The back end that [`BackendChoice::Auto`] takes where both work.
pub const PREFERRED: BackendKind = BackendKind::Uring;

/// What the operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// [`PREFERRED`], or the other one where that is refused.
    Auto,
    /// io_uring, or no start.
    Uring,
    /// recvmmsg and sendmmsg.
    Mmsg,
}

/// The back end to open on every shard.
#[derive(Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The back end.
    pub kind: BackendKind,
    /// Why, for the operator.
    pub reason: String,
}

/// Resolves a choice to a back end.
///
/// # Errors
///
/// [`BackendChoice::Uring`] was forced and the kernel refuses it.
pub fn resolve(choice: BackendChoice, options: &Options) -> Result<Resolved, OpenError> {
    let resolved = |kind, reason: String| Resolved { kind, reason };
    match (choice, PREFERRED) {
        (BackendChoice::Mmsg, _) => {
            Ok(resolved(BackendKind::Mmsg, "recvmmsg was asked for".into()))
        }
        (BackendChoice::Auto, BackendKind::Mmsg) => {
            Ok(resolved(BackendKind::Mmsg, "recvmmsg works everywhere and is the default".into()))
        }
        (BackendChoice::Uring, _) => {
            try_uring(options)?;
            Ok(resolved(BackendKind::Uring, "io_uring was asked for and works".into()))
        }
        (BackendChoice::Auto, BackendKind::Uring) => Ok(match try_uring(options) {
            Ok(()) => resolved(BackendKind::Uring, "io_uring works and is the default".into()),
            Err(refusal) => resolved(BackendKind::Mmsg, format!("using recvmmsg: {refusal}")),
        }),
    }
}

/// Opens a ring over a socket of its own, and closes it.
fn try_uring(options: &Options) -> Result<(), Refusal> {
    let small = SocketOptions { receive_buffer: 0, send_buffer: 0, ..SocketOptions::default() };
    let any = [
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    ];
    let sockets = any
        .iter()
        .find_map(|address| sockets::bind(&[*address], 1, &small).ok()?.pop())
        .ok_or_else(|| Refusal::new("opening a UDP socket", io::ErrorKind::Unsupported.into()))?;
    Uring::open(sockets, options).map(drop)
}

/// A back end could not be opened.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct OpenError(#[from] Refusal);

impl OpenError {
    /// What the kernel refused.
    pub fn refusal(&self) -> &Refusal {
        &self.0
    }
}

/// What the kernel refused, and what to do about it.
#[derive(Debug)]
pub struct Refusal {
    /// The step of opening a back end.
    pub step: &'static str,
    /// What kind of refusal.
    pub cause: Cause,
    /// What the kernel said.
    pub source: io::Error,
}

/// Kinds of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// EPERM, EACCES: by seccomp, or by this value of kernel.io_uring_disabled.
    NotPermitted {
        /// The sysctl, if it is not 0.
        io_uring_disabled: Option<u8>,
    },
    /// ENOSYS: the kernel was built without io_uring, or seccomp says so.
    NotImplemented,
    /// EINVAL: the kernel lacks a feature.
    KernelTooOld,
    /// ENOMEM: RLIMIT_MEMLOCK, or no memory.
    OutOfMemory,
    /// Any other errno.
    Other,
}

impl Refusal {
    pub(crate) fn new(step: &'static str, source: io::Error) -> Self {
        let cause = match source.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => {
                Cause::NotPermitted { io_uring_disabled: sysctl_disabled() }
            }
            Some(libc::ENOSYS) => Cause::NotImplemented,
            Some(libc::EINVAL) => Cause::KernelTooOld,
            Some(libc::ENOMEM) => Cause::OutOfMemory,
            _ => Cause::Other,
        };
        Self { step, cause, source }
    }
}

/// kernel.io_uring_disabled, if it forbids anything (Documentation/admin-guide/sysctl/kernel.rst).
fn sysctl_disabled() -> Option<u8> {
    let value = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?;
    value.trim().parse().ok().filter(|value| *value != 0)
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was refused ({}): ", self.step, self.source)?;
        match self.cause {
            Cause::NotPermitted { io_uring_disabled: Some(value) } => write!(
                f,
                "the sysctl kernel.io_uring_disabled is {value}: set it to 0, or set it to 1 and put the relay in kernel.io_uring_group"
            ),
            Cause::NotPermitted { io_uring_disabled: None } => f.write_str(
                "a seccomp filter forbids it, as Docker's default profile does: allow io_uring_setup, io_uring_enter and io_uring_register",
            ),
            Cause::NotImplemented => {
                f.write_str("this kernel has no io_uring (CONFIG_IO_URING), or a seccomp filter hides it")
            }
            Cause::KernelTooOld => f.write_str("this kernel is too old: io_uring is used from Linux 6.1 on"),
            Cause::OutOfMemory => {
                f.write_str("raise RLIMIT_MEMLOCK (`LimitMEMLOCK=` in a systemd unit), or use fewer buffers")
            }
            Cause::Other => f.write_str("see the error in brackets"),
        }
    }
}
