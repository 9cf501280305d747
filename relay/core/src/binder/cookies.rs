use std::net::{IpAddr, SocketAddr};

use lanrage_proto::frame::{Cookie, Nonce};
use lanrage_proto::mac::mac16;
use lanrage_proto::wire::{Malformed, Reader, Writer};
use lanrage_relay_table::LocalId;
use rand_core::RngCore;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

/// How long a cookie's epoch lasts; the one before still holds, so a cookie lives 90 to 180 s.
pub(super) const EPOCH_MS: u64 = 90_000;

/// What a cookie is for; each use has its own MACs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// BIND and RESUME, after the HELLO with this nonce.
    Hello(Nonce),
    /// REBIND of the lease with this handle and tag.
    Rebind { handle: u32, tag: u32 },
}

/// Where a datagram came from and arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place {
    pub(super) remote: SocketAddr,
    pub(super) local: LocalId,
}

/// Makes and checks proofs of return-routability without remembering whom it has given one.
///
/// ```text
/// cookie = epoch u32 | BLAKE2s-128(key of the epoch, purpose ‖ remote address and port ‖ local)
/// ```
#[derive(Debug)]
pub(super) struct Cookies {
    epoch: u32,
    current: Zeroizing<[u8; 32]>,
    former: Zeroizing<[u8; 32]>,
    rotate_at_ms: u64,
}

impl Cookies {
    pub(super) fn new(rng: &mut impl RngCore, now_ms: u64) -> Self {
        Self {
            epoch: rng.next_u32(),
            current: fresh_key(rng),
            former: fresh_key(rng),
            rotate_at_ms: now_ms + EPOCH_MS,
        }
    }

    pub(super) const fn rotate_at_ms(&self) -> u64 {
        self.rotate_at_ms
    }

    /// Begins a new epoch.
    pub(super) fn rotate(&mut self, rng: &mut impl RngCore, now_ms: u64) {
        self.epoch = self.epoch.wrapping_add(1);
        self.former = std::mem::replace(&mut self.current, fresh_key(rng));
        self.rotate_at_ms = now_ms + EPOCH_MS;
    }

    /// See [`super::Binder::freeze`].
    pub(super) fn freeze(&self, out: Writer) -> Writer {
        out.u32(self.epoch).bytes(&*self.current).bytes(&*self.former).u64(self.rotate_at_ms)
    }

    /// The inverse of [`Cookies::freeze`].
    pub(super) fn thaw(&mut self, reader: &mut Reader<'_>) -> Result<(), Malformed> {
        self.epoch = reader.u32()?;
        self.current = Zeroizing::new(reader.array()?);
        self.former = Zeroizing::new(reader.array()?);
        self.rotate_at_ms = reader.u64()?.min(self.rotate_at_ms);
        Ok(())
    }

    pub(super) fn make(&self, purpose: Purpose, place: Place) -> Cookie {
        let mut cookie = [0; Cookie::LEN];
        cookie[..4].copy_from_slice(&self.epoch.to_be_bytes());
        cookie[4..].copy_from_slice(&mac(&self.current, purpose, place));
        Cookie(cookie)
    }

    pub(super) fn holds(&self, cookie: Cookie, purpose: Purpose, place: Place) -> bool {
        let (number, given) = split(cookie);
        let key = if number == self.epoch {
            &self.current
        } else if number == self.epoch.wrapping_sub(1) {
            &self.former
        } else {
            return false;
        };
        mac(key, purpose, place).ct_eq(&given).into()
    }
}

fn fresh_key(rng: &mut impl RngCore) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    rng.fill_bytes(&mut *key);
    key
}

fn split(Cookie([e0, e1, e2, e3, mac @ ..]): Cookie) -> (u32, [u8; 16]) {
    (u32::from_be_bytes([e0, e1, e2, e3]), mac)
}

fn mac(key: &[u8; 32], purpose: Purpose, place: Place) -> [u8; 16] {
    let (label, context): (&[u8], _) = match purpose {
        Purpose::Hello(nonce) => (b"hello", nonce.0),
        Purpose::Rebind { handle, tag } => {
            let mut context = [0; 16];
            context[..4].copy_from_slice(&handle.to_be_bytes());
            context[4..8].copy_from_slice(&tag.to_be_bytes());
            (b"again", context)
        }
    };
    let ip = match place.remote.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let (port, local) = (place.remote.port().to_be_bytes(), place.local.0.to_be_bytes());
    mac16(key, &[label, &context, &ip, &port, &local])
}
