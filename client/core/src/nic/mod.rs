//! What may cross between the NIC and the members, and in which shape.

pub(crate) mod filter;
pub(crate) mod fragment;
pub(crate) mod mss;
pub(crate) mod packet;

/// The NIC's MTU: what crosses is never longer, before it is split and after it is joined.
pub(crate) const NIC_MTU: usize = 1500;

/// The longest IP packet in one datagram over IPv4: 1,500 less IPv4 and UDP headers, data frame
/// header and WireGuard's overhead, down to a multiple of 16 (WireGuard paper §5.4.6).
pub(crate) const INNER_MTU_IPV4: usize = (1500 - 28 - 16 - 32) / 16 * 16;
/// The same over IPv6.
pub(crate) const INNER_MTU_IPV6: usize = (1500 - 48 - 16 - 32) / 16 * 16;
/// The same over the narrowest IPv6 link, 1,280 (RFC 8200 §5).
pub(crate) const INNER_MTU_MIN: usize = (1280 - 48 - 16 - 32) / 16 * 16;

const _: () = assert!(INNER_MTU_IPV4 == 1424 && INNER_MTU_IPV6 == 1392 && INNER_MTU_MIN == 1184);
