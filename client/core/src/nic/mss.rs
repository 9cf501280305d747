//! TCP learns from the handshake that one datagram carries less than the NIC's MTU (RFC 6691).

use etherparse::IpNumber;

use super::packet::IpPacket;

const TCP_HEADER_LEN: usize = 20;
const FLAG_SYN: u8 = 0x02;
const OPTION_END: u8 = 0;
const OPTION_NOP: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lowers the MSS option of a SYN to what fits `inner_mtu`; leaves everything else alone. `bytes`
/// is exactly the packet.
pub(crate) fn clamp(bytes: &mut [u8], inner_mtu: usize) {
    let Some((tcp, ip_header_len)) = syn(bytes) else { return };
    let fits = inner_mtu - ip_header_len - TCP_HEADER_LEN;
    let Ok(fits) = u16::try_from(fits) else { return };
    let segment = &mut bytes[tcp..];
    let Some(value) = mss_option(segment) else { return };
    let old = u16::from_be_bytes([segment[value], segment[value + 1]]);
    if old <= fits {
        return;
    }
    segment[value..value + 2].copy_from_slice(&fits.to_be_bytes());
    let sum = u16::from_be_bytes([segment[16], segment[17]]);
    // The sum's words start at even offsets; an option may not.
    let (old, fits) =
        if value % 2 == 0 { (old, fits) } else { (old.swap_bytes(), fits.swap_bytes()) };
    segment[16..18].copy_from_slice(&updated_checksum(sum, old, fits).to_be_bytes());
}

/// Where the TCP header of a SYN starts, and the length of an IP header without options.
fn syn(bytes: &[u8]) -> Option<(usize, usize)> {
    let packet = IpPacket::parse(bytes)?;
    let is_syn = packet.protocol == IpNumber::TCP
        && packet.transport.len() >= TCP_HEADER_LEN
        && packet.transport[13] & FLAG_SYN != 0;
    let ip_header_len = if packet.source.is_ipv4() { 20 } else { 40 };
    is_syn.then_some((packet.length - packet.transport.len(), ip_header_len))
}

/// Where the MSS value stands in a TCP segment (RFC 9293 §3.1).
fn mss_option(segment: &[u8]) -> Option<usize> {
    let end = (usize::from(segment[12] >> 4) * 4).min(segment.len());
    let mut at = TCP_HEADER_LEN;
    while at < end {
        match (segment[at], segment.get(at + 1)) {
            (OPTION_END, _) => return None,
            (OPTION_NOP, _) => at += 1,
            (OPTION_MSS, Some(4)) => return (at + 4 <= end).then_some(at + 2),
            (_, Some(&length)) if length >= 2 => at += usize::from(length),
            _ => return None,
        }
    }
    None
}

/// RFC 1624 eqn. 3: HC' = ~(~HC + ~m + m').
fn updated_checksum(sum: u16, old: u16, new: u16) -> u16 {
    let total = u32::from(!sum) + u32::from(!old) + u32::from(new);
    let folded = (total & 0xffff) + (total >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}
