use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore as _, SeedableRng as _};

/// Damages datagrams, the same way for the same seed.
pub struct Mutator(ChaCha8Rng);

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.0.next_u32() as usize) % end
    }

    /// Longer than any frame, now and then.
    pub fn noise(&mut self) -> Vec<u8> {
        let len = if self.below(64) == 0 { self.below(2_000) } else { self.below(64) };
        let mut bytes = vec![0; len];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// One of `frames`, mostly damaged: bits, bytes, length, type, or the end of another.
    pub fn next(&mut self, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut frame = frames[self.below(frames.len())].clone();
        for _ in 0..=self.below(3) {
            let len = frame.len();
            if len == 0 {
                return self.noise();
            }
            match self.below(8) {
                0 => frame[self.0.next_u32() as usize % len] ^= 1 << (self.0.next_u32() % 8),
                1 => frame[self.0.next_u32() as usize % len] = self.0.next_u32() as u8,
                2 => frame.truncate(self.below(len)),
                3 => frame.extend(self.noise()),
                4 => frame[0] = 0xf0 | (self.0.next_u32() as u8),
                5 => {
                    let other = &frames[self.below(frames.len())];
                    let from = self.below(len.min(other.len()));
                    frame.truncate(from);
                    frame.extend_from_slice(&other[from..]);
                }
                6 => frame = self.noise(),
                // As it is.
                _ => {}
            }
        }
        frame
    }
}
