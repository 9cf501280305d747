//! Data between relays (§3.6): out with a longer header, in as if it had come from a member.

use std::sync::Arc;

use lanrage_proto::frame::data::HEADER_LEN as DATA_HEADER_LEN;
use lanrage_proto::frame::hint::{Hint, HintKind};
use lanrage_proto::frame::mesh::{
    COUNTER_END, DATAGRAM_LEN_MAX, DELIVERED, GROWTH, HEADER_LEN, MeshEpoch, MeshHeader, MeshKey,
    MeshKind,
};
use lanrage_proto::{Destination, Member, RelayId};
use lanrage_relay_table::{ChainHead, Cursor, Lease, Miss, Target};

use super::backlog::{Broadcast, Payer};
use super::charge::{self, Load};
use super::train::RUN_SEGMENTS_MAX;
use super::{Answer, Shard, Verdict};
use crate::drops::DropReason;
use crate::ids::{handle_to_wire, member, member_to_wire, session, session_to_wire, tag_to_wire};
use crate::mesh::{Peer, Peers};
use crate::rate::{Meter, Rate};

/// MESH_ABSENT a second and shard.
const ABSENT_BUDGET: Rate = Rate::per_second(1_000, 100);

/// A shard's part in the mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    /// The shard's number, which names its counters.
    number: u8,
    peers: Arc<Peers>,
    /// By place among the peers: the next counter.
    counters: Vec<u64>,
    /// Of the last run for another relay.
    headers: Vec<[u8; HEADER_LEN]>,
    absent: Meter,
}

impl Mesh {
    pub(super) fn new(number: u8) -> Self {
        Self {
            number,
            peers: Arc::new(Peers::none()),
            counters: Vec::new(),
            headers: Vec::with_capacity(RUN_SEGMENTS_MAX),
            absent: Meter::new(ABSENT_BUDGET),
        }
    }

    /// Counters go on within an epoch, and begin anew with the next. They never fall behind the time:
    /// a process that was to take over, and failed, may have sent by it meanwhile.
    pub(super) fn set_peers(&mut self, peers: Arc<Peers>) {
        let first = peers.moment().first_counter;
        let goes_on = peers.moment().epoch == self.peers.moment().epoch;
        let next = |peer: &Peer| match self.peers.find(peer.relay()) {
            Some(at) if goes_on => self.counters[at].max(first),
            _ => first,
        };
        self.counters = peers.iter().map(next).collect();
        self.peers = peers;
    }

    pub(super) fn headers(&self) -> &[[u8; HEADER_LEN]] {
        &self.headers
    }

    /// The place of another relay.
    pub(super) fn find(&self, relay: RelayId) -> Option<usize> {
        self.peers.find(relay)
    }
}

/// A frame that came from another relay and holds.
struct Arrived {
    header: MeshHeader,
    chain: ChainHead,
    frames: u64,
    /// End of what is to be delivered, which begins at [`DELIVERED`].
    end: usize,
}

impl Shard {
    /// Makes the headers of a run that goes on to another relay: [`Shard::mesh_headers`].
    pub(super) fn send_to_relay(
        &mut self,
        lease: &Lease,
        destination: Destination,
        peer: usize,
        (run, segment_size): (&[u8], usize),
    ) -> Verdict {
        let segments = run.len().div_ceil(segment_size) as u64;
        let Some(mesh) = &mut self.mesh else {
            return self.counters.drop(DropReason::NoMesh, segments);
        };
        let other = mesh.peers.at(peer);
        let counter = mesh.counters[peer];
        if counter + segments > COUNTER_END {
            return self.counters.drop(DropReason::MeshEpoch, segments);
        }
        mesh.counters[peer] += segments;
        let header = MeshHeader {
            kind: MeshKind::Data,
            sender: self.relay,
            epoch: mesh.peers.moment().epoch.to_wire(),
            shard: mesh.number,
            source: member_to_wire(lease.member),
            destination,
            counter,
            session: session_to_wire(lease.session),
        };
        mesh.headers.clear();
        mesh.headers.extend(run.chunks(segment_size).zip(counter..).map(|(segment, counter)| {
            MeshHeader { counter, ..header }.encode(other.outbound(), segment.len() + GROWTH)
        }));
        self.counters.to_relay += segments;
        self.counters.planned += segments;
        Verdict::ToRelay { to: other.to(), len: run.len() }
    }

