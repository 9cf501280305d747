//! Random operations on the table and on a plain map, compared after each.

#![cfg(not(loom))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::Ipv6Addr,
    sync::atomic::{AtomicU64, Ordering},
};

use lanrage_relay_table::{
    AttachError, Budget, Capacity, Counts, Cursor, Endpoint, Full, Handle, Inserted, LocalId,
    Member, MemberLeases, Miss, NewLease, Reader, SessionId, Stale, State, Tag, Target, Writer,
    adopt, create, new,
};
use proptest::{prelude::*, test_runner::FileFailurePersistence};

const SESSIONS: u64 = 6;
const MEMBERS: u8 = 40;

#[derive(Debug, Clone)]
enum Operation {
    Insert {
        session: u64,
        member: u8,
        port: u16,
        random: u64,
    },
    /// Of the lease at this place among the live ones, or of a handle that is gone.
    Activate(Pick),
    Rebind(Pick, u16),
    Settle(Pick),
    Release(Pick),
    /// Everything of a session, as after a kick of all.
    ReleaseSession(u64),
    /// Another writer goes on with the table.
    Adopt,
}

#[derive(Debug, Clone, Copy)]
enum Pick {
    Live(prop::sample::Index),
    Gone(prop::sample::Index),
}

fn operation() -> impl Strategy<Value = Operation> {
    let pick = || {
        prop_oneof![
            9 => any::<prop::sample::Index>().prop_map(Pick::Live),
            1 => any::<prop::sample::Index>().prop_map(Pick::Gone),
        ]
    };
    prop_oneof![
        8 => (0..SESSIONS, 1..=MEMBERS, 1..u16::MAX, any::<u64>())
            .prop_map(|(session, member, port, random)| Operation::Insert { session, member, port, random }),
        6 => pick().prop_map(Operation::Activate),
        2 => (pick(), 1..8u16).prop_map(|(pick, port)| Operation::Rebind(pick, port)),
        1 => pick().prop_map(Operation::Settle),
        4 => pick().prop_map(Operation::Release),
        1 => (0..SESSIONS).prop_map(Operation::ReleaseSession),
        1 => Just(Operation::Adopt),
    ]
}

#[derive(Debug, Clone, Copy)]
struct Known {
    session: SessionId,
    member: Member,
    state: State,
    endpoint: Endpoint,
    previous: Option<Endpoint>,
    tag: Tag,
    inserted_ms: u64,
}

#[derive(Debug, Default)]
struct Model {
    leases: BTreeMap<Handle, Known>,
    gone: Vec<Handle>,
}

impl Model {
    fn of(&self, session: SessionId, member: Member) -> MemberLeases {
        let find = |state| {
            let mut found = self.leases.iter().filter(|(_, known)| {
                known.session == session && known.member == member && known.state == state
            });
            let first = found.next().map(|(handle, _)| *handle);
            assert!(found.next().is_none(), "one {state:?} lease a member");
            first
        };
        MemberLeases { active: find(State::Active), pending: find(State::Pending) }
    }

    fn pick(&self, pick: Pick) -> Option<Handle> {
        match pick {
            Pick::Live(at) if !self.leases.is_empty() => {
                self.leases.keys().nth(at.index(self.leases.len())).copied()
            }
            Pick::Gone(at) if !self.gone.is_empty() => Some(self.gone[at.index(self.gone.len())]),
            Pick::Live(_) | Pick::Gone(_) => None,
        }
    }

    fn remove(&mut self, handle: Handle) -> bool {
        let removed = self.leases.remove(&handle).is_some();
        if removed {
            self.gone.push(handle);
        }
        removed
    }
}

struct Pair {
    capacity: Capacity,
    words: &'static [AtomicU64],
    writer: Writer,
    reader: Reader,
    model: Model,
    now_ms: u64,
}

impl Pair {
    fn new(capacity: Capacity) -> Self {
        let words = memory(capacity.words());
        let (writer, reader) = create(words, capacity).unwrap();
        Self { capacity, words, writer, reader, model: Model::default(), now_ms: 0 }
    }

