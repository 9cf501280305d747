//! The sink: an XDP program at the gateway's interface that counts and drops what the contestant
//! sends.

use lanrage_bench_bpf::{
    Alu, Assembler, Attached, Cond, Error, Insn, Label, Map, Program, Reg, Size, helper, xdp,
};

use crate::frame::{HEADERS_LEN, STAMP_LEN};
use crate::histogram::{BUCKETS, Histogram, LINEAR_BITS};
use crate::population::PORT;

/// Kinds of traffic, told apart by the port they are sent to: `PORT` + class.
pub const CLASSES: usize = 4;

const COUNTERS_LEN: usize = 32;
const HISTOGRAM_LEN: usize = BUCKETS * 8;

/// Offsets in a class's counters.
mod counter {
    pub(super) const PACKETS: i16 = 0;
    pub(super) const BYTES: i16 = 8;
    pub(super) const STRAYS: i16 = 16;
}

/// What arrived of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counted {
    /// Datagrams.
    pub packets: u64,
    /// Bytes of their IP packets.
    pub bytes: u64,
    /// Datagrams whose payload names another receiver than their IP header.
    pub strays: u64,
    /// From a stamp in the generator to here.
    pub latency: Histogram,
}

impl Counted {
    /// What was counted since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            packets: self.packets - earlier.packets,
            bytes: self.bytes - earlier.bytes,
            strays: self.strays - earlier.strays,
            latency: self.latency.since(&earlier.latency),
        }
    }
}

/// The counting program at its interface; removed on drop.
#[derive(Debug)]
pub struct Sink {
    counters: Map,
    latencies: Map,
    _program: Program,
    _attached: Attached,
}

impl Sink {
    /// Attaches the program to an interface of this thread's network namespace. From then on no
    /// IPv4 packet passes it but to
    /// ports of no class, the clients' that talk to the contestant themselves. `prefix_len` is what the contestant leaves before the payload.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn attach(interface: u32, prefix_len: usize) -> Result<Self, Error> {
        let counters = Map::array(COUNTERS_LEN * (CLASSES + 1), 1)?;
        let latencies = Map::array(HISTOGRAM_LEN * CLASSES, 1)?;
        let program = Program::load(&program(prefix_len, &counters, &latencies))?;
        let attached = program.attach(interface)?;
        Ok(Self { counters, latencies, _program: program, _attached: attached })
    }

    /// What has arrived until now, by class.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn read(&self) -> Result<[Counted; CLASSES], Error> {
        let counters = numbers(&self.counters.read(0)?);
        let latencies = numbers(&self.latencies.read(0)?);
        Ok(std::array::from_fn(|class| {
            let of = |offset: i16| counters[class * COUNTERS_LEN / 8 + offset as usize / 8];
            Counted {
                packets: of(counter::PACKETS),
                bytes: of(counter::BYTES),
                strays: of(counter::STRAYS),
                latency: Histogram::new(latencies[class * BUCKETS..][..BUCKETS].to_vec()),
            }
        }))
    }

    /// Datagrams to no class: they pass.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn others(&self) -> Result<u64, Error> {
        Ok(numbers(&self.counters.read(0)?)[CLASSES * COUNTERS_LEN / 8])
    }
}

fn numbers(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks().0.iter().map(|number| u64::from_ne_bytes(*number)).collect()
}

const COUNTERS: Reg = Reg(6);
const DATA: Reg = Reg(7);
const DATA_END: Reg = Reg(8);
const CLASS: Reg = Reg(9);

fn program(prefix_len: usize, counters: &Map, latencies: &Map) -> Vec<Insn> {
    let mut asm = Assembler::new();
    let (pass, drop) = (asm.label(), asm.label());
    asm.load(Size::Word, DATA, Reg(1), 0);
    asm.load(Size::Word, DATA_END, Reg(1), 4);
    asm.load_map_value(COUNTERS, counters, 0);
    find_class(&mut asm, pass);
    count(&mut asm, pass);
    check_payload(&mut asm, HEADERS_LEN + prefix_len, latencies, drop);
    asm.place(drop);
    asm.exit_with(xdp::DROP);
    asm.place(pass);
    asm.exit_with(xdp::PASS);
    asm.finish()
}

/// [`CLASS`] is the datagram's, or [`CLASSES`].
fn find_class(asm: &mut Assembler, pass: Label) {
    let (other, found) = (asm.label(), asm.label());
    require(asm, HEADERS_LEN, pass);
    asm.load(Size::Half, Reg(1), DATA, 12);
    asm.jump_imm(Cond::NotEqual, Reg(1), i32::from(0x0800u16.to_be()), pass);
    asm.load(Size::Byte, Reg(1), DATA, 23);
    asm.jump_imm(Cond::NotEqual, Reg(1), 17, other);
    asm.load(Size::Half, CLASS, DATA, 36);
    asm.swap16(CLASS);
    asm.alu_imm(Alu::Sub, CLASS, i32::from(PORT));
    asm.jump_imm(Cond::Less, CLASS, CLASSES as i32, found);
    asm.place(other);
    asm.alu_imm(Alu::Move, CLASS, CLASSES as i32);
    asm.place(found);
}

