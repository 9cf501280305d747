/// What a datagram at a relay's port is, by its first byte; its length is not yet checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A STUN message (RFC 8489 §6): leading bits 00 and the magic cookie.
    Stun,
    /// [`first_byte::HELLO`]
    Hello,
    /// [`first_byte::DATA`]
    Data,
    /// [`first_byte::CHALLENGE`]
    Challenge,
    /// [`first_byte::BIND`]
    Bind,
    /// [`first_byte::BOUND`]
    Bound,
    /// [`first_byte::UNSUPPORTED`]
    Unsupported,
    /// [`first_byte::HINT`]
    Hint,
    /// [`first_byte::CONTROL`]
    Control,
    /// [`first_byte::RESUME`]
    Resume,
    /// [`first_byte::RESUMED`]
    Resumed,
    /// [`first_byte::MESH`]
    Mesh,
    /// [`first_byte::MESH_ABSENT`]
    MeshAbsent,
    /// Anything else.
    Unknown,
}

/// The numbers of all frames; a number once used stays here for ever.
pub mod first_byte {
    /// {type, version_min, version_max, 0, nonce 16 B, zeros to 256 B}
    pub const HELLO: u8 = 0xf0;
    /// {type, flags, egress relay u16, destination u16, source u16, 8 B, WireGuard datagram}
    pub const DATA: u8 = 0xf1;
    /// {type, version, 0 u16, nonce 16 B, relay certificate 136 B, cookie 20 B}
    pub const CHALLENGE: u8 = 0xf2;
    /// {type, version, 0 u16, nonce 16 B, cookie 20 B, Noise IK message 1}
    pub const BIND: u8 = 0xf3;
    /// {type, version, 0 u16, nonce 16 B, Noise IK message 2}
    pub const BOUND: u8 = 0xf4;
    /// {type, version_min, version_max, 0, nonce 16 B}: no version in common
    pub const UNSUPPORTED: u8 = 0xf5;
    /// {type, kind, destination u16, handle u32, tag u32}
    pub const HINT: u8 = 0xf6;
    /// {type, kind, 0 u16, handle u32, counter u64, sealed body}
    pub const CONTROL: u8 = 0xf7;
    /// {type, version, 0 u16, nonce 16 B, cookie 20 B, proof 16 B, resumption ticket}
    pub const RESUME: u8 = 0xf8;
    /// {type, version, 0 u16, nonce 16 B, IV 12 B, sealed body}
    pub const RESUMED: u8 = 0xf9;
    /// {type, version, relay u16, epoch, shard, source, destination, counter u64, session u64, tag u64, payload}
    pub const MESH: u8 = 0xfa;
    /// As MESH, without a payload: the answer to a frame for a member that has no lease
    pub const MESH_ABSENT: u8 = 0xfb;
}

/// Sorts a datagram by its first byte, and by the magic cookie for STUN.
pub fn kind(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(&first_byte::DATA) => Kind::Data,
        Some(&first_byte::HELLO) => Kind::Hello,
        Some(&first_byte::CHALLENGE) => Kind::Challenge,
        Some(&first_byte::BIND) => Kind::Bind,
        Some(&first_byte::BOUND) => Kind::Bound,
        Some(&first_byte::UNSUPPORTED) => Kind::Unsupported,
        Some(&first_byte::HINT) => Kind::Hint,
        Some(&first_byte::CONTROL) => Kind::Control,
        Some(&first_byte::RESUME) => Kind::Resume,
        Some(&first_byte::RESUMED) => Kind::Resumed,
        Some(&first_byte::MESH) => Kind::Mesh,
        Some(&first_byte::MESH_ABSENT) => Kind::MeshAbsent,
        Some(&byte) if byte & 0xc0 == 0 && crate::stun::has_magic_cookie(datagram) => Kind::Stun,
        _ => Kind::Unknown,
    }
}