    fn apply(&mut self, operation: &Operation) {
        self.now_ms += 1;
        match *operation {
            Operation::Insert { session, member, port, random } => {
                self.insert(SessionId(session), Member::new(member).unwrap(), port, random);
            }
            Operation::Activate(pick) => self.activate(pick),
            Operation::Rebind(pick, port) => self.rebind(pick, port),
            Operation::Settle(pick) => {
                let Some(handle) = self.model.pick(pick) else { return };
                let known = self.model.leases.get_mut(&handle);
                assert_eq!(self.writer.settle_address(handle).is_ok(), known.is_some());
                if let Some(known) = known {
                    known.previous = None;
                }
            }
            Operation::Release(pick) => {
                let Some(handle) = self.model.pick(pick) else { return };
                assert_eq!(self.writer.release(handle).is_ok(), self.model.remove(handle));
            }
            Operation::Adopt => (self.writer, _) = adopt(self.words).unwrap(),
            Operation::ReleaseSession(session) => {
                let leases = self.model.leases.iter();
                let of_session = leases.filter(|(_, known)| known.session == SessionId(session));
                for handle in of_session.map(|(handle, _)| *handle).collect::<Vec<_>>() {
                    self.writer.release(handle).unwrap();
                    self.model.remove(handle);
                }
            }
        }
    }

    fn insert(&mut self, session: SessionId, member: Member, port: u16, random: u64) {
        let new = NewLease {
            session,
            member,
            endpoint: endpoint(port),
            tag: Tag(random as u32),
            rate_class: member.number(),
        };
        let before = self.model.of(session, member);
        let free_before = self.writer.counts();
        match self.writer.insert_pending(&new, random, self.now_ms) {
            Ok(Inserted { handle, displaced }) => {
                assert_eq!(displaced, before.pending);
                if let Some(displaced) = displaced {
                    self.model.remove(displaced);
                }
                self.model.gone.retain(|gone| *gone != handle);
                let known = Known {
                    session,
                    member,
                    state: State::Pending,
                    endpoint: new.endpoint,
                    previous: None,
                    tag: new.tag,
                    inserted_ms: self.now_ms,
                };
                assert!(
                    self.model.leases.insert(handle, known).is_none(),
                    "a slot in use was handed out"
                );
            }
            Err(full) => {
                assert_eq!(
                    before.pending, None,
                    "a member's pending lease makes room for its next"
                );
                match full {
                    Full::Leases => assert_eq!(free_before.free_leases, 0),
                    Full::SessionLines => assert_eq!(free_before.free_session_lines, 0),
                }
            }
        }
    }

    fn activate(&mut self, pick: Pick) {
        let Some(handle) = self.model.pick(pick) else { return };
        let activated = self.writer.activate(handle);
        let Some(known) = self.model.leases.get(&handle).copied() else {
            assert_eq!(activated, Err(Stale));
            return;
        };
        let replaced = match known.state {
            State::Active => None,
            State::Pending => self.model.of(known.session, known.member).active,
        };
        assert_eq!(activated, Ok(replaced));
        if let Some(replaced) = replaced {
            self.model.remove(replaced);
        }
        self.model.leases.insert(handle, Known { state: State::Active, ..known });
    }

    fn rebind(&mut self, pick: Pick, port: u16) {
        let Some(handle) = self.model.pick(pick) else { return };
        let known = self.model.leases.get_mut(&handle);
        assert_eq!(self.writer.rebind(handle, endpoint(port)).is_ok(), known.is_some());
        if let Some(known) = known.filter(|known| known.endpoint != endpoint(port)) {
            known.previous = Some(std::mem::replace(&mut known.endpoint, endpoint(port)));
        }
    }

