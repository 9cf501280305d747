//! Answers the host's ARP (RFC 826) and neighbour solicitations (RFC 4861) in the place of the
//! other members. Nothing of either crosses the tunnels.

use std::net::{Ipv4Addr, Ipv6Addr};

use lanrage_proto::Member;

use super::ethernet::{ETHER_TYPE_ARP, ETHER_TYPE_IPV6, HEADER_LEN, header};
use super::{Lan, MacAddress, MemberSet, NicDrop};

const ARP_LEN: usize = 28;
const IPV6_HEADER_LEN: usize = 40;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Type, code, checksum, reserved, target.
const SOLICITATION_LEN: usize = 24;
/// An advertisement with its target link-layer address option.
const ADVERTISEMENT_LEN: usize = 24 + 8;

/// An ARP reply in its frame.
pub type ArpReply = [u8; HEADER_LEN + ARP_LEN];
/// A neighbour advertisement in its frame.
pub type Advertisement = [u8; HEADER_LEN + IPV6_HEADER_LEN + ADVERTISEMENT_LEN];

/// The answer to an ARP request of the host.
///
/// The host's probes and announcements of its own address (RFC 5227) get none, or it would see a
/// conflict with itself.
///
/// # Errors
/// [`NicDrop::Malformed`], or [`NicDrop::NobodyAnswers`].
pub fn answer_arp(lan: &Lan, online: &MemberSet, arp: &[u8]) -> Result<ArpReply, NicDrop> {
    let arp: &[u8; ARP_LEN] = arp.first_chunk().ok_or(NicDrop::Malformed)?;
    // Hardware Ethernet, protocol IPv4, lengths 6 and 4.
    if arp[..6] != [0, 1, 0x08, 0, 6, 4] {
        return Err(NicDrop::Malformed);
    }
    const REQUEST: [u8; 2] = [0, 1];
    let target = Ipv4Addr::from([arp[24], arp[25], arp[26], arp[27]]);
    let member = lan.member(target).filter(|member| answers(lan, online, *member));
    let member = member.filter(|_| arp[6..8] == REQUEST).ok_or(NicDrop::NobodyAnswers)?;

    let (own, mac) = (lan.own_mac(), lan.mac(member));
    let mut reply = [0; HEADER_LEN + ARP_LEN];
    reply[..HEADER_LEN].copy_from_slice(&header(own, mac, ETHER_TYPE_ARP));
    let body = &mut reply[HEADER_LEN..];
    body[..8].copy_from_slice(&[0, 1, 0x08, 0, 6, 4, 0, 2]);
    body[8..14].copy_from_slice(&mac.0);
    body[14..18].copy_from_slice(&target.octets());
    // The asker's hardware and protocol address, as it gave them.
    body[18..28].copy_from_slice(&arp[8..18]);
    Ok(reply)
}

/// Whether a packet of the host is a neighbour solicitation.
pub fn is_solicitation(packet: &[u8]) -> bool {
    packet.first().is_some_and(|byte| byte >> 4 == 6)
        && packet.get(6) == Some(&ICMPV6)
        && packet.get(IPV6_HEADER_LEN) == Some(&SOLICITATION)
}

/// The answer to a packet that [`is_solicitation`] told apart.
///
/// # Errors
/// [`NicDrop::Malformed`] when a check of RFC 4861 §7.1.1 fails, or [`NicDrop::NobodyAnswers`].
pub fn answer_solicitation(
    lan: &Lan,
    online: &MemberSet,
    packet: &[u8],
) -> Result<Advertisement, NicDrop> {
    let (ipv6, message) =
        packet.split_first_chunk::<IPV6_HEADER_LEN>().ok_or(NicDrop::Malformed)?;
    let solicitation: &[u8; SOLICITATION_LEN] = message.first_chunk().ok_or(NicDrop::Malformed)?;
    let (source, destination) = (ipv6_address(&ipv6[8..24]), ipv6_address(&ipv6[24..40]));
    let target = ipv6_address(&solicitation[8..24]);
    let untouched_by_routers = ipv6[7] == 255;
    let whole = checksum(source, destination, message) == 0;
    if !untouched_by_routers || solicitation[1] != 0 || !whole || target.is_multicast() {
        return Err(NicDrop::Malformed);
    }
    let member = lan.member(target).filter(|member| answers(lan, online, *member));
    Ok(advertisement(lan, source, target, member.ok_or(NicDrop::NobodyAnswers)?))
}

