use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_relay_core::{Class, Counters};
use lanrage_relay_table::{Handle, LocalId};
use lanrage_relay_uring::Tally;
use rustix::fs::{MemfdFlags, memfd_create};
use zeroize::Zeroizing;

use crate::queues::{Item, Queues};

const WHAT: &str = "handed-over state";
/// Far more than any relay leaves.
const LEN_MAX: u64 = 1 << 30;

/// Bytes in a memfd, which no message is too short for.
pub(super) fn to_memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("lanrage-handover", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    Ok(file.into())
}

pub(super) fn from_memfd(file: OwnedFd) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(LEN_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The binder as frozen, and what its thread counts.
#[derive(Debug, Clone, Default)]
pub struct FrozenBinder {
    /// By [`lanrage_relay_core::Binder::freeze`].
    pub core: Zeroizing<Vec<u8>>,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that the kernel refused.
    pub send_failed: u64,
    /// Whether the stream from control lives.
    pub has_control: bool,
    /// Whether the relay ends with the drain under way.
    pub exits_drained: bool,
    /// Upgrades that were done before this one.
    pub upgrades: u64,
    /// Upgrades that were not.
    pub upgrades_failed: u64,
}

impl FrozenBinder {
    pub(super) fn pack(&self) -> Zeroizing<Vec<u8>> {
        let out = Writer::with_capacity(self.core.len() + 34);
        let out = out.u64(self.sent).u64(self.send_failed).u8(self.has_control.into());
        let out = out.u8(self.exits_drained.into()).u64(self.upgrades).u64(self.upgrades_failed);
        Zeroizing::new(out.bytes(&self.core).finish())
    }

    pub(super) fn unpack(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, WHAT);
        let (sent, send_failed) = (reader.u64()?, reader.u64()?);
        let (has_control, exits_drained) = (reader.u8()? != 0, reader.u8()? != 0);
        let (upgrades, upgrades_failed) = (reader.u64()?, reader.u64()?);
        let core = Zeroizing::new(reader.rest().to_vec());
        Ok(Self { core, sent, send_failed, has_control, exits_drained, upgrades, upgrades_failed })
    }
}

/// What a shard has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Of its decisions.
    pub counters: Counters,
    /// Of its back end.
    pub kernel: Tally,
    /// Datagrams for streams.
    pub to_streams: u64,
    /// Those of them that found no room.
    pub streams_refused: u64,
}

const CLASSES: [Class; 3] = [Class::Established, Class::Hello, Class::Bind];

/// What shards leave to the binder.
#[derive(Debug, Default)]
pub struct Waiting {
    activations: Vec<Handle>,
    /// By class.
    datagrams: [Vec<Item>; CLASSES.len()],
}

impl Waiting {
    /// Takes what waits in the queues, which nobody else uses meanwhile.
    pub(crate) fn take(queues: &Queues) -> Self {
        Self {
            activations: std::iter::from_fn(|| queues.activations.pop()).collect(),
            datagrams: CLASSES.map(|class| std::iter::from_fn(|| queues.of(class).pop()).collect()),
        }
    }

    /// Puts it back, or into the queues of the next process.
    pub(crate) fn put(self, queues: &Queues) {
        // The queues were as long when it was taken.
        for handle in self.activations {
            let _ = queues.activations.push(handle);
        }
        for (class, items) in CLASSES.into_iter().zip(self.datagrams) {
            for item in items {
                let _ = queues.of(class).push(item);
            }
        }
    }
}

/// What there is once nobody receives.
#[derive(Debug, Default)]
pub struct Halted {
    /// One a shard.
    pub shards: Vec<ShardState>,
    /// For the next binder.
    pub waiting: Waiting,
}