    fn check(&self) {
        for (handle, known) in &self.model.leases {
            let source = self.reader.source(*handle).unwrap();
            let lease = source.lease;
            assert_eq!(lease.handle, *handle);
            assert_eq!(
                (lease.session, lease.member, lease.state),
                (known.session, known.member, known.state)
            );
            assert_eq!(
                (lease.endpoint, lease.previous, lease.tag),
                (known.endpoint, known.previous, known.tag)
            );
            assert_eq!(lease.rate_class, known.member.number());
            assert_eq!(source.owner.last_seen_ms(), known.inserted_ms);
            assert_eq!(self.writer.lease(*handle), Some(lease));
            assert_eq!(self.reader.chain(lease.session), Some(lease.chain));
            self.check_peers(lease.session, lease.chain);
        }
        for gone in &self.model.gone {
            if !self.model.leases.contains_key(gone) {
                assert_eq!(self.reader.source(*gone).map(|source| source.lease), Err(Miss::Absent));
            }
        }
        let scanned: HashSet<Handle> =
            self.writer.scan(0..u32::MAX).map(|scanned| scanned.lease.handle).collect();
        assert_eq!(scanned, self.model.leases.keys().copied().collect());
        self.check_counts();
    }

    /// What any lease of the session sees of the others.
    fn check_peers(&self, session: SessionId, chain: lanrage_relay_table::ChainHead) {
        let mut expected = HashMap::new();
        for member in (1..=MEMBERS).filter_map(Member::new) {
            let leases = self.model.of(session, member);
            assert_eq!(self.writer.lookup(session, member), leases);
            let target = leases.active.map(|handle| Target {
                handle,
                member,
                endpoint: self.model.leases[&handle].endpoint,
                rate_class: member.number(),
            });
            assert_eq!(self.reader.peer(chain, session, member), target.ok_or(Miss::Absent));
            assert_eq!(
                self.reader.peer(chain, SessionId(session.0 + 1), member),
                Err(Miss::Absent)
            );
            expected.extend(target.map(|target| (member, target)));
        }
        let mut cursor = Cursor::start(chain);
        let mut walked = HashMap::new();
        while !cursor.is_done() {
            let mut members = self.reader.members(session, cursor);
            for target in members.by_ref().take(5) {
                let target = target.unwrap();
                assert_eq!(walked.insert(target.member, target), None, "visited twice");
            }
            cursor = members.cursor();
        }
        assert_eq!(walked, expected);
    }

    fn check_counts(&self) {
        let Counts { active, pending, sessions, free_leases, free_session_lines } =
            self.writer.counts();
        let of = |state| self.model.leases.values().filter(|known| known.state == state).count();
        assert_eq!((active, pending), (of(State::Active), of(State::Pending)));
        assert_eq!(free_leases, self.capacity.leases as usize - active - pending);
        let live: HashSet<SessionId> =
            self.model.leases.values().map(|known| known.session).collect();
        assert_eq!(sessions, live.len());
        let mut others = (0..=SESSIONS).map(SessionId).filter(|session| !live.contains(session));
        assert!(others.all(|session| self.reader.chain(session).is_none()));
        let used = self.capacity.session_lines as usize - free_session_lines;
        assert!(
            used >= sessions && used <= sessions * usize::from(MEMBERS).div_ceil(12),
            "{used} lines, {sessions} sessions"
        );
    }

    /// With nothing in use, nothing is missing.
    fn check_empty(&mut self) {
        for handle in self.model.leases.keys().copied().collect::<Vec<_>>() {
            self.writer.release(handle).unwrap();
        }
        let empty = Counts {
            active: 0,
            pending: 0,
            sessions: 0,
            free_leases: self.capacity.leases as usize,
            free_session_lines: self.capacity.session_lines as usize,
        };
        assert_eq!(self.writer.counts(), empty);
    }
}

/// A test gives back no table's memory; all of them together take little.
fn memory(words: usize) -> &'static [AtomicU64] {
    (0..words).map(|_| AtomicU64::new(0)).collect::<Vec<_>>().leak()
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        ip: Ipv6Addr::from(u128::from(port) * 0x0001_0001_0001_0001_0001),
        port,
        local: LocalId(port ^ 0x55),
    }
}

