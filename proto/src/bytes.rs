use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

/// Unpadded URL-safe base64, the only encoding of bytes in JSON and invites (RFC 4648 §5).
pub fn encode_base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// `None` when the text is not exactly `N` bytes of unpadded URL-safe base64.
pub fn decode_base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(length) if length == N => Some(bytes),
        _ => None,
    }
}

macro_rules! byte_string {
    ($(#[$doc:meta])* $name:ident, $length:literal, $debug:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// Bytes on the wire.
            pub const LEN: usize = $length;
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let show: fn(&[u8]) -> String = $debug;
                write!(f, "{}({})", stringify!($name), show(&self.0))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&encode_base64(&self.0))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                decode_base64(&text).map(Self).ok_or_else(|| {
                    de::Error::custom(concat!("expected ", $length, " bytes in URL-safe base64"))
                })
            }
        }
    };
}

fn prefix(bytes: &[u8]) -> String {
    encode_base64(&bytes[..bytes.len().min(6)])
}

fn redacted(_: &[u8]) -> String {
    "secret".to_owned()
}

byte_string! {
    /// A device's Ed25519 public key: its identity.
    DeviceKey, 32, prefix
}
byte_string! {
    /// An X25519 public key: a member's for one party, or a relay's.
    TunnelKey, 32, prefix
}
byte_string! {
    /// An Ed25519 signature.
    Signature, 64, prefix
}
byte_string! {
    /// A keyed BLAKE2s-128 digest.
    Mac, 16, prefix
}
byte_string! {
    /// SHA-256 of control's root public key: what an invite pins.
    RootHash, 32, prefix
}
byte_string! {
    /// What control knows an invite by; the invite's key cannot be had from it.
    InviteHash, 32, prefix
}
byte_string! {
    /// What all members of a party know and control never sees.
    PartySecret, 32, redacted
}
byte_string! {
    /// What a kick record says of its epoch's secret; the secret cannot be had from it, and no two
    /// secrets have the same. Made by [`crate::party::commitment`].
    Commitment, 32, prefix
}
byte_string! {
    /// A bearer token of control's API.
    Token, 32, redacted
}
/// A private or symmetric key, as state directories keep it. Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(pub Zeroizing<[u8; 32]>);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(secret)")
    }
}

impl Serialize for SecretKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(encode_base64(&*self.0)))
    }
}

impl<'de> Deserialize<'de> for SecretKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = decode_base64(&text).map(|bytes| Self(Zeroizing::new(bytes)));
        bytes.ok_or_else(|| de::Error::custom("expected 32 bytes in URL-safe base64"))
    }
}

impl DeviceKey {
    /// Checks `signature` over `context ‖ 0 ‖ message` with RFC 8032's strict rules.
    pub fn verifies(&self, context: &str, message: &[u8], signature: &Signature) -> bool {
        crate::signed::verifies(&self.0, context, message, signature)
    }
}

impl TunnelKey {
    /// Whether key agreement with it yields a secret. With a point of low order it yields zero for
    /// every private key (RFC 7748 §6.1); no honest device has such a key.
    pub fn is_usable(&self) -> bool {
        let any = StaticSecret::from([1; 32]);
        any.diffie_hellman(&PublicKey::from(self.0)).was_contributory()
    }
}

/// Bytes of any length up to a bound that the reader of the JSON sets, in base64.
#[derive(Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.0.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode_base64(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        URL_SAFE_NO_PAD
            .decode(text.as_bytes())
            .map(Self)
            .map_err(|_| de::Error::custom("expected URL-safe base64 without padding"))
    }
}
