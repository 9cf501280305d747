use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::data::{HEADER_LEN, Sent};
use lanrage_relay_table::{Handle, Member, Reader};

use crate::ids::handle_from_wire;

/// Frames whose lines are loaded together: a batch of the back ends. More misses than that do not
/// overlap.
const FRAMES_MAX: usize = 64;

/// Frames that will be handled next, to load their lines stage by stage: what a stage loads says
/// where the next one's lines are, and the misses of one stage overlap.
///
/// Only a train's first frame is looked at, and nothing is believed: what a line says until it is
/// checked is good enough to load another by.
#[derive(Debug)]
pub(super) struct Ahead {
    handles: [Handle; FRAMES_MAX],
    /// A destination that no member has is no member's here.
    destinations: [Option<Member>; FRAMES_MAX],
    len: usize,
}

impl Ahead {
    pub(super) const fn new() -> Self {
        Self {
            handles: [Handle::from_bits(0); FRAMES_MAX],
            destinations: [None; FRAMES_MAX],
            len: 0,
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(super) fn push(&mut self, table: &Reader, train: &[u8]) {
        let Some(header) = train.first_chunk::<HEADER_LEN>() else { return };
        if header[0] != first_byte::DATA {
            return;
        }
        let sent = Sent::decode(header);
        if self.len == FRAMES_MAX {
            self.load(table);
        }
        self.handles[self.len] = handle_from_wire(sent.handle);
        self.destinations[self.len] = u8::try_from(sent.destination).ok().and_then(Member::new);
        self.len += 1;
    }

    /// Loads the lines of all, and forgets them. A frame alone has nothing to overlap with.
    pub(super) fn load(&mut self, table: &Reader) {
        let (handles, destinations) = (&self.handles[..self.len], &self.destinations[..self.len]);
        self.len = 0;
        if handles.len() > 1 {
            let handles = || handles.iter().copied();
            table.touch_sources(handles());
            table.touch_sessions(handles());
            let to_one = handles().zip(destinations);
            table.touch_peers(to_one.filter_map(|(handle, to)| Some((handle, (*to)?))));
        }
    }
}
