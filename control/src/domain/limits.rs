use lanrage_proto::api::PUT_OUT_MAX;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long an invite may live, and its tombstone after that.
pub(crate) const INVITE_LIFETIME_MAX_S: u64 = 30 * DAY;
/// See [`INVITE_LIFETIME_MAX_S`].
pub(crate) const TOMBSTONE_S: u64 = 30 * DAY;
/// Tombstones of one party: of older ones nobody learns any more why they do not work.
pub(crate) const TOMBSTONES_KEPT: u32 = 256;
/// Devices one invite may let in: a full party.
pub(crate) const INVITE_USES_MAX: u16 = 250;
/// Open invites of one party: more is a mistake or abuse.
pub(crate) const INVITES_OPEN_MAX: usize = 64;
/// Parties one device may be in: bounds its snapshot.
pub(crate) const PARTIES_PER_DEVICE_MAX: usize = 32;

/// After this a number whose device is gone goes to another.
pub(crate) const NUMBER_REUSE_S: u64 = 30 * DAY;
/// After this without its owner a party gets another.
pub(crate) const OWNER_GONE_S: u64 = 30 * DAY;
/// A party to which no member has come for this long ends.
pub(crate) const PARTY_ABANDONED_S: u64 = 365 * DAY;
/// Control was away, or its clock was set, when time and its work differ by this.
pub(crate) const OWN_ABSENCE_MIN_S: u64 = DAY;
/// How long sealed copies and kick records are kept.
pub(crate) const COPIES_KEPT_S: u64 = 30 * DAY;
/// How many epochs' copies are kept for a member.
pub(crate) const COPIES_KEPT: usize = 32;
/// A device that is in no party and was not seen for this long is forgotten.
pub(crate) const DEVICE_FORGOTTEN_S: u64 = 90 * DAY;

/// Longest lifetime of a ticket.
pub(crate) const TICKET_LIFETIME_MAX_S: u64 = HOUR;
/// A ticket binds for a day after its expiry, and a lease outlives its ticket by a day, at a relay
/// that has lost control; an hour covers clocks that differ.
pub(crate) const REVOCATION_KEPT_S: u64 = TICKET_LIFETIME_MAX_S + 2 * DAY + HOUR;

/// Revocations in one message to a relay, and read at once: about 1 MiB of JSON.
pub(crate) const REVOCATIONS_AT_ONCE: usize = 10_000;

/// Lifetime of a relay's certificate; renewed at half of it.
pub(crate) const CERTIFICATE_LIFETIME_S: u64 = 30 * DAY;
/// A new signing key begins this often.
pub(crate) const SIGNING_KEY_PERIOD_S: u64 = 30 * DAY;
/// A new signing key is listed this long before it signs, so that relays know it.
pub(crate) const SIGNING_KEY_LEAD_S: u64 = HOUR;
/// What a key signed holds for up to 30 days after the key's last use: certificates and kicks.
pub(crate) const SIGNING_KEY_KEPT_S: u64 = 2 * SIGNING_KEY_PERIOD_S + 2 * DAY;

/// A relay without a heartbeat for this long serves nobody new.
pub(crate) const RELAY_SILENT_S: u64 = 15;
/// A relay gone for this long loses its parties to another.
pub(crate) const RELAY_GONE_S: u64 = 10 * MINUTE;
/// After a start of control relays have this long to come back before they count as silent.
pub(crate) const RELAY_RETURN_S: u64 = 30;

/// The service notes this often that it is at work and which relays it hears.
pub(crate) const NOTE_PERIOD_S: u64 = 15;

/// One network has at most this part of all connections, so that ten are needed to lock others out.
/// A device has one for its stream and up to four for a moment while it asks: of 20,000, 400 devices
/// behind one address that all ask at once on a bad line, or 2,000 that play.
pub(crate) const CONNECTIONS_NETWORK_PART: u32 = 10;
/// But not less than this, for the small services of a few friends behind one address.
pub(crate) const CONNECTIONS_NETWORK_MIN: u32 = 64;

/// Memory for snapshots until their readers have taken them, in KiB.
pub(crate) const SNAPSHOTS_KIB: u32 = 128 << 10;
/// One network has at most this part of it, 16 MiB: the largest snapshot, of 32 full parties, takes
/// about 12, and one of a full party 0.4.
pub(crate) const SNAPSHOTS_NETWORK_PART: u32 = 8;
/// What a snapshot holds, in bytes of JSON at most: a party without its lists, a member with its
/// entry, a kick, a copy.
pub(crate) const SNAPSHOT_PARTY_LEN: u64 = 512;
/// See [`SNAPSHOT_PARTY_LEN`].
pub(crate) const SNAPSHOT_MEMBER_LEN: u64 = 640;
/// See [`SNAPSHOT_PARTY_LEN`].
pub(crate) const SNAPSHOT_KICK_LEN: u64 = 256;
/// See [`SNAPSHOT_PARTY_LEN`].
pub(crate) const SNAPSHOT_COPY_LEN: u64 = 384;

/// Longest body of a request but a kick; the longest there is, an entry, has less than 1 KiB.
pub(crate) const BODY_LEN_MAX: usize = 4 << 10;
/// Longest body of a kick.
pub(crate) const KICK_LEN_MAX: usize = 256 << 10;
/// nonce ‖ {epoch u32, secret} ‖ tag of an invite's sealed secret.
pub(crate) const SEALED_SECRET_LEN: usize = 24 + 4 + 32 + 16;
/// nonce ‖ secret ‖ tag of an epoch copy.
pub(crate) const SEALED_COPY_LEN: usize = 24 + 32 + 16;

// The largest kick: per member at most 230 bytes of JSON for its copy and 80 for its MAC.
const _: () = assert!(250 * (230 + 80) + 256 <= KICK_LEN_MAX);
// A device is told of all kicks that it missed.
const _: () = assert!(PARTIES_PER_DEVICE_MAX <= PUT_OUT_MAX);
const _: () = assert!(SIGNING_KEY_KEPT_S > SIGNING_KEY_PERIOD_S + CERTIFICATE_LIFETIME_S);
