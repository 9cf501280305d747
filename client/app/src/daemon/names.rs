use lanrage_client_core::MemberStatus;

use crate::failure::{Failure, FailureKind};
use crate::state::PartyRecord;

/// A party by id, or by a name that only one has.
pub(super) fn find_party<'a>(
    parties: &'a [PartyRecord],
    wanted: &str,
) -> Result<&'a PartyRecord, Failure> {
    let by_id = parties.iter().find(|party| party.session().to_string() == wanted);
    let mut by_name = parties.iter().filter(|party| party.party.name == wanted);
    match (by_id, by_name.next(), by_name.next()) {
        (Some(party), ..) | (None, Some(party), None) => Ok(party),
        (None, None, _) => Err(Failure::new(
            FailureKind::NotFound,
            format!("this device is in no party {wanted:?}: `lanrage party list` lists them"),
        )),
        (None, Some(_), Some(_)) => Err(Failure::new(
            FailureKind::Usage,
            format!("several parties are called {wanted:?}: name one by its id"),
        )),
    }
}

/// Another member by name or number.
pub(super) fn find_member<'a>(
    members: &'a [MemberStatus],
    wanted: &str,
) -> Result<&'a MemberStatus, Failure> {
    let fits = |m: &&MemberStatus| m.name == wanted || m.member.to_string() == wanted;
    members.iter().find(fits).ok_or_else(|| {
        let message =
            format!("there is no member {wanted:?}: `lanrage party members` lists who is");
        Failure::new(FailureKind::NotFound, message)
    })
}