fn run(capacity: Capacity, operations: &[Operation]) {
    let mut pair = Pair::new(capacity);
    for operation in operations {
        pair.apply(operation);
        pair.check();
    }
    pair.check_empty();
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 96,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn agrees_with_the_model(operations in prop::collection::vec(operation(), 1..150)) {
        run(Capacity { leases: 300, session_lines: 40 }, &operations);
    }

    #[test]
    fn agrees_with_the_model_when_leases_run_out(operations in prop::collection::vec(operation(), 1..150)) {
        run(Capacity { leases: 7, session_lines: 40 }, &operations);
    }

    #[test]
    fn agrees_with_the_model_when_session_lines_run_out(operations in prop::collection::vec(operation(), 1..150)) {
        run(Capacity { leases: 300, session_lines: 3 }, &operations);
    }

    /// Any words may be anything: adopting them is an error, or gives a writer that works.
    #[test]
    fn a_damaged_table_harms_nobody(
        operations in prop::collection::vec(operation(), 1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), damage()), 1..4),
    ) {
        let mut pair = Pair::new(Capacity { leases: 30, session_lines: 8 });
        operations.iter().for_each(|operation| pair.apply(operation));
        for (at, value) in damage {
            let word = &pair.words[at.index(pair.words.len())];
            word.store(value.apply(word.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
        let Ok((mut writer, _)) = adopt(pair.words) else { return Ok(()) };
        let leases: Vec<Handle> = writer.scan(0..u32::MAX).map(|scanned| scanned.lease.handle).collect();
        let counts = writer.counts();
        prop_assert_eq!(leases.len(), counts.active + counts.pending);
        for handle in leases {
            prop_assert!(writer.release(handle).is_ok());
        }
        let counts = writer.counts();
        prop_assert_eq!((counts.free_leases, counts.free_session_lines, counts.sessions), (30, 8, 0));
    }
}

#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(u32),
    Value(u64),
}

impl Damage {
    fn apply(self, word: u64) -> u64 {
        match self {
            Self::Flip(bit) => word ^ 1 << bit,
            Self::Value(value) => value,
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        3 => (0..64u32).prop_map(Damage::Flip),
        1 => any::<u64>().prop_map(Damage::Value),
        1 => (0..40u64).prop_map(Damage::Value),
    ]
}

#[test]
fn only_a_table_of_this_layout_is_adopted() {
    let capacity = Capacity { leases: 3, session_lines: 2 };
    let words = memory(capacity.words());
    let refused = |words| adopt(words).map(drop).unwrap_err();
    assert_eq!(refused(words), AttachError::NoTable);
    assert_eq!(refused(&words[..2]), AttachError::NoTable);
    let needed = capacity.words();
    let size = AttachError::Size { words: needed - 1, needed };
    assert_eq!(create(&words[1..], capacity).map(drop), Err(size.clone()));
    create(words, capacity).map(drop).unwrap();
    assert_eq!(create(words, capacity).map(drop), Err(AttachError::NotFresh));
    adopt(words).map(drop).unwrap();
    assert_eq!(refused(&words[..needed - 1]), size);
    words[1].fetch_add(1, Ordering::Relaxed);
    assert_eq!(refused(words), AttachError::Layout(2));
}

fn insert(writer: &mut Writer, session: u64, member: u8) -> Result<Handle, Full> {
    let new = NewLease {
        session: SessionId(session),
        member: Member::new(member).unwrap(),
        endpoint: endpoint(u16::from(member)),
        tag: Tag(1),
        rate_class: 0,
    };
    let handle = writer.insert_pending(&new, u64::from(member), 0)?.handle;
    assert_eq!(writer.activate(handle), Ok(None));
    Ok(handle)
}

#[test]
fn a_full_party_fits_its_chain() {
    let (mut writer, reader) = new(Capacity { leases: 251, session_lines: 22 }).unwrap();
    let handles: Vec<Handle> =
        (1..=250).map(|member| insert(&mut writer, 1, member).unwrap()).collect();
    assert_eq!(writer.counts().free_session_lines, 1, "21 lines of twelve");
    let chain = reader.source(handles[0]).unwrap().lease.chain;
    let walked: HashSet<u8> = reader
        .members(SessionId(1), Cursor::start(chain))
        .map(|target| target.unwrap().member.number())
        .collect();
    assert_eq!(walked, (1..=250).collect());

    // The last line's members leave: its line is free at once. One in the middle keeps the lines before it.
    for handle in &handles[120..] {
        writer.release(*handle).unwrap();
    }
    assert_eq!(writer.counts().free_session_lines, 12);
    for handle in &handles[..119] {
        writer.release(*handle).unwrap();
    }
    assert_eq!(writer.counts().free_session_lines, 12);
    writer.release(handles[119]).unwrap();
    assert_eq!(writer.counts().free_session_lines, 22);
}

#[test]
fn a_handle_is_stale_until_its_generation_comes_round() {
    let (mut writer, reader) = new(Capacity { leases: 1, session_lines: 1 }).unwrap();
    let first = insert(&mut writer, 1, 1).unwrap();
    assert_eq!(insert(&mut writer, 1, 2), Err(Full::Leases));
    writer.release(first).unwrap();
    for _ in 1..256 {
        let next = insert(&mut writer, 2, 1).unwrap();
        assert_eq!(next.index(), first.index());
        assert_eq!(reader.source(first).map(|_| ()), Err(Miss::Absent));
        writer.release(next).unwrap();
    }
    assert_eq!(insert(&mut writer, 3, 9), Ok(first));
    // The first lease's session and member still get nothing by it.
    let chain = reader.source(first).unwrap().lease.chain;
    assert_eq!(reader.peer(chain, SessionId(1), Member::new(1).unwrap()), Err(Miss::Absent));
}

#[test]
fn buckets_start_anew_with_each_lease_and_session() {
    let (mut writer, reader) = new(Capacity { leases: 1, session_lines: 1 }).unwrap();
    for round in 0..3 {
        let handle = insert(&mut writer, round, 1).unwrap();
        let source = reader.source(handle).unwrap();
        for budget in [Budget::Packets, Budget::Bytes, Budget::Copies] {
            assert_eq!((source.owner.bucket(budget), source.session.bucket(budget)), (0, 0));
            source.owner.set_bucket(budget, 10 + budget as u64);
            source.session.set_bucket(budget, 20 + budget as u64);
        }
        for budget in [Budget::Packets, Budget::Bytes, Budget::Copies] {
            assert_eq!(
                (source.owner.bucket(budget), source.session.bucket(budget)),
                (10 + budget as u64, 20 + budget as u64)
            );
        }
        assert_eq!(source.owner.received().packets, 0);
        source.owner.count_received(2, 300);
        source.owner.count_received(1, 50);
        assert_eq!((source.owner.received().packets, source.owner.received().bytes), (3, 350));
        assert!(!source.owner.is_activation_reported(handle));
        source.owner.mark_activation_reported(handle);
        assert!(source.owner.is_activation_reported(handle));
        writer.release(handle).unwrap();
        assert!(writer.owner(handle).is_none());
    }
}

#[test]
fn capacities_outside_the_index_are_refused() {
    for (leases, session_lines) in [(0, 1), (1, 0), (Capacity::MAX + 1, 1), (1, Capacity::MAX + 1)]
    {
        assert!(new(Capacity { leases, session_lines }).is_err());
    }
}

#[test]
fn touching_anything_is_harmless() {
    let (mut writer, reader) = new(Capacity { leases: 2, session_lines: 1 }).unwrap();
    let handle = insert(&mut writer, 1, 1).unwrap();
    reader.touch_sources([handle, Handle::from_bits(u32::MAX)]);
    reader.touch_sessions([handle, Handle::from_bits(u32::MAX)]);
    reader.touch_peers([1, 2].map(|member| (handle, Member::new(member).unwrap())));
    assert!(reader.source(handle).is_ok());
}
