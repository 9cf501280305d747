//! Runs a program whose `io_uring_setup` fails, as under a container's seccomp profile:
//! `without-io-uring EPERM|ENOSYS PROGRAM [ARGUMENT…]`.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context, bail};
use rustix::io::Errno;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, apply_filter};

/// The same number on every architecture that has it (asm-generic/unistd.h).
const IO_URING_SETUP: i64 = 425;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let errno = match arguments.next().as_deref().and_then(|name| name.to_str()) {
        Some("EPERM") => Errno::PERM,
        Some("ENOSYS") => Errno::NOSYS,
        _ => bail!("usage: without-io-uring EPERM|ENOSYS PROGRAM [ARGUMENT…]"),
    };
    let program = arguments.next().context("which program?")?;
    let filter = SeccompFilter::new(
        BTreeMap::from([(IO_URING_SETUP, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(errno.raw_os_error().unsigned_abs()),
        std::env::consts::ARCH.try_into().context("seccomp on this architecture")?,
    )?;
    apply_filter(&BpfProgram::try_from(filter)?).context("install the filter")?;
    Err(Command::new(program).args(arguments).exec()).context("start the program")
}
