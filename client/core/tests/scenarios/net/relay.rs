//! A relay: the real shard and binder of `lanrage-relay-core`, with a virtual clock.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use lanrage_proto::bytes::Signature;
use lanrage_proto::frame::data::HEADER_LEN;
use lanrage_proto::frame::mesh::{MeshEpoch, Moment};
use lanrage_proto::signed::RelayCertificate;
use lanrage_proto::{KeyId, PoolId, RelayId, TunnelKey};
use lanrage_relay_core::binder::{Binder, Identity, Now};
use lanrage_relay_core::mesh::{Other, Roster};
use lanrage_relay_core::shard::DELIVERED;
use lanrage_relay_core::{Classes, STREAM_LOCAL, Shard, Stun, Verdict};
use lanrage_relay_table::{Capacity, Endpoint, LocalId};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::control::{Control, POOL, UNIX_TIME};

pub(crate) const PORT: u16 = 51820;

pub(crate) struct Relay {
    pub(crate) id: RelayId,
    pub(crate) address: SocketAddr,
    certificate: RelayCertificate,
    keys: Vec<(KeyId, [u8; 32])>,
    shard: Shard,
    binder: Binder,
    starts: u8,
    roster: Roster,
    /// Of the keys that the shard has.
    epoch: Option<MeshEpoch>,
}

impl Relay {
    pub(crate) fn new(number: u16, control: &Control, now: Now) -> Self {
        let id = RelayId(number);
        let key = StaticSecret::from([number as u8 + 100; 32]);
        let ip = Ipv4Addr::new(198, 51, 100, number as u8);
        let certificate = RelayCertificate {
            key_id: KeyId(1),
            pool: PoolId(POOL),
            relay: id,
            ipv4: Some(SocketAddrV4::new(ip, PORT)),
            ipv6: None,
            key: TunnelKey(PublicKey::from(&key).to_bytes()),
            not_after: u64::MAX,
            signature: Signature([0; 64]),
        }
        .sign(&control.signing);
        let (shard, binder) = start(id, 0, certificate, &control.keys(), now);
        let keys = control.keys();
        let address = SocketAddr::from((ip, PORT));
        let roster = Roster::new(id, PoolId(POOL), &Zeroizing::new(key.to_bytes()));
        Self { id, address, certificate, keys, shard, binder, starts: 0, roster, epoch: None }
    }

    pub(crate) fn certificate(&self) -> RelayCertificate {
        self.certificate
    }

    /// A crash: the table is gone, the keys in the state directory stay.
    pub(crate) fn restart(&mut self, now: Now) {
        self.starts += 1;
        (self.shard, self.binder) = start(self.id, self.starts, self.certificate, &self.keys, now);
        self.epoch = None;
    }

    /// The relay map.
    pub(crate) fn set_map(&mut self, map: &[RelayCertificate]) {
        self.roster.set_others(map.iter().filter_map(|certificate| {
            let to = Endpoint::new(certificate.ipv4?.into(), LocalId(0));
            Some(Other { relay: certificate.relay, key: certificate.key, to })
        }));
        self.epoch = None;
    }

    fn follow_clock(&mut self, now: Now) {
        let moment = Moment::new((u128::from(UNIX_TIME) * 1_000 + u128::from(now.ms)) * 1_000_000);
        if self.epoch.replace(moment.epoch) != Some(moment.epoch) {
            self.shard.set_peers(Arc::new(self.roster.peers(moment)));
        }
    }

    pub(crate) fn handle(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Now,
    ) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut bytes = datagram.to_vec();
        let mut sent = Vec::new();
        self.shard.begin_pass(now.ms);
        self.follow_clock(now);
        let length = bytes.len();
        let verdict = self.shard.handle_run(&mut bytes, length, source);
        if let Some(handle) = self.shard.poll_activation() {
            self.shard.activation_queued(handle);
            self.binder.handle_activation(now, handle);
        }
        match verdict {
            Verdict::Forward { to, len } => sent.push((address(to), bytes[..len].to_vec())),
            Verdict::ToRelay { to, .. } => {
                let header = self.shard.mesh_headers()[0];
                sent.push((address(to), [&header[..], &bytes[HEADER_LEN..]].concat()));
            }
            Verdict::FromRelay { to, len } => {
                sent.push((address(to), bytes[DELIVERED][..len].to_vec()));
            }
            Verdict::Copy => {
                sent.extend(self.shard.targets().iter().map(|to| (address(*to), bytes.clone())));
            }
            Verdict::CopyFromRelay => sent.extend(
                self.shard.targets().iter().map(|to| (address(*to), bytes[DELIVERED].to_vec())),
            ),
            Verdict::Tell { to, answer } => {
                sent.push((address(to), answer.as_bytes().to_vec()));
            }
            Verdict::Answer(answer) => sent.push((source, answer.as_bytes().to_vec())),
            Verdict::ToBinder(_) => {
                let is_stream = source.ip().is_multicast();
                let local = if is_stream { STREAM_LOCAL } else { LocalId(0) };
                self.binder.handle_datagram(now, &bytes, source, local);
            }
            Verdict::Drop => {}
        }
        sent.extend(self.transmits());
        sent
    }

    pub(crate) fn handle_timeout(&mut self, now: Now) -> Vec<(SocketAddr, Vec<u8>)> {
        self.binder.handle_timeout(now);
        self.transmits().collect()
    }

    pub(crate) const fn binder(&mut self) -> &mut Binder {
        &mut self.binder
    }

    pub(crate) fn next_timeout_ms(&self) -> u64 {
        self.binder.poll_timeout()
    }

    fn transmits(&mut self) -> impl Iterator<Item = (SocketAddr, Vec<u8>)> + '_ {
        std::iter::from_fn(|| self.binder.poll_transmit()).map(|sent| (sent.to, sent.bytes))
    }
}

fn start(
    relay: RelayId,
    starts: u8,
    certificate: RelayCertificate,
    keys: &[(KeyId, [u8; 32])],
    now: Now,
) -> (Shard, Binder) {
    let (writer, reader) = lanrage_relay_table::new(Capacity::for_leases(64)).unwrap();
    let identity = Identity {
        relay,
        pool: PoolId(POOL),
        key: Zeroizing::new([relay.0 as u8 + 100; 32]),
        secret: Zeroizing::new([relay.0 as u8 + 150; 32]),
        resumption: Zeroizing::new([relay.0 as u8 + 200; 32]),
    };
    let classes = Classes::default();
    let mut binder =
        Binder::new(identity, writer, classes.clone(), [relay.0 as u8 + starts; 32], now);
    binder.set_certificate(certificate);
    binder.set_signing_keys(keys.to_vec());
    binder.control_found(now);
    let mut shard = Shard::new(relay, reader, classes, Stun::Answer);
    shard.join_mesh(0);
    (shard, binder)
}

fn address(endpoint: Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.ip.to_canonical(), endpoint.port)
}
