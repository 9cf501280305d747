use std::net::Ipv4Addr;
use std::sync::LazyLock;

use lanrage_proto::bytes::TunnelKey;
use lanrage_proto::datagram::{Kind, kind};
use lanrage_proto::frame::Cookie;
use lanrage_proto::frame::bind::{Bind, BindRequest, BindResult, Bound};
use lanrage_proto::frame::challenge::{Challenge, Unsupported};
use lanrage_proto::frame::control::{Message as Control, Sealed};
use lanrage_proto::frame::data::{Delivered, SelfProbe, Sent};
use lanrage_proto::frame::hello::Hello;
use lanrage_proto::frame::hint::Hint;
use lanrage_proto::frame::mesh::{
    DATAGRAM_LEN_MAX, DELIVERED, HEADER_LEN, MeshEpoch, MeshHeader, MeshKey, MeshSecret,
};
use lanrage_proto::frame::resume::{Resume, Resumed};
use lanrage_proto::handshake::Responder;
use lanrage_proto::ids::{Destination, Handle, KeyId, PoolId, RelayId};
use lanrage_proto::inner::{Message, is_message};
use lanrage_proto::signed::{KickRecord, RelayCertificate, Ticket};
use lanrage_proto::stun as format;
use x25519_dalek::{PublicKey, StaticSecret};

/// The keys of `proto/tests/golden`, so that its frames open.
const TO_RELAY: [u8; 32] = run(0xa0);
const TO_CLIENT: [u8; 32] = run(0xc0);
const RESUMPTION: [u8; 32] = run(0xe0);
const RELAY_PRIVATE: [u8; 32] = [5; 32];
const RELAY: RelayId = RelayId(0x0203);

const fn run<const N: usize>(first: u8) -> [u8; N] {
    let mut bytes = [0; N];
    let mut at = 0;
    while at < N {
        bytes[at] = first.wrapping_add(at as u8);
        at += 1;
    }
    bytes
}

fn golden_cookie() -> Cookie {
    let mut cookie = [0; Cookie::LEN];
    cookie[3] = 7;
    cookie[4..].copy_from_slice(&run::<16>(0x20));
    Cookie(cookie)
}

/// Frames that a client receives, and what may stand sealed inside them.
pub fn client_frame(bytes: &[u8]) {
    let kind = kind(bytes);
    if let Ok((header, payload)) = Delivered::decode(bytes) {
        assert_eq!(kind, Kind::Data);
        assert_eq!([&header.encode()[..], payload].concat(), bytes);
    }
    if let Ok(hint) = Hint::decode(bytes) {
        assert_eq!(kind, Kind::Hint);
        assert_eq!(hint.encode(&mut [0; Hint::LEN_MAX]), bytes);
    }
    if let Ok(challenge) = Challenge::decode(bytes) {
        assert_eq!(kind, Kind::Challenge);
        assert_eq!(challenge.encode(), bytes);
    }
    if let Ok(unsupported) = Unsupported::decode(bytes) {
        assert_eq!(kind, Kind::Unsupported);
        assert_eq!(Unsupported::decode(&unsupported.encode()), Ok(unsupported));
    }
    if let Ok(bound) = Bound::decode(bytes) {
        assert_eq!(kind, Kind::Bound);
        assert_eq!(bound.encode(), bytes);
    }
    if let Ok(resumed) = Resumed::decode(bytes) {
        assert_eq!(kind, Kind::Resumed);
        if let Ok(result) = resumed.open(&RESUMPTION, golden_cookie()) {
            assert_canonical(&result, result.encode().as_slice());
        }
    }
    control(bytes, &TO_CLIENT);
    if let Ok(result) = BindResult::decode(bytes) {
        assert_eq!(result.encode().as_slice(), bytes);
    }
    if let Some(probe) = SelfProbe::decode(bytes) {
        assert_eq!(probe.encode(), bytes);
    }
}

fn assert_canonical(result: &BindResult, bytes: &[u8]) {
    assert_eq!(BindResult::decode(bytes).as_ref(), Ok(result));
}

