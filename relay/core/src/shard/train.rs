use lanrage_proto::datagram::first_byte;
use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh;

/// Segments of the longest run: as many as GRO joins (linux/udp.h, UDP_GRO_CNT_MAX).
pub const RUN_SEGMENTS_MAX: usize = 64;

/// Where a broadcast's destination stands in the header, and what it is.
const DESTINATION: std::ops::Range<usize> = 4..6;
const EVERYONE: [u8; 2] = [0xff, 0xff];
/// The same of a frame from another relay.
const MESH_DESTINATION: usize = 7;
const MESH_COUNTER: std::ops::Range<usize> = 8..16;
const MESH_SESSION: std::ops::Range<usize> = 16..24;

/// Cuts what arrived together into runs: neighbouring data frames with equal headers, at most
/// [`RUN_SEGMENTS_MAX`], which get one decision and can go out whole. From another relay those for one
/// member are a run, whose counters and tags differ. All else is a run of one segment, broadcasts too.
///
/// GRO promises one source, one destination and equal lengths but for the last; the segments may be
/// frames of any type, lease and destination (net/ipv4/udp_offload.c, `udp_gro_receive_segment`).
pub fn runs(train: &mut [u8], segment_size: usize) -> Runs<'_> {
    Runs { rest: Some(train), segment_size: segment_size.max(1) }
}

/// A train cut into runs; made by [`runs`].
#[derive(Debug)]
pub struct Runs<'a> {
    /// `None` when all has been given out; an empty datagram is a run, too.
    rest: Option<&'a mut [u8]>,
    segment_size: usize,
}

impl<'a> Iterator for Runs<'a> {
    type Item = &'a mut [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a mut [u8]> {
        let rest = self.rest.take()?;
        if rest.len() <= self.segment_size {
            return Some(rest);
        }
        let len = run_len(rest, self.segment_size);
        let (run, rest) = rest.split_at_mut(len);
        self.rest = (!rest.is_empty()).then_some(rest);
        Some(run)
    }
}

/// Bytes of the run at the front.
fn run_len(train: &[u8], segment_size: usize) -> usize {
    let first = segment_size.min(train.len());
    let (one, others) = train.split_at(first);
    let more = others.chunks(segment_size).take(RUN_SEGMENTS_MAX - 1);
    if let Some(header) = one.first_chunk::<HEADER_LEN>()
        && header[0] == first_byte::DATA
        && header[DESTINATION] != EVERYONE
    {
        let equal = more.take_while(|segment| segment.first_chunk() == Some(header));
        return first + equal.map(<[u8]>::len).sum::<usize>();
    }
    let equal = more.take_while(|segment| is_one_flow(one, segment));
    first + equal.map(<[u8]>::len).sum::<usize>()
}

/// Whether two frames from another relay differ in nothing but counter and tag, and are for one
/// member.
fn is_one_flow(one: &[u8], other: &[u8]) -> bool {
    let header = <[u8]>::first_chunk::<{ mesh::HEADER_LEN }>;
    let (Some(one), Some(other)) = (header(one), header(other)) else { return false };
    one[0] == first_byte::MESH
        && one[MESH_DESTINATION] != EVERYONE[0]
        && one[..MESH_COUNTER.start] == other[..MESH_COUNTER.start]
        && one[MESH_SESSION] == other[MESH_SESSION]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(destination: u16, len: usize) -> Vec<u8> {
        let mut frame = vec![7; len];
        frame[0] = first_byte::DATA;
        frame[DESTINATION].copy_from_slice(&destination.to_be_bytes());
        frame
    }

    fn lengths(segments: &[Vec<u8>], segment_size: usize) -> Vec<usize> {
        let mut train = segments.concat();
        runs(&mut train, segment_size).map(|run| run.len()).collect()
    }

    #[test]
    fn equal_headers_run_together_with_a_shorter_last() {
        let segments = [frame(3, 40), frame(3, 40), frame(3, 20)];
        assert_eq!(lengths(&segments, 40), [100]);
    }

    #[test]
    fn runs_end_where_the_header_changes() {
        let segments = [frame(3, 40), frame(3, 40), frame(4, 40), frame(3, 40)];
        assert_eq!(lengths(&segments, 40), [80, 40, 40]);
    }

    #[test]
    fn broadcasts_other_types_and_short_tails_stand_alone() {
        assert_eq!(lengths(&[frame(0xffff, 40), frame(0xffff, 40)], 40), [40, 40]);
        assert_eq!(lengths(&[vec![0xf0; 40], vec![0xf0; 40]], 40), [40, 40]);
        assert_eq!(lengths(&[frame(3, 40), vec![first_byte::DATA; 15]], 40), [40, 15]);
    }

    #[test]
    fn an_empty_datagram_is_a_run() {
        assert_eq!(lengths(&[], 0), [0]);
        assert_eq!(lengths(&[vec![1]], 1), [1]);
    }

    #[test]
    fn nothing_is_lost_or_reordered() {
        let segments: Vec<_> = (0..50).map(|at| frame(at % 7 / 3, 33)).collect();
        let mut train = segments.concat();
        let whole = train.clone();
        let joined: Vec<u8> = runs(&mut train, 33).flat_map(|run| run.to_vec()).collect();
        assert_eq!(joined, whole);
    }
}
