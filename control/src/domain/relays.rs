use lanrage_proto::RelayId;

/// How a relay stands, as far as party lists care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RelayStanding {
    pub(crate) relay: RelayId,
    pub(crate) health: Health,
    /// Leases at its last heartbeat.
    pub(crate) load: u64,
    /// Breaks ties.
    pub(crate) random: u32,
}

/// See [`RelayStanding`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// Takes new parties.
    Serving,
    /// Silent or draining, but not for long: keeps its parties, takes no new ones.
    Silent,
    /// For 10 minutes: loses its parties when another serves.
    Gone,
}

/// A party's list after what is known today: relays that were removed from the pool go, relays
/// that are gone are replaced in their place, and a short list grows to `wanted`, with the serving
/// relay of the least load first. A relay that is gone stays as long as none can replace it.
pub(crate) fn revise(list: &[RelayId], pool: &[RelayStanding], wanted: usize) -> Vec<RelayId> {
    let standing = |relay: &RelayId| pool.iter().find(|standing| standing.relay == *relay);
    let mut free: Vec<_> = pool
        .iter()
        .filter(|standing| standing.health == Health::Serving && !list.contains(&standing.relay))
        .collect();
    free.sort_unstable_by_key(|standing| (standing.load, standing.random));
    let mut free = free.into_iter().map(|standing| standing.relay);

    let mut revised: Vec<RelayId> = list
        .iter()
        .filter_map(|relay| match standing(relay) {
            None => free.next(),
            Some(standing) if standing.health == Health::Gone => free.next().or(Some(*relay)),
            Some(_) => Some(*relay),
        })
        .collect();
    let missing = wanted.saturating_sub(revised.len());
    revised.extend(free.take(missing));
    revised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(standings: &[(u16, Health, u64)]) -> Vec<RelayStanding> {
        let standing = |&(id, health, load)| RelayStanding {
            relay: RelayId(id),
            health,
            load,
            random: u32::from(id),
        };
        standings.iter().map(standing).collect()
    }

    fn revised(list: &[u16], standings: &[(u16, Health, u64)]) -> Vec<u16> {
        let list: Vec<_> = list.iter().copied().map(RelayId).collect();
        revise(&list, &pool(standings), 2).into_iter().map(|relay| relay.0).collect()
    }

    #[test]
    fn a_new_party_gets_the_least_loaded_that_serve() {
        use Health::{Gone, Serving, Silent};
        let pool =
            [(1, Serving, 9), (2, Silent, 0), (3, Serving, 1), (4, Gone, 0), (5, Serving, 5)];
        assert_eq!(revised(&[], &pool), [3, 5]);
        assert_eq!(revised(&[], &[]), [0_u16; 0]);
    }

    #[test]
    fn lists_change_only_when_they_must() {
        use Health::{Gone, Serving, Silent};
        assert_eq!(revised(&[1, 2], &[(1, Silent, 0), (2, Serving, 9), (3, Serving, 0)]), [1, 2]);
        assert_eq!(revised(&[1, 2], &[(1, Gone, 0), (2, Serving, 9), (3, Serving, 0)]), [3, 2]);
        assert_eq!(revised(&[1, 2], &[(1, Gone, 0), (2, Serving, 9)]), [1, 2], "nothing better");
        assert_eq!(revised(&[1, 2], &[(2, Serving, 0), (3, Serving, 0)]), [3, 2], "removed");
        assert_eq!(revised(&[1, 2], &[(2, Serving, 0)]), [2], "removed, none to replace it");
        assert_eq!(revised(&[1], &[(1, Serving, 0), (3, Serving, 0)]), [1, 3], "grows");
    }
}
