use std::net::IpAddr;

use etherparse::{IpNumber, IpSlice};

/// An IP packet whose headers have been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IpPacket<'a> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Behind IPv6 extension headers.
    pub(crate) protocol: IpNumber,
    /// From the transport header on; empty for a later fragment, which has none.
    pub(crate) transport: &'a [u8],
    /// Bytes by the IP header; link padding is not part of the packet.
    pub(crate) length: usize,
}

impl<'a> IpPacket<'a> {
    /// `None` when the bytes are no whole IPv4 or IPv6 packet.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let slice = IpSlice::from_slice(bytes).ok()?;
        let payload = slice.payload();
        let (length, later_fragment) = match &slice {
            IpSlice::Ipv4(v4) => {
                let header = v4.header();
                (usize::from(header.total_len()), header.fragments_offset().value() != 0)
            }
            IpSlice::Ipv6(v6) => (
                40 + usize::from(v6.header().payload_length()),
                payload.fragmented && ipv6_fragment_offset(bytes, payload.payload) != Some(0),
            ),
        };
        // A jumbogram's length field is 0 (RFC 2675); none fits the NIC.
        if length > bytes.len() || payload.payload.len() > length {
            return None;
        }
        Some(Self {
            source: slice.source_addr(),
            destination: slice.destination_addr(),
            protocol: payload.ip_number,
            transport: if later_fragment { &[] } else { payload.payload },
            length,
        })
    }

    /// Source and destination port of UDP or TCP.
    pub(crate) fn ports(&self) -> Option<(u16, u16)> {
        let [a, b, c, d] = *self.transport.first_chunk()?;
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }
}

/// The offset field of the fragment header, the last one before the payload (RFC 8200 §4.5).
fn ipv6_fragment_offset(bytes: &[u8], payload: &[u8]) -> Option<u16> {
    let end = (40 + usize::from(u16::from_be_bytes([*bytes.get(4)?, *bytes.get(5)?])))
        .checked_sub(payload.len())?;
    let header = bytes.get(end.checked_sub(8)?..end)?;
    Some(u16::from_be_bytes([header[2], header[3]]) >> 3)
}
