use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

use lanrage_proto::api::Revocation;
use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_proto::{Generation, Member, SessionId};
use lanrage_relay_table::{self as table, Handle};
use zeroize::Zeroizing;

use super::answers::Answers;
use super::caps::Standing;
use super::drain::Drain;
use super::memory::{Memory, MemoryError};
use super::{Binder, BinderCounters, Control, Identity, Now};
use crate::classes::Classes;

const VERSION: u32 = 2;
const WHAT: &str = "frozen binder";

/// A frozen binder cannot go on here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThawError {
    /// Cut, or not a frozen binder.
    #[error("the binder's state is damaged ({0}): stop the relay and start it again")]
    Malformed(#[from] Malformed),
    /// Another program froze it.
    #[error(
        "the binder's state has version {0}, and this program knows {VERSION}: stop the relay and start this program"
    )]
    Version(u32),
    /// What it keeps for each lease.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// Its counts contradict the table.
    #[error("the binder's counts are not the table's: stop the relay and start it again")]
    Counts,
}

impl Binder {
    /// All that the next binder must know and that is neither in the table nor in the binder's memory;
    /// secret. Changes nothing: a binder that makes no edit afterwards may go on.
    ///
    /// ```text
    /// version u32 | relay secret 32 B
    /// cookies     epoch u32 | current 32 B | former 32 B | rotates at u64
    /// ranks       key 16 B
    /// answers     key 16 B | count u32, (until u64, question 16 B, length u16, answer)...
    /// control     since u64, or all ones when lost
    /// timers      sweep at u64 | sweep from u32 | pending, settling: count u32, (at u64, handle u32)...
    /// revocations count u32, (session u64, member u8, generation u32, forget after u64)...
    /// caps        of sessions: count u32, (session u64, caps)...
    ///             of leases: count u32, (session u64, member u8, caps)...
    ///             slots: count u32, (slot u8, class u8, caps of the lease, of the session)...
    ///             caps: packets, bytes, copies, u64 each, 0 for none
    /// drain       0, or 1 u8: deadline u64, next u16 (0 for none), per step u64, step at u64, from u32,
    ///             round since u64, told u64
    /// counters    count u32, u64...
    /// ```
    ///
    /// Budgets begin full.
    pub fn freeze(&self) -> Zeroizing<Vec<u8>> {
        let since = match self.control {
            Control::Lost => u64::MAX,
            Control::Present { since_ms } => since_ms,
        };
        let mut out = Writer::with_capacity(1 << 16).u32(VERSION).bytes(&*self.identity.secret);
        out = self.cookies.freeze(out).bytes(&self.ranks.key);
        out = self.answers.freeze(out).u64(since);
        let timers = &self.timers;
        out = out.u64(timers.sweep_at_ms).u32(timers.sweep_from);
        for queue in [&timers.pending, &timers.settling] {
            out = out.u32(queue.len() as u32);
            out = queue
                .iter()
                .fold(out, |out, (at_ms, handle)| out.u64(*at_ms).u32(handle.to_bits()));
        }
        out = out.u32(self.revocations.len() as u32);
        out = self.revocations.sorted().iter().fold(out, |out, revocation| {
            out.u64(revocation.session.0)
                .u8(revocation.member.number())
                .u32(revocation.generation.0)
                .u64(revocation.forget_after)
        });
        out = self.standing.freeze(out);
        out = Drain::freeze(self.drain.as_ref(), out);
        let counters = self.counters.to_words();
        out = out.u32(counters.len() as u32);
        Zeroizing::new(counters.iter().fold(out, |out, word| out.u64(*word)).finish())
    }

    /// Goes on with what another binder has frozen: over the same table and the same memory, with the
    /// same clock. It has no certificate and no signing keys yet. Nothing is changed until the first
    /// call.
    ///
    /// # Errors
    /// The bytes or the memory are not of such a binder, or contradict the table.
    pub fn thaw(
        frozen: &[u8],
        words: &'static [AtomicU64],
        mut identity: Identity,
        table: table::Writer,
        classes: Classes,
        seed: [u8; 32],
        now: Now,
    ) -> Result<Self, ThawError> {
        let memory = Memory::attach(words, table.capacity())?;
        let mut reader = Reader::new(frozen, WHAT);
        match reader.u32()? {
            VERSION => {}
            other => return Err(ThawError::Version(other)),
        }
        identity.secret = Zeroizing::new(reader.array()?);
        let mut binder = Self::with_memory(identity, table, classes, memory, seed, now);
        binder.cookies.thaw(&mut reader)?;
        binder.ranks.key = reader.array()?;
        binder.answers = Answers::thaw(&mut reader)?;
        binder.control = match reader.u64()? {
            u64::MAX => Control::Lost,
            since_ms => Control::Present { since_ms: since_ms.min(now.ms) },
        };
        let timers = &mut binder.timers;
        timers.sweep_at_ms = reader.u64()?.min(timers.sweep_at_ms);
        timers.sweep_from = reader.u32()?;
        timers.pending = read_timers(&mut reader)?;
        timers.settling = read_timers(&mut reader)?;
        for _ in 0..reader.u32()? {
            binder.revocations.insert(&read_revocation(&mut reader)?);
        }
        binder.standing = Standing::thaw(&mut reader)?;
        binder.standing.install(&binder.classes);
        binder.drain = Drain::thaw(&mut reader, now)?;
        let counters = (0..reader.u32()?).map(|_| reader.u64()).collect::<Result<Vec<_>, _>>()?;
        binder.counters = BinderCounters::from_words(&counters).ok_or(Malformed(WHAT))?;
        reader.finish()?;
        if binder.skew() != 0 { Err(ThawError::Counts) } else { Ok(binder) }
    }
}

fn read_timers(reader: &mut Reader<'_>) -> Result<VecDeque<(u64, Handle)>, Malformed> {
    (0..reader.u32()?).map(|_| Ok((reader.u64()?, Handle::from_bits(reader.u32()?)))).collect()
}

fn read_revocation(reader: &mut Reader<'_>) -> Result<Revocation, Malformed> {
    Ok(Revocation {
        session: SessionId(reader.u64()?),
        member: Member::new(reader.u8()?).ok_or(Malformed(WHAT))?,
        generation: Generation(reader.u32()?),
        forget_after: reader.u64()?,
    })
}