/// RFC 4861 §4.4. A solicitation from `::` looks for duplicates and is answered to all nodes.
fn advertisement(lan: &Lan, asker: Ipv6Addr, target: Ipv6Addr, member: Member) -> Advertisement {
    const SOLICITED_OVERRIDE: u8 = 0x60;
    const OVERRIDE: u8 = 0x20;
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mac = lan.mac(member);
    let (to_mac, to, flags) = match asker.is_unspecified() {
        true => (MacAddress([0x33, 0x33, 0, 0, 0, 1]), ALL_NODES, OVERRIDE),
        false => (lan.own_mac(), asker, SOLICITED_OVERRIDE),
    };
    let mut message = [0; ADVERTISEMENT_LEN];
    message[0] = ADVERTISEMENT;
    message[4] = flags;
    message[8..24].copy_from_slice(&target.octets());
    // Option: target link-layer address, one unit of 8 bytes.
    message[24..26].copy_from_slice(&[2, 1]);
    message[26..].copy_from_slice(&mac.0);
    let sum = checksum(target, to, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());

    let mut frame = [0; HEADER_LEN + IPV6_HEADER_LEN + ADVERTISEMENT_LEN];
    frame[..HEADER_LEN].copy_from_slice(&header(to_mac, mac, ETHER_TYPE_IPV6));
    let packet = &mut frame[HEADER_LEN..];
    packet[0] = 0x60;
    packet[5] = ADVERTISEMENT_LEN as u8;
    packet[6..8].copy_from_slice(&[ICMPV6, 255]);
    packet[8..24].copy_from_slice(&target.octets());
    packet[24..40].copy_from_slice(&to.octets());
    packet[40..].copy_from_slice(&message);
    frame
}

fn answers(lan: &Lan, online: &MemberSet, member: Member) -> bool {
    member != lan.me && online.contains(member)
}

fn ipv6_address(bytes: &[u8]) -> Ipv6Addr {
    let octets: [u8; 16] = bytes.try_into().expect("the caller takes 16 bytes");
    Ipv6Addr::from(octets)
}

