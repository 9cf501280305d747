use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::message::Message;

/// Descriptors a message; the kernel's limit is 253 (SCM_MAX_FD, include/net/scm.h).
pub(super) const DESCRIPTORS_MAX: usize = 64;
const MESSAGE_LEN_MAX: usize = 64 << 10;

/// One end of the socket between two processes of a relay: whole messages, with descriptors.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Both ends. The other one goes to the new process as its standard input.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (one, other) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(one), other))
    }

    pub(super) const fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(super) fn send(&self, message: &Message, with: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut room);
        if !with.is_empty() && !control.push(SendAncillaryMessage::ScmRights(with)) {
            return Err(io::Error::other("too many descriptors for one message"));
        }
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message.
    ///
    /// # Errors
    /// The other end is closed or says nothing for `patience`, or what it says is no message.
    pub(super) fn receive(&self, patience: Duration) -> io::Result<(Message, Vec<OwnedFd>)> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        let mut bytes = vec![0; MESSAGE_LEN_MAX];
        let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut room);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let mut was_reset = false;
        let received = loop {
            match recvmsg(&self.0, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
                Err(rustix::io::Errno::INTR) => {}
                // The other end has closed with messages unread. What it said before is there still,
                // and comes once the error is taken (net/core/datagram.c, `__skb_try_recv_datagram`).
                Err(rustix::io::Errno::CONNRESET) if !was_reset => was_reset = true,
                Err(rustix::io::Errno::AGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                received => break received?,
            }
        };
        let descriptors = control
            .drain()
            .filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                RecvAncillaryMessage::ScmCredentials(_) | _ => None,
            })
            .flatten()
            .collect();
        match received.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            len => Ok((serde_json::from_slice(&bytes[..len])?, descriptors)),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new process that refused was reported as "connection reset" when it had not read everything.
    #[test]
    fn regression_a_reason_is_heard_from_an_end_that_left_messages_unread() {
        let (channel, other) = Channel::pair().unwrap();
        let other = Channel::new(other);
        channel.send(&Message::Sockets, &[]).unwrap();
        let why = Message::Refused("why".to_owned());
        other.send(&why, &[]).unwrap();
        drop(other);
        let patience = Duration::from_secs(1);
        assert_eq!(channel.receive(patience).unwrap().0, why);
        assert!(channel.receive(patience).is_err());
    }
}
