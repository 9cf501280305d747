//! As much of TURN (RFC 8656) as a client needs before it sends ChannelData, with long-term
//! credentials (RFC 8489, section 9.2).

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use md5::{Digest as _, Md5};
use sha1::Sha1;

/// The only user of a rival that is measured, and its password.
pub(super) const USER: &str = "bench";
/// What a rival calls its realm.
pub(super) const REALM: &str = "bench";

const MAGIC_COOKIE: u32 = 0x2112_a442;
const HEADER_LEN: usize = 20;
const INTEGRITY_LEN: usize = 4 + 20;
/// Before a request is sent again.
const ANSWER_PATIENCE: Duration = Duration::from_millis(100);

mod method {
    pub(super) const ALLOCATE: u16 = 0x003;
    pub(super) const CREATE_PERMISSION: u16 = 0x008;
    pub(super) const CHANNEL_BIND: u16 = 0x009;
    pub(super) const SUCCESS: u16 = 0x100;
    pub(super) const ERROR: u16 = 0x110;
}

mod attribute {
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const CHANNEL_NUMBER: u16 = 0x000c;
    pub(super) const XOR_PEER_ADDRESS: u16 = 0x0012;
    pub(super) const REALM: u16 = 0x0014;
    pub(super) const NONCE: u16 = 0x0015;
    pub(super) const XOR_RELAYED_ADDRESS: u16 = 0x0016;
    pub(super) const REQUESTED_TRANSPORT: u16 = 0x0019;
}

/// A client at one address. It has a socket only while it asks.
#[derive(Debug)]
pub(super) struct Client {
    server: SocketAddrV4,
    address: SocketAddrV4,
    nonce: Vec<u8>,
}

impl Client {
    pub(super) fn new(server: SocketAddrV4, address: SocketAddrV4) -> Self {
        Self { server, address, nonce: Vec::new() }
    }

