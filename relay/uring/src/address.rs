//! Socket addresses as the kernel lays them out, without a union.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// `sizeof(struct sockaddr_in6)`, the larger of the two families; see netinet/in.h.
pub(crate) const ADDRESS_LEN: usize = 28;
/// `sizeof(struct sockaddr_in)`.
const ADDRESS_LEN_V4: usize = 16;

const _: () = assert!(ADDRESS_LEN == size_of::<libc::sockaddr_in6>());
const _: () = assert!(ADDRESS_LEN_V4 == size_of::<libc::sockaddr_in>());

/// A `sockaddr_in` or `sockaddr_in6`, bytes and length. Unused bytes are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(4))]
pub(crate) struct RawAddress {
    /// Made here, where the address is in registers: reading bytes back that were just written one by
    /// one waits for the stores. First, so that unequal addresses mostly differ at once.
    hash: u32,
    len: u32,
    bytes: [u8; ADDRESS_LEN],
}

impl RawAddress {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut bytes = [0; ADDRESS_LEN];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len, ip): (_, _, u64) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, ADDRESS_LEN_V4, v4.ip().to_bits().into())
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                let ip = v6.ip().to_bits();
                (libc::AF_INET6, ADDRESS_LEN, (ip >> 64) as u64 ^ (ip as u64).rotate_left(32))
            }
        };
        // `sa_family_t` is a u16 in host order.
        bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        // Multiplied by an odd number without a pattern, 2⁶⁴ / φ; its upper bits depend on all.
        let mixed = (ip ^ u64::from(address.port()) << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { hash: (mixed >> 32) as u32, len: len as u32, bytes }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Of port and address; good in its upper bits.
    pub(crate) fn hash(&self) -> u32 {
        self.hash
    }
}

/// Reads the address the kernel wrote; `None` if it is neither IPv4 nor IPv6.
pub(crate) fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let port = u16::from_be_bytes(*bytes.get(2..)?.first_chunk()?);
    match family {
        libc::AF_INET => {
            let octets: [u8; 4] = *bytes.get(4..)?.first_chunk()?;
            Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::from(octets)), port))
        }
        libc::AF_INET6 => {
            let flow = u32::from_be_bytes(*bytes.get(4..)?.first_chunk()?);
            let octets: [u8; 16] = *bytes.get(8..)?.first_chunk()?;
            let scope = u32::from_ne_bytes(*bytes.get(24..)?.first_chunk()?);
            Some(SocketAddrV6::new(Ipv6Addr::from(octets), port, flow, scope).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_layout_of_the_c_library() {
        for text in ["192.0.2.7:51820", "[2001:db8::1]:51820", "[fe80::1%3]:9"] {
            let address: SocketAddr = text.parse().unwrap();
            let ours = RawAddress::new(address);
            let theirs = socket2::SockAddr::from(address);
            assert_eq!(ours.len(), theirs.len());
            // SAFETY: `theirs` holds `len` initialised bytes.
            let theirs = unsafe {
                std::slice::from_raw_parts(theirs.as_ptr().cast::<u8>(), theirs.len() as usize)
            };
            assert_eq!(&ours.bytes[..ours.len() as usize], theirs, "{text}");
            assert_eq!(parse(&ours.bytes), Some(address), "{text}");
        }
    }

    #[test]
    fn refuses_other_families_and_short_input() {
        assert_eq!(parse(&[0; ADDRESS_LEN]), None);
        let v6 = RawAddress::new("[::1]:1".parse().unwrap());
        for len in 0..ADDRESS_LEN {
            assert_eq!(parse(&v6.bytes[..len]), None, "{len} bytes");
        }
    }
}
