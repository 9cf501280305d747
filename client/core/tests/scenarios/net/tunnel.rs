//! WireGuard's shape with a virtual clock: same messages, lengths and indices, X25519 and
//! pre-shared key behind a keyed checksum instead of encryption.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lanrage_client_core::{Received, Refused, Tunnel, TunnelFactory, TunnelParameters};
use lanrage_proto::mac::{mac16, mac32};
use x25519_dalek::{PublicKey, StaticSecret};

/// Microseconds since the test's start.
pub(crate) type Clock = Arc<AtomicU64>;

/// What a lying member does to a packet before its tunnel seals it.
pub(crate) type Lie = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

const REKEY_AFTER_US: u64 = 120_000_000;
const REJECT_AFTER_US: u64 = 180_000_000;

pub(crate) struct Checksums {
    clock: Clock,
    set_back: Duration,
    lie: Option<Lie>,
}

impl Checksums {
    pub(crate) fn new(clock: Clock, set_back: Duration, lie: Option<Lie>) -> Self {
        Self { clock, set_back, lie }
    }
}

impl TunnelFactory for Checksums {
    fn make(&mut self, parameters: TunnelParameters<'_>) -> Box<dyn Tunnel> {
        let shared = parameters.private.diffie_hellman(&PublicKey::from(parameters.peer.0));
        Box::new(Checksummed {
            clock: self.clock.clone(),
            set_back: self.set_back,
            lie: self.lie.clone(),
            public: PublicKey::from(parameters.private as &StaticSecret).to_bytes(),
            peer: parameters.peer.0,
            handshake_key: *shared.as_bytes(),
            session_key: mac32(shared.as_bytes(), &[parameters.pre_shared_key]),
            index: parameters.index << 8,
            sent_init: None,
            newest_stamp: None,
            sessions: VecDeque::new(),
            current: None,
        })
    }
}

struct Checksummed {
    clock: Clock,
    set_back: Duration,
    lie: Option<Lie>,
    public: [u8; 32],
    peer: [u8; 32],
    handshake_key: [u8; 32],
    session_key: [u8; 32],
    index: u32,
    sent_init: Option<u32>,
    newest_stamp: Option<u64>,
    /// The newest eight, as boringtun keeps them.
    sessions: VecDeque<Session>,
    /// The local index of the one to send by; a responder's once the initiator has used it.
    current: Option<u32>,
}

struct Session {
    local: u32,
    remote: u32,
    made_us: u64,
    is_initiator: bool,
    counter: u64,
    seen: BTreeSet<u64>,
}

