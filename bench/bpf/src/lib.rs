//! What the benchmark asks of the kernel without a safe wrapper: BPF, and bare batches of datagrams.
//!
//! A program is a list of [`Insn`], built with an [`Assembler`] and so comparable as data. It is
//! loaded as an XDP program ([`Program`]), reads and writes [`Map`]s, and is either attached to an
//! interface or run by the kernel itself on frames that it makes ([`Program::inject`]).
//!
//! A [`Batch`] forwards datagrams in the barest loop there is, as a measure for others.
#![expect(
    unsafe_code,
    reason = "bpf(2), recvmmsg(2) and sendmmsg(2) take addresses that the kernel reads and writes"
)]

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

mod interrupt;
pub use interrupt::Interrupt;

mod datagrams;
pub use datagrams::{Batch, Target, prepare};