    /// Allocates, waiting as long for a server that is not up yet. Returns the relayed address.
    pub(super) fn allocate(&mut self, patience: Duration) -> anyhow::Result<SocketAddrV4> {
        let udp = [17, 0, 0, 0];
        let attributes: [Attribute<'_>; 1] = [(attribute::REQUESTED_TRANSPORT, &udp)];
        let answer = self.ask(method::ALLOCATE, &attributes, patience).context("Allocate")?;
        let relayed =
            find(&answer, attribute::XOR_RELAYED_ADDRESS).context("no relayed address")?;
        un_xor(relayed).context("a relayed address that is not IPv4")
    }

    pub(super) fn create_permission(
        &mut self,
        peer: SocketAddrV4,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let peer = xor(peer);
        let attributes: [Attribute<'_>; 1] = [(attribute::XOR_PEER_ADDRESS, &peer)];
        self.ask(method::CREATE_PERMISSION, &attributes, patience).context("CreatePermission")?;
        Ok(())
    }

    pub(super) fn bind_channel(
        &mut self,
        channel: u16,
        peer: SocketAddrV4,
        patience: Duration,
    ) -> anyhow::Result<()> {
        let [high, low] = channel.to_be_bytes();
        let (number, peer) = ([high, low, 0, 0], xor(peer));
        let attributes: [Attribute<'_>; 2] =
            [(attribute::CHANNEL_NUMBER, &number), (attribute::XOR_PEER_ADDRESS, &peer)];
        self.ask(method::CHANNEL_BIND, &attributes, patience).context("ChannelBind")?;
        Ok(())
    }

    /// Asks with credentials; learns the nonce from a first refusal.
    fn ask(
        &mut self,
        method: u16,
        attributes: &[Attribute<'_>],
        patience: Duration,
    ) -> anyhow::Result<Vec<u8>> {
        let mut refused = false;
        loop {
            let request = request(method, attributes, &self.nonce)?;
            let answer = exchange(self.server, self.address, &request, patience)?;
            let kind = u16::from_be_bytes([answer[0], answer[1]]);
            if kind == method | method::SUCCESS {
                return Ok(answer);
            }
            ensure!(kind == method | method::ERROR, "an answer of type {kind:#06x}");
            let code = find(&answer, attribute::ERROR_CODE).and_then(error_code);
            let nonce = find(&answer, attribute::NONCE);
            match (code, nonce, refused) {
                // Unauthorized, and a nonce that is too old.
                (Some(401 | 438), Some(nonce), false) => self.nonce = nonce.to_vec(),
                _ => bail!("refused with error {}", code.unwrap_or_default()),
            }
            refused = true;
        }
    }
}

/// Type and value.
type Attribute<'a> = (u16, &'a [u8]);

fn request(method: u16, attributes: &[Attribute<'_>], nonce: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut message = Vec::with_capacity(256);
    message.extend(method.to_be_bytes());
    message.extend([0; 2]);
    message.extend(MAGIC_COOKIE.to_be_bytes());
    let mut transaction = [0; 12];
    getrandom::fill(&mut transaction).map_err(|error| anyhow::anyhow!("no randomness: {error}"))?;
    message.extend(transaction);
    attributes.iter().for_each(|attribute| push(&mut message, *attribute));
    if nonce.is_empty() {
        set_len(&mut message, 0);
        return Ok(message);
    }
    push(&mut message, (attribute::USERNAME, USER.as_bytes()));
    push(&mut message, (attribute::REALM, REALM.as_bytes()));
    push(&mut message, (attribute::NONCE, nonce));
    // The code covers the header with a length that includes the code itself.
    set_len(&mut message, INTEGRITY_LEN);
    let key = Md5::digest(format!("{USER}:{REALM}:{USER}"));
    let mut code = Hmac::<Sha1>::new_from_slice(&key).context("a key of any length")?;
    code.update(&message);
    push(&mut message, (attribute::MESSAGE_INTEGRITY, &code.finalize().into_bytes()));
    Ok(message)
}

fn push(message: &mut Vec<u8>, (kind, value): Attribute<'_>) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn set_len(message: &mut [u8], to_come: usize) {
    let len = (message.len() - HEADER_LEN + to_come) as u16;
    message[2..4].copy_from_slice(&len.to_be_bytes());
}

/// Sends a request until its answer comes, which is at least a header.
fn exchange(
    server: SocketAddrV4,
    address: SocketAddrV4,
    request: &[u8],
    patience: Duration,
) -> anyhow::Result<Vec<u8>> {
    let socket = UdpSocket::bind(address).with_context(|| address.to_string())?;
    socket.connect(server)?;
    socket.set_read_timeout(Some(ANSWER_PATIENCE))?;
    let mut buffer = [0; 2048];
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        // Nobody listens yet: refusals come at once, by ICMP.
        if socket.send(request).is_err() {
            std::thread::sleep(ANSWER_PATIENCE);
        }
        while let Ok(len) = socket.recv(&mut buffer) {
            if len >= HEADER_LEN && buffer[4..HEADER_LEN] == request[4..HEADER_LEN] {
                return Ok(buffer[..len].to_vec());
            }
        }
    }
    bail!("{server} does not answer")
}

/// The value of a message's first attribute of a kind.
fn find(message: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = message.get(HEADER_LEN..)?;
    while let Some(([a, b, c, d], after)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_be_bytes([*c, *d]));
        let value = after.get(..len)?;
        if u16::from_be_bytes([*a, *b]) == kind {
            return Some(value);
        }
        rest = after.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn error_code(value: &[u8]) -> Option<u16> {
    let [_, _, class, number] = value.first_chunk()?;
    Some(u16::from(class & 7) * 100 + u16::from(*number))
}

fn xor(address: SocketAddrV4) -> [u8; 8] {
    let port = (address.port() ^ (MAGIC_COOKIE >> 16) as u16).to_be_bytes();
    let ip = (u32::from(*address.ip()) ^ MAGIC_COOKIE).to_be_bytes();
    [0, 1, port[0], port[1], ip[0], ip[1], ip[2], ip[3]]
}

fn un_xor(value: &[u8]) -> Option<SocketAddrV4> {
    let [_, family, a, b, ip @ ..] = value.first_chunk::<8>()?;
    let ip = u32::from_be_bytes(*ip) ^ MAGIC_COOKIE;
    let port = u16::from_be_bytes([*a, *b]) ^ (MAGIC_COOKIE >> 16) as u16;
    (*family == 1).then(|| SocketAddrV4::new(Ipv4Addr::from(ip), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 5769, section 2.2.
    #[test]
    fn xor_addresses_are_those_of_the_test_vectors() {
        let address: SocketAddrV4 = "192.0.2.1:32853".parse().unwrap();
        assert_eq!(xor(address), [0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43]);
        assert_eq!(un_xor(&xor(address)), Some(address));
    }

    #[test]
    fn attributes_are_found_behind_padding() {
        let mut message = vec![0; HEADER_LEN];
        push(&mut message, (attribute::REALM, b"odd"));
        push(&mut message, (attribute::ERROR_CODE, &[0, 0, 4, 38]));
        assert_eq!(find(&message, attribute::REALM), Some(&b"odd"[..]));
        assert_eq!(find(&message, attribute::ERROR_CODE).and_then(error_code), Some(438));
        assert_eq!(find(&message[..message.len() - 1], attribute::ERROR_CODE), None);
    }
}
