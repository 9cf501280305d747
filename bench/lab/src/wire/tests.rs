use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A frame of `len` bytes whose first byte tells it from others.
fn frame(label: u8, len: usize) -> Frame {
    let mut frame = Frame::with_capacity(len);
    frame.buffer_mut()[0] = label;
    frame.set_len(len);
    frame
}

fn labels_due(wire: &mut Wire, now: Instant) -> Vec<u8> {
    std::iter::from_fn(|| wire.poll_transmit(now)).map(|frame| frame.bytes()[0]).collect()
}

#[test]
fn a_frame_is_due_after_its_delay_and_not_before() {
    let start = Instant::now();
    let delayed = Impairment { delay: ms(20), ..Impairment::NONE };
    let mut wire = Wire::new(delayed, 1, start);
    assert!(wire.offer(start, frame(7, 100)).is_none());
    assert_eq!(wire.poll_timeout(), Some(start + ms(20)));
    assert_eq!(labels_due(&mut wire, start + ms(19)), []);
    assert_eq!(labels_due(&mut wire, start + ms(20)), [7]);
    assert_eq!(wire.poll_timeout(), None);
}

#[test]
fn the_line_sends_one_frame_after_the_other() {
    let start = Instant::now();
    // 1,000 bytes at 1 Mbit/s take 8 ms.
    let slow = Impairment { delay: ms(5), rate_bps: Some(1_000_000), ..Impairment::NONE };
    let mut wire = Wire::new(slow, 1, start);
    for label in 0..3 {
        assert!(wire.offer(start, frame(label, 1_000)).is_none());
    }
    assert_eq!(labels_due(&mut wire, start + ms(12)), []);
    assert_eq!(labels_due(&mut wire, start + ms(13)), [0]);
    assert_eq!(labels_due(&mut wire, start + ms(21)), [1]);
    assert_eq!(labels_due(&mut wire, start + ms(29)), [2]);
}

#[test]
fn a_full_queue_drops_the_newest() {
    let start = Instant::now();
    let bounded =
        Impairment { rate_bps: Some(1_000_000), queue_bytes: Some(2_000), ..Impairment::NONE };
    let mut wire = Wire::new(bounded, 1, start);
    assert!(wire.offer(start, frame(0, 1_000)).is_none());
    assert!(wire.offer(start, frame(1, 1_000)).is_none());
    assert!(wire.offer(start, frame(2, 1_000)).is_some());
    // 8 ms later one of them has left the line.
    assert!(wire.offer(start + ms(8), frame(3, 1_000)).is_none());
    assert_eq!(labels_due(&mut wire, start + ms(100)), [0, 1, 3]);
    assert_eq!(wire.counters.received_frames, 4);
    assert_eq!(wire.counters.overflowed_frames, 1);
}

#[test]
fn memory_is_bounded_without_a_rate_too() {
    let start = Instant::now();
    let far = Impairment { delay: Duration::from_secs(3_600), ..Impairment::NONE };
    let mut wire = Wire::new(far, 1, start);
    let len = IN_FLIGHT_BYTES_MAX / 4;
    let taken = (0..6).filter(|_| wire.offer(start, frame(0, len)).is_none()).count();
    assert_eq!(taken, 4);
    assert_eq!(wire.counters.overflowed_frames, 2);
}

#[test]
fn loss_follows_its_probability_and_its_seed() {
    let start = Instant::now();
    let lossy = Impairment { loss: 0.2, ..Impairment::NONE };
    let lost_with = |seed| {
        let mut wire = Wire::new(lossy, seed, start);
        (0..10_000).map(|_| wire.offer(start, frame(0, 60)).is_some()).collect::<Vec<_>>()
    };
    let lost = lost_with(7).into_iter().filter(|lost| *lost).count();
    // Five standard deviations of a binomial with n = 10,000 and p = 0.2 are 200.
    assert!((1_800..=2_200).contains(&lost), "{lost} of 10,000 lost");
    assert_eq!(lost_with(7), lost_with(7));
    assert_ne!(lost_with(7), lost_with(8));
}

#[test]
fn a_cut_takes_all_and_a_mended_line_none() {
    let start = Instant::now();
    let mut wire = Wire::new(Impairment::CUT, 1, start);
    for _ in 0..1_000 {
        assert!(wire.offer(start, frame(0, 60)).is_some());
    }
    wire.set(start, Impairment::NONE);
    for _ in 0..1_000 {
        assert!(wire.offer(start, frame(0, 60)).is_none());
    }
    assert_eq!(wire.counters.lost_frames, 1_000);
}

#[test]
fn jitter_keeps_order_unless_it_is_free() {
    let start = Instant::now();
    let jittery = |order| Impairment { delay: ms(20), jitter: ms(10), order, ..Impairment::NONE };
    let arrivals = |order| {
        let mut wire = Wire::new(jittery(order), 3, start);
        for label in 0..100 {
            let _none = wire.offer(start + ms(u64::from(label)), frame(label, 60));
        }
        assert!(wire.poll_timeout().is_some_and(|due| due >= start + ms(10)));
        labels_due(&mut wire, start + ms(99 + 30))
    };
    let sorted: Vec<u8> = (0..100).collect();
    assert_eq!(arrivals(Order::Keep), sorted);
    let mut free = arrivals(Order::Free);
    assert_ne!(free, sorted);
    free.sort_unstable();
    assert_eq!(free, sorted);
}

#[test]
fn a_new_rate_applies_to_frames_still_waiting() {
    let start = Instant::now();
    let crawl = Impairment { rate_bps: Some(8), queue_bytes: Some(1 << 20), ..Impairment::NONE };
    let mut wire = Wire::new(crawl, 1, start);
    for label in 0..3 {
        assert!(wire.offer(start, frame(label, 1_000)).is_none());
    }
    wire.set(start + ms(1), Impairment::NONE);
    assert_eq!(labels_due(&mut wire, start + ms(1)), [0, 1, 2]);
}

#[test]
fn udp_is_told_from_the_rest() {
    let mut udp = frame(0, 60);
    udp.buffer_mut()[12..14].copy_from_slice(&[0x08, 0x00]);
    udp.buffer_mut()[23] = 17;
    let start = Instant::now();
    let mut wire = Wire::new(Impairment::NONE, 1, start);
    let _none = wire.offer(start, udp);
    let _none = wire.offer(start, frame(0, 60));
    let _none = wire.offer(start, frame(0, 3));
    assert_eq!(wire.counters.received_frames, 3);
    assert_eq!(wire.counters.received_udp_frames, 1);
}

#[test]
fn nonsense_is_refused() {
    let lossy = |loss| Impairment { loss, ..Impairment::NONE };
    assert!(matches!(lossy(1.1).check(), Err(Error::BadLoss(_))));
    assert!(matches!(lossy(f64::NAN).check(), Err(Error::BadLoss(_))));
    let endless = Impairment { delay: Duration::MAX, ..Impairment::NONE };
    assert!(matches!(endless.check(), Err(Error::BadDelay(_))));
    let stopped = Impairment { rate_bps: Some(0), ..Impairment::NONE };
    assert!(matches!(stopped.check(), Err(Error::ZeroRate)));
}
