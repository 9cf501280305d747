use proptest::prelude::*;

use super::*;

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (any::<u128>(), any::<u16>(), any::<u16>()).prop_map(|(ip, port, local)| Endpoint {
        ip: ip.into(),
        port,
        local: LocalId(local),
    })
}

prop_compose! {
    fn lease()(
        index in 0..1u32 << 24,
        numbers in any::<(u8, u64, u32, u32, u8)>(),
        endpoint in endpoint(),
        previous in proptest::option::of(endpoint()),
        member in (1..=Member::MAX).prop_filter_map("1..=250", Member::new),
        state in prop_oneof![Just(State::Pending), Just(State::Active)],
    ) -> Lease {
        let (generation, session, tag, chain, rate_class) = numbers;
        Lease {
            handle: Handle::new(index, generation),
            session: SessionId(session),
            endpoint,
            previous,
            tag: Tag(tag),
            chain: ChainHead(chain),
            member,
            rate_class,
            state,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(first in lease(), second in lease()) {
        let words = Line::default();
    let line = LeaseLine(&words);
        for lease in [first, second] {
            line.write(&lease);
            prop_assert_eq!(line.read(lease.handle), Ok(lease));
            let other = Handle::new(lease.handle.index(), lease.handle.generation() ^ 1);
            prop_assert_eq!(line.read(other), Err(Miss::Absent));
        }
    }

    #[test]
    fn accepts_both_addresses_of_a_rebind(lease in lease()) {
        prop_assert!(lease.accepts(lease.endpoint.ip, lease.endpoint.port));
        let other_port = lease.endpoint.port ^ 1;
        let settled = Lease { previous: None, ..lease };
        prop_assert!(!settled.accepts(lease.endpoint.ip, other_port));
        if let Some(previous) = lease.previous {
            prop_assert!(lease.accepts(previous.ip, previous.port));
        }
    }
}

#[test]
fn a_freed_line_has_the_next_generation() {
    let words = Line::default();
    let line = LeaseLine(&words);
    for generation in (0..=u8::MAX).chain([0]) {
        let handle = Handle::new(7, generation);
        assert_eq!(line.generation(), generation);
        assert_eq!(line.read(handle), Err(Miss::Absent));
        line.free();
    }
}

#[test]
fn an_open_edit_is_torn_and_keeps_no_one_waiting() {
    let words = Line::default();
    let line = LeaseLine(&words);
    words[0].store(1, Ordering::Relaxed);
    assert_eq!(line.read(Handle::new(0, 0)), Err(Miss::Torn));
}

#[test]
fn the_sequence_wraps_without_touching_the_generation() {
    let words = Line::default();
    let line = LeaseLine(&words);
    words[0].store(u64::from(u32::MAX) - 1, Ordering::Relaxed);
    line.free();
    assert_eq!(words[0].load(Ordering::Relaxed), 1 << 32, "sequence 0, generation 1");
}
