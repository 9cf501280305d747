//! The generator: an XDP program that the kernel runs on frames of its own making, paced by itself.
//!
//! Each run of the program asks its streams in turn whether a burst is due. If so it writes a
//! prepared head, a time stamp and the receiver's address into the frame and redirects it to the
//! gateway's interface, from where it enters the relay's; else the frame is dropped and used again.

use lanrage_bench_bpf::{
    Alu, Assembler, Cond, Error, Insn, Label, Map, Program, Reg, Size, helper, xdp,
};

use crate::frame::{HEAD_LEN, HEADERS_LEN, STAMP_LEN};

/// Most frames that the kernel runs between two flushes to the interface.
const BATCH_MAX: u32 = 32;
/// How often the clock is read between two flushes while nothing is due, 25 ns each: what falls due
/// leaves within microseconds, and few frames are used for nothing.
const WAITS: u32 = 64;
/// Runs of the program in one system call: minutes.
const RUNS: u32 = u32::MAX / 2;
/// What is late by more is not made up for.
const LATE_NS: i32 = 1_000_000;

/// A prepared head, the receiver's address in network order, and padding.
const RECORD_LEN: usize = HEAD_LEN + 8;
const STATE_LEN: usize = 64;
const PARAMETERS_LEN: usize = 8;

/// Offsets in a stream's state.
mod state {
    pub(super) const NEXT_NS: i16 = 0;
    pub(super) const BURST_LEFT: i16 = 8;
    pub(super) const FLOW: i16 = 16;
    pub(super) const FLOW_LEFT: i16 = 24;
    pub(super) const SENT: i16 = 32;
}

/// One flow: what is written before its payload, and to whom the contestant shall send it.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// See [`crate::frame::head`].
    pub head: [u8; HEAD_LEN],
    /// IPv4 address of the receiver.
    pub target: [u8; 4],
}

/// Frames of one length and kind.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Flows, in the order in which they send.
    pub records: Vec<Record>,
    /// Bytes of a frame, Ethernet header included.
    pub frame_len: usize,
    /// Bytes between the headers and the payload.
    pub prefix_len: usize,
    /// Frames that leave at once when a burst is due.
    pub burst: u32,
    /// Frames of a flow before the next one's turn.
    pub train: u32,
    /// Each 2^n-th frame carries a time stamp.
    pub stamp_bits: u32,
}

/// Streams that leave by one interface.
#[derive(Debug)]
pub struct Generator {
    program: Program,
    template: Vec<u8>,
    parameters: Map,
    state: Map,
    bursts: Vec<u32>,
    batch: u32,
    /// The program names them by descriptor.
    _records: Vec<Map>,
}

impl Generator {
    /// Loads the program. All streams are silent until [`set_rate`](Self::set_rate).
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    ///
    /// # Panics
    ///
    /// If a stream has no flows, or frames too short for what is written into them.
    pub fn new(interface: u32, streams: &[Stream]) -> Result<Self, Error> {
        let len = streams.iter().map(|stream| stream.frame_len).max().unwrap_or_default();
        let parameters = Map::array(PARAMETERS_LEN * streams.len(), 1)?;
        let state = Map::array(STATE_LEN * streams.len(), 1)?;
        let records = streams.iter().map(Stream::map).collect::<Result<Vec<_>, _>>()?;
        let bursts: Vec<u32> = streams.iter().map(|stream| stream.burst).collect();
        let batch = bursts.iter().copied().min().unwrap_or(1).clamp(1, BATCH_MAX);
        let insns = program(interface, batch, streams, &records, &parameters, &state);
        Ok(Self {
            program: Program::load(&insns)?,
            template: vec![0x5a; len],
            parameters,
            state,
            bursts,
            batch,
            _records: records,
        })
    }

    /// Sets the frames a second of each stream; 0 is silence.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn set_rate(&self, rates: &[f64]) -> Result<(), Error> {
        let intervals: Vec<u8> = rates
            .iter()
            .zip(&self.bursts)
            .map(|(rate, burst)| match *rate {
                0.0 => 0,
                rate => (f64::from(*burst) * 1e9 / rate).max(1.0) as u64,
            })
            .flat_map(u64::to_ne_bytes)
            .collect();
        self.parameters.write(0, &intervals)
    }

    /// Frames each stream has sent so far.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn sent(&self) -> Result<Vec<u64>, Error> {
        let state = self.state.read(0)?;
        let sent = state::SENT as usize;
        Ok(state
            .chunks_exact(STATE_LEN)
            .map(|stream| {
                let bytes = stream[sent..].first_chunk().expect("a stream's state is 64 bytes");
                u64::from_ne_bytes(*bytes)
            })
            .collect())
    }

    /// Sends what falls due, on this CPU, until a signal comes (`interrupt.rs`). To be
    /// called in a loop, on a thread in the network namespace of the interface.
    ///
    /// # Errors
    ///
    /// What the kernel refuses.
    pub fn run(&self) -> Result<(), Error> {
        self.program.inject(&self.template, RUNS, self.batch)
    }
}

