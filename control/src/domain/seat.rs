use lanrage_proto::api::ErrorCode;
use lanrage_proto::{DeviceKey, Generation, Member};

use super::limits::NUMBER_REUSE_S;
use super::{MemberRow, Refusal, refuse};

/// The number a device that enters a party gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    pub(crate) member: Member,
    pub(crate) generation: Generation,
}

/// The device's own number if it had one, else the lowest that was never used, else the one that
/// has been free for longest, if that is 30 days, under a new generation.
///
/// A kick has already raised the generation of the number it freed.
pub(crate) fn seat(rows: &[MemberRow], device: &DeviceKey, now: u64) -> Result<Seat, Refusal> {
    if let Some(row) = rows.iter().find(|row| row.device == *device) {
        return Ok(Seat { member: row.member, generation: row.generation });
    }
    let unused = Member::all().find(|number| rows.iter().all(|row| row.member != *number));
    if let Some(member) = unused {
        return Ok(Seat { member, generation: Generation(1) });
    }
    rows.iter()
        .filter_map(|row| row.gone.map(|gone| (gone, row)))
        .filter(|(gone, _)| gone.saturating_add(NUMBER_REUSE_S) <= now)
        .min_by_key(|(gone, _)| *gone)
        .map(|(_, row)| Seat { member: row.member, generation: Generation(row.generation.0 + 1) })
        .ok_or_else(|| {
            refuse(
                ErrorCode::PartyFull,
                "the party is full: a number is free again 30 days after its member left",
            )
        })
}

#[cfg(test)]
mod tests {
    use lanrage_proto::TunnelKey;
    use lanrage_proto::api::Role;

    use super::*;

    fn row(number: u8, gone: Option<u64>) -> MemberRow {
        MemberRow {
            member: Member::new(number).unwrap(),
            generation: Generation(3),
            device: DeviceKey([number; 32]),
            tunnel: TunnelKey([number; 32]),
            name: format!("m{number}"),
            role: Role::Member,
            joined: 0,
            gone,
            entry: None,
        }
    }

    fn seat_of(rows: &[MemberRow], device: u8, now: u64) -> Option<(u8, u32)> {
        let seat = seat(rows, &DeviceKey([device; 32]), now);
        seat.ok().map(|seat| (seat.member.number(), seat.generation.0))
    }

    #[test]
    fn numbers_are_given_in_order_and_kept() {
        let rows = [row(1, None), row(2, Some(5)), row(4, None)];
        assert_eq!(seat_of(&rows, 99, 10), Some((3, 1)), "lowest never used");
        assert_eq!(seat_of(&rows, 2, 10), Some((2, 3)), "its own again");
    }

    #[test]
    fn a_full_party_reuses_a_number_after_30_days_under_a_new_generation() {
        let mut rows: Vec<_> = (1..=250).map(|number| row(number, None)).collect();
        assert_eq!(seat_of(&rows, 251, u64::MAX), None);
        rows[6].gone = Some(200);
        rows[8].gone = Some(100);
        assert_eq!(seat_of(&rows, 251, 100 + NUMBER_REUSE_S - 1), None);
        assert_eq!(seat_of(&rows, 251, 100 + NUMBER_REUSE_S), Some((9, 4)));
        assert_eq!(seat_of(&rows, 251, 1000 + NUMBER_REUSE_S), Some((9, 4)), "longest free");
    }
}
