//! Ethernet II frames, as far as IP and ARP need them.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Lan, NicDrop};

/// Bytes before an Ethernet frame's payload.
pub const HEADER_LEN: usize = 14;
const IPV4_HEADER_LEN: usize = 20;
const IPV6_HEADER_LEN: usize = 40;

/// EtherType of IPv4.
pub const ETHER_TYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ETHER_TYPE_ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const ETHER_TYPE_IPV6: u16 = 0x86dd;

/// An IEEE 802 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// What the host sent, and where in the frame.
#[derive(Debug, PartialEq, Eq)]
pub enum FromHost {
    /// An IP packet, without what may be padded behind it.
    Packet(Range<usize>),
    /// An ARP packet.
    Arp(Range<usize>),
}

/// Reads a frame that the host sent.
///
/// # Errors
/// [`NicDrop::Malformed`], [`NicDrop::EtherType`] or [`NicDrop::ForeignSource`].
pub fn parse(frame: &[u8], own: MacAddress) -> Result<FromHost, NicDrop> {
    let (header, payload) = frame.split_first_chunk::<HEADER_LEN>().ok_or(NicDrop::Malformed)?;
    if header[6..12] != own.0 {
        return Err(NicDrop::ForeignSource);
    }
    let length = match u16::from_be_bytes([header[12], header[13]]) {
        ETHER_TYPE_IPV4 => ipv4_length(payload),
        ETHER_TYPE_IPV6 => ipv6_length(payload),
        ETHER_TYPE_ARP => return Ok(FromHost::Arp(HEADER_LEN..frame.len())),
        _ => return Err(NicDrop::EtherType),
    };
    let length = length.filter(|length| *length <= payload.len()).ok_or(NicDrop::Malformed)?;
    Ok(FromHost::Packet(HEADER_LEN..HEADER_LEN + length))
}

fn ipv4_length(packet: &[u8]) -> Option<usize> {
    let header: &[u8; IPV4_HEADER_LEN] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    (header[0] >> 4 == 4 && length >= IPV4_HEADER_LEN).then_some(length)
}

fn ipv6_length(packet: &[u8]) -> Option<usize> {
    let header: &[u8; IPV6_HEADER_LEN] = packet.first_chunk()?;
    let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
    (header[0] >> 4 == 6).then_some(IPV6_HEADER_LEN + length)
}

/// The header in front of a packet for the host, from the member that its source address names.
///
/// # Errors
/// [`NicDrop::Malformed`] when it is no IP packet.
pub fn header_for_host(lan: &Lan, packet: &[u8]) -> Result<[u8; HEADER_LEN], NicDrop> {
    let own = lan.own_mac();
    let (ether_type, from, destination) = match packet.first().map(|byte| byte >> 4) {
        Some(4) => {
            let header: &[u8; IPV4_HEADER_LEN] = packet.first_chunk().ok_or(NicDrop::Malformed)?;
            let source = Ipv4Addr::from([header[12], header[13], header[14], header[15]]);
            let target = Ipv4Addr::from([header[16], header[17], header[18], header[19]]);
            (ETHER_TYPE_IPV4, lan.member(source), destination_ipv4(lan, target))
        }
        Some(6) => {
            let header: &[u8; IPV6_HEADER_LEN] = packet.first_chunk().ok_or(NicDrop::Malformed)?;
            let source: [u8; 16] = header[8..24].try_into().expect("16 bytes");
            let target: [u8; 16] = header[24..40].try_into().expect("16 bytes");
            let destination = destination_ipv6(Ipv6Addr::from(target));
            (ETHER_TYPE_IPV6, lan.member(Ipv6Addr::from(source)), destination)
        }
        _ => return Err(NicDrop::Malformed),
    };
    let source = from.map(|member| lan.mac(member)).ok_or(NicDrop::Malformed)?;
    Ok(header(destination.unwrap_or(own), source, ether_type))
}

/// The bytes of an Ethernet header.
pub fn header(destination: MacAddress, source: MacAddress, ether_type: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..6].copy_from_slice(&destination.0);
    header[6..12].copy_from_slice(&source.0);
    header[12..].copy_from_slice(&ether_type.to_be_bytes());
    header
}

/// `None` for unicast: the frame is for the host itself. Multicast as in RFC 1112 §6.4.
fn destination_ipv4(lan: &Lan, address: Ipv4Addr) -> Option<MacAddress> {
    let [_, b, c, d] = address.octets();
    match address {
        _ if address.is_broadcast() || address == lan.networks.broadcast() => {
            Some(MacAddress::BROADCAST)
        }
        _ if address.is_multicast() => Some(MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d])),
        _ => None,
    }
}

