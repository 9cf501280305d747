//! How long a datagram to a peer may be (§9.5).
//!
//! The peer's leg is not ours to ask, and no router's word reaches us through a relay. So datagrams
//! fit every underlay until an ECHO of full length is answered, and again when such stay unanswered.

/// Long ECHOes in a row that, unanswered, make datagrams short again.
const LOST_MAX: u32 = 2;
/// The same before they are tried only now and then.
const EAGER_MAX: u32 = 5;
/// While they are not answered, a long ECHO goes with every so many ordinary ones: 16 s of play.
const RARELY: u32 = 16;

#[derive(Debug, Default)]
pub(crate) struct Size {
    is_full: bool,
    /// Of paths by two relays, which carry less; what one kind of path lets through says nothing of
    /// the other.
    is_crossing: bool,
    /// A datagram of more than the least length was sent since the last ordinary echo.
    is_used: bool,
    /// Ordinary echoes since a long one was answered, while that is asked.
    unproven: u32,
    /// The last two: an answer may take two seconds.
    outstanding: [Option<u64>; 2],
}

impl Size {
    pub(crate) const fn is_full(&self) -> bool {
        self.is_full
    }

    pub(crate) const fn is_crossing(&self) -> bool {
        self.is_crossing
    }

    /// Packets go by such a path from now on.
    pub(crate) fn follow(&mut self, is_crossing: bool) {
        if self.is_crossing != is_crossing {
            *self = Self { is_crossing, ..Self::default() };
        }
    }

    /// Whether a long echo is to go beside the ordinary one that is sent.
    pub(crate) const fn handle_echo(&mut self) -> bool {
        let is_due = if self.is_full {
            self.is_used || self.unproven > 0
        } else {
            self.unproven < EAGER_MAX || self.unproven.is_multiple_of(RARELY)
        };
        if is_due || !self.is_full {
            self.unproven = self.unproven.wrapping_add(1);
        }
        if self.unproven > LOST_MAX {
            self.is_full = false;
        }
        self.is_used = false;
        is_due
    }

    pub(crate) const fn sent(&mut self, id: u64) {
        self.outstanding = [self.outstanding[1], Some(id)];
    }

    /// Whether the answered echo was one of our last long ones.
    pub(crate) fn handle_reply(&mut self, id: u64) -> bool {
        let is_ours = self.outstanding.contains(&Some(id));
        if is_ours {
            let Self { is_used, is_crossing, .. } = *self;
            *self = Self { is_full: true, is_used, is_crossing, ..Self::default() };
        }
        is_ours
    }

    /// A datagram of more than the least length goes out.
    pub(crate) const fn used(&mut self) {
        self.is_used = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ordinary echoes until the size changes, each long one answered or none.
    fn echo(size: &mut Size, answered: bool, times: u32) -> u32 {
        let mut long = 0;
        for _ in 0..times {
            if size.handle_echo() {
                long += 1;
                size.sent(long.into());
                assert!(!answered || size.handle_reply(long.into()));
            }
        }
        long
    }

    #[test]
    fn full_length_is_proven_asked_while_used_and_given_up() {
        let mut size = Size::default();
        assert!(!size.is_full());
        assert_eq!(echo(&mut size, true, 1), 1);
        assert!(size.is_full());
        assert_eq!(echo(&mut size, false, 10), 0, "nothing long is sent");
        size.used();
        assert_eq!(echo(&mut size, false, LOST_MAX), LOST_MAX);
        assert!(size.is_full(), "a loss or two prove nothing");
        echo(&mut size, false, 1);
        assert!(!size.is_full());
        let long = echo(&mut size, false, 10 * RARELY);
        assert!((10..20).contains(&long), "{long}");
        assert!(echo(&mut size, true, RARELY) > 0);
        assert!(size.is_full());
    }

    #[test]
    fn another_kind_of_path_is_asked_anew() {
        let mut size = Size::default();
        echo(&mut size, true, 1);
        size.follow(false);
        assert!(size.is_full());
        size.follow(true);
        assert!(!size.is_full() && size.is_crossing());
        echo(&mut size, true, 1);
        assert!(size.is_full() && size.is_crossing());
    }

    #[test]
    fn only_the_last_two_long_echoes_are_believed() {
        let mut size = Size::default();
        [1, 2, 3].into_iter().for_each(|id| size.sent(id));
        assert!(!size.handle_reply(1) && !size.is_full());
        assert!(size.handle_reply(2) && size.is_full());
        assert!(!size.handle_reply(2));
    }
}