    /// A run of frames from another relay, or one frame.
    pub(super) fn handle_mesh(&mut self, run: &mut [u8], segment_size: usize) -> Verdict {
        let segments = run.len().div_ceil(segment_size) as u64;
        self.counters.received += segments;
        let first = run.first_chunk().filter(|_| segment_size <= DATAGRAM_LEN_MAX);
        let Some(Ok(header)) = first.map(MeshHeader::decode) else {
            return self.counters.drop(DropReason::MeshMalformed, segments);
        };
        if header.kind == MeshKind::Absent && run.len() != HEADER_LEN {
            return self.counters.drop(DropReason::MeshMalformed, segments);
        }
        let (peer, from) = match self.sender(&header) {
            Ok(from) => from,
            Err(reason) => return self.counters.drop(reason, segments),
        };
        let (frames, end) = self.unpack(run, segment_size, peer, from);
        if frames == 0 {
            return Verdict::Drop;
        }
        let Some(chain) = self.table.chain(session(header.session)) else {
            return self.no_peer(&header, peer, frames);
        };
        let arrived = Arrived { header, chain, frames, end };
        match (header.kind, header.destination) {
            (MeshKind::Absent, _) => self.tell_absent(&arrived),
            (MeshKind::Data, Destination::Everyone) => self.deliver_to_all(&arrived, run),
            (MeshKind::Data, Destination::One(to)) => {
                self.deliver(&arrived, to, peer, segment_size - GROWTH)
            }
        }
    }

    /// The checks that need no secret: who sent it, and in which epoch.
    fn sender(&self, header: &MeshHeader) -> Result<(usize, MeshEpoch), DropReason> {
        if header.sender == self.relay {
            return Err(DropReason::MeshLoop);
        }
        let mesh = self.mesh.as_ref().ok_or(DropReason::MeshUnknownRelay)?;
        let at = mesh.find(header.sender).ok_or(DropReason::MeshUnknownRelay)?;
        let now = mesh.peers.moment().epoch;
        let epoch = now.named(header.epoch).ok_or(DropReason::MeshEpoch)?;
        Ok((at, epoch))
    }

    /// Checks tag and counter of every segment, and leaves those that hold as frames to deliver,
    /// one behind the other from [`DELIVERED`] on: how many, and where they end.
    fn unpack(
        &mut self,
        run: &mut [u8],
        segment_size: usize,
        peer: usize,
        epoch: MeshEpoch,
    ) -> (u64, usize) {
        let Some(mesh) = &self.mesh else { return (0, 0) };
        let other = mesh.peers.at(peer);
        let Some(key) = other.inbound(mesh.peers.moment().epoch, epoch) else { return (0, 0) };
        let (mut frames, mut end) = (0, DELIVERED.start);
        for start in (0..run.len()).step_by(segment_size) {
            let stop = run.len().min(start + segment_size);
            match hold(&mut run[start..stop], (other, key, epoch), self.relay) {
                Ok(()) => {
                    // In its place already, unless one before it was dropped or was no first.
                    if start + DELIVERED.start != end {
                        run.copy_within(start + DELIVERED.start..stop, end);
                    }
                    end += stop - start - DELIVERED.start;
                    frames += 1;
                }
                Err(reason) => {
                    self.counters.drop(reason, 1);
                }
            }
        }
        (frames, end)
    }

    fn deliver(
        &mut self,
        arrived: &Arrived,
        to: Member,
        peer: usize,
        segment_size: usize,
    ) -> Verdict {
        let Arrived { header, chain, frames, end } = *arrived;
        let target = match self.table.peer(chain, session(header.session), member(to)) {
            Ok(target) => target,
            Err(Miss::Absent) => return self.no_peer(&header, peer, frames),
            Err(Miss::Torn) => return self.counters.drop(DropReason::TableBusy, frames),
        };
        let admitted = self.charge_session(chain, target.rate_class, frames, segment_size, false);
        if admitted == 0 {
            return Verdict::Drop;
        }
        let len = (end - DELIVERED.start).min(admitted as usize * segment_size);
        self.counters.from_relay += admitted;
        self.counters.unicast += admitted;
        self.counters.planned += admitted;
        Verdict::FromRelay { to: target.endpoint, len }
    }

