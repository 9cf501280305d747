use blake2::Blake2sMac;
use blake2::digest::consts::{U16, U32};
use blake2::digest::{FixedOutput as _, KeyInit as _, Update as _};

/// Keyed BLAKE2s-128 (RFC 7693) over the parts, one after the other.
pub fn mac16(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 16] {
    let mut mac: Blake2sMac<U16> = Blake2sMac::new(key.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize_fixed().into()
}

/// Keyed BLAKE2s-256 (RFC 7693) over the parts, one after the other.
pub fn mac32(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac: Blake2sMac<U32> = Blake2sMac::new(key.into());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize_fixed().into()
}
