use std::net::{IpAddr, SocketAddr};

use lanrage_proto::Destination;
use lanrage_proto::frame::DATAGRAM_LEN_MAX;
use lanrage_proto::frame::data::{HEADER_LEN, Sent, overwrite_for_delivery};
use lanrage_proto::frame::hint::HintKind;
use lanrage_relay_table::{Cursor, Endpoint, Lease, Miss, Source, State};

use super::backlog::{Broadcast, Payer};
use super::charge::{self, Load};
use super::{Shard, Verdict};
use crate::drops::DropReason;
use crate::ids::{handle_from_wire, member};

/// A frame that is not forwarded, and whether its sender is told.
struct Refused(DropReason, Option<HintKind>);

impl From<DropReason> for Refused {
    fn from(reason: DropReason) -> Self {
        Self(reason, None)
    }
}

impl Shard {
    /// A run of data frames with equal headers.
    pub(super) fn handle_data(
        &mut self,
        run: &mut [u8],
        segment_size: usize,
        source: SocketAddr,
    ) -> Verdict {
        let segments =
            if run.len() <= segment_size { 1 } else { run.len().div_ceil(segment_size) as u64 };
        self.counters.received += segments;
        let Some(header) = run.first_chunk().filter(|_| segment_size <= DATAGRAM_LEN_MAX) else {
            return self.counters.drop(DropReason::Length, segments);
        };
        let sent = Sent::decode(header);
        let from = match self.table.source(handle_from_wire(sent.handle)) {
            Ok(from) => from,
            Err(miss) => return self.refuse(miss.into(), segments, &sent),
        };
        let Source { lease, owner, .. } = &from;
        let destination = match check(lease, &sent, source) {
            Ok(destination) => destination,
            Err(refused) => return self.refuse(refused, segments, &sent),
        };

        owner.set_last_seen_ms(self.now_ms);
        let class = self.classes.of(lease.rate_class);
        let load = Load {
            now_ms: self.now_ms,
            frames: segments,
            bytes: segment_size as u64,
            is_broadcast: destination == Destination::Everyone,
        };
        let (mut admitted, mut limit) = charge::admit(class, &from, load);
        let share = self.classes.share();
        if let Some(share) = share {
            let fit = charge::admit_share(share, &from, load);
            if fit < admitted {
                (admitted, limit) = (fit, DropReason::EgressShare);
            }
        }
        let mut len = run.len();
        if admitted < segments {
            self.counters.drop(limit, segments - admitted);
            owner.count_dropped(segments - admitted);
            if admitted == 0 {
                return Verdict::Drop;
            }
            len = len.min(admitted as usize * segment_size);
        }
        charge::frames(class, &from, self.now_ms, admitted, len as u64);
        if lease.state == State::Pending && !owner.is_activation_reported(lease.handle) {
            self.activation = Some(lease.handle);
        }

        let route = self.route(lease, &sent, destination);
        let run = &mut run[..len];
        let to = match route {
            Ok(route) => route,
            Err(refused) => {
                owner.count_dropped(admitted);
                return self.refuse(refused, admitted, &sent);
            }
        };
        if !matches!(to, Route::Relay(_)) {
            run.chunks_mut(segment_size)
                .filter_map(<[u8]>::first_chunk_mut::<HEADER_LEN>)
                .for_each(|header| overwrite_for_delivery(header, self.relay));
        }
        let (lease, bytes) = (*lease, len as u64);
        if let Some(share) = share
            && !matches!(to, Route::Members)
        {
            charge::share(share, &from, self.now_ms, admitted, bytes);
        }
        match to {
            Route::Members => {
                let broadcast = Broadcast {
                    session: lease.session,
                    source: lease.member,
                    payer: Payer::Lease(lease.handle),
                    rate_class: lease.rate_class,
                    cursor: Cursor::start(lease.chain),
                    has_begun: false,
                };
                self.broadcast(broadcast, run)
            }
            Route::Relay(peer) => {
                self.send_to_relay(&lease, destination, peer, (run, segment_size))
            }
            Route::Back => {
                self.counters.self_addressed += admitted;
                self.counters.planned += admitted;
                Verdict::Forward { to: lease.endpoint, len }
            }
            Route::Peer(to) => {
                self.counters.unicast += admitted;
                self.counters.planned += admitted;
                Verdict::Forward { to, len }
            }
        }
    }

    fn route(
        &self,
        lease: &Lease,
        sent: &Sent,
        destination: Destination,
    ) -> Result<Route, Refused> {
        let is_here = sent.egress == self.relay || sent.egress.0 == 0;
        match destination {
            Destination::One(peer) if member(peer) == lease.member => Ok(Route::Back),
            _ if !is_here => {
                let hint = match destination {
                    Destination::One(peer) => Some(HintKind::NoPeerThere(peer, sent.egress)),
                    Destination::Everyone => None,
                };
                let peer = self.mesh.as_ref().and_then(|mesh| mesh.find(sent.egress));
                peer.map(Route::Relay).ok_or(Refused(DropReason::NoMesh, hint))
            }
            Destination::Everyone => Ok(Route::Members),
            Destination::One(peer) => {
                match self.table.peer(lease.chain, lease.session, member(peer)) {
                    Ok(target) => Ok(Route::Peer(target.endpoint)),
                    Err(Miss::Absent) => {
                        Err(Refused(DropReason::NoPeer, Some(HintKind::NoPeer(peer))))
                    }
                    Err(Miss::Torn) => Err(DropReason::TableBusy.into()),
                }
            }
        }
    }

    fn refuse(&mut self, Refused(reason, hint): Refused, segments: u64, sent: &Sent) -> Verdict {
        self.counters.drop(reason, segments);
        match hint {
            Some(kind) => self.hints.answer(kind, sent, self.now_ms, &mut self.counters),
            None => Verdict::Drop,
        }
    }
}

/// Where a frame that holds goes.
enum Route {
    Peer(Endpoint),
    Back,
    Members,
    /// The place of another relay.
    Relay(usize),
}

impl From<Miss> for Refused {
    fn from(miss: Miss) -> Self {
        match miss {
            Miss::Absent => Self(DropReason::Handle, Some(HintKind::NoLease)),
            Miss::Torn => DropReason::TableBusy.into(),
        }
    }
}

/// The checks of §3.1 after length and handle, in their order.
#[inline]
fn check(lease: &Lease, sent: &Sent, source: SocketAddr) -> Result<Destination, Refused> {
    let unknown = |reason| Refused(reason, Some(HintKind::NoLease));
    if lease.tag.0 != sent.tag.0 {
        return Err(unknown(DropReason::Tag));
    }
    let ip = match source.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    if !lease.accepts(ip, source.port()) {
        return Err(unknown(DropReason::Address));
    }
    if u16::from(lease.member.number()) != sent.source {
        return Err(DropReason::Source.into());
    }
    if sent.flags != 0 {
        return Err(DropReason::Flags.into());
    }
    Destination::from_wire(sent.destination).ok_or_else(|| DropReason::Destination.into())
}
