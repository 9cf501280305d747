use lanrage_proto::RelayId;
use lanrage_proto::frame::control::Message;
use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_relay_table::State;

use super::cookies::Place;
use super::{Binder, Now};

/// Between steps of telling.
const STEP_MS: u64 = 100;
/// Leases told in a step, at most: at some 6 µs each, a tenth of the binder's time.
const STEP_LEASES_MAX: u64 = 1_600;
/// And at least: a small relay's leases are told at once.
const STEP_LEASES_MIN: u64 = 50;
/// Slots looked at in a step, some 50 ns each.
const STEP_SLOTS_MAX: u32 = 1 << 16;
/// A lease that is still here is told again after this: a MOVING may get lost.
const REPEAT_MS: u64 = 5_000;

/// Every lease is told where to go, a part at a time, and again until it has gone (§5.3).
///
/// The first round takes half the time there is: so that the next relays need not bind everybody at
/// once, and that whoever is told last has time, too.
#[derive(Debug)]
pub(super) struct Drain {
    deadline_ms: u64,
    next: Option<RelayId>,
    per_step: u64,
    step_at_ms: u64,
    from: u32,
    round_since_ms: u64,
    told: u64,
}

impl Drain {
    pub(super) const fn next_ms(&self) -> u64 {
        self.step_at_ms
    }

    /// See [`Binder::freeze`].
    pub(super) fn freeze(drain: Option<&Self>, out: Writer) -> Writer {
        let Some(drain) = drain else { return out.u8(0) };
        let next = drain.next.unwrap_or(RelayId(0));
        out.u8(1)
            .u64(drain.deadline_ms)
            .u16(next.0)
            .u64(drain.per_step)
            .u64(drain.step_at_ms)
            .u32(drain.from)
            .u64(drain.round_since_ms)
            .u64(drain.told)
    }

    /// The inverse of [`Drain::freeze`].
    pub(super) fn thaw(reader: &mut Reader<'_>, now: Now) -> Result<Option<Self>, Malformed> {
        match reader.u8()? {
            0 => return Ok(None),
            1 => {}
            _ => return Err(Malformed("frozen drain")),
        }
        let deadline_ms = reader.u64()?;
        let next = Some(RelayId(reader.u16()?)).filter(|next| *next != RelayId(0));
        let per_step = reader.u64()?.clamp(STEP_LEASES_MIN, STEP_LEASES_MAX);
        let latest_ms = now.ms + REPEAT_MS;
        let (step_at_ms, from) = (reader.u64()?.min(latest_ms), reader.u32()?);
        let (round_since_ms, told) = (reader.u64()?.min(latest_ms), reader.u64()?);
        Ok(Some(Self { deadline_ms, next, per_step, step_at_ms, from, round_since_ms, told }))
    }
}

/// How a drain is getting on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draining {
    /// When the relay stops serving, on the monotonic clock.
    pub deadline_ms: u64,
    /// Where everybody is sent; their tickets' next relays if none.
    pub next: Option<RelayId>,
    /// MOVING sent.
    pub told: u64,
}

impl Binder {
    /// Binds nobody from now on, and tells the leases to be gone in `within_ms`: to `next`, or else
    /// to the next relay of each one's ticket. Leases are served on.
    pub fn drain(&mut self, now: Now, within_ms: u64, next: Option<RelayId>) {
        let leases = self.table.counts().active as u64;
        let steps = (within_ms / 2 / STEP_MS).max(1);
        self.drain = Some(Drain {
            deadline_ms: now.ms.saturating_add(within_ms),
            next,
            per_step: leases.div_ceil(steps).clamp(STEP_LEASES_MIN, STEP_LEASES_MAX),
            step_at_ms: now.ms,
            from: 0,
            round_since_ms: now.ms,
            told: 0,
        });
    }

    /// Binds again. Clients that have gone ask again within half a minute.
    pub fn undrain(&mut self) {
        self.drain = None;
    }

    /// The drain under way.
    pub fn draining(&self) -> Option<Draining> {
        let Drain { deadline_ms, next, told, .. } = *self.drain.as_ref()?;
        Some(Draining { deadline_ms, next, told })
    }

    /// Tells the next few leases.
    pub(super) fn drain_on(&mut self, now: Now) {
        let Some(mut drain) = self.drain.take_if(|drain| drain.step_at_ms <= now.ms) else {
            return;
        };
        let left_ms = drain.deadline_ms.saturating_sub(now.ms);
        let deadline_s = left_ms.div_ceil(1000).min(u16::MAX.into()) as u16;
        let slots = self.table.slots();
        let to = drain.from.saturating_add(STEP_SLOTS_MAX).min(slots);
        let leases = self.table.scan(drain.from..to).map(|scanned| scanned.lease);
        let leases = leases.filter(|lease| lease.state == State::Active);
        let leases: Vec<_> = leases.take(drain.per_step as usize).collect();
        drain.from = match leases.last() {
            Some(last) if leases.len() as u64 == drain.per_step => last.handle.index() + 1,
            _ => to,
        };
        for lease in leases {
            let Some(record) = self.record(lease.handle) else { continue };
            let next = drain.next.unwrap_or(record.next);
            let place = Place { remote: lease.endpoint.remote(), local: lease.endpoint.local };
            self.tell(&lease, place, &Message::Moving { next, deadline_s });
            drain.told += 1;
            self.counters.moving += 1;
        }
        drain.step_at_ms = now.ms + STEP_MS;
        if drain.from >= slots {
            drain.from = 0;
            drain.step_at_ms = drain.step_at_ms.max(drain.round_since_ms + REPEAT_MS);
            drain.round_since_ms = drain.step_at_ms;
        }
        self.drain = Some(drain);
    }
}
