//! Programs: loaded, attached, and run on frames of the kernel's own making.

use std::os::fd::{AsRawFd as _, OwnedFd};

use crate::call::{
    Attribute, Error, LINK_CREATE, PROG_LOAD, PROG_TEST_RUN, address, address_mut, bpf,
    bpf_descriptor, refused,
};
use crate::insn::Insn;

/// What an XDP program says of a frame (`enum xdp_action`, linux/bpf.h).
pub mod xdp {
    /// A bug of the program's: the frame is dropped.
    pub const ABORTED: i32 = 0;
    /// Not seen.
    pub const DROP: i32 = 1;
    /// On to the network stack.
    pub const PASS: i32 = 2;
}

const TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// In the driver: no program runs on copies (linux/if_link.h).
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const LOG_LEN: usize = 1 << 20;
/// Frames are real: a redirect sends them (Documentation/bpf/bpf_prog_run.rst).
const TEST_XDP_LIVE_FRAMES: u32 = 1 << 1;

/// A loaded XDP program.
#[derive(Debug)]
pub struct Program {
    descriptor: OwnedFd,
}

/// A program's place at an interface, given up on drop.
#[derive(Debug)]
pub struct Attached(#[expect(dead_code, reason = "held for its drop")] OwnedFd);

#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    insn_count: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

// SAFETY: the head of `union bpf_attr` for BPF_PROG_LOAD; the addresses are of `insn_count`
// instructions, a NUL-terminated string and `log_size` writable bytes: see the one use below.
unsafe impl Attribute for Load {}

#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_len_in: u32,
    data_len_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_len_in: u32,
    context_len_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_len: u32,
    padding: u32,
}

// SAFETY: the layout for BPF_PROG_TEST_RUN; `data_in` is the address of `data_len_in` bytes, alive
// during the call, and the other addresses are null: see the one use below.
unsafe impl Attribute for TestRun {}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

// SAFETY: the head of `union bpf_attr` for BPF_LINK_CREATE; no address in it.
unsafe impl Attribute for LinkCreate {}

impl Program {
    /// Loads an XDP program.
    ///
    /// # Errors
    ///
    /// [`Error::Verifier`] with the verifier's reasons.
    pub fn load(insns: &[Insn]) -> Result<Self, Error> {
        // The kernel lends some of its functions to programs under its own licence only.
        let license = b"GPL\0";
        let mut log = vec![0u8; LOG_LEN];
        let mut load = Load {
            program_type: TYPE_XDP,
            insn_count: insns.len() as u32,
            insns: address(insns),
            license: address(license),
            ..Load::default()
        };
        if let Ok(descriptor) = bpf_descriptor(PROG_LOAD, &mut load) {
            return Ok(Self { descriptor });
        }
        load.log_level = 1;
        load.log_size = LOG_LEN as u32;
        load.log = address_mut(&mut log);
        match bpf_descriptor(PROG_LOAD, &mut load) {
            Ok(descriptor) => Ok(Self { descriptor }),
            Err(source) => {
                let len = log.iter().position(|byte| *byte == 0).unwrap_or(log.len());
                let log = String::from_utf8_lossy(&log[len.saturating_sub(2000)..len]).into_owned();
                Err(Error::Verifier { source, log })
            }
        }
    }

    /// Attaches the program to an interface of this thread's network namespace, in its driver.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`]: the driver has no XDP, or a program already.
    pub fn attach(&self, interface: u32) -> Result<Attached, Error> {
        let mut link = LinkCreate {
            program: self.descriptor.as_raw_fd() as u32,
            interface,
            attach_type: ATTACH_XDP,
            flags: XDP_FLAGS_DRV_MODE,
        };
        let link = bpf_descriptor(LINK_CREATE, &mut link);
        Ok(Attached(link.map_err(refused("attaching an XDP program"))?))
    }

    /// Runs the program on `count` frames made like `frame`, `batch` (at most 256) at a time, on
    /// this CPU and in this thread's network namespace. What the program redirects is sent. A frame
    /// that comes back from its use keeps what was written into it: the program must write all that
    /// differs. A signal that this thread handles ends it early.
    ///
    /// The kernel patches its code at the beginning and end of a run and waits for all CPUs each time
    /// (`bpf_prog_change_xdp`), some 10 ms: make runs long.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`].
    pub fn inject(&self, frame: &[u8], count: u32, batch: u32) -> Result<(), Error> {
        let mut run = TestRun {
            program: self.descriptor.as_raw_fd() as u32,
            data_len_in: frame.len() as u32,
            data_in: address(frame),
            repeat: count,
            flags: TEST_XDP_LIVE_FRAMES,
            batch_len: batch,
            ..TestRun::default()
        };
        match bpf(PROG_TEST_RUN, &mut run) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(refused("injecting frames")(error)),
        }
    }
}