impl Checksummed {
    fn now_us(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn next_index(&mut self) -> u32 {
        self.index = self.index & !0xff | (self.index + 1) & 0xff;
        self.index
    }

    fn add_session(&mut self, local: u32, remote: u32, is_initiator: bool) {
        let (made_us, seen) = (self.now_us(), BTreeSet::new());
        self.sessions.push_back(Session { local, remote, made_us, is_initiator, counter: 0, seen });
        if self.sessions.len() > 8 {
            self.sessions.pop_front();
        }
    }

    /// The session to send by, unless it is too old.
    fn current(&self) -> Option<&Session> {
        let current = self.sessions.iter().find(|session| Some(session.local) == self.current)?;
        (self.now_us() - current.made_us <= REJECT_AFTER_US).then_some(current)
    }

    fn data(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        let key = self.session_key;
        let local = self.current().ok_or(Refused::NoSession)?.local;
        let session = self.sessions.iter_mut().find(|session| session.local == local);
        let session = session.ok_or(Refused::NoSession)?;
        out[..4].copy_from_slice(&[4, 0, 0, 0]);
        out[4..8].copy_from_slice(&session.remote.to_le_bytes());
        out[8..16].copy_from_slice(&session.counter.to_le_bytes());
        session.counter += 1;
        out[16..16 + packet.len()].copy_from_slice(packet);
        if let Some(lie) = &self.lie {
            lie(&mut out[16..16 + packet.len()]);
        }
        Ok(seal(out, 16 + packet.len(), &key))
    }

    fn receive_initiation(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Received, Refused> {
        open(datagram, &self.handshake_key)?;
        if datagram[16..48] != self.peer {
            return Err(Refused::NotAuthentic);
        }
        let stamp = u64::from_le_bytes(datagram[8..16].try_into().unwrap());
        if self.newest_stamp.is_some_and(|newest| stamp <= newest) {
            return Err(Refused::Stale);
        }
        self.newest_stamp = Some(stamp);
        let remote = u32::from_le_bytes(datagram[4..8].try_into().unwrap());
        let local = self.next_index();
        self.add_session(local, remote, false);
        out[..92].fill(0);
        out[0] = 2;
        out[4..8].copy_from_slice(&local.to_le_bytes());
        out[8..12].copy_from_slice(&remote.to_le_bytes());
        Ok(Received::Reply(seal_handshake(out, 92, &self.session_key)))
    }

    fn receive_response(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Received, Refused> {
        let receiver = u32::from_le_bytes(datagram[8..12].try_into().unwrap());
        if self.sent_init != Some(receiver) {
            return Err(Refused::NotAuthentic);
        }
        open(datagram, &self.session_key)?;
        let remote = u32::from_le_bytes(datagram[4..8].try_into().unwrap());
        self.sent_init = None;
        self.add_session(receiver, remote, true);
        self.current = Some(receiver);
        self.data(&[], out).map(Received::Reply)
    }

    fn receive_data(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Received, Refused> {
        let receiver = u32::from_le_bytes(datagram[4..8].try_into().unwrap());
        let counter = u64::from_le_bytes(datagram[8..16].try_into().unwrap());
        open(datagram, &self.session_key)?;
        let made_us = self.current().map(|current| current.made_us);
        let session = self.sessions.iter_mut().find(|session| session.local == receiver);
        let session = session.ok_or(Refused::NoSession)?;
        if !session.seen.insert(counter) {
            return Err(Refused::Duplicate);
        }
        if made_us.is_none_or(|made_us| session.made_us >= made_us) {
            self.current = Some(receiver);
        }
        let packet = &datagram[16..datagram.len() - 16];
        out[..packet.len()].copy_from_slice(packet);
        Ok(if packet.is_empty() { Received::Nothing } else { Received::Packet(packet.len()) })
    }
}

impl Tunnel for Checksummed {
    fn encapsulate(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Refused> {
        self.data(packet, out)
    }

    fn decapsulate(&mut self, datagram: &[u8], out: &mut [u8]) -> Result<Received, Refused> {
        match (datagram.first(), datagram.len()) {
            (Some(1), 148) => self.receive_initiation(datagram, out),
            (Some(2), 92) => self.receive_response(datagram, out),
            (Some(4), 32..) => self.receive_data(datagram, out),
            _ => Err(Refused::NotAuthentic),
        }
    }

    fn initiate(&mut self, out: &mut [u8]) -> Result<usize, Refused> {
        let local = self.next_index();
        self.sent_init = Some(local);
        out[..148].fill(0);
        out[0] = 1;
        out[4..8].copy_from_slice(&local.to_le_bytes());
        let stamp = self.now_us().saturating_sub(self.set_back.as_micros() as u64);
        out[8..16].copy_from_slice(&stamp.to_le_bytes());
        out[16..48].copy_from_slice(&self.public);
        Ok(seal_handshake(out, 148, &self.handshake_key))
    }

    fn tick(&mut self, out: &mut [u8]) -> Option<usize> {
        let session = self.current()?;
        let age = self.now_us() - session.made_us;
        let rekeys = session.is_initiator && session.counter > 1 && age > REKEY_AFTER_US;
        if rekeys { self.initiate(out).ok() } else { None }
    }

    fn time_since_handshake(&self) -> Option<Duration> {
        self.current().map(|current| Duration::from_micros(self.now_us() - current.made_us))
    }
}

fn seal(out: &mut [u8], length: usize, key: &[u8; 32]) -> usize {
    let mac = mac16(key, &[&out[..length]]);
    out[length..length + 16].copy_from_slice(&mac);
    length + 16
}

/// The MAC twice: where WireGuard has its first and its last 16 bytes of MACs.
fn seal_handshake(out: &mut [u8], length: usize, key: &[u8; 32]) -> usize {
    seal(out, length - 32, key);
    seal(out, length - 16, key)
}

fn open(datagram: &[u8], key: &[u8; 32]) -> Result<(), Refused> {
    let (body, mac) = datagram.split_at(datagram.len() - 16);
    if mac16(key, &[body]) == mac { Ok(()) } else { Err(Refused::NotAuthentic) }
}
