//! The seam between streams and what drives their sockets: tokio-uring where io_uring is allowed,
//! plain tokio where not. Buffers are owned: io_uring keeps them while a call is under way.

use std::io;
use std::net::{Shutdown, SocketAddr};

use lanrage_relay_uring::BackendKind;
use socket2::SockRef;
use tokio::task::LocalSet;

/// A buffer and what became of it.
pub(super) type Done<T> = (io::Result<T>, Vec<u8>);

/// Submissions and completions that the ring has room for at once; more wait in the runtime.
const RING_ENTRIES: u32 = 256;

/// Runs a thread's tasks, and drives their sockets.
pub(super) enum Driver {
    Uring(tokio_uring::Runtime),
    Tokio(tokio::runtime::Runtime),
}

impl Driver {
    /// # Errors
    /// The kernel has no memory or no descriptor left.
    pub(super) fn start(kind: BackendKind) -> io::Result<Self> {
        if kind == BackendKind::Uring {
            let mut builder = tokio_uring::builder();
            match tokio_uring::Runtime::new(builder.entries(RING_ENTRIES)) {
                Ok(runtime) => return Ok(Self::Uring(runtime)),
                Err(error) => tracing::warn!(%error, "no ring for streams: going on without"),
            }
        }
        tokio::runtime::Builder::new_current_thread().enable_all().build().map(Self::Tokio)
    }

    pub(super) const fn kind(&self) -> BackendKind {
        match self {
            Self::Uring(_) => BackendKind::Uring,
            Self::Tokio(_) => BackendKind::Mmsg,
        }
    }

    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match self {
            Self::Uring(runtime) => runtime.block_on(future),
            Self::Tokio(runtime) => LocalSet::new().block_on(runtime, future),
        }
    }
}

pub(super) enum Listener {
    Uring(tokio_uring::net::TcpListener),
    Tokio(tokio::net::TcpListener),
}

impl Listener {
    pub(super) fn new(kind: BackendKind, listener: std::net::TcpListener) -> io::Result<Self> {
        match kind {
            BackendKind::Uring => {
                Ok(Self::Uring(tokio_uring::net::TcpListener::from_std(listener)))
            }
            BackendKind::Mmsg => {
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Self::Tokio)
            }
        }
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, SocketAddr)> {
        match self {
            Self::Uring(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Socket::Uring(socket), peer))
            }
            Self::Tokio(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Socket::Tokio(socket), peer))
            }
        }
    }
}

pub(super) enum Socket {
    Uring(tokio_uring::net::TcpStream),
    Tokio(tokio::net::TcpStream),
}

impl Socket {
    /// Replaces what is in the buffer by what comes next, at most its capacity; 0 is the end.
    pub(super) async fn read(&self, mut buffer: Vec<u8>) -> Done<usize> {
        buffer.clear();
        let socket = match self {
            Self::Uring(socket) => return socket.read(buffer).await,
            Self::Tokio(socket) => socket,
        };
        loop {
            if let Err(error) = socket.readable().await {
                return (Err(error), buffer);
            }
            match socket.try_read_buf(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return (done, buffer),
            }
        }
    }

    /// Sends all of the buffer.
    pub(super) async fn write_all(&self, buffer: Vec<u8>) -> Done<()> {
        let socket = match self {
            Self::Uring(socket) => return socket.write_all(buffer).await,
            Self::Tokio(socket) => socket,
        };
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            match socket.try_write(rest) {
                Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), buffer),
                Ok(len) => rest = &rest[len..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Err(error) = socket.writable().await {
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
        let _ = match self {
            Self::Uring(socket) => socket.shutdown(Shutdown::Both),
            Self::Tokio(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
        };
    }
}
