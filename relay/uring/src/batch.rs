//! Sends many datagrams at once on a thread that receives none.

use std::io;
use std::sync::Arc;

use crate::backend::Tally;
use crate::counters::Counters;
use crate::gso::{Gso, GsoSwitch};
use crate::mmsg::Transmitter;
use crate::queue::SendQueue;
use crate::sockets::Sender;
use crate::tx::Tx;

/// Collects datagrams and sends them by sendmmsg. It stays on the thread that opened it.
#[derive(Debug)]
pub struct Batch {
    queue: SendQueue,
    transmitter: Transmitter,
    /// Keeps the transmitter's descriptors open.
    _sender: Sender,
}

impl Batch {
    /// A batch of at most `sends` datagrams, 64 at least; one more sends those before it.
    ///
    /// # Errors
    ///
    /// The kernel has no memory left.
    pub fn open(sender: Sender, sends: usize) -> io::Result<Self> {
        let sends = sends.max(crate::gso::MAX_SEGMENTS);
        let descriptors: Box<[_]> = sender.descriptors().collect();
        // Single datagrams alone: nothing is left to the kernel to segment.
        let gso = Gso::new(GsoSwitch::default(), descriptors.iter().map(|_| false));
        let queue = SendQueue::new(sends, gso, Arc::new(Counters::default()))?;
        Ok(Self { queue, transmitter: Transmitter::new(descriptors, sends), _sender: sender })
    }

    /// Takes what is to be sent with the batch.
    pub fn tx(&mut self) -> Tx<'_> {
        Tx::new(&mut self.queue, &mut self.transmitter, 0..0)
    }

    /// Sends the batch. What the kernel refuses is counted.
    pub fn send(&mut self) {
        self.transmitter.transmit(&mut self.queue);
    }

    /// What a process that goes on instead of this one begins with.
    pub fn tally(&self) -> Tally {
        Tally { counters: self.queue.counters.to_words(), overflows: Vec::new() }
    }

    /// Goes on from the counts of the process before.
    pub fn resume(&mut self, tally: &Tally) {
        self.queue.counters.resume(&tally.counters);
    }

    /// What was asked for, sent and refused.
    pub fn counters(&self) -> Arc<Counters> {
        self.queue.counters.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;
    use crate::sockets::{SocketOptions, bind};

    #[test]
    fn a_batch_leaves_in_order_from_the_address_that_was_named() {
        let locals = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
        let sockets = bind(&locals, 1, &SocketOptions::default()).unwrap().remove(0);
        let mut batch = Batch::open(sockets.sender().unwrap(), 1).unwrap();
        for (id, local) in sockets.locals() {
            let peer = UdpSocket::bind((local.ip(), 0)).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            for number in 0..100_u8 {
                batch.tx().send(id, peer.local_addr().unwrap(), &[number; 30]);
            }
            batch.send();
            for number in 0..100 {
                let mut datagram = [0; 40];
                assert_eq!(peer.recv_from(&mut datagram).unwrap(), (30, local));
                assert_eq!(datagram[..30], [number; 30]);
            }
        }
        let counters = batch.counters();
        assert_eq!((counters.tx_planned.get(), counters.tx_datagrams.get()), (200, 200));
        assert!(counters.syscalls.get() <= 8, "{} calls", counters.syscalls.get());
    }
}
