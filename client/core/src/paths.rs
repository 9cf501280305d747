//! Which relays a packet to a member goes by: a pure function of what both ends say.

use lanrage_proto::RelayId;
use lanrage_proto::inner::LeaseState;

/// A party lists three relays; while the list changes there are twice as many.
pub(crate) const RELAYS_MAX: usize = 6;
/// Every relay by itself, and every one by another.
const PATHS_MAX: usize = 2 * RELAYS_MAX;

/// A way to a member: by one relay, or by two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// Whose lease we send and receive by.
    pub(crate) by: RelayId,
    /// Where the other end sends and receives; the same relay, unless the path crosses from one to
    /// another.
    pub(crate) egress: RelayId,
}

impl Path {
    pub(crate) const fn direct(relay: RelayId) -> Self {
        Self { by: relay, egress: relay }
    }

    pub(crate) fn is_crossing(self) -> bool {
        self.by != self.egress
    }
}

/// Paths in order of preference, on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Paths {
    list: [Option<Path>; PATHS_MAX],
    length: usize,
}

impl Paths {
    pub(crate) fn push(&mut self, path: Path) {
        if self.length < PATHS_MAX {
            self.list[self.length] = Some(path);
            self.length += 1;
        }
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = Path> + '_ {
        self.list[..self.length].iter().flatten().copied()
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether one of them crosses: datagrams are longer between relays.
    pub(crate) fn cross(&self) -> bool {
        self.iter().any(Path::is_crossing)
    }
}

impl Extend<Path> for Paths {
    fn extend<I: IntoIterator<Item = Path>>(&mut self, paths: I) {
        paths.into_iter().for_each(|path| self.push(path));
    }
}

impl FromIterator<Path> for Paths {
    fn from_iter<I: IntoIterator<Item = Path>>(paths: I) -> Self {
        let mut all = Self::default();
        all.extend(paths);
        all
    }
}

/// What this client has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThisEnd<'a> {
    /// Its leases, in the party's order.
    pub(crate) leases: &'a [(RelayId, LeaseState)],
    /// The party's relays.
    pub(crate) relays: &'a [RelayId],
}

/// What this client knows of the other end's reception.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OtherEnd<'a> {
    /// Its last LEASES message.
    pub(crate) announced: Option<&'a [(RelayId, LeaseState)]>,
    /// The path of the last authentic datagram from it.
    pub(crate) last: Option<Path>,
    /// Paths of which a relay said, a moment ago, that it has no lease at their end.
    pub(crate) absent: &'a [Path],
}

/// The paths of one packet: the first relay that works for both ends; while that one is suspect,
/// the next one too; two relays where one does not do; when none works, every one that might.
pub(crate) fn choose(mine: ThisEnd<'_>, other: OtherEnd<'_>) -> Paths {
    let mut paths = Paths::default();
    for (relay, state) in mine.leases {
        match joint_state(*relay, *state, &other) {
            LeaseState::Alive => {
                paths.push(Path::direct(*relay));
                return paths;
            }
            LeaseState::Suspect => paths.push(Path::direct(*relay)),
            LeaseState::Dead => {}
        }
    }
    if let Some(path) = crossing(mine, &other, LeaseState::Alive) {
        paths.push(path);
    } else if paths.is_empty() {
        paths.extend(crossing(mine, &other, LeaseState::Suspect));
    }
    if paths.is_empty() { everywhere(mine, other.announced) } else { paths }
}

/// By every relay with a lease; and where this client has none that works, but the other end may
/// have one, by two: for handshakes and for what must arrive.
pub(crate) fn everywhere(mine: ThisEnd<'_>, announced: Option<&[(RelayId, LeaseState)]>) -> Paths {
    let mut paths: Paths = mine.leases.iter().map(|(relay, _)| Path::direct(*relay)).collect();
    let works = |relay: RelayId| {
        mine.leases.iter().any(|(held, state)| *held == relay && *state != LeaseState::Dead)
    };
    let best = mine.leases.iter().min_by_key(|(_, state)| *state as u8);
    let Some((by, _)) = best.filter(|(relay, _)| works(*relay)) else { return paths };
    let theirs = |relay: &RelayId| {
        announced.is_none_or(|announced| {
            announced.iter().any(|(held, state)| held == relay && *state != LeaseState::Dead)
        })
    };
    let ends = mine.relays.iter().filter(|relay| !works(**relay)).filter(|relay| theirs(relay));
    paths.extend(ends.map(|egress| Path { by: *by, egress: *egress }));
    paths
}

/// The first path by two relays whose leases are no worse than `worst`.
fn crossing(mine: ThisEnd<'_>, other: &OtherEnd<'_>, worst: LeaseState) -> Option<Path> {
    let good = |state: LeaseState| state as u8 <= worst as u8;
    let mut by = mine.leases.iter().filter(|(_, state)| good(*state)).map(|(relay, _)| *relay);
    let Some(announced) = other.announced else {
        let heard = other.last.filter(|path| path.is_crossing() && !other.absent.contains(path))?;
        return by.any(|by| by == heard.by).then_some(heard);
    };
    let ends = announced.iter().filter(|(_, state)| good(*state)).map(|(relay, _)| *relay);
    by.flat_map(|by| ends.clone().map(move |egress| Path { by, egress }))
        .find(|path| path.is_crossing() && !other.absent.contains(path))
}

