#!/usr/bin/env python3
"""Writes the vectors beside it from docs/src/protocol.md, sharing no code with the crate.

Needs `cryptography` and `pynacl`. Everything is fixed, so a second run changes nothing.
"""

import base64
import binascii
import hashlib
import hmac
import json
import pathlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from nacl.bindings import crypto_aead_xchacha20poly1305_ietf_encrypt as xchacha

OUT = pathlib.Path(__file__).parent


def u8(n): return n.to_bytes(1, "big")
def u16(n): return n.to_bytes(2, "big")
def u32(n): return n.to_bytes(4, "big")
def u64(n): return n.to_bytes(8, "big")
def run(first, length): return bytes((first + i) & 0xFF for i in range(length))
def b64(data): return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
def mac(key, length, *parts):
    return hashlib.blake2s(b"".join(parts), key=key, digest_size=length).digest()


# §1: HKDF-SHA-256 with info = purpose ‖ 0 ‖ context.
def hkdf(secret, purpose, context=b"", salt=b"\0" * 32):
    prk = hmac.new(salt, secret, hashlib.sha256).digest()
    return hmac.new(prk, purpose + b"\0" + context + b"\x01", hashlib.sha256).digest()


# §1: Ed25519 over context ‖ 0 ‖ message.
def sign(seed, context, message):
    return Ed25519PrivateKey.from_private_bytes(seed).sign(context + b"\0" + message)


def ed_public(seed): return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
def x_public(private): return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
def dh(private, public):
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


# The same values stand in tests/wire/samples.rs.
ROOT, SIGNING, DEVICE = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
CLIENT, RELAY_PRIVATE, PEER = b"\x04" * 32, b"\x05" * 32, b"\x06" * 32
CLIENT_EPHEMERAL, RELAY_EPHEMERAL = b"\x07" * 32, b"\x08" * 32
SECRET, NEXT_SECRET, INVITE_KEY = run(0x40, 32), run(0x60, 32), run(0x80, 32)
NONCE, COOKIE, INSTANCE = run(0x10, 16), u32(7) + run(0x20, 16), run(0x30, 16)
TO_RELAY, TO_CLIENT, RESUMPTION = run(0xA0, 32), run(0xC0, 32), run(0xE0, 32)
RESUMPTION_TICKET = run(0x00, 48)
SESSION, POOL, RELAY, OTHER_RELAY = 0x0123456789ABCDEF, 0x0102, 0x0203, 0x0304
MEMBER, PEER_MEMBER, KEY_ID = 7, 9, 5
HANDLE, TAG = 0x05000102, 0xA1B2C3D4
NOW = 1_700_000_000
V4, V6 = bytes([192, 0, 2, 1]), bytes.fromhex("20010db8000000000000000000000001")


def address(ip, port):
    return (b"\0" * 10 + b"\xff\xff" + ip if len(ip) == 4 else ip) + u16(port)


def write(name, title, *fields):
    lines = [f"# {title}"]
    for data, comment in fields:
        digits = data.hex()
        rows = [digits[i : i + 64] for i in range(0, len(digits), 64)] or [""]
        lines.append(f"{rows[0]:<64}  # {comment}" if len(rows[0]) > 8 else f"{rows[0]:<8}  # {comment}")
        lines.extend(rows[1:])
    (OUT / f"{name}.hex").write_text("\n".join(lines) + "\n")
    return b"".join(data for data, _ in fields)


def write_text(name, text):
    (OUT / name).write_text(text + "\n")


def write_json(name, value):
    write_text(f"{name}.json", json.dumps(value, indent=2, ensure_ascii=False))


# ---------------------------------------------------------------- §2.1 STUN
TRANSACTION = bytes.fromhex("b7e7a701bc34d686fa87dfae")
MAGIC = bytes.fromhex("2112a442")
write("stun_request", "STUN Binding request without attributes",
      (u16(1), "Binding request"), (u16(0), "length"), (MAGIC, "magic cookie"), (TRANSACTION, "transaction id"))


