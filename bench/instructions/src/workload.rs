use std::hint::black_box;
use std::net::SocketAddr;

use lanrage_proto::frame::data::Sent;
use lanrage_proto::{Destination, Handle, Member, RelayId, Tag};
use lanrage_relay_core::{Classes, DropReason, Shard, Stun, Verdict, runs};
use lanrage_relay_table::{self as table, Capacity, Endpoint, LocalId, NewLease, SessionId};

const SESSIONS: u64 = 64;
/// Arrivals measured.
const ARRIVALS: usize = 2048;
const RELAY: RelayId = RelayId(7);

/// What arrives.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    /// Of each session.
    members: u8,
    /// Arrivals in a pass of the loop.
    batch: usize,
    /// Of an arrival.
    segments: usize,
    segment_size: usize,
    /// Of the segment of this number, sent by member 1.
    destination: fn(usize) -> Destination,
    /// Whether the lease is known.
    is_known: bool,
}

fn member(number: u8) -> Destination {
    Destination::One(Member::new(number).expect("members are 1 to 250"))
}

impl Workload {
    /// One datagram of 120 bytes to another member.
    const GAME: Self = Self {
        name: "game",
        members: 4,
        batch: 32,
        segments: 1,
        segment_size: 120,
        destination: |_| member(2),
        is_known: true,
    };

    pub(crate) const ALL: [Self; 6] = [
        Self::GAME,
        Self { name: "train_of_44", segments: 44, segment_size: 1400, ..Self::GAME },
        Self {
            name: "mixed_train_of_44",
            segments: 44,
            destination: |at| member(2 + (at % 2) as u8),
            ..Self::GAME
        },
        Self {
            name: "broadcast_to_16",
            members: 17,
            // Its copies fit a pass: none waits.
            batch: 1,
            destination: |_| Destination::Everyone,
            ..Self::GAME
        },
        Self { name: "self_addressed", destination: |_| member(1), ..Self::GAME },
        Self { name: "unknown_handle", is_known: false, ..Self::GAME },
    ];

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|workload| workload.name == name)
    }

    pub(crate) const fn datagrams(&self) -> usize {
        ARRIVALS * self.segments
    }

    /// Prepares everything, and then has it measured.
    pub(crate) fn run(&self) {
        let leases = SESSIONS as u32 * u32::from(self.members);
        let (mut writer, reader) =
            table::new(Capacity::for_leases(leases)).expect("a small table fits");
        let mut senders = Vec::new();
        for session in 0..SESSIONS {
            for number in 1..=self.members {
                let address = SocketAddr::from(([10, 1, session as u8, number], 4000));
                let new = NewLease {
                    session: SessionId(session),
                    member: table::Member::new(number).expect("members are 1 to 250"),
                    endpoint: Endpoint::new(address, LocalId(0)),
                    tag: table::Tag(0x1234_5678),
                    rate_class: 2,
                };
                let random = (session << 8 | u64::from(number)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let inserted = writer.insert_pending(&new, random, 0).expect("there is room");
                writer.activate(inserted.handle).expect("it was inserted just now");
                if number == 1 {
                    senders.push((inserted.handle, address));
                }
            }
        }
        let mut arrivals: Vec<_> = (0..ARRIVALS)
            .map(|at| {
                let (handle, address) = senders[at % senders.len()];
                let handle = if self.is_known { handle.to_bits() } else { u32::MAX };
                (self.train(Handle(handle)), address)
            })
            .collect();
        let mut shard = Shard::new(RELAY, reader, Classes::default(), Stun::Answer);
        measured(&mut shard, arrivals.chunks_mut(self.batch), self.segment_size);
        assert_eq!(shard.counters().received, self.datagrams() as u64);
        assert_eq!(shard.counters().skew(), 0);
        assert_eq!(shard.counters().dropped_for(DropReason::Handle) == 0, self.is_known);
        assert_eq!(shard.counters().deferred, 0);
    }

    fn train(&self, handle: Handle) -> Vec<u8> {
        let source = Member::new(1).expect("1 is a member");
        let segment = |at| {
            let sent =
                Sent::new(RelayId(0), (self.destination)(at), source, handle, Tag(0x1234_5678));
            let mut segment = sent.encode().to_vec();
            segment.resize(self.segment_size, at as u8);
            segment
        };
        (0..self.segments).flat_map(segment).collect()
    }
}

/// A shard's loop as its shell drives it, without the system calls.
#[inline(never)]
fn measured<'a>(
    shard: &mut Shard,
    batches: impl Iterator<Item = &'a mut [(Vec<u8>, SocketAddr)]>,
    segment_size: usize,
) {
    for (now_ms, batch) in (1..).zip(batches) {
        shard.begin_pass(now_ms);
        for (train, _) in &*batch {
            shard.prefetch(train);
        }
        for (train, source) in batch {
            for run in runs(train, segment_size) {
                match shard.handle_run(run, segment_size, *source) {
                    Verdict::Forward { to, len } => _ = black_box((to, len)),
                    Verdict::Copy => shard.targets().iter().for_each(|to| _ = black_box(to)),
                    Verdict::Answer(answer) => _ = black_box(answer),
                    Verdict::ToBinder(_)
                    | Verdict::Drop
                    | Verdict::ToRelay { .. }
                    | Verdict::FromRelay { .. }
                    | Verdict::CopyFromRelay
                    | Verdict::Tell { .. } => {}
                }
                black_box(shard.poll_activation());
            }
        }
        while let Some(copy) = shard.poll_copy() {
            black_box(copy);
        }
    }
}
