//! Which relays a packet to a member goes by: a pure function of what both ends say.

use lanrage_proto::RelayId;
use lanrage_proto::inner::LeaseState;

/// A party lists three relays; while the list changes there are twice as many.
pub(crate) const PATHS_MAX: usize = 6;

/// Relays in order of preference, on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    relays: [Option<RelayId>; PATHS_MAX],
    length: usize,
}

impl Paths {
    pub(crate) fn push(&mut self, relay: RelayId) {
        if self.length < PATHS_MAX {
            self.relays[self.length] = Some(relay);
            self.length += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = RelayId> + '_ {
        self.relays[..self.length].iter().flatten().copied()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl FromIterator<RelayId> for Paths {
    fn from_iter<I: IntoIterator<Item = RelayId>>(relays: I) -> Self {
        relays.into_iter().fold(Self::default(), |mut paths, relay| {
            paths.push(relay);
            paths
        })
    }
}

/// What this client knows of the other end's reception.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OtherEnd<'a> {
    /// Its last LEASES message.
    pub(crate) announced: Option<&'a [(RelayId, LeaseState)]>,
    /// The path of the last authentic datagram from it.
    pub(crate) last: Option<RelayId>,
    /// Relays that said, a moment ago, that it has no lease there.
    pub(crate) absent: &'a [RelayId],
}

/// The paths of one packet: the first relay that works for both ends; while that one is suspect,
/// the next one too; when none works, every one that might.
pub(crate) fn choose(mine: &[(RelayId, LeaseState)], other: OtherEnd<'_>) -> Paths {
    let mut paths = Paths::default();
    for (relay, state) in mine {
        match joint_state(*relay, *state, &other) {
            LeaseState::Alive => {
                paths.push(*relay);
                return paths;
            }
            LeaseState::Suspect => paths.push(*relay),
            LeaseState::Dead => {}
        }
    }
    if paths.is_empty() { everywhere(mine) } else { paths }
}

/// Every relay with a lease: for handshakes and for what must arrive.
pub(crate) fn everywhere(mine: &[(RelayId, LeaseState)]) -> Paths {
    mine.iter().map(|(relay, _)| *relay).collect()
}

/// The worse of both ends' states. Before the other end has announced anything, an answer goes back
/// by the path the other end was heard by.
fn joint_state(relay: RelayId, mine: LeaseState, other: &OtherEnd<'_>) -> LeaseState {
    if other.absent.contains(&relay) {
        return LeaseState::Dead;
    }
    let theirs = match other.announced {
        Some(announced) => announced
            .iter()
            .find(|(listed, _)| *listed == relay)
            .map_or(LeaseState::Dead, |(_, state)| *state),
        None if other.last.is_none_or(|last| last == relay) => LeaseState::Alive,
        None => LeaseState::Dead,
    };
    worse(mine, theirs)
}

fn worse(one: LeaseState, other: LeaseState) -> LeaseState {
    if one as u8 >= other as u8 { one } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LeaseState::{Alive, Dead, Suspect};

    const R1: RelayId = RelayId(1);
    const R2: RelayId = RelayId(2);
    const R3: RelayId = RelayId(3);

    fn chosen(mine: &[(RelayId, LeaseState)], theirs: &[(RelayId, LeaseState)]) -> Vec<RelayId> {
        let other = OtherEnd { announced: Some(theirs), last: None, absent: &[] };
        choose(mine, other).iter().collect()
    }

    #[test]
    fn the_first_relay_that_works_for_both_ends_is_chosen() {
        let all = [(R1, Alive), (R2, Alive), (R3, Alive)];
        assert_eq!(chosen(&all, &all), [R1]);
        assert_eq!(chosen(&all, &[(R2, Alive), (R3, Alive)]), [R2]);
        assert_eq!(chosen(&[(R1, Dead), (R2, Alive)], &all), [R2]);
        assert_eq!(chosen(&all, &[(R1, Dead), (R2, Alive)]), [R2]);
    }

    #[test]
    fn a_suspect_relay_is_used_with_the_next_one() {
        let all = [(R1, Alive), (R2, Alive), (R3, Alive)];
        assert_eq!(chosen(&[(R1, Suspect), (R2, Alive), (R3, Alive)], &all), [R1, R2]);
        assert_eq!(chosen(&all, &[(R1, Alive), (R2, Alive)]), [R1]);
        assert_eq!(chosen(&all, &[(R1, Suspect), (R2, Dead), (R3, Alive)]), [R1, R3]);
    }

    #[test]
    fn when_nothing_works_everything_is_tried() {
        assert_eq!(chosen(&[(R1, Dead), (R2, Dead)], &[(R1, Alive), (R2, Alive)]), [R1, R2]);
        assert_eq!(chosen(&[(R1, Alive)], &[(R2, Alive)]), [R1]);
        assert!(chosen(&[], &[(R2, Alive)]).is_empty());
    }

    #[test]
    fn before_the_first_announcement_the_answer_goes_back_where_it_came_from() {
        let mine = [(R1, Alive), (R2, Alive)];
        let heard = OtherEnd { announced: None, last: Some(R2), absent: &[] };
        assert_eq!(choose(&mine, heard).iter().collect::<Vec<_>>(), [R2]);
        let absent = OtherEnd { announced: None, last: None, absent: &[R1] };
        assert_eq!(choose(&mine, absent).iter().collect::<Vec<_>>(), [R2]);
    }
}
