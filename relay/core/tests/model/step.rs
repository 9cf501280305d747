use proptest::prelude::*;

const SESSIONS: u64 = 2;
pub(crate) const MEMBERS: u8 = 3;
pub(crate) const PLAYERS: usize = SESSIONS as usize * MEMBERS as usize * 2;

/// Players are numbered; the second half are other instances of the first half's devices.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Bind {
        player: usize,
    },
    ReplayBind {
        player: usize,
    },
    /// By the ticket of its last lease, or by the one before.
    Resume {
        player: usize,
        is_late: bool,
    },
    Use {
        player: usize,
        to: u8,
    },
    Broadcast {
        player: usize,
    },
    ForgeSource {
        player: usize,
        source: u8,
    },
    ForgeHandle {
        player: usize,
        victim: usize,
    },
    ForgeTag {
        player: usize,
    },
    ForgeAddress {
        player: usize,
    },
    Stale {
        player: usize,
        to: u8,
    },
    Move {
        player: usize,
    },
    UseFormerAddress {
        player: usize,
    },
    Release {
        player: usize,
    },
    Kick {
        player: usize,
    },
    Wait {
        ms: u64,
    },
    /// Equal headers.
    Train {
        player: usize,
        to: u8,
        segments: usize,
    },
    /// To the member and to oneself by turns.
    MixedTrain {
        player: usize,
        to: u8,
        segments: usize,
    },
    BroadcastTrain {
        player: usize,
        segments: usize,
    },
    /// Bytes of no client.
    Junk {
        first: u8,
        len: usize,
    },
    /// 0 lifts the cap.
    CapLease {
        player: usize,
        packets: u64,
    },
    CapSession {
        player: usize,
        packets: u64,
    },
    EgressFails {
        datagrams: u64,
    },
    Crash,
    /// Another process goes on.
    Upgrade,
    ControlLost,
    ControlFound,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let player = || 0..PLAYERS;
    let member = || 1..=MEMBERS + 1;
    prop_oneof![
        4 => player().prop_map(|player| Step::Bind { player }),
        1 => player().prop_map(|player| Step::ReplayBind { player }),
        2 => (player(), any::<bool>())
            .prop_map(|(player, is_late)| Step::Resume { player, is_late }),
        8 => (player(), member()).prop_map(|(player, to)| Step::Use { player, to }),
        3 => player().prop_map(|player| Step::Broadcast { player }),
        1 => (player(), member()).prop_map(|(player, source)| Step::ForgeSource { player, source }),
        1 => (player(), player()).prop_map(|(player, victim)| Step::ForgeHandle { player, victim }),
        1 => player().prop_map(|player| Step::ForgeTag { player }),
        1 => player().prop_map(|player| Step::ForgeAddress { player }),
        1 => (player(), member()).prop_map(|(player, to)| Step::Stale { player, to }),
        2 => player().prop_map(|player| Step::Move { player }),
        2 => player().prop_map(|player| Step::UseFormerAddress { player }),
        1 => player().prop_map(|player| Step::Release { player }),
        1 => player().prop_map(|player| Step::Kick { player }),
        2 => (player(), member(), 1..64_usize)
            .prop_map(|(player, to, segments)| Step::Train { player, to, segments }),
        1 => (player(), member(), 1..64_usize)
            .prop_map(|(player, to, segments)| Step::MixedTrain { player, to, segments }),
        1 => (player(), 1..64_usize)
            .prop_map(|(player, segments)| Step::BroadcastTrain { player, segments }),
        1 => (player(), 0..3_000_u64)
            .prop_map(|(player, packets)| Step::CapLease { player, packets }),
        1 => (player(), 0..3_000_u64)
            .prop_map(|(player, packets)| Step::CapSession { player, packets }),
        1 => (0..50_u64).prop_map(|datagrams| Step::EgressFails { datagrams }),
        1 => Just(Step::Crash),
        2 => Just(Step::Upgrade),
        2 => prop_oneof![Just(100), Just(1_000), Just(5_000), Just(40_000)]
            .prop_map(|ms| Step::Wait { ms }),
    ]
}
