use lanrage_proto::frame::DATAGRAM_LEN_MAX;
use lanrage_proto::stream::{BadLength, Deframer, FRAMED_LEN_MAX, Waiting};

/// Streams: however the bytes are cut, the same datagrams come out, each as it went in.
pub fn stream(bytes: &[u8]) {
    let (whole, end) = deframe(bytes, bytes.len().max(1));
    for piece in [1, 2, 3, 7, 1500] {
        assert_eq!(deframe(bytes, piece), (whole.clone(), end));
    }
    let mut waiting = Waiting::new(bytes.len());
    for datagram in &whole {
        assert!((1..=DATAGRAM_LEN_MAX).contains(&datagram.len()));
        assert_eq!(waiting.push(datagram), 0);
    }
    let mut again = Vec::new();
    while waiting.take(&mut again, FRAMED_LEN_MAX) > 0 {}
    assert!(waiting.is_empty() && bytes.starts_with(&again));
}

fn deframe(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Result<(), BadLength>) {
    let (mut deframer, mut datagrams) = (Deframer::default(), Vec::new());
    for piece in bytes.chunks(piece) {
        let fed = deframer.feed(&mut piece.to_vec(), |datagram| datagrams.push(datagram.to_vec()));
        if fed.is_err() {
            return (datagrams, fed);
        }
    }
    (datagrams, Ok(()))
}
