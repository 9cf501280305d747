use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use ed25519_dalek::SigningKey;

use super::{BadSignature, SigningKeys, sign, verifies};
use crate::bytes::{Signature, TunnelKey};
use crate::ids::{KeyId, PoolId, RelayId};
use crate::wire::{Malformed, Reader, Writer};

const CONTEXT: &str = "lanrage relay 1";
const VERSION: u8 = 1;

/// Control's word that this relay owns this key and these unicast addresses (§6.2).
///
/// ```text
/// | version u8 | key id u8 | pool u16 | relay id u16 | IPv4 port u16 | IPv4 4 B | IPv6 16 B |
/// | IPv6 port u16 | 0 u16 | X25519 key 32 B | not after u64 | signature 64 B |
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayCertificate {
    /// Which of control's keys signs.
    pub key_id: KeyId,
    /// The relay's pool.
    pub pool: PoolId,
    /// Never 0.
    pub relay: RelayId,
    /// All zeros on the wire when the relay has none.
    pub ipv4: Option<SocketAddrV4>,
    /// All zeros on the wire when the relay has none.
    pub ipv6: Option<SocketAddrV6>,
    /// The relay's static key in the Noise handshake.
    pub key: TunnelKey,
    /// Seconds since 1970.
    pub not_after: u64,
    /// Empty until [`RelayCertificate::sign`].
    pub signature: Signature,
}

impl RelayCertificate {
    const BODY_LEN: usize = 1 + 1 + 2 + 2 + 2 + 4 + 16 + 2 + 2 + 32 + 8;
    /// Bytes of a certificate.
    pub const LEN: usize = Self::BODY_LEN + Signature::LEN;

    fn body(&self) -> Vec<u8> {
        let ipv4 = self.ipv4.unwrap_or(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let ipv6 = self.ipv6.unwrap_or(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        Writer::with_capacity(Self::LEN)
            .u8(VERSION)
            .u8(self.key_id.0)
            .u16(self.pool.0)
            .u16(self.relay.0)
            .u16(ipv4.port())
            .bytes(&ipv4.ip().octets())
            .bytes(&ipv6.ip().octets())
            .u16(ipv6.port())
            .u16(0)
            .bytes(&self.key.0)
            .u64(self.not_after)
            .finish()
    }

    /// Replaces the signature; `key` is the one that `key_id` names.
    pub fn sign(mut self, key: &SigningKey) -> Self {
        self.signature = sign(key, CONTEXT, &self.body());
        self
    }

    /// The certificate's bytes.
    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..Self::BODY_LEN].copy_from_slice(&self.body());
        bytes[Self::BODY_LEN..].copy_from_slice(&self.signature.0);
        bytes
    }

    /// Reads the fields; the signature is not yet checked.
    ///
    /// # Errors
    /// Another version, relay id 0, half an address.
    pub fn decode(bytes: &[u8; Self::LEN]) -> Result<Self, Malformed> {
        let mut reader = Reader::new(bytes, "relay certificate");
        if reader.u8()? != VERSION {
            return Err(Malformed("relay certificate version"));
        }
        let key_id = KeyId(reader.u8()?);
        let pool = PoolId(reader.u16()?);
        let relay = RelayId(reader.u16()?);
        let ipv4_port = reader.u16()?;
        let ipv4 = SocketAddrV4::new(Ipv4Addr::from(reader.array::<4>()?), ipv4_port);
        let ipv6 = Ipv6Addr::from(reader.array::<16>()?);
        let ipv6 = SocketAddrV6::new(ipv6, reader.u16()?, 0, 0);
        let half = ipv4.ip().is_unspecified() != (ipv4.port() == 0)
            || ipv6.ip().is_unspecified() != (ipv6.port() == 0);
        if reader.u16()? != 0 || relay.0 == 0 || half {
            return Err(Malformed("relay certificate"));
        }
        Ok(Self {
            key_id,
            pool,
            relay,
            ipv4: (ipv4.port() != 0).then_some(ipv4),
            ipv6: (ipv6.port() != 0).then_some(ipv6),
            key: TunnelKey(reader.array()?),
            not_after: reader.u64()?,
            signature: Signature(reader.array()?),
        })
    }

    /// Checks the signature and that the certificate's time is not over at `unix_time`, seconds
    /// since 1970 by control's clock.
    ///
    /// # Errors
    /// Unknown key id, not what control signed, or expired.
    pub fn verify(
        &self,
        keys: &(impl SigningKeys + ?Sized),
        unix_time: u64,
    ) -> Result<(), BadSignature> {
        let key = keys.key(self.key_id).ok_or(BadSignature)?;
        let holds =
            unix_time <= self.not_after && verifies(&key, CONTEXT, &self.body(), &self.signature);
        holds.then_some(()).ok_or(BadSignature)
    }

    /// The relay's unicast addresses.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let ipv4 = self.ipv4.map(SocketAddr::V4);
        ipv4.into_iter().chain(self.ipv6.map(SocketAddr::V6))
    }
}
