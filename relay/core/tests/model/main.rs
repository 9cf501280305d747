//! The relay against a naive model: after every step of a random story, who gets what is what the
//! model says, every count adds up, and nothing crosses sessions.
//!
//! `LANRAGE_SOAK=1` and a release build tell stories of 10^8 frames; `LANRAGE_SEED=N` tells one again.
#![expect(clippy::print_stderr, reason = "says which stories it tells")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod random;
mod step;
mod story;

use proptest::collection::vec;
use proptest::prelude::*;

use random::Random;
use step::step;
use story::Story;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_the_model(steps in vec(step(), 1..120)) {
        let mut story = Story::new();
        for step in &steps {
            story.run(step);
        }
    }
}

/// Stories that once failed.
const KEPT: [u64; 1] = [1_882_585_446_744_324];
const STEPS: usize = 10_000;

/// Says which story failed.
struct Telling(u64);

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("LANRAGE_SEED={} tells this story again", self.0);
        }
    }
}

/// Frames received in one story.
fn tell(seed: u64) -> u64 {
    let _telling = Telling(seed);
    let mut random = Random::new(seed);
    let mut story = Story::new();
    for _ in 0..STEPS {
        story.run(&random.step());
    }
    story.frames()
}

#[test]
fn agrees_with_the_model_for_long() {
    if let Ok(seed) = std::env::var("LANRAGE_SEED") {
        tell(seed.parse().unwrap());
        return;
    }
    let (frames_min, first) = match std::env::var_os("LANRAGE_SOAK") {
        Some(_) => (100_000_000, fresh_seed()),
        None => (400_000, 1),
    };
    let kept: u64 = KEPT.into_iter().map(tell).sum();
    let (mut frames, mut stories) = (kept, 0);
    for seed in first.. {
        frames += tell(seed);
        stories += 1;
        if frames >= frames_min {
            break;
        }
    }
    println!("{frames} frames in {stories} stories from seed {first} on");
}

/// A soak begins where none has before.
fn fresh_seed() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() << 20
}
