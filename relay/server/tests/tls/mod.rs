//! A member's client on a stream.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use lanrage_control_client::key_config;
use lanrage_proto::DeviceKey;
use lanrage_proto::frame::Nonce;
use lanrage_proto::frame::bind::{BindResult, Bound, Lease};
use lanrage_proto::frame::challenge::Challenge;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::frame::data::Sent;
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::ids::{Destination, Member, RelayId, SessionId};
use lanrage_proto::stream::{ALPN, Deframer, Waiting};
use lanrage_relay::state::Keys;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use crate::common::bind_frame;

pub struct Stream {
    tls: StreamOwned<ClientConnection, TcpStream>,
    deframer: Deframer,
    arrived: VecDeque<Vec<u8>>,
    member: Member,
    /// Of the last BIND.
    pub stamp: u64,
}

impl Stream {
    /// `dir` is the relay's: what the relay map would say of its key.
    pub fn connect(relay: SocketAddr, dir: &Path, member: u8) -> Self {
        Self::open(relay, dir, member, ALPN).unwrap()
    }

    pub fn open(relay: SocketAddr, dir: &Path, member: u8, alpn: &[u8]) -> io::Result<Self> {
        let keys: Keys = lanrage_state::read(&dir.join("keys")).unwrap().unwrap();
        let key = DeviceKey(keys.stream_key().verifying_key().to_bytes());
        let socket = Socket::new(Domain::for_address(relay), Type::STREAM, None)?;
        // What the kernel holds for a reader that is stalled.
        socket.set_recv_buffer_size(32 << 10)?;
        socket.connect(&relay.into())?;
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        socket.set_nodelay(true)?;
        let name = ServerName::from(relay.ip());
        let connection = ClientConnection::new(key_config(key, alpn), name).unwrap();
        let mut tls = StreamOwned::new(connection, socket);
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock)?;
        }
        let member = Member::new(member).unwrap();
        Ok(Self { tls, deframer: Deframer::default(), arrived: VecDeque::new(), member, stamp: 0 })
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send_raw(bytes).unwrap();
    }

    pub fn try_send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tls.write_all(bytes)?;
        self.tls.flush()
    }

    pub fn send(&mut self, datagram: &[u8]) {
        let (mut waiting, mut bytes) = (Waiting::new(0), Vec::new());
        assert_eq!(waiting.push(datagram), 0);
        assert_eq!(waiting.take(&mut bytes, usize::MAX), 1);
        self.send_raw(&bytes);
    }

    /// `None` when the stream has ended or nothing comes for 5 s.
    pub fn receive(&mut self) -> Option<Vec<u8>> {
        let mut bytes = [0; 4096];
        while self.arrived.is_empty() {
            let len = self.tls.read(&mut bytes).ok().filter(|len| *len > 0)?;
            let arrived = &mut self.arrived;
            let fed = self.deframer.feed(&mut bytes[..len], |d| arrived.push_back(d.to_vec()));
            fed.unwrap();
        }
        self.arrived.pop_front()
    }

    fn ask(&mut self, datagram: &[u8]) -> Option<Vec<u8>> {
        self.send(datagram);
        self.receive()
    }

    pub fn bind(&mut self) -> Lease {
        self.stamp += 1;
        let mut nonce = Nonce([0; 16]);
        getrandom::fill(&mut nonce.0).unwrap();
        let hello = Hello { version_min: 1, version_max: 1, nonce };
        let challenge = self.ask(&hello.encode()).unwrap();
        let challenge = Challenge::decode(&challenge).unwrap();
        let (bind, mut initiator) =
            bind_frame(&challenge, (SessionId(0xabc), self.member), self.stamp);
        let answer = self.ask(&bind).unwrap();
        let payload = initiator.finish(Bound::decode(&answer).unwrap().noise).unwrap();
        match BindResult::decode(&payload).unwrap() {
            BindResult::Lease(lease) => *lease,
            BindResult::Refused { reason, .. } => panic!("refused: {}", reason.as_str()),
        }
    }

    pub fn frame(&self, lease: &Lease, destination: Destination, payload: &[u8]) -> Vec<u8> {
        let sent = Sent::new(RelayId(0), destination, self.member, lease.handle, lease.tag);
        [sent.encode().as_slice(), payload].concat()
    }

    /// A self-addressed frame; whether it came back.
    pub fn probe(&mut self, lease: &Lease) -> bool {
        let frame = self.frame(lease, Destination::One(self.member), b"probe");
        self.ask(&frame).is_some_and(|back| back.ends_with(b"probe"))
    }

    pub fn control(&mut self, lease: &Lease, message: Message, counter: u64) -> Option<Message> {
        let frame = message.seal(&lease.key_to_relay, lease.handle, counter);
        let answer = self.ask(&frame)?;
        Sealed::decode(&answer).ok()?.open(&lease.key_to_client).ok()
    }
}
