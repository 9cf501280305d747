//! What never crosses (design §6): the protocols that would let one member configure another's
//! host, and addresses that are not the sender's.

use etherparse::IpNumber;
use lanrage_proto::Member;

use super::packet::IpPacket;
use crate::addresses::{Networks, Owner};
use crate::counters::DropReason;

const PORT_DHCP: [u16; 2] = [67, 68];
const PORT_DHCPV6: [u16; 2] = [546, 547];
const PORT_LLMNR: u16 = 5355;
const PORT_MDNS: u16 = 5353;
const PORT_NETBIOS_NAME: u16 = 137;

/// The member that a packet from our NIC is for.
pub(crate) fn outbound(
    packet: &IpPacket<'_>,
    networks: &Networks,
    us: Member,
) -> Result<Member, DropReason> {
    if networks.owner(packet.source) != Owner::Member(us) {
        return Err(DropReason::ForeignSource);
    }
    may_cross(packet)?;
    match networks.owner(packet.destination) {
        Owner::Member(member) if member != us => Ok(member),
        Owner::Member(_) | Owner::Nobody => Err(DropReason::NoSuchMember),
        Owner::Group => Err(DropReason::GroupTraffic),
    }
}

/// Whether a packet from a member's tunnel may go to our NIC.
pub(crate) fn inbound(
    packet: &IpPacket<'_>,
    networks: &Networks,
    (from, us): (Member, Member),
) -> Result<(), DropReason> {
    if networks.owner(packet.source) != Owner::Member(from)
        || networks.owner(packet.destination) != Owner::Member(us)
    {
        return Err(DropReason::ForeignAddress);
    }
    may_cross(packet)
}

fn may_cross(packet: &IpPacket<'_>) -> Result<(), DropReason> {
    match packet.protocol {
        IpNumber::ICMP if icmp_type(packet) == Some(5) => Err(DropReason::Discovery),
        // Router and neighbour discovery, redirect (RFC 4861); fragmented ones are never valid
        // (RFC 6980 §5).
        IpNumber::IPV6_ICMP if matches!(icmp_type(packet), Some(133..=137)) => {
            Err(DropReason::Discovery)
        }
        IpNumber::UDP => udp_may_cross(packet),
        IpNumber::TCP => match packet.ports() {
            Some((PORT_LLMNR, _)) => Err(DropReason::NameAnswer),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn icmp_type(packet: &IpPacket<'_>) -> Option<u8> {
    packet.transport.first().copied()
}

fn udp_may_cross(packet: &IpPacket<'_>) -> Result<(), DropReason> {
    let Some((source, destination)) = packet.ports() else { return Ok(()) };
    let either = |ports: &[u16]| ports.contains(&source) || ports.contains(&destination);
    if either(&PORT_DHCP) || either(&PORT_DHCPV6) {
        return Err(DropReason::Dhcp);
    }
    let message = packet.transport.get(8..).unwrap_or_default();
    let answers = is_answer(message);
    let redirects = source == PORT_LLMNR
        || destination == PORT_LLMNR && answers
        || either(&[PORT_MDNS]) && answers && names(message, b"\x04wpad")
        // NetBIOS writes each half of a byte as a letter from A on (RFC 1001 §14.1).
        || either(&[PORT_NETBIOS_NAME]) && answers && names(message, b"FHFAEBEE");
    if redirects { Err(DropReason::NameAnswer) } else { Ok(()) }
}

/// The QR bit of a DNS header, which LLMNR, mDNS and NetBIOS share (RFC 1035 §4.1.1).
fn is_answer(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x80 != 0)
}

fn names(message: &[u8], name: &[u8]) -> bool {
    message.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name))
}
