//! Sends a queue with sendmmsg, socket by socket.

use std::io;
use std::os::fd::RawFd;

use crate::message::Headers;
use crate::outgoing::Part;
use crate::queue::SendQueue;
use crate::tx::Flush;

#[derive(Debug)]
pub(crate) struct Transmitter {
    sockets: Box<[RawFd]>,
    headers: Headers,
    /// The queue's index of the message in each header.
    order: Vec<usize>,
}

impl Transmitter {
    pub(crate) fn new(sockets: Box<[RawFd]>, capacity: usize) -> Self {
        Self { sockets, headers: Headers::new(capacity), order: Vec::with_capacity(capacity) }
    }

    /// Sends or fails every message of the queue; leaves it empty.
    pub(crate) fn transmit(&mut self, queue: &mut SendQueue) {
        while !queue.is_empty() {
            // `u64` holds a bit a socket: MAX_SOCKETS is 64.
            let mut waiting =
                queue.messages.iter().fold(0u64, |set, message| set | 1 << message.socket.index());
            while waiting != 0 {
                self.transmit_from(waiting.trailing_zeros() as usize, queue);
                waiting &= waiting - 1;
            }
            queue.settle();
        }
    }

    fn transmit_from(&mut self, socket: usize, queue: &mut SendQueue) {
        self.order.clear();
        self.headers.clear();
        let messages = queue.submission();
        for (index, message) in messages.iter().enumerate() {
            if message.socket.index() == socket && message.part != Part::Later {
                self.headers.write(self.order.len(), messages, index);
                self.order.push(index);
            }
        }
        let mut done = 0;
        while done < self.order.len() {
            queue.counters.syscalls.add(1);
            let waiting = &mut self.headers.first(self.order.len())[done..];
            // SAFETY: `write` above pointed each of these headers to a message of the queue, which
            // settles only after this function, to bytes that are readable until then, and to vectors
            // and control messages that `headers` owns. The descriptor is open while `self` lives.
            let sent = unsafe {
                libc::sendmmsg(
                    self.sockets[socket],
                    waiting.as_mut_ptr(),
                    waiting.len() as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                )
            };
            // sendmmsg stops at the first refusal, and reports it only if nothing went before
            // (net/socket.c, `__sys_sendmmsg`): the next call meets it again, at its head.
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        queue.fail(self.order[done], error.raw_os_error().unwrap_or(libc::EIO));
                        done += 1;
                    }
                }
            }
        }
    }
}

impl Flush for Transmitter {
    fn flush(&mut self, queue: &mut SendQueue) {
        self.transmit(queue);
    }
}