    fn deliver_to_all(&mut self, arrived: &Arrived, run: &[u8]) -> Verdict {
        let Arrived { header, chain, end, .. } = *arrived;
        let session = session(header.session);
        let cursor = Cursor::start(chain);
        let first = self.table.members(session, cursor).find_map(Result::ok);
        let rate_class = first.map_or(0, |target: Target| target.rate_class);
        let frame = &run[DELIVERED.start..end];
        if self.charge_session(chain, rate_class, 1, frame.len(), true) == 0 {
            return Verdict::Drop;
        }
        let broadcast = Broadcast {
            session,
            source: member(header.source),
            payer: Payer::Session(chain),
            rate_class,
            cursor,
            has_begun: false,
        };
        if self.broadcast(broadcast, frame) != Verdict::Copy {
            return Verdict::Drop;
        }
        self.counters.from_relay += 1;
        Verdict::CopyFromRelay
    }

    /// Charges a session for what came for it from another relay; how many frames pass.
    fn charge_session(
        &mut self,
        chain: ChainHead,
        rate_class: u8,
        frames: u64,
        bytes: usize,
        is_broadcast: bool,
    ) -> u64 {
        let class = self.classes.of(rate_class);
        let load = Load { now_ms: self.now_ms, frames, bytes: bytes as u64, is_broadcast };
        let admitted = self.table.session_line(chain).map_or(0, |line| {
            let admitted = charge::admit_session(class, &line, load);
            charge::session_frames(class, &line, self.now_ms, admitted, admitted * bytes as u64);
            admitted
        });
        self.counters.drop(DropReason::RateSession, frames - admitted);
        admitted
    }

    /// The destination has no lease here: its sender's relay is told, if the frame was for one.
    fn no_peer(&mut self, header: &MeshHeader, peer: usize, frames: u64) -> Verdict {
        self.counters.drop(DropReason::NoPeer, frames);
        let (MeshKind::Data, Destination::One(absent)) = (header.kind, header.destination) else {
            return Verdict::Drop;
        };
        let Some(mesh) = &mut self.mesh else { return Verdict::Drop };
        if mesh.counters[peer] == COUNTER_END || !mesh.absent.take(self.now_ms) {
            return Verdict::Drop;
        }
        let answer = MeshHeader {
            kind: MeshKind::Absent,
            sender: self.relay,
            epoch: mesh.peers.moment().epoch.to_wire(),
            shard: mesh.number,
            source: absent,
            destination: Destination::One(header.source),
            counter: mesh.counters[peer],
            session: header.session,
        };
        mesh.counters[peer] += 1;
        let other = mesh.peers.at(peer);
        self.counters.hints += 1;
        self.counters.planned += 1;
        let answer = Answer::new(&answer.encode(other.outbound(), HEADER_LEN));
        Verdict::Tell { to: other.to(), answer }
    }

    /// MESH_ABSENT: the member that sent hears of it.
    fn tell_absent(&mut self, arrived: &Arrived) -> Verdict {
        let Arrived { header, chain, .. } = *arrived;
        let Destination::One(to) = header.destination else { return Verdict::Drop };
        let target = self.table.peer(chain, session(header.session), member(to));
        let lease = target.and_then(|target| Ok(self.table.source(target.handle)?.lease));
        let lease = match lease {
            Ok(lease) => lease,
            Err(Miss::Absent) => return self.counters.drop(DropReason::NoPeer, 1),
            Err(Miss::Torn) => return self.counters.drop(DropReason::TableBusy, 1),
        };
        self.counters.absent += 1;
        let hint = Hint {
            kind: HintKind::NoPeerThere(header.source, header.sender),
            handle: handle_to_wire(lease.handle),
            tag: tag_to_wire(lease.tag),
        };
        match self.hints.make(hint, self.now_ms, &mut self.counters) {
            Some(answer) => Verdict::Tell { to: lease.endpoint, answer },
            None => Verdict::Drop,
        }
    }
}

/// Whether a frame between relays holds; it is made one to deliver.
fn hold(
    frame: &mut [u8],
    (peer, key, epoch): (&Peer, &MeshKey, MeshEpoch),
    us: RelayId,
) -> Result<(), DropReason> {
    let len = frame.len();
    let bytes = frame.first_chunk_mut().ok_or(DropReason::MeshMalformed)?;
    let header = MeshHeader::decode(bytes).map_err(|_| DropReason::MeshMalformed)?;
    if !key.verifies(bytes, len) {
        return Err(DropReason::MeshForged);
    }
    if !peer.windows().take(header.shard, epoch, header.counter) {
        return Err(DropReason::MeshReplayed);
    }
    header.deliver(bytes, us);
    Ok(())
}

const _: () = assert!(HEADER_LEN - GROWTH == DATA_HEADER_LEN);
