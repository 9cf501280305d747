use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use sha2::{Digest as _, Sha256};

use crate::Player;

const PATIENCE: Duration = Duration::from_secs(30);

/// A file that has crossed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// SHA-256 of what was sent, in hexadecimal.
    pub source_digest: String,
    /// SHA-256 of what arrived.
    pub target_digest: String,
    /// From the first byte to the last.
    pub took: Duration,
}

/// Moves `length` bytes from one player to another over TCP, by virtual address.
///
/// # Errors
/// They cannot connect, or the stream breaks.
pub fn transfer(from: &Player, to: &Player, length: usize) -> anyhow::Result<Transfer> {
    let address = to.address();
    let listener = to.host().enter(|| TcpListener::bind((address, 0)))?;
    let listener = listener.context("listen at the virtual address")?;
    let target = listener.local_addr().context("read the port")?;
    let receiver = thread::spawn(move || {
        let (mut stream, _) = listener.accept().context("accept")?;
        stream.set_read_timeout(Some(PATIENCE)).context("set a time-out")?;
        let mut received = Vec::with_capacity(length);
        stream.read_to_end(&mut received).context("receive")?;
        anyhow::Ok(digest(&received))
    });
    let file = contents(length);
    let source_digest = digest(&file);
    let started = Instant::now();
    from.host().enter(|| -> anyhow::Result<()> {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE).context("connect")?;
        stream.set_write_timeout(Some(PATIENCE)).context("set a time-out")?;
        stream.write_all(&file).context("send")
    })??;
    let target_digest = receiver.join().expect("the receiver does not panic")?;
    Ok(Transfer { source_digest, target_digest, took: started.elapsed() })
}

/// Sends `count` datagrams that hold `marker`, and says how many arrive.
///
/// # Errors
/// A socket cannot be opened.
pub fn send_marked(
    from: &Player,
    to: &Player,
    marker: &[u8],
    count: usize,
) -> anyhow::Result<usize> {
    let open = |player: &Player, at: Ipv4Addr| {
        let socket = player.host().enter(|| UdpSocket::bind((at, 0)))?;
        anyhow::Ok(socket.context("bind at the virtual address")?)
    };
    let (source, sink) = (open(from, from.address())?, open(to, to.address())?);
    sink.set_read_timeout(Some(Duration::from_millis(500))).context("set a time-out")?;
    let target = sink.local_addr().context("read the port")?;
    for _ in 0..count {
        source.send_to(marker, target).context("send")?;
        thread::sleep(Duration::from_millis(2));
    }
    let mut buffer = [0; 2048];
    let mut received = 0;
    while let Ok(length) = sink.recv(&mut buffer) {
        received += usize::from(&buffer[..length] == marker);
        if received == count {
            break;
        }
    }
    Ok(received)
}

/// Bytes that no compression shortens and no two places repeat: a multiplicative sequence.
fn contents(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _infallible = write!(text, "{byte:02x}");
        text
    })
}