impl Halted {
    pub(super) fn pack(&self) -> Vec<u8> {
        let words = |out: Writer, words: &[u64]| {
            words.iter().fold(out.u32(words.len() as u32), |out, word| out.u64(*word))
        };
        let mut out = Writer::with_capacity(1 << 16).u32(self.shards.len() as u32);
        for shard in &self.shards {
            out = words(out, &shard.counters.to_words());
            out = out.u64(shard.to_streams).u64(shard.streams_refused);
            out = words(out, &shard.kernel.counters);
            let overflows = &shard.kernel.overflows;
            out = out.u32(overflows.len() as u32);
            out = overflows.iter().fold(out, |out, count| out.u32(*count));
        }
        let Waiting { activations, datagrams } = &self.waiting;
        out = out.u32(activations.len() as u32);
        out = activations.iter().fold(out, |out, handle| out.u32(handle.to_bits()));
        for items in datagrams {
            out = out.u32(items.len() as u32);
            out = items.iter().fold(out, |out, item| {
                let bytes = item.datagram();
                let out = out.address(item.source).u16(item.local.0);
                out.u16(bytes.len() as u16).bytes(bytes)
            });
        }
        out.finish()
    }

    pub(super) fn unpack(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, WHAT);
        let reader = &mut reader;
        let mut shards = Vec::new();
        for _ in 0..reader.u32()? {
            let counters = words(reader)?;
            let counters = <&[u64; Counters::WORDS]>::try_from(&counters[..]);
            let counters = Counters::from_words(counters.map_err(|_| Malformed(WHAT))?);
            let (to_streams, streams_refused) = (reader.u64()?, reader.u64()?);
            let kernel = Tally { counters: words(reader)?, overflows: list(reader, Reader::u32)? };
            shards.push(ShardState { counters, kernel, to_streams, streams_refused });
        }
        let activations = list(reader, |reader| reader.u32().map(Handle::from_bits))?;
        let mut datagrams = CLASSES.map(|_| Vec::new());
        for items in &mut datagrams {
            *items = list(reader, read_item)?;
        }
        reader.finish()?;
        Ok(Self { shards, waiting: Waiting { activations, datagrams } })
    }
}

fn words(reader: &mut Reader<'_>) -> Result<Vec<u64>, Malformed> {
    list(reader, Reader::u64)
}

fn list<'a, T>(
    reader: &mut Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    (0..reader.u32()?).map(|_| read(reader)).collect()
}

fn read_item(reader: &mut Reader<'_>) -> Result<Item, Malformed> {
    let source: SocketAddr = reader.address()?;
    let local = LocalId(reader.u16()?);
    let len = usize::from(reader.u16()?);
    Item::new(reader.take(len)?, source, local).ok_or(Malformed(WHAT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halted() -> Halted {
        let item = |byte| Item::new(&[byte; 40], "192.0.2.1:7".parse().unwrap(), LocalId(1));
        let words = std::array::from_fn(|at| at as u64 + 1);
        let kernel = Tally { counters: vec![7, 8, 9], overflows: vec![1, u32::MAX] };
        let counters = Counters::from_words(&words);
        let shard = ShardState { counters, kernel, to_streams: 3, streams_refused: 1 };
        let waiting = Waiting {
            activations: vec![Handle::from_bits(5)],
            datagrams: [vec![item(1).unwrap()], vec![item(2).unwrap(), item(3).unwrap()], vec![]],
        };
        Halted { shards: vec![shard, ShardState::default()], waiting }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let halted = halted();
        let packed = halted.pack();
        let unpacked = Halted::unpack(&packed).unwrap();
        assert_eq!(unpacked.pack(), packed);
        assert_eq!(unpacked.shards, halted.shards);
        let queues = Queues::new();
        unpacked.waiting.put(&queues);
        assert_eq!(Waiting::take(&queues).datagrams[1].len(), 2);
        assert_eq!((queues.activations.len(), queues.of(Class::Hello).len()), (0, 0));
        for len in 0..packed.len() {
            assert!(Halted::unpack(&packed[..len]).is_err());
        }
        assert!(Halted::unpack(&[255; 64]).is_err());
    }

    #[test]
    fn bytes_go_through_a_memfd() {
        let bytes = vec![7; 300_000];
        assert_eq!(*from_memfd(to_memfd(&bytes).unwrap()).unwrap(), bytes);
    }
}
