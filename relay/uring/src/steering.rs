//! Which socket of a group a datagram goes to: a classic BPF program that the kernel runs on each.
//!
//! The last set of sockets is the *control set*: it gets all that is not a data frame, so that a
//! flood of anything else fills a queue of its own. Data frames are shared out among the other sets,
//! the shards.

use std::io;
use std::os::fd::AsFd;

use libc::sock_filter;

use crate::option;
use crate::sockets::Sockets;

/// A kind of datagram that goes to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataFrame {
    /// How it begins.
    pub first_byte: u8,
    /// Bytes of the shortest; what is shorter goes to the control set.
    pub len_min: u8,
    /// Where the big-endian u32 stands that is the same in all frames of a flow, within `len_min`.
    pub flow_at: u8,
}

/// How data frames are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// By [`DataFrame::flow_at`], modulo the number of shards: a flow stays on its shard, wherever it
    /// comes from.
    Flow,
    /// By the CPU that runs the network stack for the datagram, modulo the number of shards.
    Cpu,
}

/// A steering program.
///
/// The kernel runs it on a datagram's payload; of a GRO train, on the first segment's
/// (net/core/sock_reuseport.c, `run_bpf_filter`). What it returns is always a socket of the group:
/// with any other value the kernel takes a socket by hash, the control set's included.
#[derive(Clone)]
pub struct Steering {
    sets: usize,
    program: Vec<sock_filter>,
}

impl Steering {
    /// A program for groups of `shards` sockets and the control set's.
    pub fn new(shards: usize, frames: &[DataFrame], spread: Spread) -> Self {
        debug_assert!(shards > 0, "no shard, no data");
        debug_assert!(frames.iter().all(|frame| frame.flow_at + 4 <= frame.len_min));
        let shards = shards as u32;
        let control = statement(RETURN, shards);
        let mut program = vec![
            statement(LOAD_LEN, 0),
            jump(JUMP_EQUAL, 0, 0, 1),
            control,
            statement(LOAD_BYTE, 0),
        ];
        for frame in frames {
            let key = match spread {
                Spread::Flow => statement(LOAD_WORD, frame.flow_at.into()),
                Spread::Cpu => statement(LOAD_WORD, AT_CPU),
            };
            program.extend([
                jump(JUMP_EQUAL, frame.first_byte.into(), 0, 6),
                statement(LOAD_LEN, 0),
                jump(JUMP_AT_LEAST, frame.len_min.into(), 1, 0),
                control,
                key,
                statement(MODULO, shards),
                statement(RETURN_ACCUMULATOR, 0),
            ]);
        }
        program.push(control);
        Self { sets: shards as usize + 1, program }
    }

    /// Steers what comes to these sockets from now on: all the sets of one [`bind`](crate::bind),
    /// the control set last. Datagrams that wait in a socket stay there.
    ///
    /// # Errors
    ///
    /// What the kernel said; nothing is steered then.
    ///
    /// # Panics
    ///
    /// If the sets are not as many as the program was made for.
    pub fn attach(&self, sets: &[Sockets]) -> io::Result<()> {
        assert_eq!(sets.len(), self.sets, "a set for each shard, and the control set");
        // A program belongs to the group; any of its sockets will do.
        let attached = sets[0].iter().try_for_each(|socket| self.attach_to(socket));
        if attached.is_err() {
            for socket in sets[0].iter() {
                // ENOENT where none was attached.
                let _ = option::set(socket, libc::SOL_SOCKET, libc::SO_DETACH_REUSEPORT_BPF, 0);
            }
        }
        attached
    }

    fn attach_to(&self, socket: &impl AsFd) -> io::Result<()> {
        option::set_program(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &self.program)
    }
}

const LOAD_LEN: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_LEN;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
const RETURN_ACCUMULATOR: u32 = libc::BPF_RET | libc::BPF_A;
/// The word "at" this address is the number of the CPU (linux/filter.h).
const AT_CPU: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;

fn statement(code: u32, k: u32) -> sock_filter {
    jump(code, k, 0, 0)
}

/// Skips `jt` statements if the condition holds, else `jf`.
fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}

