use std::collections::{BTreeMap, BTreeSet};

use lanrage_proto::api::{EntryMac, ErrorCode, Kick};
use lanrage_proto::{Generation, Mac, Member};

use super::limits::SEALED_COPY_LEN;
use super::role::may_kick;
use super::{MemberRow, Party, Refusal, refuse};

/// A kick that may be carried out.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// Who goes.
    pub(crate) target: &'a MemberRow,
    /// The lowest generation of its number that still holds.
    pub(crate) generation: Generation,
    /// The remaining entries' MACs under the new secret.
    pub(crate) macs: BTreeMap<Member, Mac>,
}

/// Checks that a kick is allowed, of today and whole: a MAC for every remaining entry, so that
/// whoever has come meanwhile is not forgotten, and at most one copy for each of them but the
/// kicker. Whom the kicker leaves without a copy is its decision: control cannot tell whether an
/// entry is genuine, and a bad one must not keep anybody in the party. Nor can it tell whether the
/// copies are good: members do, by the commitment.
///
/// # Errors
/// [`ErrorCode::NotFound`], [`ErrorCode::Forbidden`], [`ErrorCode::Conflict`],
/// [`ErrorCode::BadRequest`].
pub(crate) fn plan<'a>(
    party: &'a Party,
    kicker: &MemberRow,
    kick: &Kick,
) -> Result<Plan<'a>, Refusal> {
    let moved_on = |what| refuse(ErrorCode::Conflict, format!("{what}: read it again and retry"));
    let target = party
        .member(kick.member)
        .ok_or_else(|| refuse(ErrorCode::NotFound, "the party has no such member"))?;
    may_kick(kicker, target)?;
    if target.generation != kick.generation {
        return Err(moved_on("the number has gone to another device"));
    }
    if kick.epoch != party.epoch.next() {
        return Err(moved_on("the party has another epoch"));
    }

    let remaining = || party.members().filter(|row| row.member != target.member);
    let with_entry = || remaining().filter(|row| row.entry.is_some());

    let well_made = kick.copies.iter().all(|copy| {
        copy.epoch == kick.epoch
            && copy.under.is_none_or(|under| under == party.epoch)
            && copy.from == kicker.member
            && copy.from_key == kicker.tunnel
            && copy.sealed.0.len() == SEALED_COPY_LEN
    });
    if !well_made {
        return Err(refuse(
            ErrorCode::BadRequest,
            "a copy of the new secret is not of this kick, this kicker and the right length, or is \
             sealed under another epoch than the current one",
        ));
    }
    let mut receivers: BTreeSet<Member> =
        with_entry().map(|row| row.member).filter(|to| *to != kicker.member).collect();
    if !kick.copies.iter().all(|copy| receivers.remove(&copy.to)) {
        return Err(moved_on("a copy is not for one of the remaining members"));
    }

    let mut macs: Vec<&EntryMac> = kick.macs.iter().collect();
    macs.sort_unstable_by_key(|mac| mac.member);
    let vouched = macs.iter().map(|mac| (mac.member, mac.generation));
    if !with_entry().map(|row| (row.member, row.generation)).eq(vouched) {
        return Err(moved_on("the MACs are not exactly for the remaining entries"));
    }
    Ok(Plan {
        target,
        generation: Generation(target.generation.0 + 1),
        macs: macs.iter().map(|mac| (mac.member, mac.mac)).collect(),
    })
}
