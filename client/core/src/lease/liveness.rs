//! Whether a lease's data path works, from self-addressed frames (§3.4).
//!
//! ```text
//!           a probe is late             three in a row are late
//!   Alive ──────────────────► Suspect ─────────────────────────► Dead
//!     ▲      one returns         │ ▲          one returns          │
//!     └──────────────────────────┘ └───────────────────────────────┘
//!        (three in a row, after Dead)
//! ```

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use lanrage_proto::frame::data::SelfProbe;
use lanrage_proto::inner::LeaseState;
use rand_core::RngCore;

use crate::quality::Window;

/// Between probes while there is traffic.
const INTERVAL_ACTIVE: Duration = Duration::from_millis(250);
/// Between probes otherwise: keeps a NAT's mapping, 30 s in the worst of them (RFC 4787 REQ-5
/// asks for 2 min), and the lease, 30 s.
const INTERVAL_IDLE: Duration = Duration::from_secs(10);
/// Between probes while the answer decides: a fresh lease, or one probe is late.
const INTERVAL_DOUBT: Duration = Duration::from_millis(100);
/// Between probes of a dead lease without traffic.
const INTERVAL_DEAD: Duration = Duration::from_secs(1);
/// Probes sent in haste after the lease was made.
const HASTY_PROBES: u32 = 10;
/// No probe is late before this.
const PATIENCE_MIN: Duration = Duration::from_millis(250);
const PATIENCE_MAX: Duration = Duration::from_secs(1);
/// Late probes in a row that make a lease dead, returned ones that revive it.
const ROW: u32 = 3;
/// Probes remembered, so that an answer after its time still counts.
const OUTSTANDING_MAX: usize = 16;

const _: () = {
    // From the relay's death to Dead, while there is traffic: the first lost probe leaves within an
    // interval and is late after the patience; two more follow in haste.
    let worst = INTERVAL_ACTIVE.as_millis()
        + PATIENCE_MIN.as_millis()
        + INTERVAL_ACTIVE.as_millis()
        + INTERVAL_DOUBT.as_millis();
    assert!(worst < 1000);
};

#[derive(Debug)]
struct Outstanding {
    probe: SelfProbe,
    sent: Instant,
    late: bool,
}

#[derive(Debug)]
pub(crate) struct Liveness {
    state: LeaseState,
    outstanding: VecDeque<Outstanding>,
    next_probe: Instant,
    sequence: u32,
    late_in_row: u32,
    returned_in_row: u32,
    was_dead: bool,
    /// When a probe first returned from the last outage.
    outage_ended: Option<Instant>,
    proven: bool,
    pub(crate) window: Window,
}