def stun_response(name, ip, port):
    mask = MAGIC + TRANSACTION
    xored = bytes(a ^ b for a, b in zip(ip, mask))
    write(name, "STUN Binding success response; the attribute is that of RFC 5769 §2.2 and §2.3",
          (u16(0x0101), "Binding success"), (u16(8 + len(ip)), "length"), (MAGIC, "magic cookie"),
          (TRANSACTION, "transaction id"), (u16(0x0020), "XOR-MAPPED-ADDRESS"), (u16(4 + len(ip)), "length"),
          (u8(0), "reserved"), (u8(1 if len(ip) == 4 else 2), "family"), (u16(port ^ 0x2112), "port, xored"),
          (xored, "address, xored"))


stun_response("stun_response_v4", V4, 32853)
stun_response("stun_response_v6", bytes.fromhex("20010db8123456780011223344556677"), 32853)

rfc5769 = [
    (u16(1), "Binding request"), (u16(88), "length"), (MAGIC, "magic cookie"), (TRANSACTION, "transaction id"),
    (bytes.fromhex("80220010") + b"STUN test client", "SOFTWARE"), (bytes.fromhex("002400046e0001ff"), "PRIORITY"),
    (bytes.fromhex("80290008932ff9b151263b36"), "ICE-CONTROLLED"),
    (bytes.fromhex("00060009") + b"evtj:h6vY   ", "USERNAME"),
    (bytes.fromhex("000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2"), "MESSAGE-INTEGRITY"),
    (bytes.fromhex("80280004e57a3bcf"), "FINGERPRINT"),
]
whole = write("stun_request_rfc5769", "The sample request of RFC 5769 §2.1", *rfc5769)
assert binascii.crc32(whole[:-8]) ^ 0x5354554E == int.from_bytes(whole[-4:], "big")
covered = whole[:2] + u16(88 - 8) + whole[4:-32]
assert hmac.new(b"VOkJxbRl1RmTxUk/WvJxBt", covered, "sha1").digest() == whole[-28:-8]

# ---------------------------------------------------------------- §3 data
PAYLOAD = bytes.fromhex("0400000001000000") + u64(0) + run(0x50, 16)
write("data_sent", "data as sent (§3.1)",
      (b"\xf1", "type"), (u8(0), "flags"), (u16(RELAY), "egress relay"), (u16(PEER_MEMBER), "destination"),
      (u16(MEMBER), "source"), (u32(HANDLE), "handle"), (u32(TAG), "tag"), (PAYLOAD, "WireGuard datagram"))
write("data_delivered", "the same frame as delivered (§3.2)",
      (b"\xf1", "type"), (u8(0), "flags"), (u16(RELAY), "egress relay"), (u16(PEER_MEMBER), "destination"),
      (u16(MEMBER), "source"), (u16(OTHER_RELAY), "ingress relay"), (b"\0" * 6, "zero"), (PAYLOAD, "WireGuard datagram"))
write("data_everyone", "data for everyone (§3.1)",
      (b"\xf1", "type"), (u8(0), "flags"), (u16(0), "egress relay: this one"), (u16(0xFFFF), "destination"),
      (u16(MEMBER), "source"), (u32(HANDLE), "handle"), (u32(TAG), "tag"))
write("data_self_probe", "self-addressed frame (§3.4)",
      (b"\xf1", "type"), (u8(0), "flags"), (u16(RELAY), "egress relay"), (u16(MEMBER), "destination"),
      (u16(MEMBER), "source"), (u32(HANDLE), "handle"), (u32(TAG), "tag"),
      (b"\x11", "self probe"), (b"\0\0\0", "zero"), (u32(0x01020304), "sequence"), (u64(0x1112131415161718), "cookie"))
for name, kind, destination in (("hint_no_lease", 1, 0), ("hint_no_peer", 2, PEER_MEMBER)):
    write(name, "HINT (§3.5)", (b"\xf6", "type"), (u8(kind), "kind"), (u16(destination), "destination"),
          (u32(HANDLE), "handle"), (u32(TAG), "tag"))

