use lanrage_proto::frame::DATAGRAM_LEN_MAX;
use lanrage_proto::frame::data::Delivered;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::stream::{BadLength, Deframer, FRAMED_LEN_MAX, Waiting};

use crate::golden;

fn deframe(bytes: &[u8], piece: usize) -> Result<Vec<Vec<u8>>, BadLength> {
    let (mut deframer, mut datagrams) = (Deframer::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        deframer.feed(&mut piece.to_vec(), |datagram| datagrams.push(datagram.to_vec()))?;
    }
    Ok(datagrams)
}

#[test]
fn datagrams_come_out_however_the_bytes_come_in() {
    let bytes = golden::bytes("stream");
    for piece in 1..=bytes.len() {
        let datagrams = deframe(&bytes, piece).unwrap();
        let [hint, data] = &datagrams[..] else { panic!("{} datagrams", datagrams.len()) };
        assert!(Hint::decode(hint).is_ok() && Delivered::decode(data).is_ok(), "pieces of {piece}");
    }
}

#[test]
fn a_waiting_queue_writes_what_is_read() {
    let bytes = golden::bytes("stream");
    let mut waiting = Waiting::new(10_000);
    deframe(&bytes, 5).unwrap().iter().for_each(|datagram| assert_eq!(waiting.push(datagram), 0));
    let mut written = vec![9];
    assert_eq!(waiting.take(&mut written, bytes.len()), 2);
    assert_eq!(written[1..], bytes);
    assert!(waiting.is_empty());
}

#[test]
fn lengths_that_no_datagram_has_end_the_stream() {
    for length in [0, DATAGRAM_LEN_MAX + 1, usize::from(u16::MAX)] {
        let mut bytes = golden::bytes("stream");
        bytes.extend((length as u16).to_be_bytes());
        for piece in [1, 3, bytes.len()] {
            assert_eq!(deframe(&bytes, piece), Err(BadLength(length)));
        }
    }
    let longest = [&(DATAGRAM_LEN_MAX as u16).to_be_bytes()[..], &[7; DATAGRAM_LEN_MAX]].concat();
    assert_eq!(deframe(&longest, 100).unwrap(), [[7; DATAGRAM_LEN_MAX]]);
}

#[test]
fn a_full_queue_loses_what_has_waited_longest() {
    let mut waiting = Waiting::new(2 * FRAMED_LEN_MAX);
    let datagram = |number: u8| vec![number; DATAGRAM_LEN_MAX];
    let dropped: Vec<_> = (1..=5).map(|number| waiting.push(&datagram(number))).collect();
    assert_eq!(dropped, [0, 0, 1, 1, 1]);
    let mut taken = Vec::new();
    assert_eq!(waiting.take(&mut taken, 2 * FRAMED_LEN_MAX - 1), 1, "whole datagrams alone");
    assert_eq!(waiting.take(&mut taken, FRAMED_LEN_MAX), 1);
    assert_eq!(deframe(&taken, taken.len()).unwrap(), [datagram(4), datagram(5)]);

    assert_eq!(waiting.push(&[]), 1, "no stream carries it");
    assert_eq!(waiting.push(&[0; DATAGRAM_LEN_MAX + 1]), 1, "nor this");
    assert!(waiting.is_empty());
}
