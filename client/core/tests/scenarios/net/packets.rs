//! IP packets as a host's NIC gives them.

use std::net::IpAddr;

use etherparse::PacketBuilder;

fn builder(from: IpAddr, to: IpAddr) -> etherparse::PacketBuilderStep<etherparse::IpHeaders> {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), 64),
        _ => panic!("two families in one packet"),
    }
}

pub(crate) fn udp(from: IpAddr, to: IpAddr, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(from, to).udp(ports.0, ports.1).write(&mut packet, payload).unwrap();
    packet
}

pub(crate) fn tcp_syn(from: IpAddr, to: IpAddr, mss: u16) -> Vec<u8> {
    let mut packet = Vec::new();
    let options =
        [etherparse::TcpOptionElement::Noop, etherparse::TcpOptionElement::MaximumSegmentSize(mss)];
    let tcp = builder(from, to).tcp(1000, 2000, 1, 65535).syn().options(&options).unwrap();
    tcp.write(&mut packet, &[]).unwrap();
    packet
}

pub(crate) fn icmpv6(from: IpAddr, to: IpAddr, kind: u8) -> Vec<u8> {
    let mut packet = Vec::new();
    builder(from, to).icmpv6_raw(kind, 0, [0; 4]).write(&mut packet, &[0; 32]).unwrap();
    packet
}

/// The MSS that a SYN made by [`tcp_syn`] carries, and whether its checksum holds.
pub(crate) fn mss_of(packet: &[u8]) -> (u16, bool) {
    let sliced = etherparse::SlicedPacket::from_ip(packet).unwrap();
    let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
    let mss = tcp.options_iterator().find_map(|option| match option {
        Ok(etherparse::TcpOptionElement::MaximumSegmentSize(mss)) => Some(mss),
        _ => None,
    });
    let header = tcp.to_header();
    let sum = match sliced.net.unwrap() {
        etherparse::NetSlice::Ipv4(ip) => {
            header.calc_checksum_ipv4_raw(ip.header().source(), ip.header().destination(), &[])
        }
        etherparse::NetSlice::Ipv6(ip) => {
            header.calc_checksum_ipv6_raw(ip.header().source(), ip.header().destination(), &[])
        }
        _ => panic!("no IP"),
    };
    (mss.unwrap(), sum.unwrap() == header.checksum)
}