/// Frames that a relay receives, and what may stand sealed inside them.
pub fn relay_frame(bytes: &[u8]) {
    let kind = kind(bytes);
    if let Some(header) = bytes.first_chunk().filter(|_| kind == Kind::Data) {
        let sent = Sent::decode(header);
        assert_eq!(sent.encode(), *header);
        if let Some(destination) = Destination::from_wire(sent.destination) {
            assert_eq!(destination.to_wire(), sent.destination);
        }
    }
    mesh(bytes);
    if let Ok(hello) = Hello::decode(bytes) {
        assert_eq!(kind, Kind::Hello);
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
    if let Ok(bind) = Bind::decode(bytes) {
        assert_eq!(kind, Kind::Bind);
        assert_eq!(bind.encode(), bytes);
        if let Ok((_, payload)) = Responder::accept(&RELAY_PRIVATE, &bind, RELAY, [1; 32]) {
            assert_eq!(payload.len(), BindRequest::LEN);
            bind_request(&payload);
        }
    }
    if let Ok(resume) = Resume::decode(bytes) {
        assert_eq!(kind, Kind::Resume);
        assert_eq!(resume.encode(), bytes);
        let right = Resume::new(resume.nonce, resume.cookie, resume.ticket, &RESUMPTION, RELAY);
        assert_eq!(resume.proves(&RESUMPTION, RELAY), resume == right);
    }
    control(bytes, &TO_RELAY);
    bind_request(bytes);
}

/// A header that holds under its key is the one that is written, and becomes a frame as delivered.
fn mesh(bytes: &[u8]) {
    let Some(header) = bytes.first_chunk() else { return };
    let Ok(mesh) = MeshHeader::decode(header) else { return };
    assert!(matches!(kind(bytes), Kind::Mesh | Kind::MeshAbsent));
    let written = mesh.encode(&MESH_KEY, bytes.len());
    assert_eq!(written == *header, MESH_KEY.verifies(header, bytes.len()));
    assert_eq!(MeshHeader::decode(&written), Ok(mesh));
    assert!(!MESH_KEY.verifies(&written, bytes.len() + 1));
    if bytes.len() <= DATAGRAM_LEN_MAX {
        let mut frame = bytes.to_vec();
        mesh.deliver(frame.first_chunk_mut().expect("as long as a header"), RELAY);
        let (delivered, payload) = Delivered::decode(&frame[DELIVERED]).expect("well formed");
        assert_eq!((delivered.ingress, delivered.egress), (mesh.sender, RELAY));
        assert_eq!(payload, &bytes[HEADER_LEN..]);
    }
}

/// Of `proto/tests/golden`.
static MESH_KEY: LazyLock<MeshKey> = LazyLock::new(|| {
    let private = StaticSecret::from([6; 32]);
    let other = TunnelKey(PublicKey::from(&StaticSecret::from(RELAY_PRIVATE)).to_bytes());
    let secret = MeshSecret::agree(&private, &other, PoolId(0x0102)).expect("a usable key");
    secret.key(RELAY, RelayId(0x0304), MeshEpoch(1_700_000_000 / 600))
});

fn bind_request(bytes: &[u8]) {
    if let Ok(request) = BindRequest::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
}

/// A control message opens to what seals to the same bytes, but for REBIND's padding.
fn control(bytes: &[u8], key: &[u8; 32]) {
    let Ok(sealed) = Sealed::decode(bytes) else { return };
    assert_eq!(kind(bytes), Kind::Control);
    match sealed.open(key) {
        Ok(Control::Rebind) | Err(_) => {}
        Ok(message) => assert_eq!(message.seal(key, sealed.handle, sealed.counter), bytes),
    }
    let Handle(handle) = sealed.handle;
    assert_eq!(Handle::new(sealed.handle.index(), sealed.handle.generation()), Handle(handle));
}

/// STUN Binding requests.
pub fn stun(bytes: &[u8]) {
    let Some(id) = format::binding_request(bytes) else { return };
    assert_eq!(kind(bytes), Kind::Stun);
    let bare = format::encode_request(id);
    assert_eq!(format::binding_request(&bare), Some(id));
    if bytes.len() == format::HEADER_LEN {
        assert_eq!(bare, bytes);
    }
    for client in ["192.0.2.1:1", "[2001:db8::1]:65535"] {
        let mut buffer = [0; format::RESPONSE_LEN_MAX];
        let client = client.parse().expect("an address");
        let response = format::encode_response(id, client, &mut buffer);
        assert_eq!(format::binding_request(response), None, "no relay answers an answer");
    }
}

/// Signed structures: nothing made up verifies, and what is read is written the same.
pub fn signed(bytes: &[u8]) {
    let keys = [(KeyId(5), [2; 32])];
    if let Some(Ok(ticket)) = bytes.try_into().ok().map(Ticket::decode) {
        assert_eq!(ticket.encode()[..], *bytes);
        assert!(ticket.verify(keys.as_slice()).is_err());
    }
    if let Some(Ok(certificate)) = bytes.try_into().ok().map(RelayCertificate::decode) {
        assert_eq!(certificate.encode()[..], *bytes);
        assert!(certificate.addresses().all(|address| address.port() != 0));
        assert!(certificate.verify(keys.as_slice(), 0).is_err());
    }
    if let Some(Ok(kick)) = bytes.try_into().ok().map(KickRecord::decode) {
        assert_eq!(kick.encode()[..], *bytes);
        assert!(kick.verify(keys.as_slice()).is_err());
    }
}

/// Messages between members.
pub fn inner(packet: &[u8]) {
    let Ok(message) = Message::decode(packet) else { return };
    let again = message.encode(Ipv4Addr::new(10, 66, 0, 1), Ipv4Addr::new(10, 66, 0, 2));
    assert!(is_message(&again));
    assert_eq!(again[20..], packet[20..again.len()], "all but the IPv4 header");
    assert_eq!(Message::decode(&again), Ok(message));
}
