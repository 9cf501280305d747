use std::time::{Duration, Instant};

use lanrage_control_client::{Error as ControlError, Method};
use lanrage_proto::api::{ErrorCode, Kicked, path};
use lanrage_proto::signed::KickRecord;
use lanrage_proto::{Generation, Member};

use super::Daemon;
use super::active::RefusedKick;
use crate::failure::{Failure, FailureKind};
use crate::local::protocol::Reply;
use crate::local::server::Call;

/// How often a kick is made again because the party has moved on: two that kick at once, or a
/// newcomer in the wrong moment, are over by then.
const RETRIES: u32 = 4;
/// How long the party is waited for.
const PARTY_TIMEOUT: Duration = Duration::from_secs(5);

impl Daemon {
    pub(super) fn kick(&mut self, call: Call, member: &str, now: Instant) {
        let found = self.find_member(member, now).and_then(|member| {
            let generation = self.generation_of(member).ok_or_else(|| is_gone(member))?;
            Ok((member, generation))
        });
        match found {
            Ok((member, generation)) => self.send_kick(call, member, generation, RETRIES),
            Err(failure) => call.answer(Err(failure)),
        }
    }

    fn generation_of(&mut self, member: Member) -> Option<Generation> {
        let record = self.active_record()?;
        let mut members = record.party.members.iter();
        members.find(|known| known.member == member).map(|known| known.generation)
    }

    fn send_kick(&mut self, call: Call, member: Member, generation: Generation, tries_left: u32) {
        let active = self.device.active.ok_or_else(Failure::no_active_party);
        let prepared = active.and_then(|session| self.control_of(session)).and_then(|found| {
            let active = self.active.as_mut().ok_or_else(Failure::no_active_party)?;
            Ok((active.client.kick(member)?, found))
        });
        let (body, (session, control)) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return call.answer(Err(failure)),
        };
        let commitment = body.commitment;
        let kicking = async move {
            let path = path::of_party(path::KICK, session);
            control.call_once::<_, Kicked>(Method::POST, &path, &body).await
        };
        self.spawn(kicking, move |daemon, kicked| {
            let now = Instant::now();
            let active = daemon.active.as_mut().filter(|_| daemon.device.active == Some(session));
            let Some(active) = active else {
                return call.answer(Err(Failure::no_active_party()));
            };
            let kicked = match kicked {
                Ok(kicked) => kicked,
                Err(error) => {
                    // If only the answer was lost, the party's records have the kick.
                    active.link.want_snapshot();
                    if let ControlError::Api(refusal) = &error {
                        active.client.handle_kick_refused(&commitment);
                        if refusal.code == ErrorCode::Conflict && tries_left > 0 {
                            active.refused_kicks.push(RefusedKick {
                                member,
                                generation,
                                tries_left: tries_left - 1,
                                refusal: error.into(),
                                deadline: now + PARTY_TIMEOUT,
                                call,
                            });
                            return;
                        }
                    }
                    return call.answer(Err(error.into()));
                }
            };
            let bytes = kicked.record.0.as_slice().try_into().ok();
            let Some(record) = bytes.and_then(|bytes| KickRecord::decode(bytes).ok()) else {
                let message = "control's kick record cannot be read: update LANrage";
                return call.answer(Err(Failure::new(FailureKind::Other, message)));
            };
            active.client.handle_kicked(&record, now);
            call.answer(Ok(Reply::Done {}));
        });
    }

    /// The party has been read: makes the refused kicks anew. One whose member is out is done, by
    /// whomever.
    pub(super) fn retry_kicks(&mut self) {
        let Some(active) = &mut self.active else { return };
        for kick in std::mem::take(&mut active.refused_kicks) {
            let RefusedKick { member, generation, tries_left, call, .. } = kick;
            if self.generation_of(member) == Some(generation) {
                self.send_kick(call, member, generation, tries_left);
            } else {
                call.answer(Ok(Reply::Done {}));
            }
        }
    }

    /// Answers the refused kicks whose time is over.
    pub(super) fn give_up_kicks(&mut self, now: Instant) {
        let Some(active) = &mut self.active else { return };
        let late = active.refused_kicks.extract_if(.., |kick| now >= kick.deadline);
        late.for_each(|kick| kick.call.answer(Err(kick.refusal)));
    }
}

fn is_gone(member: Member) -> Failure {
    let message = format!("member {member} is not in the party");
    Failure::new(FailureKind::NotFound, message)
}