/// One statement a line, as `bpf_asm` of the kernel's tools writes them.
impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, sock_filter { code, jt, jf, k }) in self.program.iter().enumerate() {
            let to = |skip: &u8| at + 1 + usize::from(*skip);
            match u32::from(*code) {
                LOAD_LEN => writeln!(f, "{at}: ld #len"),
                LOAD_BYTE => writeln!(f, "{at}: ldb [{k}]"),
                LOAD_WORD if *k == AT_CPU => writeln!(f, "{at}: ld #cpu"),
                LOAD_WORD => writeln!(f, "{at}: ld [{k}]"),
                JUMP_EQUAL => writeln!(f, "{at}: jeq #{k:#x}, {}, {}", to(jt), to(jf)),
                JUMP_AT_LEAST => writeln!(f, "{at}: jge #{k}, {}, {}", to(jt), to(jf)),
                MODULO => writeln!(f, "{at}: mod #{k}"),
                RETURN => writeln!(f, "{at}: ret #{k}"),
                RETURN_ACCUMULATOR => writeln!(f, "{at}: ret a"),
                code => writeln!(f, "{at}: {code:#x} {jt} {jf} {k:#x}"),
            }?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: [DataFrame; 2] = [
        DataFrame { first_byte: 0xf1, len_min: 16, flow_at: 8 },
        DataFrame { first_byte: 0xfa, len_min: 32, flow_at: 2 },
    ];

    #[test]
    fn the_program_by_flow() {
        let text = format!("{:?}", Steering::new(3, &FRAMES, Spread::Flow));
        let expected = "\
            0: ld #len\n\
            1: jeq #0x0, 2, 3\n\
            2: ret #3\n\
            3: ldb [0]\n\
            4: jeq #0xf1, 5, 11\n\
            5: ld #len\n\
            6: jge #16, 8, 7\n\
            7: ret #3\n\
            8: ld [8]\n\
            9: mod #3\n\
            10: ret a\n\
            11: jeq #0xfa, 12, 18\n\
            12: ld #len\n\
            13: jge #32, 15, 14\n\
            14: ret #3\n\
            15: ld [2]\n\
            16: mod #3\n\
            17: ret a\n\
            18: ret #3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn the_program_by_cpu() {
        let text = format!("{:?}", Steering::new(2, &FRAMES[..1], Spread::Cpu));
        let expected = "\
            0: ld #len\n\
            1: jeq #0x0, 2, 3\n\
            2: ret #2\n\
            3: ldb [0]\n\
            4: jeq #0xf1, 5, 11\n\
            5: ld #len\n\
            6: jge #16, 8, 7\n\
            7: ret #2\n\
            8: ld #cpu\n\
            9: mod #2\n\
            10: ret a\n\
            11: ret #2\n";
        assert_eq!(text, expected);
    }

    /// Runs a program as the kernel does; `None` where the kernel would end it for a load outside of
    /// the datagram.
    fn run(program: &[sock_filter], datagram: &[u8], cpu: u32) -> Option<u32> {
        let (mut at, mut a) = (0, 0);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            let field = |len: usize| datagram.get(k as usize..k as usize + len);
            let mut skip = 0;
            match u32::from(code) {
                LOAD_LEN => a = datagram.len() as u32,
                LOAD_BYTE => a = field(1)?[0].into(),
                LOAD_WORD if k == AT_CPU => a = cpu,
                LOAD_WORD => a = u32::from_be_bytes(field(4)?.try_into().unwrap()),
                JUMP_EQUAL => skip = if a == k { jt } else { jf },
                JUMP_AT_LEAST => skip = if a >= k { jt } else { jf },
                MODULO => a %= k,
                RETURN => return Some(k),
                RETURN_ACCUMULATOR => return Some(a),
                code => panic!("{code:#x}"),
            }
            at += 1 + usize::from(skip);
        }
    }

    #[test]
    fn every_datagram_has_a_socket() {
        for (shards, spread) in [(1, Spread::Flow), (3, Spread::Flow), (3, Spread::Cpu)] {
            let Steering { program, .. } = Steering::new(shards, &FRAMES, spread);
            for first in 0..=u8::MAX {
                for len in 0..40 {
                    let mut datagram: Vec<u8> =
                        (0..len).map(|at| (at * 37) as u8 ^ first).collect();
                    if let Some(byte) = datagram.first_mut() {
                        *byte = first;
                    }
                    let to = run(&program, &datagram, 5).unwrap();
                    let is_data = FRAMES.iter().any(|frame| {
                        frame.first_byte == first && len >= usize::from(frame.len_min)
                    });
                    assert_eq!(to < shards as u32, is_data, "{first:#x}, {len} bytes");
                    assert!(to <= shards as u32);
                    if is_data && spread == Spread::Cpu {
                        assert_eq!(to, 5 % shards as u32);
                    }
                }
            }
        }
    }

    #[test]
    fn a_flow_stays_on_its_shard() {
        let Steering { program, .. } = Steering::new(4, &FRAMES, Spread::Flow);
        for handle in 0..64u32 {
            let mut datagram = [0xf1; 100];
            datagram[8..12].copy_from_slice(&handle.to_be_bytes());
            for len in [16, 50, 100] {
                assert_eq!(run(&program, &datagram[..len], 0), Some(handle % 4));
            }
        }
    }
}
