//! Measures the relay against the kernel's floor and against rivals, in one run.
//!
//! A [`topology`] is two namespaces and a veth between them. A [`contestant`] runs in one of them on
//! a core of its own; the [`generator`] and the [`sink`], XDP programs both, stand in the other, the
//! same for every contestant. A [`round`] sends a [`workload`] through a contestant and reads what
//! arrived and what it cost.
#![forbid(unsafe_code)]

pub mod histogram;
pub mod statistics;

pub mod frame;
pub mod population;
pub mod workload;

pub mod generator;
mod interrupt;
pub mod sink;

pub mod machine;
pub mod topology;

pub mod binaries;
pub mod contestant;

pub mod round;

pub mod results;
pub mod rows;
pub mod suite;

pub mod page;
mod svg;