impl Stream {
    fn map(&self) -> Result<Map, Error> {
        assert!(!self.records.is_empty(), "a stream has flows");
        let end = HEADERS_LEN + self.prefix_len + STAMP_LEN;
        assert!(self.frame_len >= end.max(HEAD_LEN), "{} bytes are too short", self.frame_len);
        let map = Map::array(RECORD_LEN, self.records.len())?;
        let mut values = Vec::with_capacity(RECORD_LEN * self.records.len());
        for record in &self.records {
            values.extend_from_slice(&record.head);
            values.extend_from_slice(&record.target);
            values.extend_from_slice(&[0; RECORD_LEN - HEAD_LEN - 4]);
        }
        map.fill(&values)?;
        Ok(map)
    }
}

const CONTEXT: Reg = Reg(6);
const STATE: Reg = Reg(7);
const NOW: Reg = Reg(8);
const RECORD: Reg = Reg(9);
const FRAME: Reg = Reg(10);

/// `bpf_xdp_adjust_tail(context, bytes)`
const ADJUST_TAIL: i32 = 65;

fn program(
    interface: u32,
    batch: u32,
    streams: &[Stream],
    records: &[Map],
    parameters: &Map,
    state: &Map,
) -> Vec<Insn> {
    let len = streams.iter().map(|stream| stream.frame_len).max().unwrap_or_default();
    let mut asm = Assembler::new();
    let aborted = asm.label();
    asm.alu(Alu::Move, CONTEXT, Reg(1));
    // A single stream may wait a moment; of several each run asks all.
    let waits = if streams.len() == 1 { WAITS / batch } else { 1 };
    wait(&mut asm, waits.max(1), state);
    for (index, (stream, records)) in streams.iter().zip(records).enumerate() {
        let next_stream = asm.label();
        asm.load_map_value(STATE, state, (index * STATE_LEN) as i32);
        asm.load_map_value(Reg(1), parameters, (index * PARAMETERS_LEN) as i32);
        asm.load(Size::Double, Reg(1), Reg(1), 0);
        take_turn(&mut asm, stream, next_stream);
        find_record(&mut asm, stream, records, aborted);
        if stream.frame_len < len {
            asm.alu(Alu::Move, Reg(1), CONTEXT);
            asm.alu_imm(Alu::Move, Reg(2), stream.frame_len as i32 - len as i32);
            asm.call(ADJUST_TAIL);
            asm.jump_imm(Cond::NotEqual, Reg(0), 0, aborted);
        }
        write_frame(&mut asm, stream, aborted);
        asm.alu_imm(Alu::Move, Reg(1), interface as i32);
        asm.alu_imm(Alu::Move, Reg(2), 0);
        asm.call(helper::REDIRECT);
        asm.exit();
        asm.place(next_stream);
    }
    asm.exit_with(xdp::DROP);
    asm.place(aborted);
    asm.exit_with(xdp::ABORTED);
    asm.finish()
}

/// Reads the clock until the first stream is due, or so often.
fn wait(asm: &mut Assembler, times: u32, state: &Map) {
    let due = asm.label();
    for time in 0..times {
        asm.call(helper::KTIME_NS);
        asm.alu(Alu::Move, NOW, Reg(0));
        if time == 0 && times > 1 {
            asm.load_map_value(STATE, state, 0);
            asm.load(Size::Double, Reg(1), STATE, state::BURST_LEFT);
            asm.jump_imm(Cond::NotEqual, Reg(1), 0, due);
        }
        if times > 1 {
            asm.load(Size::Double, Reg(1), STATE, state::NEXT_NS);
            asm.jump(Cond::GreaterOrEqual, NOW, Reg(1), due);
        }
    }
    asm.place(due);
}

