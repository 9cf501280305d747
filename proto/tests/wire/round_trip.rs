//! What is written is read back the same, for every value.

use std::net::Ipv4Addr;

use lanrage_proto::bytes::{DeviceKey, RootHash, Token};
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound};
use lanrage_proto::frame::challenge::{Challenge, Unsupported};
use lanrage_proto::frame::control::Sealed;
use lanrage_proto::frame::data::{Delivered, SelfProbe, Sent, overwrite_for_delivery};
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::frame::resume::{Resume, Resumed, TICKET_LEN_MAX};
use lanrage_proto::handshake::{Initiator, Responder};
use lanrage_proto::ids::{Epoch, Generation, Handle, SessionId, Tag};
use lanrage_proto::inner::Message;
use lanrage_proto::party::{
    Entry, EntryBody, EpochCopy, Invite, InviteKey, ServerAddress, commitment,
};
use lanrage_proto::signed::{KickRecord, RelayCertificate, Ticket};
use lanrage_proto::{api, stun};
use proptest::collection::vec;
use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::arbitrary as arb;
use crate::samples::{Counting, public};

proptest! {
    #[test]
    fn data(egress in arb::relay(), destination in arb::destination(), source in arb::member(),
            (handle, tag) in any::<(u32, u32)>(), ingress in arb::relay(),
            payload in vec(any::<u8>(), 0..64)) {
        let sent = Sent::new(egress, destination, source, Handle(handle), Tag(tag));
        let mut header = sent.encode();
        prop_assert_eq!(Sent::decode(&header), sent);

        overwrite_for_delivery(&mut header, ingress);
        let delivered = Delivered { egress, destination, source, ingress };
        prop_assert_eq!(delivered.encode(), header);
        let frame = [&header[..], &payload].concat();
        prop_assert_eq!(Delivered::decode(&frame), Ok((delivered, &payload[..])));
    }

    #[test]
    fn handle(index in 0..1_u32 << Handle::INDEX_BITS, generation in any::<u8>()) {
        let handle = Handle::new(index, generation);
        prop_assert_eq!((handle.index(), handle.generation()), (index, generation));
    }

    #[test]
    fn small_frames(sequence in any::<u32>(), cookie in any::<u64>(), kind in arb::hint_kind(),
                    (handle, tag) in any::<(u32, u32)>(), nonce in arb::nonce(),
                    versions in any::<(u8, u8)>()) {
        let probe = SelfProbe { sequence, cookie };
        prop_assert_eq!(SelfProbe::decode(&probe.encode()), Some(probe));
        let hint = Hint { kind, handle: Handle(handle), tag: Tag(tag) };
        prop_assert_eq!(Hint::decode(hint.encode(&mut [0; Hint::LEN_MAX])), Ok(hint));
        let (version_min, version_max) = (versions.0.min(versions.1).max(1), versions.0.max(versions.1).max(1));
        let hello = Hello { version_min, version_max, nonce };
        prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        let unsupported = Unsupported { version_min, version_max, nonce };
        prop_assert_eq!(Unsupported::decode(&unsupported.encode()), Ok(unsupported));
    }

    #[test]
    fn challenge(nonce in arb::nonce(), certificate in arb::certificate(), cookie in arb::cookie()) {
        let challenge = Challenge { nonce, certificate, cookie };
        prop_assert_eq!(Challenge::decode(&challenge.encode()), Ok(challenge));
    }

    #[test]
    fn signed(ticket in arb::ticket(), certificate in arb::certificate(), kick in arb::kick(),
              signer in arb::signing_key()) {
        prop_assert_eq!(Ticket::decode(&ticket.encode()), Ok(ticket));
        prop_assert_eq!(KickRecord::decode(&kick.encode()), Ok(kick));
        let certificate = certificate.sign(&signer);
        prop_assert_eq!(RelayCertificate::decode(&certificate.encode()), Ok(certificate));
        let keys = [(certificate.key_id, signer.verifying_key().to_bytes())];
        prop_assert!(certificate.verify(keys.as_slice(), certificate.not_after).is_ok());
    }

    #[test]
    fn handshake((client, relay, client_seed, relay_seed) in any::<([u8; 32], [u8; 32], [u8; 32], [u8; 32])>(),
                 exchange in (arb::nonce(), arb::cookie(), arb::relay()), ticket in arb::ticket(),
                 instance in any::<[u8; 16]>(), stamp in any::<u64>(), result in arb::bind_result()) {
        let request = BindRequest { ticket, instance, stamp };
        let (nonce, cookie, relay_id) = exchange;
        let (mut initiator, noise) =
            Initiator::start(&client, &public(relay), exchange, &request.encode(), client_seed).unwrap();
        let frame = Bind { nonce, cookie, noise: &noise }.encode();
        prop_assert_eq!(frame.len(), Bind::LEN);

        let bind = Bind::decode(&frame).unwrap();
        let (responder, payload) = Responder::accept(&relay, &bind, relay_id, relay_seed).unwrap();
        prop_assert_eq!(responder.client(), public(client));
        prop_assert_eq!(BindRequest::decode(&payload), Ok(request));

        let frame = Bound { nonce, noise: &responder.answer(&result) }.encode();
        let bound = Bound::decode(&frame).unwrap();
        let payload = initiator.finish(bound.noise).unwrap();
        prop_assert_eq!(BindResult::decode(&payload), Ok(result));
    }

    #[test]
    fn control(message in arb::control_message(), keys in any::<([u8; 32], [u8; 32])>(),
               handle in any::<u32>(), counter in any::<u64>()) {
        let frame = message.seal(&keys.0, Handle(handle), counter);
        let sealed = Sealed::decode(&frame).unwrap();
        prop_assert_eq!((sealed.handle, sealed.counter), (Handle(handle), counter));
        prop_assert_eq!(sealed.open(&keys.0), Ok(message));
        prop_assert_eq!(sealed.open(&keys.1).is_ok(), keys.0 == keys.1);
    }

    #[test]
    fn resume(nonce in arb::nonce(), cookie in arb::cookie(), relay in arb::relay(),
              ticket in vec(any::<u8>(), 1..=TICKET_LEN_MAX), key in any::<[u8; 32]>(), result in arb::bind_result()) {
        let question = Resume::new(nonce, cookie, &ticket, &key, relay);
        let frame = question.encode();
        let decoded = Resume::decode(&frame).unwrap();
        prop_assert_eq!(decoded, question);
        prop_assert!(decoded.proves(&key, relay));
        let frame = Resumed::seal(&decoded, &key, &result);
        prop_assert_eq!(Resumed::decode(&frame).unwrap().open(&key, cookie), Ok(result));
    }

    #[test]
    fn inner(id in any::<u64>(), sequence in any::<u32>(), leases in arb::leases(), kick in arb::kick(),
             secret in arb::secret(), (count, index) in (1..=255_u8).prop_flat_map(|c| (Just(c), 0..c)),
             piece in vec(any::<u8>(), 1..1400), addresses in any::<(Ipv4Addr, Ipv4Addr)>()) {
        for message in [
            Message::Echo { id },
            Message::EchoReply { id },
            Message::Leases { sequence, leases },
            Message::LeasesAck { sequence },
            Message::NewEpoch { record: Box::new(kick), secret },
            Message::NewEpochAck { epoch: Epoch(sequence) },
            Message::Fragment { id: id as u16, index, count, piece: &piece },
        ] {
            let packet = message.encode(addresses.0, addresses.1);
            prop_assert!(lanrage_proto::inner::is_message(&packet));
            prop_assert_eq!(ones_complement_sum(&packet[..20]), 0xffff, "RFC 791: a sum of ones");
            prop_assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), packet.len());
            prop_assert_eq!(Message::decode(&packet), Ok(message));
        }
    }

    #[test]
    fn entry(session in arb::session(), member in arb::member(), name in arb::name(),
             generation in any::<u32>(), device in arb::signing_key(), tunnel in any::<[u8; 32]>(),
             secrets in (arb::secret(), arb::secret()), epoch in any::<u32>()) {
        let body = EntryBody {
            session,
            member,
            generation: Generation(generation),
            name,
            device: DeviceKey(device.verifying_key().to_bytes()),
            tunnel: lanrage_proto::TunnelKey(tunnel),
        };
        let entry = body.sign(&device, &secrets.0, Epoch(epoch));
        prop_assert!(entry.is_genuine(&secrets.0));
        prop_assert_eq!(entry.is_genuine(&secrets.1), secrets.0 == secrets.1);
        let json = serde_json::to_string(&entry).unwrap();
        prop_assert_eq!(serde_json::from_str::<Entry>(&json).unwrap(), entry);
    }

    #[test]
    fn epoch_copy(session in arb::session(), ends in (arb::member(), arb::member()), epochs in any::<(u32, u32)>(),
                  keys in any::<([u8; 32], [u8; 32])>(), secrets in (arb::secret(), arb::secret())) {
        let (from, to) = (keys.0.into(), keys.1.into());
        let (epoch, old) = (Epoch(epochs.0), Epoch(epochs.1.max(1)));
        for under in [None, Some((old, &secrets.0))] {
            let copy = EpochCopy::seal(
                session, (epoch, &secrets.1), under, (ends.0, &from), (ends.1, &public(keys.1)),
                &mut Counting(0),
            ).unwrap();
            let json = serde_json::to_string(&copy).unwrap();
            let decoded: EpochCopy = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(&decoded, &copy);
            prop_assert_eq!(decoded.open(session, &to, (old, &secrets.0)), Ok(secrets.1));
            let elsewhere = decoded.open(session, &to, (old.next(), &secrets.0));
            prop_assert_eq!(elsewhere.is_ok(), under.is_none());
        }
    }

    #[test]
    fn a_commitment_is_of_one_secret_session_and_epoch(
        secret in arb::secret(), at in 0..32_usize, flip in 1..=u8::MAX, session in arb::session(), epoch in any::<u32>(),
    ) {
        let made = commitment(&secret, session, Epoch(epoch));
        let mut other = secret;
        other.0[at] ^= flip;
        prop_assert_ne!(commitment(&other, session, Epoch(epoch)), made);
        prop_assert_ne!(commitment(&secret, SessionId(session.0 ^ 1), Epoch(epoch)), made);
        prop_assert_ne!(commitment(&secret, session, Epoch(epoch).next()), made);
    }

    #[test]
    fn invite(host in "[a-z0-9.-]{1,40}|\\[2001:db8::[0-9a-f]{1,4}\\]", port in 1..=u16::MAX,
              key in any::<[u8; 32]>(), root in any::<[u8; 32]>(), secret in arb::secret(),
              session in arb::session(), epoch in any::<u32>()) {
        let invite = Invite { host, port, key: InviteKey(Zeroizing::new(key)), root: RootHash(root) };
        let text = invite.to_string();
        prop_assert_eq!(text.parse::<Invite>(), Ok(invite.clone()));
        let sealed = invite.key.seal(session, Epoch(epoch), &secret, &mut Counting(0));
        prop_assert_eq!(invite.key.open(session, &sealed), Ok((Epoch(epoch), secret)));

        let address = ServerAddress { host: invite.host, port, root: RootHash(root) };
        prop_assert_eq!(address.to_string().parse(), Ok(address));
        let token = api::EnrolmentToken { root: RootHash(root), secret: Token(key) };
        prop_assert_eq!(token.to_string().parse(), Ok(token));
    }

    #[test]
    fn stun_response(id in any::<[u8; 12]>(), client in arb::address()) {
        let id = stun::TransactionId(id);
        prop_assert_eq!(stun::binding_request(&stun::encode_request(id)), Some(id));
        let mut buffer = [0xa5; stun::RESPONSE_LEN_MAX];
        let response = stun::encode_response(id, client, &mut buffer);
        let mask = [&stun::MAGIC_COOKIE.to_be_bytes()[..], &id.0].concat();
        let octets: Vec<u8> = response[28..].iter().zip(&mask).map(|(a, b)| a ^ b).collect();
        let port = u16::from_be_bytes([response[26] ^ mask[0], response[27] ^ mask[1]]);
        prop_assert_eq!(port, client.port());
        match client.ip() {
            std::net::IpAddr::V4(ip) => prop_assert_eq!(&octets[..], ip.octets()),
            std::net::IpAddr::V6(ip) => prop_assert_eq!(&octets[..], ip.octets()),
        }
    }
}

fn ones_complement_sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |sum, pair| {
        let (sum, carry) = u16::overflowing_add(sum, u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carry)
    })
}