/// RFC 4443 §2.3; 0 over a message whose checksum is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u32 {
        bytes
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])))
            .sum()
    };
    let pseudo_header = words(&source.octets()) + words(&destination.octets());
    let mut sum = pseudo_header + message.len() as u32 + u32::from(ICMPV6) + words(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use etherparse::{Icmpv6Header, Icmpv6Type, Ipv6Header, PacketHeaders, TransportHeader};
    use lanrage_client_core::Networks;
    use lanrage_proto::SessionId;
    use proptest::prelude::*;

    use super::*;

    fn member(number: u8) -> Member {
        Member::new(number).unwrap()
    }

    fn lan() -> Lan {
        Lan {
            session: SessionId(1),
            me: member(1),
            networks: Networks {
                subnet: Ipv4Addr::new(10, 66, 5, 0),
                prefix: "fd00:1:2:3::".parse().unwrap(),
            },
        }
    }

    fn online() -> MemberSet {
        [member(1), member(2)].into_iter().collect()
    }

    fn request(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let own = lan().mac(member(1)).0;
        [&[0, 1, 8, 0, 6, 4, 0, 1][..], &own, &sender, &[0; 6], &target].concat()
    }

    #[test]
    fn online_member_answers_arp() {
        let lan = lan();
        let reply = answer_arp(&lan, &online(), &request([10, 66, 5, 1], [10, 66, 5, 2])).unwrap();
        let (own, mac) = (lan.mac(member(1)), lan.mac(member(2)));
        assert_eq!(reply[..14], header(own, mac, ETHER_TYPE_ARP));
        let expected =
            [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac.0, &[10, 66, 5, 2], &own.0, &[10, 66, 5, 1]]
                .concat();
        assert_eq!(reply[14..], expected);
    }

    #[test]
    fn nobody_answers_arp_for_the_host_the_absent_and_strangers() {
        for (sender, target) in [
            ([10, 66, 5, 1], [10, 66, 5, 3]),
            ([10, 66, 5, 1], [10, 66, 6, 2]),
            ([10, 66, 5, 1], [10, 66, 5, 255]),
            ([0, 0, 0, 0], [10, 66, 5, 1]),
            ([10, 66, 5, 1], [10, 66, 5, 1]),
        ] {
            let answer = answer_arp(&lan(), &online(), &request(sender, target));
            assert_eq!(answer, Err(NicDrop::NobodyAnswers), "{target:?}");
        }
        let mut reply = request([10, 66, 5, 1], [10, 66, 5, 2]);
        reply[7] = 2;
        assert_eq!(answer_arp(&lan(), &online(), &reply), Err(NicDrop::NobodyAnswers));
        let mut token_ring = request([10, 66, 5, 1], [10, 66, 5, 2]);
        token_ring[1] = 6;
        assert_eq!(answer_arp(&lan(), &online(), &token_ring), Err(NicDrop::Malformed));
    }

    fn solicitation(source: Ipv6Addr, target: Ipv6Addr, hop_limit: u8) -> Vec<u8> {
        let destination: Ipv6Addr = "ff02::1:ff00:2".parse().unwrap();
        let body = [&[0; 4][..], &target.octets(), &[1, 1], &lan().mac(member(1)).0].concat();
        let icmp = Icmpv6Header::with_checksum(
            Icmpv6Type::Unknown {
                type_u8: 135,
                code_u8: 0,
                bytes5to8: body[..4].try_into().unwrap(),
            },
            source.octets(),
            destination.octets(),
            &body[4..],
        )
        .unwrap();
        let ip = Ipv6Header {
            payload_length: (8 + body.len() - 4) as u16,
            next_header: etherparse::IpNumber::IPV6_ICMP,
            hop_limit,
            source: source.octets(),
            destination: destination.octets(),
            ..Ipv6Header::default()
        };
        [&ip.to_bytes()[..], &icmp.to_bytes(), &body[4..]].concat()
    }

    #[test]
    fn online_member_answers_solicitations_for_both_its_addresses() {
        let lan = lan();
        let asker = Networks::link_local(member(1));
        for target in [lan.networks.ipv6(member(2)), Networks::link_local(member(2))] {
            let packet = solicitation(asker, target, 255);
            assert!(is_solicitation(&packet));
            let frame = answer_solicitation(&lan, &online(), &packet).unwrap();
            let parsed = PacketHeaders::from_ethernet_slice(&frame).unwrap();
            let ethernet = parsed.link.unwrap().ethernet2().unwrap();
            assert_eq!(ethernet.source, lan.mac(member(2)).0);
            assert_eq!(ethernet.destination, lan.mac(member(1)).0);
            let Some(TransportHeader::Icmpv6(icmp)) = parsed.transport else { panic!() };
            let body = parsed.payload.slice();
            let expected =
                icmp.icmp_type.calc_checksum(target.octets(), asker.octets(), body).unwrap();
            assert_eq!(icmp.checksum, expected);
            assert_eq!(frame[14 + 40], 136);
            assert_eq!(frame[14 + 40 + 4], 0x60, "solicited, override");
            assert_eq!(frame[14 + 40 + 8..14 + 40 + 24], target.octets());
            assert_eq!(frame[frame.len() - 6..], lan.mac(member(2)).0);
        }
    }

    #[test]
    fn nobody_answers_for_the_hosts_own_tentative_address_or_the_absent() {
        let lan = lan();
        let unspecified = Ipv6Addr::UNSPECIFIED;
        for (source, target) in [
            (unspecified, Networks::link_local(member(1))),
            (unspecified, lan.networks.ipv6(member(1))),
            (Networks::link_local(member(1)), Networks::link_local(member(3))),
            (Networks::link_local(member(1)), "fd00:1:2:4::2".parse().unwrap()),
        ] {
            let packet = solicitation(source, target, 255);
            let answer = answer_solicitation(&lan, &online(), &packet);
            assert_eq!(answer, Err(NicDrop::NobodyAnswers), "{target}");
        }
    }

    #[test]
    fn search_for_duplicates_of_a_taken_address_is_answered_to_all() {
        let lan = lan();
        let packet = solicitation(Ipv6Addr::UNSPECIFIED, lan.networks.ipv6(member(2)), 255);
        let frame = answer_solicitation(&lan, &online(), &packet).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!(frame[14 + 40 + 4], 0x20, "override, not solicited");
    }

    #[test]
    fn routed_or_damaged_solicitations_are_malformed() {
        let lan = lan();
        let asker = Networks::link_local(member(1));
        let routed = solicitation(asker, lan.networks.ipv6(member(2)), 64);
        assert_eq!(answer_solicitation(&lan, &online(), &routed), Err(NicDrop::Malformed));
        let mut damaged = solicitation(asker, lan.networks.ipv6(member(2)), 255);
        damaged[70] ^= 1;
        assert_eq!(answer_solicitation(&lan, &online(), &damaged), Err(NicDrop::Malformed));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let _arp = answer_arp(&lan(), &online(), &bytes);
            if is_solicitation(&bytes) {
                let _nd = answer_solicitation(&lan(), &online(), &bytes);
            }
        }
    }
}