/// `None` for unicast. Multicast as in RFC 2464 §7.
fn destination_ipv6(address: Ipv6Addr) -> Option<MacAddress> {
    let [.., a, b, c, d] = address.octets();
    address.is_multicast().then_some(MacAddress([0x33, 0x33, a, b, c, d]))
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use lanrage_client_core::Networks;
    use lanrage_proto::{Member, SessionId};
    use proptest::prelude::*;

    use super::*;

    const OWN: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn lan() -> Lan {
        Lan {
            session: SessionId(1),
            me: Member::new(1).unwrap(),
            networks: Networks {
                subnet: Ipv4Addr::new(10, 66, 5, 0),
                prefix: "fd00:1:2:3::".parse().unwrap(),
            },
        }
    }

    fn udp(source: [u8; 4], destination: [u8; 4]) -> Vec<u8> {
        let builder = PacketBuilder::ipv4(source, destination, 64).udp(5, 6);
        let mut packet = Vec::new();
        builder.write(&mut packet, b"hello").unwrap();
        packet
    }

    #[test]
    fn padding_behind_the_packet_is_cut_off() {
        let packet = udp([10, 66, 5, 1], [10, 66, 5, 2]);
        let mut frame = header(MacAddress::BROADCAST, OWN, ETHER_TYPE_IPV4).to_vec();
        frame.extend_from_slice(&packet);
        frame.resize(60, 0);
        assert_eq!(parse(&frame, OWN), Ok(FromHost::Packet(14..14 + packet.len())));
    }

    #[test]
    fn each_malformation_has_its_reason() {
        let packet = udp([10, 66, 5, 1], [10, 66, 5, 2]);
        let frame = |source: MacAddress, kind: u16, payload: &[u8]| {
            [&header(MacAddress::BROADCAST, source, kind)[..], payload].concat()
        };
        let cut = &packet[..packet.len() - 1];
        for (frame, reason) in [
            (vec![0; 13], NicDrop::Malformed),
            (frame(MacAddress([4; 6]), ETHER_TYPE_IPV4, &packet), NicDrop::ForeignSource),
            (frame(OWN, 0x8137, &packet), NicDrop::EtherType),
            (frame(OWN, ETHER_TYPE_IPV4, cut), NicDrop::Malformed),
            (frame(OWN, ETHER_TYPE_IPV6, &packet), NicDrop::Malformed),
            (frame(OWN, ETHER_TYPE_IPV4, &[]), NicDrop::Malformed),
        ] {
            assert_eq!(parse(&frame, OWN), Err(reason));
        }
    }

    #[test]
    fn frames_for_the_host_carry_the_sender_and_the_right_destination() {
        let lan = lan();
        let two = Member::new(2).unwrap();
        for (destination, mac) in [
            ([10, 66, 5, 1], lan.own_mac()),
            ([10, 66, 5, 255], MacAddress::BROADCAST),
            ([255, 255, 255, 255], MacAddress::BROADCAST),
            ([224, 128, 2, 60], MacAddress([1, 0, 0x5e, 0, 2, 60])),
        ] {
            let header_bytes = header_for_host(&lan, &udp([10, 66, 5, 2], destination)).unwrap();
            assert_eq!(header_bytes, header(mac, lan.mac(two), ETHER_TYPE_IPV4));
        }
        let stranger = udp([10, 66, 6, 2], [10, 66, 5, 1]);
        assert_eq!(header_for_host(&lan, &stranger), Err(NicDrop::Malformed));
    }

    #[test]
    fn ipv6_multicast_maps_its_last_four_bytes() {
        let source = Networks::link_local(Member::new(9).unwrap()).octets();
        let group: Ipv6Addr = "ff02::1:ff00:2".parse().unwrap();
        let mut packet = Vec::new();
        PacketBuilder::ipv6(source, group.octets(), 1).udp(5, 6).write(&mut packet, b"x").unwrap();
        let header_bytes = header_for_host(&lan(), &packet).unwrap();
        assert_eq!(header_bytes[..6], [0x33, 0x33, 0xff, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let own = frame.get(6..12).map_or(OWN, |mac| MacAddress(mac.try_into().unwrap()));
            let _parsed = parse(&frame, own);
            let _header = header_for_host(&lan(), &frame);
        }
    }
}