impl Liveness {
    /// A fresh lease is alive: BOUND came over the same path. Its first probe is due at once.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            state: LeaseState::Alive,
            outstanding: VecDeque::with_capacity(OUTSTANDING_MAX),
            next_probe: now,
            sequence: 0,
            late_in_row: 0,
            returned_in_row: 0,
            was_dead: false,
            outage_ended: None,
            proven: false,
            window: Window::default(),
        }
    }

    pub(crate) const fn state(&self) -> LeaseState {
        self.state
    }

    /// A probe is due at once: traffic starts, or the path may have changed.
    pub(crate) fn wake(&mut self, now: Instant) {
        let recent = self.outstanding.back().is_some_and(|last| now < last.sent + INTERVAL_DOUBT);
        if !recent {
            self.next_probe = self.next_probe.min(now);
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        let patience = self.patience();
        let late = self.outstanding.iter().find(|probe| !probe.late).map(|p| p.sent + patience);
        late.map_or(self.next_probe, |late| late.min(self.next_probe))
    }

    /// Counts late probes.
    pub(crate) fn handle_timeout(&mut self, active: bool, now: Instant) {
        let patience = self.patience();
        for at in 0..self.outstanding.len() {
            let probe = &mut self.outstanding[at];
            if !probe.late && now >= probe.sent + patience {
                probe.late = true;
                self.window.lost();
                self.note_late();
            }
        }
        // A state that just changed to Suspect probes in haste from the last probe on.
        if let Some(last) = self.outstanding.back() {
            self.next_probe = self.next_probe.min(last.sent + self.interval(active));
        }
    }

    /// The probe that is due.
    pub(crate) fn poll_probe(
        &mut self,
        active: bool,
        rng: &mut impl RngCore,
        now: Instant,
    ) -> Option<SelfProbe> {
        if now < self.next_probe {
            return None;
        }
        self.sequence = self.sequence.wrapping_add(1);
        let probe = SelfProbe { sequence: self.sequence, cookie: rng.next_u64() };
        if self.outstanding.len() == OUTSTANDING_MAX {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back(Outstanding { probe, sent: now, late: false });
        self.next_probe = now + self.interval(active);
        Some(probe)
    }

    /// Whether the probe was outstanding.
    pub(crate) fn handle_return(&mut self, probe: SelfProbe, now: Instant) -> bool {
        let Some(at) = self.outstanding.iter().position(|sent| sent.probe == probe) else {
            return false;
        };
        let Some(sent) = self.outstanding.remove(at) else { return false };
        let rtt = now.saturating_duration_since(sent.sent);
        if self.state == LeaseState::Dead {
            self.outage_ended = Some(now);
        }
        if !sent.late {
            self.window.returned(rtt);
        } else if self.outage_ended.is_none_or(|ended| sent.sent > ended) {
            self.window.sample(rtt);
        }
        self.proven = true;
        self.late_in_row = 0;
        self.returned_in_row += 1;
        self.state = match self.state {
            LeaseState::Dead => {
                self.was_dead = true;
                LeaseState::Suspect
            }
            LeaseState::Suspect if self.was_dead && self.returned_in_row < ROW => {
                LeaseState::Suspect
            }
            LeaseState::Suspect | LeaseState::Alive => {
                self.was_dead = false;
                LeaseState::Alive
            }
        };
        true
    }

    fn note_late(&mut self) {
        self.returned_in_row = 0;
        self.late_in_row += 1;
        self.state = match self.state {
            LeaseState::Alive | LeaseState::Suspect if self.late_in_row < ROW => {
                LeaseState::Suspect
            }
            LeaseState::Alive | LeaseState::Suspect | LeaseState::Dead => LeaseState::Dead,
        };
    }

    fn patience(&self) -> Duration {
        self.window.patience().clamp(PATIENCE_MIN, PATIENCE_MAX)
    }

    const fn interval(&self, active: bool) -> Duration {
        match self.state {
            LeaseState::Suspect => INTERVAL_DOUBT,
            _ if !self.proven && self.sequence < HASTY_PROBES => INTERVAL_DOUBT,
            _ if active => INTERVAL_ACTIVE,
            LeaseState::Dead => INTERVAL_DEAD,
            LeaseState::Alive => INTERVAL_IDLE,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha12Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    /// Probes for `time` on a path that answers after [`RTT`], or keeps all answers.
    fn probe(
        liveness: &mut Liveness,
        now: &mut Instant,
        time: Duration,
        answers: bool,
    ) -> Vec<SelfProbe> {
        let mut rng = ChaCha12Rng::seed_from_u64(1);
        let (mut under_way, mut kept) = (VecDeque::new(), Vec::new());
        let end = *now + time;
        while *now < end {
            *now += Duration::from_millis(5);
            liveness.handle_timeout(true, *now);
            if let Some(probe) = liveness.poll_probe(true, &mut rng, *now) {
                if answers { under_way.push_back((*now + RTT, probe)) } else { kept.push(probe) }
            }
            while under_way.front().is_some_and(|(at, _)| at <= now) {
                let (_, probe) = under_way.pop_front().expect("there is a front");
                assert!(liveness.handle_return(probe, *now));
            }
        }
        kept
    }

    /// A relay that was frozen answers all probes of its outage at once when it goes on. Taken for
    /// round trips of seconds, they made the client wait up to a second longer for the next outage
    /// to show.
    #[test]
    fn regression_answers_from_an_outage_are_no_round_trips() {
        let mut now = Instant::now();
        let mut liveness = Liveness::new(now);
        probe(&mut liveness, &mut now, Duration::from_secs(3), true);
        let kept = probe(&mut liveness, &mut now, Duration::from_secs(3), false);
        assert_eq!(liveness.state(), LeaseState::Dead);
        for probe in kept {
            assert!(liveness.handle_return(probe, now));
        }
        probe(&mut liveness, &mut now, Duration::from_secs(1), true);
        assert_eq!(liveness.state(), LeaseState::Alive);
        assert_eq!(liveness.patience(), PATIENCE_MIN);
    }

    #[test]
    fn a_path_that_becomes_slow_is_waited_for() {
        let mut window = Window::default();
        for _ in 0..20 {
            window.sample(Duration::from_millis(400));
        }
        let liveness = Liveness { window, ..Liveness::new(Instant::now()) };
        assert!(liveness.patience() > Duration::from_millis(400));
    }
}
