//! Sends trains and looks at what becomes of them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use crate::message::Headers;
use crate::outgoing::Message;
use crate::sockets::SocketId;

/// Lengths of the trains and of their datagrams: equal ones, with a shorter last one, and as many as
/// a train holds.
const TRAINS: [(usize, u16); 3] = [(2100, 700), (1700, 700), (6400, 100)];
/// How long a datagram may be under way.
const PATIENCE: Duration = Duration::from_millis(500);

/// What became of a train.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The kernel refused it.
    #[error("the kernel refused a train of datagrams of {size} bytes: {source}")]
    Refused {
        /// Bytes a datagram.
        size: u16,
        /// What it said.
        source: io::Error,
    },
    /// It arrived otherwise than it was sent.
    #[error("of a train of {len} bytes in datagrams of {size}, datagram {at} came {wrong}")]
    Spoilt {
        /// Bytes of the train.
        len: usize,
        /// Bytes a datagram.
        size: u16,
        /// Which one, from 0.
        at: usize,
        /// What is wrong with it.
        wrong: &'static str,
    },
}

/// Sends trains over the loopback interface of each family that there is. The receiving socket takes
/// no trains, so the kernel cuts them.
///
/// That tries the kernel's cutting and its checksums. What a network card makes of a train can be
/// seen from another host alone.
pub(crate) fn over_loopback() -> Result<(), Fault> {
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let bind = || UdpSocket::bind(SocketAddr::new(ip, 0));
        // A family that is switched off needs no test.
        if let (Ok(sender), Ok(receiver)) = (bind(), bind()) {
            between(&sender, &receiver)?;
        }
    }
    Ok(())
}

/// Sends trains from one socket to another.
///
/// # Errors
///
/// The first that did not arrive as it was sent.
pub fn between(sender: &UdpSocket, receiver: &UdpSocket) -> Result<(), Fault> {
    for (len, size) in TRAINS {
        let refused = |source| Fault::Refused { size, source };
        let train: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect();
        let to = receiver.local_addr().map_err(refused)?;
        receiver.set_read_timeout(Some(PATIENCE)).map_err(refused)?;
        send(sender, to, &train, size).map_err(refused)?;
        let mut buffer = [0; 2048];
        for (at, expected) in train.chunks(size.into()).enumerate() {
            let received = receiver.recv(&mut buffer).ok().map(|len| &buffer[..len]);
            if let Err(wrong) = compare(expected, received) {
                return Err(Fault::Spoilt { len, size, at, wrong });
            }
        }
    }
    Ok(())
}

fn compare(expected: &[u8], received: Option<&[u8]>) -> Result<(), &'static str> {
    match received {
        None => Err("not at all"),
        Some(received) if received.len() != expected.len() => Err("with another length"),
        Some(received) if received != expected => Err("with other bytes"),
        Some(_) => Ok(()),
    }
}

fn send(sender: &UdpSocket, to: SocketAddr, train: &[u8], size: u16) -> io::Result<()> {
    let messages = [Message::new(SocketId(0), to, train.as_ptr(), train.len(), Some(size))];
    let mut headers = Headers::new(1);
    let header = headers.write(0, &messages, 0);
    // SAFETY: the header points to `headers`, `messages` and `train`, which live through the call.
    let sent = unsafe { libc::sendmsg(sender.as_raw_fd(), header, 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_of_this_machine_cuts_trains_well() {
        over_loopback().unwrap();
    }

    /// A receiver that is not the one sent to hears nothing.
    #[test]
    fn a_train_that_does_not_arrive_is_noticed() {
        let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (sender, receiver, other) = (bind(), bind(), bind());
        receiver.connect(other.local_addr().unwrap()).unwrap();
        let fault = between(&sender, &receiver).unwrap_err();
        assert!(matches!(fault, Fault::Spoilt { at: 0, wrong: "not at all", .. }), "{fault}");
    }

    #[test]
    fn a_spoilt_datagram_is_noticed() {
        assert_eq!(compare(b"abc", Some(b"abc")), Ok(()));
        assert_eq!(compare(b"abc", Some(b"abd")), Err("with other bytes"));
        assert_eq!(compare(b"abc", Some(b"abcabc")), Err("with another length"));
        assert_eq!(compare(b"abc", None), Err("not at all"));
    }
}