write("hint_no_peer_there", "HINT about a member at another relay (§3.5)", (b"\xf6", "type"), (u8(3), "kind"),
      (u16(PEER_MEMBER), "destination"), (u32(HANDLE), "handle"), (u32(TAG), "tag"), (u16(OTHER_RELAY), "egress relay"))


# ---------------------------------------------------------------- §3.6 between relays
def siphash24(key, data):
    """SipHash-2-4 (Aumasson, Bernstein 2012) as a number."""
    mask = (1 << 64) - 1
    rotl = lambda x, by: (x << by | x >> (64 - by)) & mask
    k0, k1 = (int.from_bytes(key[at : at + 8], "little") for at in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rounds(count):
        for _ in range(count):
            v[0] = v[0] + v[1] & mask; v[1] = rotl(v[1], 13) ^ v[0]; v[0] = rotl(v[0], 32)
            v[2] = v[2] + v[3] & mask; v[3] = rotl(v[3], 16) ^ v[2]
            v[0] = v[0] + v[3] & mask; v[3] = rotl(v[3], 21) ^ v[0]
            v[2] = v[2] + v[1] & mask; v[1] = rotl(v[1], 17) ^ v[2]; v[2] = rotl(v[2], 32)

    whole = len(data) // 8 * 8
    last = data[whole:].ljust(7, b"\0") + u8(len(data) & 0xFF)
    for at in range(0, whole + 8, 8):
        word = int.from_bytes((data[:whole] + last)[at : at + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return v[0] ^ v[1] ^ v[2] ^ v[3]


# The example of the paper's appendix A.
assert siphash24(run(0, 16), run(0, 15)) == 0xA129CA6149BE45E5

MESH_EPOCH, SHARD, COUNTER = NOW // 600, 6, 0x0102030405 >> 4
MESH_KEY = hkdf(dh(RELAY_PRIVATE, x_public(PEER)), b"lanrage mesh 1",
                u16(POOL) + u16(RELAY) + u16(OTHER_RELAY) + u32(MESH_EPOCH))[:16]


def mesh(name, title, kind, source, destination, payload):
    fields = [(kind, "type"), (u8(1), "version"), (u16(RELAY), "sending relay"), (u8(MESH_EPOCH & 0xFF), "epoch"),
              (u8(SHARD), "shard"), (u8(source), "source"), (u8(destination), "destination"),
              (u64(COUNTER), "counter"), (u64(SESSION), "session")]
    covered = b"".join(data for data, _ in fields) + u16(32 + len(payload))
    fields.append((u64(siphash24(MESH_KEY, covered)), "tag"))
    write(name, title, *fields, *([(payload, "WireGuard datagram")] if payload else []))


mesh("mesh_data", "data between relays (§3.6)", b"\xfa", MEMBER, PEER_MEMBER, PAYLOAD)
mesh("mesh_everyone", "data for everyone between relays (§3.6)", b"\xfa", MEMBER, 255, PAYLOAD)
mesh("mesh_absent", "the answer to data for a member without a lease (§3.6)", b"\xfb", PEER_MEMBER, MEMBER, b"")
# ---------------------------------------------------------------- §11 streams
NO_PEER = b"\xf6" + u8(2) + u16(PEER_MEMBER) + u32(HANDLE) + u32(TAG)
FRAMED = b"\xf1" + u8(0) + u16(RELAY) + u16(MEMBER) + u16(PEER_MEMBER) + u16(OTHER_RELAY) + b"\0" * 6 + PAYLOAD
write("stream", "two datagrams on a stream (§11.2)",
      (u16(len(NO_PEER)), "length"), (NO_PEER, "HINT"), (u16(len(FRAMED)), "length"), (FRAMED, "data as delivered"))

# ---------------------------------------------------------------- §6 signed
def signed(name, title, context, fields):
    body = b"".join(data for data, _ in fields)
    return write(name, title, *fields, (sign(SIGNING, context, body), "signature"))


TICKET = signed("ticket", "ticket (§6.1)", b"lanrage ticket 1", [
    (u8(1), "version"), (u8(KEY_ID), "key id"), (u16(POOL), "pool"), (u64(SESSION), "session"), (u8(MEMBER), "member"),
    (u8(2), "rate class"), (u16(0), "zero"), (u32(3), "generation"), (x_public(CLIENT), "X25519 key"),
    (u16(RELAY), "first relay"), (u16(OTHER_RELAY), "second relay"), (u16(0), "third relay: none"), (u16(0), "zero"),
    (u64(NOW), "not before"), (u64(NOW + 3600), "expires")])
CERTIFICATE = signed("relay_certificate", "relay certificate (§6.2)", b"lanrage relay 1", [
    (u8(1), "version"), (u8(KEY_ID), "key id"), (u16(POOL), "pool"), (u16(RELAY), "relay id"), (u16(51820), "IPv4 port"),
    (V4, "IPv4"), (V6, "IPv6"), (u16(51821), "IPv6 port"), (u16(0), "zero"), (x_public(RELAY_PRIVATE), "X25519 key"),
    (u64(NOW + 30 * 86400), "not after")])
signed("relay_certificate_v4_only", "certificate of a relay without IPv6 (§6.2)", b"lanrage relay 1", [
    (u8(1), "version"), (u8(KEY_ID), "key id"), (u16(POOL), "pool"), (u16(RELAY), "relay id"), (u16(51820), "IPv4 port"),
    (V4, "IPv4"), (b"\0" * 16, "IPv6: none"), (u16(0), "IPv6 port: none"), (u16(0), "zero"),
    (x_public(RELAY_PRIVATE), "X25519 key"), (u64(NOW + 30 * 86400), "not after")])
COMMITMENT = write("commitment", "the commitment to the secret of epoch 5 (§6.3)",
                   (hkdf(NEXT_SECRET, b"lanrage commitment 1", u64(SESSION) + u32(5)), "commitment"))
KICK = signed("kick_record", "kick record (§6.3)", b"lanrage kick 1", [
    (u8(1), "version"), (u8(KEY_ID), "key id"), (u8(PEER_MEMBER), "member"), (u8(MEMBER), "kicker"),
    (u32(6), "generation"), (u64(SESSION), "session"), (u32(5), "epoch"), (u32(0), "zero"), (u64(NOW), "issued"),
    (COMMITMENT, "commitment")])

# ---------------------------------------------------------------- §4 binding
write("hello", "HELLO (§4.1)", (b"\xf0", "type"), (u8(1), "version_min"), (u8(3), "version_max"), (u8(0), "zero"),
      (NONCE, "nonce"), (b"\0" * 236, "padding"))
write("challenge", "CHALLENGE (§4.2)", (b"\xf2", "type"), (u8(1), "version"), (u16(0), "zero"), (NONCE, "nonce"),
      (CERTIFICATE, "relay certificate"), (COOKIE, "cookie: epoch, MAC"))
write("unsupported", "UNSUPPORTED (§4.3)", (b"\xf5", "type"), (u8(2), "version_min"), (u8(4), "version_max"),
      (u8(0), "zero"), (NONCE, "nonce"))


class Noise:
    """Noise_IK_25519_ChaChaPoly_BLAKE2s up to its two messages."""

    def __init__(self, prologue, responder):
        self.h = self.ck = hashlib.blake2s(b"Noise_IK_25519_ChaChaPoly_BLAKE2s").digest()
        self.mix_hash(prologue)
        self.mix_hash(responder)

    def mix_hash(self, data):
        self.h = hashlib.blake2s(self.h + data).digest()

    def mix_key(self, shared):
        temp = hmac.new(self.ck, shared, hashlib.blake2s).digest()
        self.ck = hmac.new(temp, b"\x01", hashlib.blake2s).digest()
        self.k = hmac.new(temp, self.ck + b"\x02", hashlib.blake2s).digest()
        self.n = 0

    def seal(self, plain):
        nonce = b"\0" * 4 + self.n.to_bytes(8, "little")
        self.n += 1
        sealed = ChaCha20Poly1305(self.k).encrypt(nonce, plain, self.h)
        self.mix_hash(sealed)
        return sealed

    def ephemeral(self, private):
        public = x_public(private)
        self.mix_hash(public)
        return public


noise = Noise(NONCE + COOKIE + u16(RELAY) + u8(1), x_public(RELAY_PRIVATE))
request = write("bind_request", "the payload of Noise message 1 (§4.4)",
                (TICKET, "ticket"), (INSTANCE, "instance"), (u64(0x2122232425262728), "stamp"))
e = noise.ephemeral(CLIENT_EPHEMERAL)
noise.mix_key(dh(CLIENT_EPHEMERAL, x_public(RELAY_PRIVATE)))
s = noise.seal(x_public(CLIENT))
noise.mix_key(dh(CLIENT, x_public(RELAY_PRIVATE)))
write("bind", "BIND (§4.4)", (b"\xf3", "type"), (u8(1), "version"), (u16(0), "zero"), (NONCE, "nonce"),
      (COOKIE, "cookie"), (e, "Noise e"), (s, "Noise s, sealed"), (noise.seal(request), "bind request, sealed"))

LEASE = write("bind_result_lease", "bind result: a lease (§4.5)",
              (u8(0), "result"), (u32(HANDLE), "handle"), (u32(TAG), "tag"), (TO_RELAY, "key to relay"),
              (TO_CLIENT, "key to client"), (address(V4, 40000), "reflexive address"), (u16(30), "idle timeout, s"),
              (u16(3), "pending timeout, s"), (RESUMPTION, "resumption key"), (RESUMPTION_TICKET, "resumption ticket"))
write("bind_result_refused", "bind result: refused (§4.5)", (u8(2), "result: expired"), (u64(NOW), "relay time"))
e = noise.ephemeral(RELAY_EPHEMERAL)
noise.mix_key(dh(RELAY_EPHEMERAL, x_public(CLIENT_EPHEMERAL)))
noise.mix_key(dh(RELAY_EPHEMERAL, x_public(CLIENT)))
write("bound", "BOUND (§4.5)", (b"\xf4", "type"), (u8(1), "version"), (u16(0), "zero"), (NONCE, "nonce"),
      (e, "Noise e"), (noise.seal(LEASE), "bind result, sealed"))

# ---------------------------------------------------------------- §5 control messages
for name, kind, key, counter, body in (
    ("rebind", 1, TO_RELAY, 1, b"\0" * 20),
    ("rebind_challenge", 2, TO_CLIENT, 2, COOKIE),
    ("rebind_answer", 3, TO_RELAY, 3, COOKIE),
    ("rebound", 4, TO_CLIENT, 4, address(V6, 40001)),
    ("release", 5, TO_RELAY, 5, b""),
    ("moving", 6, TO_CLIENT, 0x0102030405060708, u16(OTHER_RELAY) + u16(90)),
):
    header = b"\xf7" + u8(kind) + u16(0) + u32(HANDLE) + u64(counter)
    sealed = ChaCha20Poly1305(key).encrypt(u32(0) + u64(counter), body, header)
    write(f"control_{name}", f"CONTROL {name.upper()} (§5)", (b"\xf7", "type"), (u8(kind), "kind"), (u16(0), "zero"),
          (u32(HANDLE), "handle"), (u64(counter), "counter"), (sealed[:-16], "body, sealed"), (sealed[-16:], "AEAD tag"))

proof = mac(RESUMPTION, 16, b"lanrage resume", NONCE, COOKIE, u16(RELAY))
write("resume", "RESUME (§5.4)", (b"\xf8", "type"), (u8(1), "version"),
      (u16(len(RESUMPTION_TICKET)), "ticket length"), (NONCE, "nonce"), (COOKIE, "cookie"), (proof, "proof"),
      (RESUMPTION_TICKET, "resumption ticket"), (b"\0" * (223 - len(RESUMPTION_TICKET)), "zeros"))
answer_key = mac(RESUMPTION, 32, b"lanrage resumed", NONCE, COOKIE)
iv = mac(RESUMPTION, 16, b"lanrage resumed iv", NONCE, COOKIE, LEASE)[:12]
write("resumed", "RESUMED (§5.4)", (b"\xf9", "type"), (u8(1), "version"), (u16(0), "zero"), (NONCE, "nonce"),
      (iv, "IV"), (ChaCha20Poly1305(answer_key).encrypt(iv, LEASE, None), "bind result, sealed"))

# ---------------------------------------------------------------- §7 party
low, high = sorted([x_public(CLIENT), x_public(PEER)])
context = u64(SESSION) + u32(4) + low + high
write("pre_shared_key", "pre-shared key of two members (§7.1)", (hkdf(SECRET, b"lanrage psk 1", context), "key"))

ENTRY_BODY = write("entry", "what a directory entry signs (§7.2)",
                   (u64(SESSION), "session"), (u8(MEMBER), "member"), (u8(4), "name length"), (u16(0), "zero"),
                   (u32(3), "generation"), (ed_public(DEVICE), "device key"), (x_public(CLIENT), "X25519 key"),
                   (b"nora", "name"))
ENTRY_SIGNATURE = sign(DEVICE, b"lanrage entry 1", ENTRY_BODY)
directory_key = hkdf(SECRET, b"lanrage directory 1", u64(SESSION) + u32(4))
write("directory_key", "directory MAC key of epoch 4 (§7.2)", (directory_key, "key"))
ENTRY_MAC = mac(directory_key, 16, ENTRY_BODY, ENTRY_SIGNATURE)
ENTRY = {
    "session": f"{SESSION:016x}", "member": MEMBER, "generation": 3, "name": "nora",
    "device": b64(ed_public(DEVICE)), "tunnel": b64(x_public(CLIENT)),
    "signature": b64(ENTRY_SIGNATURE), "epoch": 4, "mac": b64(ENTRY_MAC),
}
write_json("entry", ENTRY)



def epoch_copy(name, title, under, salt):
    context = u64(SESSION) + u32(5) + u32(under) + x_public(CLIENT) + x_public(PEER)
    key = hkdf(dh(CLIENT, x_public(PEER)), b"lanrage epoch 1", context, salt=salt)
    sealed = write(name, title, (run(0, 24), "XChaCha20 nonce"),
                   (xchacha(NEXT_SECRET, None, run(0, 24), key), "the next secret, sealed"))
    copy = {"epoch": 5, "under": under, "from": MEMBER, "from_key": b64(x_public(CLIENT)), "to": PEER_MEMBER,
            "sealed": b64(sealed)}
    write_json(name, copy)
    return copy


EPOCH_COPY = epoch_copy("epoch_copy", "an epoch copy sealed under epoch 4 (§7.3)", 4, SECRET)
epoch_copy("epoch_copy_under_none", "an epoch copy sealed under no epoch (§7.3)", 0, b"\0" * 32)

INVITE_HASH = hkdf(INVITE_KEY, b"lanrage invite hash 1")
write("invite_hash", "what control knows an invite by (§7.4)", (INVITE_HASH, "hash"))
SEALED_SECRET = write("sealed_secret", "a party's secret under an invite's key (§7.4)", (run(0, 24), "XChaCha20 nonce"),
                      (xchacha(u32(4) + SECRET, u64(SESSION), run(0, 24), hkdf(INVITE_KEY, b"lanrage invite seal 1")),
                       "epoch and secret, sealed"))
ROOT_HASH = hashlib.sha256(ed_public(ROOT)).digest()
content = u8(1) + INVITE_KEY + ROOT_HASH
fragment = b64(content + hashlib.sha256(content).digest()[:4])
write_text("invite.txt", f"lanrage://play.example.org/#{fragment}")
write_text("invite_port_v6.txt", f"lanrage://[2001:db8::1]:8443/#{fragment}")
content = u8(1) + ROOT_HASH
fragment = b64(content + hashlib.sha256(content).digest()[:4])
write_text("server_address.txt", f"lanrage-server://play.example.org:8443/#{fragment}")
write_text("enrolment_token.txt", f"lanrage-relay-1.{b64(ROOT_HASH + run(0xB0, 32))}")

# ---------------------------------------------------------------- §9 inside the tunnel
def checksum(header):
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def inner(name, kind, *fields):
    body = b"".join(data for data, _ in fields)
    ip = (b"\x45\0" + u16(24 + len(body)) + u32(0) + u8(1) + u8(253), bytes([10, 66, 5, MEMBER]) + bytes([10, 66, 5, PEER_MEMBER]))
    write(f"inner_{name}", f"{name.upper()} (§9)", (ip[0], "IPv4: length, id, TTL, protocol 253"),
          (u16(checksum(ip[0] + b"\0\0" + ip[1])), "header checksum"), (ip[1], "source, destination"),
          (u8(1), "version"), (u8(kind), "type"), (u16(len(body)), "length"), *fields)


inner("echo", 1, (u64(0x3132333435363738), "id"))
inner("echo_reply", 2, (u64(0x3132333435363738), "id"))
inner("leases", 3, (u32(0x41424344), "sequence"), (u16(RELAY) + u8(1), "relay, alive"),
      (u16(OTHER_RELAY) + u8(2), "relay, suspect"), (u16(0x0405) + u8(3), "relay, dead"))
inner("leases_ack", 4, (u32(0x41424344), "sequence"))
inner("new_epoch", 5, (KICK, "kick record"), (NEXT_SECRET, "secret"))
inner("new_epoch_ack", 6, (u32(5), "epoch"))
inner("fragment", 7, (u16(0x5152), "id"), (u8(1), "index"), (u8(3), "count"), (run(0x70, 21), "piece"))

# ---------------------------------------------------------------- §8 relay map
MAP = {
    "serial": 12, "issued": NOW, "pool": POOL,
    "signing_keys": [{"id": KEY_ID, "key": b64(ed_public(SIGNING))}],
    "relays": [{"name": "fra1", "certificate": b64(CERTIFICATE), "tls": {"port": 443, "key": b64(ed_public(PEER))}}],
}
map_text = json.dumps(MAP, separators=(",", ":"))
SIGNED_MAP = {"root": b64(ed_public(ROOT)), "map": map_text,
              "signature": b64(sign(ROOT, b"lanrage map 1", map_text.encode()))}
write_json("signed_map", SIGNED_MAP)

# ---------------------------------------------------------------- §10 control API
CHANNEL_BINDING, TOKEN = run(0x90, 32), run(0xD0, 32)
RECORD = {"member": MEMBER, "generation": 3, "role": "owner", "name": "nora", "online": True, "entry": ENTRY}
NEWCOMER = {"member": PEER_MEMBER, "generation": 5, "role": "member", "name": "ivo", "online": False, "entry": None}
PARTY = {
    "session": f"{SESSION:016x}", "name": "friday", "subnet": "10.66.5.0", "prefix": "fd12:3456:789a:1::", "epoch": 5,
    "relays": [RELAY, OTHER_RELAY], "you": MEMBER, "members": [RECORD, NEWCOMER], "copies": [EPOCH_COPY],
    "kicks": [b64(KICK)],
}
GRANT = {"ticket": b64(TICKET), "lifetime_s": 3600, "now": NOW}
REVOCATION = {"session": f"{SESSION:016x}", "member": PEER_MEMBER, "generation": 6, "forget_after": NOW + 90000}
API = {
    "register_device": {"device": b64(ed_public(DEVICE)), "proof": b64(sign(DEVICE, b"lanrage device 1", CHANNEL_BINDING))},
    "registered": {"token": b64(TOKEN), "now": NOW},
    "create_party": {"name": "friday", "member_name": "nora", "tunnel": b64(x_public(CLIENT)), "subnet": "10.66.5.0",
                     "request": list(run(1, 16))},
    "membership": {"party": PARTY, "ticket": GRANT},
    "ticket_grant": GRANT,
    "publish_entry": {"entry": ENTRY},
    "create_invite": {"invite": b64(INVITE_HASH), "sealed": b64(SEALED_SECRET), "epoch": 4, "lifetime_s": 86400, "uses": 3},
    "invite_info": {"expires": NOW + 86400, "uses_left": 3, "now": NOW},
    "open_invite": {"invite": b64(INVITE_HASH)},
    "opened_invite": {"sealed": b64(SEALED_SECRET), "session": f"{SESSION:016x}", "name": "friday", "subnet": "10.66.5.0",
                      "now": NOW},
    "redeem_invite": {"invite": b64(INVITE_HASH), "tunnel": b64(x_public(PEER)), "member_name": "ivo"},
    "kick": {"member": PEER_MEMBER, "generation": 5, "epoch": 5, "commitment": b64(COMMITMENT),
             "copies": [EPOCH_COPY], "macs": [{"member": MEMBER, "generation": 3, "mac": b64(ENTRY_MAC)}]},
    "kicked": {"record": b64(KICK)},
    "promote": {"member": PEER_MEMBER, "role": "promoted"},
    "api_error": {"code": "invite_used_up", "message": "all uses of the invite are spent: ask for another"},
    "enrolment": {"token": b64(TOKEN), "name": "fra1", "identity": b64(ed_public(DEVICE)),
                  "proof": b64(sign(DEVICE, b"lanrage relay enrolment 1", CHANNEL_BINDING)),
                  "key": b64(x_public(RELAY_PRIVATE)), "ipv4": "192.0.2.1:51820", "ipv6": "[2001:db8::1]:51821"},
    "enrolled": {"relay": RELAY, "pool": POOL, "now": NOW},
    "device_up_follow": {"type": "follow", "cursor": 41},
    "device_down_snapshot": {"type": "snapshot", "cursor": 42, "parties": [PARTY],
                             "put_out": [b64(KICK)], "map": SIGNED_MAP, "now": NOW},
    "relay_up_prove": {"type": "prove", "relay": RELAY, "ipv4": "192.0.2.1:51820", "ipv6": None, "cursor": 0,
                       "tls": {"port": 443, "key": b64(ed_public(PEER))},
                       "proof": b64(sign(DEVICE, b"lanrage relay stream 1", CHANNEL_BINDING))},
    "relay_up_heartbeat": {"type": "heartbeat", "leases": 12, "sessions": 3, "draining": False, "cursor": 8,
                           "version": "0.1.0", "now": NOW},
    "relay_down_certificate": {"type": "certificate", "certificate": b64(CERTIFICATE)},
    "relay_down_map": {"type": "map", "map": SIGNED_MAP},
    "relay_down_snapshot": {"type": "snapshot", "cursor": 8, "revocations": [REVOCATION]},
    "relay_down_revoke": {"type": "revoke", "cursor": 9, "revocation": REVOCATION},
    "relay_down_tick": {"type": "tick", "now": NOW},
}
SESSION_FIELD = {"session": f"{SESSION:016x}"}
for name, change in {
    "party": {"party": PARTY},
    "member": SESSION_FIELD | {"member": NEWCOMER},
    "left": SESSION_FIELD | {"member": PEER_MEMBER},
    "removed": SESSION_FIELD | {"kick": b64(KICK)},
    "relays": SESSION_FIELD | {"relays": [OTHER_RELAY, RELAY]},
    "map": {"map": SIGNED_MAP},
}.items():
    API[f"device_down_delta_{name}"] = {"type": "delta", "cursor": 43, "change": {"change": name} | change}
(OUT / "api").mkdir(exist_ok=True)
for name, value in API.items():
    write_json(f"api/{name}", value)