/// Counts the datagram; leaves [`COUNTERS`] at its class.
fn count(asm: &mut Assembler, pass: Label) {
    asm.alu(Alu::Move, Reg(1), CLASS);
    asm.alu_imm(Alu::ShiftLeft, Reg(1), COUNTERS_LEN.ilog2() as i32);
    asm.alu(Alu::Add, COUNTERS, Reg(1));
    asm.alu_imm(Alu::Move, Reg(1), 1);
    asm.atomic_add(COUNTERS, counter::PACKETS, Reg(1));
    asm.load(Size::Half, Reg(1), DATA, 16);
    asm.swap16(Reg(1));
    asm.atomic_add(COUNTERS, counter::BYTES, Reg(1));
    asm.jump_imm(Cond::Equal, CLASS, CLASSES as i32, pass);
}

fn check_payload(asm: &mut Assembler, payload: usize, latencies: &Map, drop: Label) {
    let right = asm.label();
    require(asm, payload + STAMP_LEN, drop);
    asm.load(Size::Word, Reg(1), DATA, 30);
    asm.load(Size::Word, Reg(2), DATA, payload as i16 + 8);
    asm.jump(Cond::Equal, Reg(1), Reg(2), right);
    asm.alu_imm(Alu::Move, Reg(1), 1);
    asm.atomic_add(COUNTERS, counter::STRAYS, Reg(1));
    asm.place(right);
    asm.load(Size::Double, COUNTERS, DATA, payload as i16);
    asm.jump_imm(Cond::Equal, COUNTERS, 0, drop);
    asm.call(helper::KTIME_NS);
    asm.alu(Alu::Sub, Reg(0), COUNTERS);
    record(asm, latencies);
}

/// Counts the value of register 0 as [`crate::histogram::bucket`] says.
fn record(asm: &mut Assembler, latencies: &Map) {
    asm.alu_imm(Alu::Or, Reg(0), 1 << LINEAR_BITS);
    // The exponent, in register 2: the place of the highest bit, halving the search each time.
    asm.alu(Alu::Move, Reg(1), Reg(0));
    asm.alu_imm(Alu::Move, Reg(2), 0);
    for bits in [32, 16, 8, 4, 2, 1] {
        let low = asm.label();
        asm.alu(Alu::Move, Reg(3), Reg(1));
        asm.alu_imm(Alu::ShiftRight, Reg(3), bits);
        asm.jump_imm(Cond::Equal, Reg(3), 0, low);
        asm.alu(Alu::Move, Reg(1), Reg(3));
        asm.alu_imm(Alu::Add, Reg(2), bits);
        asm.place(low);
    }
    asm.alu(Alu::Move, Reg(3), Reg(2));
    asm.alu_imm(Alu::Sub, Reg(3), LINEAR_BITS as i32);
    asm.alu(Alu::ShiftRight, Reg(0), Reg(3));
    asm.alu_imm(Alu::And, Reg(0), (1 << LINEAR_BITS) - 1);
    asm.alu_imm(Alu::ShiftLeft, Reg(2), LINEAR_BITS as i32);
    asm.alu(Alu::Or, Reg(0), Reg(2));
    // The verifier wants to see the bounds.
    asm.alu_imm(Alu::And, Reg(0), BUCKETS as i32 - 1);
    asm.alu_imm(Alu::And, CLASS, CLASSES as i32 - 1);
    asm.alu_imm(Alu::ShiftLeft, CLASS, BUCKETS.ilog2() as i32);
    asm.alu(Alu::Or, Reg(0), CLASS);
    asm.alu_imm(Alu::ShiftLeft, Reg(0), 3);
    asm.load_map_value(Reg(1), latencies, 0);
    asm.alu(Alu::Add, Reg(1), Reg(0));
    asm.alu_imm(Alu::Move, Reg(2), 1);
    asm.atomic_add(Reg(1), 0, Reg(2));
}

/// Jumps to `out` if the frame has fewer than `len` bytes.
fn require(asm: &mut Assembler, len: usize, out: Label) {
    asm.alu(Alu::Move, Reg(1), DATA);
    asm.alu_imm(Alu::Add, Reg(1), len as i32);
    asm.jump(Cond::Greater, Reg(1), DATA_END, out);
}

const _: () = assert!(CLASSES.is_power_of_two() && BUCKETS.is_power_of_two());
