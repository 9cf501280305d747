//! What the benchmark asks of BPF: an assembler, and a loader over bpf(2).
//!
//! A program is a list of [`Insn`], built with an [`Assembler`] and so comparable as data. It is
//! loaded as an XDP program ([`Program`]), reads and writes [`Map`]s, and is either attached to an
//! interface or run by the kernel itself on frames that it makes ([`Program::inject`]).
#![expect(unsafe_code, reason = "bpf(2) takes addresses that the kernel reads and writes")]

mod insn;
pub use insn::{Alu, Cond, Insn, Reg, Size, helper};

mod assembler;
pub use assembler::{Assembler, Label};

mod call;
pub use call::Error;

mod map;
pub use map::Map;

mod program;
pub use program::{Attached, Program, xdp};
