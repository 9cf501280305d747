use crate::step::{MEMBERS, PLAYERS, Step};

/// SplitMix64 (G. L. Steele, D. Lea and C. H. Flood, OOPSLA 2014): the same steps for a seed on every
/// machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd134_2543_de82_ef95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Public-key work and long waits are rare among them, frames are many.
    pub(crate) fn step(&mut self) -> Step {
        let player = self.below(PLAYERS as u64) as usize;
        let to = 1 + self.below(u64::from(MEMBERS) + 1) as u8;
        let segments = 1 + self.below(64) as usize;
        match self.below(1_000) {
            0..4 => Step::Bind { player },
            4..6 => Step::ReplayBind { player },
            6..36 => Step::Resume { player, is_late: self.below(8) == 0 },
            36..104 => Step::Broadcast { player },
            104..154 => Step::BroadcastTrain { player, segments },
            154..164 => Step::ForgeSource { player, source: to },
            164..174 => Step::ForgeHandle { player, victim: self.below(PLAYERS as u64) as usize },
            174..184 => Step::ForgeTag { player },
            184..194 => Step::ForgeAddress { player },
            194..204 => Step::Stale { player, to },
            204..224 => Step::Move { player },
            224..244 => Step::UseFormerAddress { player },
            244..248 => Step::Release { player },
            248..249 => Step::Kick { player },
            249..254 => Step::CapLease { player, packets: self.below(3_000) },
            254..259 => Step::CapSession { player, packets: self.below(3_000) },
            259..266 => Step::EgressFails { datagrams: self.below(50) },
            266 => Step::Upgrade,
            267 => Step::Crash,
            268..272 => Step::ControlLost,
            272..276 => Step::ControlFound,
            276..279 => Step::Wait { ms: [100, 1_000, 5_000, 40_000][self.below(4) as usize] },
            279..320 => Step::Junk { first: self.next() as u8, len: self.below(400) as usize },
            320..400 => Step::Wait { ms: 1 + self.below(20) },
            400..550 => Step::MixedTrain { player, to, segments },
            550..850 => Step::Train { player, to, segments },
            _ => Step::Use { player, to },
        }
    }
}
