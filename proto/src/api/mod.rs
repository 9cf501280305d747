//! JSON over HTTPS and WebSocket. Every body is an object; bytes are unpadded URL-safe base64;
//! times are seconds since 1970 by control's clock; every response to a device carries `now`, so
//! that a client's own clock is never trusted. Codes and tokens travel in bodies and headers only.
//!
//! Control's TLS certificate chains to its root key: the chain ends in a self-signed Ed25519
//! certificate whose public key has the pinned hash, and the leaf is for `TLS_NAME` (§10.1).

mod error;
mod party;
mod relay;
mod stream;

pub use error::{ApiError, ErrorCode};
pub use party::{
    CreateInvite, CreateParty, EntryMac, InviteInfo, Kick, Kicked, MemberRecord, Membership,
    OpenInvite, OpenedInvite, PartyState, Promote, PublishEntry, RedeemInvite, RegisterDevice,
    Registered, Role, TicketGrant,
};
pub use relay::{
    BadEnrolmentToken, Enrolled, Enrolment, EnrolmentToken, Heartbeat, RelayDown, RelayUp,
    Revocation,
};
pub use stream::{Change, DeviceDown, DeviceUp, PUT_OUT_MAX};

/// The name in control's TLS certificate, whatever host it is reached by.
pub const TLS_NAME: &str = "control.lanrage";
/// When control's certificates must hold, seconds since 1970 (2026-01-01): clients check them at
/// this time, since their own clocks may be wrong and all trust is in the pinned root key.
pub const TLS_VERIFICATION_TIME: u64 = 1_767_225_600;
/// Label and length of the TLS exporter that a device signs to prove its key (RFC 9266).
pub const CHANNEL_BINDING_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// See [`CHANNEL_BINDING_LABEL`].
pub const CHANNEL_BINDING_LEN: usize = 32;
/// Context of the signatures over the channel binding.
pub const DEVICE_PROOF_CONTEXT: &str = "lanrage device 1";
/// Context of a relay's signature over the channel binding of the connection it enrols by.
pub const ENROLMENT_PROOF_CONTEXT: &str = "lanrage relay enrolment 1";
/// Context of a relay's signature over the channel binding of its stream.
pub const RELAY_PROOF_CONTEXT: &str = "lanrage relay stream 1";

/// Paths; `{party}` is a session id.
pub mod path {
    /// POST [`super::RegisterDevice`] → [`super::Registered`]; no token.
    pub const DEVICES: &str = "/v1/devices";
    /// POST [`super::CreateParty`] → [`super::Membership`].
    pub const PARTIES: &str = "/v1/parties";
    /// PUT [`super::PublishEntry`] → `{}`.
    pub const ENTRY: &str = "/v1/parties/{party}/entry";
    /// POST [`super::CreateInvite`] → [`super::InviteInfo`].
    pub const INVITES: &str = "/v1/parties/{party}/invites";
    /// POST `{}` → [`super::TicketGrant`].
    pub const TICKET: &str = "/v1/parties/{party}/ticket";
    /// POST `{}` → `{}`.
    pub const LEAVE: &str = "/v1/parties/{party}/leave";
    /// POST [`super::Kick`] → [`super::Kicked`].
    pub const KICK: &str = "/v1/parties/{party}/kick";
    /// POST [`super::Promote`] → `{}`.
    pub const PROMOTE: &str = "/v1/parties/{party}/promote";
    /// POST [`super::OpenInvite`] → [`super::OpenedInvite`]; uses nothing up.
    pub const INVITE_OPEN: &str = "/v1/invites/open";
    /// POST [`super::RedeemInvite`] → [`super::Membership`].
    pub const INVITE_REDEEM: &str = "/v1/invites/redeem";
    /// GET → [`crate::map::SignedMap`]; no token.
    pub const MAP: &str = "/v1/relays/map";
    /// GET, WebSocket: [`super::DeviceUp`] and [`super::DeviceDown`].
    pub const STREAM: &str = "/v1/stream";
    /// POST [`super::Enrolment`] → [`super::Enrolled`]; the body holds the one-time token.
    pub const ENROL: &str = "/v1/relays/enrol";
    /// GET, WebSocket: [`super::RelayUp`] and [`super::RelayDown`].
    pub const RELAY_STREAM: &str = "/v1/relays/stream";

    /// Fills in `{party}`.
    pub fn of_party(template: &str, party: crate::ids::SessionId) -> String {
        template.replace("{party}", &party.to_string())
    }
}