/// The worse of both ends' states. Before the other end has announced anything, an answer goes back
/// by the path the other end was heard by.
fn joint_state(relay: RelayId, mine: LeaseState, other: &OtherEnd<'_>) -> LeaseState {
    let path = Path::direct(relay);
    if other.absent.contains(&path) {
        return LeaseState::Dead;
    }
    let theirs = match other.announced {
        Some(announced) => announced
            .iter()
            .find(|(listed, _)| *listed == relay)
            .map_or(LeaseState::Dead, |(_, state)| *state),
        None if other.last.is_none_or(|last| last == path) => LeaseState::Alive,
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
    const RELAYS: [RelayId; 3] = [R1, R2, R3];

    fn end(leases: &[(RelayId, LeaseState)]) -> ThisEnd<'_> {
        ThisEnd { leases, relays: &RELAYS }
    }

    /// A path by its relays' numbers.
    fn numbers(paths: Paths) -> Vec<(u16, u16)> {
        paths.iter().map(|path| (path.by.0, path.egress.0)).collect()
    }

    fn chosen(mine: &[(RelayId, LeaseState)], theirs: &[(RelayId, LeaseState)]) -> Vec<(u16, u16)> {
        let other = OtherEnd { announced: Some(theirs), last: None, absent: &[] };
        numbers(choose(end(mine), other))
    }

    #[test]
    fn the_first_relay_that_works_for_both_ends_is_chosen() {
        let all = [(R1, Alive), (R2, Alive), (R3, Alive)];
        assert_eq!(chosen(&all, &all), [(1, 1)]);
        assert_eq!(chosen(&all, &[(R2, Alive), (R3, Alive)]), [(2, 2)]);
        assert_eq!(chosen(&[(R1, Dead), (R2, Alive)], &all), [(2, 2)]);
        assert_eq!(chosen(&all, &[(R1, Dead), (R2, Alive)]), [(2, 2)]);
    }

    #[test]
    fn a_suspect_relay_is_used_with_the_next_one() {
        let all = [(R1, Alive), (R2, Alive), (R3, Alive)];
        assert_eq!(chosen(&[(R1, Suspect), (R2, Alive), (R3, Alive)], &all), [(1, 1), (2, 2)]);
        assert_eq!(chosen(&all, &[(R1, Alive), (R2, Alive)]), [(1, 1)]);
        assert_eq!(chosen(&all, &[(R1, Suspect), (R2, Dead), (R3, Alive)]), [(1, 1), (3, 3)]);
    }

    #[test]
    fn two_relays_are_used_where_one_does_not_do() {
        assert_eq!(chosen(&[(R1, Alive)], &[(R2, Alive)]), [(1, 2)]);
        assert_eq!(chosen(&[(R1, Dead), (R2, Alive)], &[(R1, Alive), (R2, Dead)]), [(2, 1)]);
        assert_eq!(chosen(&[(R1, Suspect)], &[(R2, Alive)]), [(1, 2)]);
        let suspect = [(R1, Suspect), (R2, Alive)];
        assert_eq!(chosen(&suspect, &[(R1, Alive), (R3, Alive)]), [(1, 1), (2, 1)], "and a copy");
        let absent = [Path { by: R1, egress: R2 }];
        let theirs = [(R2, Alive), (R3, Alive)];
        let other = OtherEnd { announced: Some(&theirs), last: None, absent: &absent };
        assert_eq!(numbers(choose(end(&[(R1, Alive)]), other)), [(1, 3)]);
    }

    #[test]
    fn when_nothing_works_everything_is_tried() {
        let dead = [(R1, Dead), (R2, Dead)];
        assert_eq!(chosen(&dead, &[(R1, Alive), (R2, Alive)]), [(1, 1), (2, 2)]);
        assert!(chosen(&[], &[(R2, Alive)]).is_empty());
        let everywhere = |mine, announced| numbers(everywhere(end(mine), announced));
        assert_eq!(everywhere(&[(R1, Dead), (R2, Alive)], None), [(1, 1), (2, 2), (2, 1), (2, 3)]);
        let announced = [(R1, Alive), (R3, Dead)];
        assert_eq!(everywhere(&[(R2, Suspect)], Some(&announced)), [(2, 2), (2, 1)]);
        let all = [(R1, Alive), (R2, Alive), (R3, Suspect)];
        assert_eq!(everywhere(&all, None), [(1, 1), (2, 2), (3, 3)], "one does everywhere");
    }

    #[test]
    fn before_the_first_announcement_the_answer_goes_back_where_it_came_from() {
        let mine = [(R1, Alive), (R2, Alive)];
        let answer = |last, absent: &[Path]| {
            numbers(choose(end(&mine), OtherEnd { announced: None, last, absent }))
        };
        assert_eq!(answer(Some(Path::direct(R2)), &[]), [(2, 2)]);
        assert_eq!(answer(Some(Path { by: R2, egress: R3 }), &[]), [(2, 3)]);
        assert_eq!(answer(None, &[Path::direct(R1)]), [(2, 2)]);
    }
}
