//! The system call, and what it refuses.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Commands (`enum bpf_cmd`, linux/bpf.h).
pub(crate) const MAP_CREATE: i32 = 0;
pub(crate) const MAP_LOOKUP: i32 = 1;
pub(crate) const MAP_UPDATE: i32 = 2;
pub(crate) const PROG_LOAD: i32 = 5;
pub(crate) const PROG_TEST_RUN: i32 = 10;
pub(crate) const MAP_UPDATE_BATCH: i32 = 26;
pub(crate) const LINK_CREATE: i32 = 28;

/// Why the kernel would not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command failed.
    #[error("bpf: {action}: {source}")]
    Refused {
        /// What was asked.
        action: &'static str,
        /// What the kernel said; EPERM asks for root.
        source: io::Error,
    },
    /// The verifier did not accept a program.
    #[error("bpf: the verifier refused a program: {source}\n{log}")]
    Verifier {
        /// What the kernel said.
        source: io::Error,
        /// The end of the verifier's log.
        log: String,
    },
}

/// The arguments of a command: a member of `union bpf_attr`, padding made explicit and zeroed, since
/// the kernel refuses what it does not know unless it is zero (`bpf_check_uarg_tail_zero`).
///
/// # Safety
///
/// The type has the layout of the member, and each address in it is valid for what the command does
/// with it until the call returns.
pub(crate) unsafe trait Attribute {}

/// Issues a command.
pub(crate) fn bpf<A: Attribute>(command: i32, attribute: &mut A) -> io::Result<i32> {
    // SAFETY:
    // - the kernel reads and writes at most `size_of::<A>()` bytes at `attribute`, which is borrowed
    //   mutably for the call;
    // - the addresses inside are valid for the command: the contract of `Attribute`.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<A>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Issues a command that makes a descriptor.
pub(crate) fn bpf_descriptor<A: Attribute>(command: i32, attribute: &mut A) -> io::Result<OwnedFd> {
    let descriptor = bpf(command, attribute)?;
    // SAFETY: these commands return a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The address of what a command reads.
pub(crate) fn address<T>(bytes: &[T]) -> u64 {
    bytes.as_ptr().expose_provenance() as u64
}

/// The address of what a command writes.
pub(crate) fn address_mut<T>(bytes: &mut [T]) -> u64 {
    bytes.as_mut_ptr().expose_provenance() as u64
}

/// For `map_err`.
pub(crate) fn refused(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Refused { action, source }
}