/// Goes on if the stream sends now. Register 1 holds its interval.
fn take_turn(asm: &mut Assembler, stream: &Stream, next_stream: Label) {
    let started = asm.label();
    asm.jump_imm(Cond::Equal, Reg(1), 0, next_stream);
    asm.load(Size::Double, Reg(2), STATE, state::BURST_LEFT);
    asm.jump_imm(Cond::NotEqual, Reg(2), 0, started);
    asm.load(Size::Double, Reg(3), STATE, state::NEXT_NS);
    asm.jump(Cond::Less, NOW, Reg(3), next_stream);
    asm.alu(Alu::Add, Reg(3), Reg(1));
    asm.store(Size::Double, STATE, state::NEXT_NS, Reg(3));
    asm.alu_imm(Alu::Move, Reg(2), stream.burst as i32);
    asm.alu_imm(Alu::Add, Reg(3), LATE_NS);
    asm.jump(Cond::GreaterOrEqual, Reg(3), NOW, started);
    asm.store(Size::Double, STATE, state::NEXT_NS, NOW);
    asm.place(started);
    asm.alu_imm(Alu::Sub, Reg(2), 1);
    asm.store(Size::Double, STATE, state::BURST_LEFT, Reg(2));
}

/// Points [`RECORD`] at the flow whose turn it is.
fn find_record(asm: &mut Assembler, stream: &Stream, records: &Map, aborted: Label) {
    let (same, found) = (asm.label(), asm.label());
    asm.load(Size::Double, Reg(1), STATE, state::FLOW);
    asm.load(Size::Double, Reg(2), STATE, state::FLOW_LEFT);
    asm.jump_imm(Cond::NotEqual, Reg(2), 0, same);
    asm.alu_imm(Alu::Move, Reg(2), stream.train as i32);
    asm.alu_imm(Alu::Add, Reg(1), 1);
    asm.jump_imm(Cond::Less, Reg(1), stream.records.len() as i32, same);
    asm.alu_imm(Alu::Move, Reg(1), 0);
    asm.place(same);
    asm.alu_imm(Alu::Sub, Reg(2), 1);
    asm.store(Size::Double, STATE, state::FLOW, Reg(1));
    asm.store(Size::Double, STATE, state::FLOW_LEFT, Reg(2));
    asm.store(Size::Word, FRAME, -4, Reg(1));
    asm.load_map(Reg(1), records);
    asm.alu(Alu::Move, Reg(2), FRAME);
    asm.alu_imm(Alu::Add, Reg(2), -4);
    asm.call(helper::MAP_LOOKUP);
    asm.jump_imm(Cond::NotEqual, Reg(0), 0, found);
    asm.jump_always(aborted);
    asm.place(found);
    asm.alu(Alu::Move, RECORD, Reg(0));
}

fn write_frame(asm: &mut Assembler, stream: &Stream, aborted: Label) {
    let stamp = (HEADERS_LEN + stream.prefix_len) as i16;
    let unstamped = asm.label();
    let end = stamp as i32 + STAMP_LEN as i32;
    asm.load(Size::Word, Reg(1), CONTEXT, 0);
    asm.load(Size::Word, Reg(2), CONTEXT, 4);
    asm.alu(Alu::Move, Reg(3), Reg(1));
    asm.alu_imm(Alu::Add, Reg(3), end.max(HEAD_LEN as i32));
    asm.jump(Cond::Greater, Reg(3), Reg(2), aborted);
    for word in (0..HEAD_LEN as i16).step_by(8) {
        asm.load(Size::Double, Reg(3), RECORD, word);
        asm.store(Size::Double, Reg(1), word, Reg(3));
    }
    asm.load(Size::Word, Reg(3), RECORD, HEAD_LEN as i16);
    asm.store(Size::Word, Reg(1), stamp + 8, Reg(3));
    asm.load(Size::Double, Reg(2), STATE, state::SENT);
    asm.alu_imm(Alu::Add, Reg(2), 1);
    asm.store(Size::Double, STATE, state::SENT, Reg(2));
    asm.alu_imm(Alu::Move, Reg(3), 0);
    asm.alu_imm(Alu::And, Reg(2), (1 << stream.stamp_bits) - 1);
    asm.jump_imm(Cond::NotEqual, Reg(2), 0, unstamped);
    asm.alu(Alu::Move, Reg(3), NOW);
    asm.place(unstamped);
    asm.store(Size::Double, Reg(1), stamp, Reg(3));
}
