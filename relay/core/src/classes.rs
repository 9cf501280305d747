//! Rate classes: a lease's line says by one byte what its member may send.
//!
//! ```text
//! 0..=127    as tickets name them; one that the operator has not configured is class 0
//! 128..=255  what operators cap: the binder gives them out
//! ```

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::rate::Rate;

/// Bursts of every class: as many units as come in this time may come at once.
pub const BURST_MS: u64 = 250;
/// The first class that no ticket names.
pub const TICKET_CLASSES: u8 = 128;

/// Units a second; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Frames received.
    pub packets: Option<NonZeroU64>,
    /// Bytes received, and bytes of copies sent.
    pub bytes: Option<NonZeroU64>,
    /// Copies of broadcasts sent.
    pub copies: Option<NonZeroU64>,
}

/// The limits of one rate class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassLimits {
    /// Of one lease.
    pub lease: Limits,
    /// Of all leases of a session at this relay.
    pub session: Limits,
}

impl Limits {
    /// Each limit times `factor`.
    #[must_use]
    pub fn times(self, factor: NonZeroU64) -> Self {
        let times = |limit: Option<NonZeroU64>| limit.map(|units| units.saturating_mul(factor));
        Self { packets: times(self.packets), bytes: times(self.bytes), copies: times(self.copies) }
    }
}

impl ClassLimits {
    /// What a lease may, and four times that for its session.
    const fn of_lease(packets: u64, bytes: u64, copies: u64) -> Self {
        const fn limits(packets: u64, bytes: u64, copies: u64) -> Limits {
            Limits {
                packets: NonZeroU64::new(packets),
                bytes: NonZeroU64::new(bytes),
                copies: NonZeroU64::new(copies),
            }
        }
        Self {
            lease: limits(packets, bytes, copies),
            session: limits(4 * packets, 4 * bytes, 4 * copies),
        }
    }
}

/// 0: a player, with downloads. 1: four times that. 2: no limits, for measuring.
pub const DEFAULTS: [ClassLimits; 3] = [
    ClassLimits::of_lease(50_000, 64 << 20, 10_000),
    ClassLimits::of_lease(200_000, 256 << 20, 40_000),
    ClassLimits::of_lease(0, 0, 0),
];

/// The classes of one relay: the binder edits them while the shards read.
#[derive(Clone, Debug)]
pub struct Classes {
    classes: Arc<[Class; 256]>,
    /// Of those that tickets name.
    configured: Arc<[ClassLimits]>,
}

/// A class on one cache line.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Class {
    pub(crate) lease: Shared,
    pub(crate) session: Shared,
}

const _: () = assert!(size_of::<Class>() == 64);

/// Limits of which each changes at once.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    packets: AtomicU64,
    bytes: AtomicU64,
    copies: AtomicU64,
}

impl Shared {
    pub(crate) fn packets(&self) -> Rate {
        load(&self.packets)
    }

    pub(crate) fn bytes(&self) -> Rate {
        load(&self.bytes)
    }

    pub(crate) fn copies(&self) -> Rate {
        load(&self.copies)
    }

    fn set(&self, limits: &Limits) {
        store(&self.packets, limits.packets);
        store(&self.bytes, limits.bytes);
        store(&self.copies, limits.copies);
    }
}

fn load(cost: &AtomicU64) -> Rate {
    Rate::of_cost(cost.load(Ordering::Relaxed), BURST_MS)
}

fn store(cost: &AtomicU64, limit: Option<NonZeroU64>) {
    let rate = limit.map_or(Rate::UNLIMITED, |units| Rate::per_second(units.get(), BURST_MS));
    cost.store(rate.cost(), Ordering::Relaxed);
}

impl Classes {
    /// [`DEFAULTS`], but for what the operator has configured; classes from [`TICKET_CLASSES`] on are
    /// not theirs to configure.
    pub fn new(configured: impl IntoIterator<Item = (u8, ClassLimits)>) -> Self {
        let mut limits = [None; TICKET_CLASSES as usize];
        for (class, of) in (0..).zip(DEFAULTS).chain(configured) {
            if let Some(limits) = limits.get_mut(usize::from(class)) {
                *limits = Some(of);
            }
        }
        let class_0 = limits[0].unwrap_or(DEFAULTS[0]);
        let classes = Self {
            classes: Arc::new(std::array::from_fn(|_| Class::default())),
            configured: limits.map(|own| own.unwrap_or(class_0)).into(),
        };
        for class in 0..=u8::MAX {
            classes.set(class, &classes.limits(class));
        }
        classes
    }

    /// The limits of a class that tickets name, without caps.
    pub fn limits(&self, class: u8) -> ClassLimits {
        *self.configured.get(usize::from(class)).unwrap_or(&self.configured[0])
    }

    pub(crate) fn of(&self, class: u8) -> &Class {
        &self.classes[usize::from(class)]
    }

    pub(crate) fn set(&self, class: u8, limits: &ClassLimits) {
        self.of(class).lease.set(&limits.lease);
        self.of(class).session.set(&limits.session);
    }
}

impl Default for Classes {
    fn default() -> Self {
        Self::new([])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease_packets(classes: &Classes, class: u8) -> u64 {
        classes.of(class).lease.packets().cost()
    }

    #[test]
    fn unknown_classes_are_class_0() {
        let classes = Classes::default();
        assert_eq!(lease_packets(&classes, 100), lease_packets(&classes, 0));
        assert_eq!(lease_packets(&classes, 200), lease_packets(&classes, 0));
        assert_eq!(lease_packets(&classes, 0), 4 * lease_packets(&classes, 1));
        assert_eq!(lease_packets(&classes, 2), 0, "no limit");
    }

    #[test]
    fn operators_configure_what_tickets_name() {
        let packets = NonZeroU64::new(1_000);
        let slow = ClassLimits { lease: Limits { packets, ..Limits::default() }, ..DEFAULTS[2] };
        let classes = Classes::new([(0, slow), (7, DEFAULTS[1]), (200, DEFAULTS[2])]);
        assert_eq!(lease_packets(&classes, 0), 50 * lease_packets(&Classes::default(), 0));
        assert_eq!(lease_packets(&classes, 7), lease_packets(&classes, 1));
        assert_eq!(lease_packets(&classes, 200), lease_packets(&classes, 0));
    }
}
