//! What a shard's decisions cost, without sockets.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use lanrage_proto::frame::data::Sent;
use lanrage_proto::{Destination, Handle, Member, RelayId, Tag};
use lanrage_relay_core::{Classes, Shard, Stun, Verdict, runs};
use lanrage_relay_table::{self as table, Reader};

use crate::contestant::BATCH;
use crate::population::Question;

/// Bytes of a datagram.
const LEN: usize = 120;

/// A shard and the buffers its datagrams come in.
pub(crate) struct Bench {
    shard: Shard,
    arrivals: Vec<([u8; LEN], SocketAddr)>,
    now_ms: u64,
}

impl Bench {
    pub(crate) fn new(reader: Reader) -> Self {
        let shard = Shard::new(RelayId(7), reader, Classes::default(), Stun::Ignore);
        Self { shard, arrivals: Vec::with_capacity(BATCH), now_ms: 0 }
    }

    /// The time from a batch's arrival to its last verdict; writing the batch, as the kernel does,
    /// does not count.
    pub(crate) fn handle(&mut self, batch: &[Question]) -> Duration {
        self.arrivals.clear();
        self.arrivals.extend(batch.iter().map(|question| (datagram(question), question.address())));
        self.now_ms += 1;
        let begin = Instant::now();
        self.shard.begin_pass(self.now_ms);
        for (bytes, _) in &self.arrivals {
            self.shard.prefetch(bytes);
        }
        for (bytes, source) in &mut self.arrivals {
            for run in runs(bytes, LEN) {
                let verdict = self.shard.handle_run(run, LEN, *source);
                debug_assert!(matches!(verdict, Verdict::Forward { .. }));
                black_box(verdict);
            }
        }
        begin.elapsed()
    }

    /// Datagrams forwarded to another member.
    pub(crate) fn forwarded(&self) -> u64 {
        self.shard.counters().unicast
    }
}

fn datagram(question: &Question) -> [u8; LEN] {
    let sent = Sent::new(
        RelayId(0),
        Destination::One(member(question.destination)),
        member(question.source),
        Handle(question.handle),
        Tag(question.tag.0),
    );
    let mut datagram = [0; LEN];
    datagram[..16].copy_from_slice(&sent.encode());
    datagram
}

fn member(member: table::Member) -> Member {
    Member::new(member.number()).expect("wire and table number members alike")
}
