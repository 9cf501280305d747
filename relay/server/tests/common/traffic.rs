use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::control::Message;
use lanrage_proto::ids::{Destination, Member, RelayId, SessionId};

use super::Client;

/// Numbered frames from one member to another, or to everyone.
pub struct Flow {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receivers: Vec<JoinHandle<Vec<bool>>>,
}

impl Flow {
    pub fn start(from: &Client, lease: &Lease, to: Destination, sinks: &[&Client]) -> Self {
        Self::start_by(RelayId(0), from, lease, to, sinks)
    }

    /// To members at another relay.
    pub fn start_by(
        egress: RelayId,
        from: &Client,
        lease: &Lease,
        to: Destination,
        sinks: &[&Client],
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(u64::MAX));
        let receivers = sinks.iter().map(|sink| {
            let (socket, sent) = (sink.socket.try_clone().unwrap(), sent.clone());
            // What the relay sends at once must not be lost where this test is slow.
            rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 16 << 20).unwrap();
            let from = from.member.number();
            thread::spawn(move || receive(&socket, from, &sent))
        });
        let receivers = receivers.collect();
        let (socket, header) =
            (from.socket.try_clone().unwrap(), from.frame_by(egress, lease, to, b""));
        // Three copies each, and a lease may have 10,000 a second.
        let pause = if to == Destination::Everyone { 2 } else { 1 };
        let pause = Duration::from_millis(pause);
        let sender = thread::spawn({
            let stop = stop.clone();
            move || {
                let mut number = 0u64;
                while !stop.load(Ordering::Relaxed) {
                    // A burst, which comes as a train.
                    for _ in 0..4 {
                        let frame = [header.as_slice(), &number.to_be_bytes()].concat();
                        socket.send(&frame).unwrap();
                        number += 1;
                    }
                    thread::sleep(pause);
                }
                sent.store(number, Ordering::Relaxed);
                number
            }
        });
        Self { stop, sender, receivers }
    }

    /// Nothing is missing at any receiver.
    pub fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        for receiver in self.receivers {
            let received = receiver.join().unwrap();
            let missing: Vec<u64> = (0..sent)
                .filter(|n| !received.get(*n as usize).is_some_and(|seen| *seen))
                .collect();
            assert!(missing.is_empty(), "{} of {sent} lost: {missing:?}", missing.len());
        }
        sent
    }
}

/// Until all are there, or nothing comes for two seconds.
fn receive(socket: &UdpSocket, from: u8, sent: &AtomicU64) -> Vec<bool> {
    let (mut seen, mut count) = (Vec::new(), 0);
    let mut buffer = [0; 2048];
    while count < sent.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(24) if buffer[7] == from => {
                let number = u64::from_be_bytes(buffer[16..24].try_into().unwrap()) as usize;
                seen.resize(seen.len().max(number + 1), false);
                count += u64::from(!std::mem::replace(&mut seen[number], true));
            }
            Ok(_) => {}
            Err(_) if sent.load(Ordering::Relaxed) == u64::MAX => {}
            Err(_) => break,
        }
    }
    seen
}

/// Binds, uses, moves and releases without end; how many rounds.
pub fn churn(relay: SocketAddr, member: u8, stop: &AtomicBool) -> u64 {
    let mut client = Client::new(relay, member);
    // Where nobody broadcasts.
    client.session = SessionId(0xdef);
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let lease = client.bind();
        assert!(client.probe(&lease), "member {member}, round {rounds}");
        client.move_away();
        let Some(Message::RebindChallenge(cookie)) = client.control(&lease, Message::Rebind, 1)
        else {
            panic!("no challenge for member {member} in round {rounds}");
        };
        let rebound = client.control(&lease, Message::RebindAnswer(cookie), 2);
        assert_eq!(rebound, Some(Message::Rebound(client.socket.local_addr().unwrap())));
        assert!(client.probe(&lease), "member {member}, round {rounds}");
        client.socket.send(&Message::Release.seal(&lease.key_to_relay, lease.handle, 3)).unwrap();
        rounds += 1;
        // Below the binder's budget for one prefix, 100 a second.
        thread::sleep(Duration::from_millis(40));
    }
    rounds
}

pub fn one(member: u8) -> Destination {
    Destination::One(Member::new(member).unwrap())
}

pub fn skew(page: &BTreeMap<String, f64>) -> f64 {
    page.iter().filter(|(name, _)| name.contains("accounting_skew")).map(|(_, value)| value).sum()
}
