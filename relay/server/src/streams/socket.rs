//! The seam between streams and what drives their sockets. Buffers are owned: io_uring keeps them
//! while a call is under way.

use std::io;
use std::net::{Shutdown, SocketAddr};

use socket2::SockRef;

/// A buffer and what became of it.
pub(super) type Done<T> = (io::Result<T>, Vec<u8>);

#[derive(Debug)]
pub(super) struct Listener(tokio::net::TcpListener);

impl Listener {
    pub(super) fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        tokio::net::TcpListener::from_std(listener).map(Self)
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        let (socket, peer) = self.0.accept().await?;
        Ok((Socket(socket), peer))
    }
}

#[derive(Debug)]
pub(super) struct Socket(tokio::net::TcpStream);

impl Socket {
    /// Replaces what is in the buffer by what comes next, at most its capacity; 0 is the end.
    pub(super) async fn read(&self, mut buffer: Vec<u8>) -> Done<usize> {
        buffer.clear();
        loop {
            if let Err(error) = self.0.readable().await {
                return (Err(error), buffer);
            }
            match self.0.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return (done, buffer),
            }
        }
    }

    /// Sends all of the buffer.
    pub(super) async fn write_all(&self, buffer: Vec<u8>) -> Done<()> {
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            match self.0.try_write(rest) {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = self.0.writable().await {
                        return (Err(error), buffer);
                    }
                }
                Err(error) => return (Err(error), buffer),
            }
        }
        (Ok(()), buffer)
    }

    /// Ends both ways, and the calls under way.
    pub(super) fn shutdown(&self) {
        // An error means that the peer did.
        let _ = SockRef::from(&self.0).shutdown(Shutdown::Both);
    }
}
