use lanrage_proto::api::*;
use lanrage_proto::bytes::{Blob, DeviceKey, Signature};
use lanrage_proto::ids::{Member, SessionId};
use lanrage_proto::signed::KickRecord;

use crate::golden::{json, names};
use crate::samples::{NOW, SESSION, certificate, kick, member, run, ticket};

/// Reads each vector of `tests/golden/api` as its type, and writes it again.
macro_rules! vectors {
    ($($name:literal: $type:ty,)*) => {
        /// Names of all vectors that are read.
        const READ: &[&str] = &[$($name),*];

        #[test]
        fn every_vector_is_read_and_written_again() {
            $(let _: $type = json(concat!("api/", $name));)*
            assert_eq!(READ, names("api", "json"));
        }
    };
}

vectors! {
    "api_error": ApiError,
    "create_invite": CreateInvite,
    "create_party": CreateParty,
    "device_down_delta_left": DeviceDown,
    "device_down_delta_map": DeviceDown,
    "device_down_delta_member": DeviceDown,
    "device_down_delta_party": DeviceDown,
    "device_down_delta_relays": DeviceDown,
    "device_down_delta_removed": DeviceDown,
    "device_down_snapshot": DeviceDown,
    "device_up_follow": DeviceUp,
    "enrolled": Enrolled,
    "enrolment": Enrolment,
    "invite_info": InviteInfo,
    "kick": Kick,
    "kicked": Kicked,
    "membership": Membership,
    "open_invite": OpenInvite,
    "opened_invite": OpenedInvite,
    "promote": Promote,
    "publish_entry": PublishEntry,
    "redeem_invite": RedeemInvite,
    "register_device": RegisterDevice,
    "registered": Registered,
    "relay_down_certificate": RelayDown,
    "relay_down_map": RelayDown,
    "relay_down_revoke": RelayDown,
    "relay_down_snapshot": RelayDown,
    "relay_down_tick": RelayDown,
    "relay_up_heartbeat": RelayUp,
    "relay_up_prove": RelayUp,
    "ticket_grant": TicketGrant,
}

#[test]
fn proofs_cover_the_channel_binding_under_their_context() {
    let binding: [u8; CHANNEL_BINDING_LEN] = run(0x90);
    let device: RegisterDevice = json("api/register_device");
    assert!(device.device.verifies(DEVICE_PROOF_CONTEXT, &binding, &device.proof));
    assert!(!device.device.verifies(RELAY_PROOF_CONTEXT, &binding, &device.proof));
    assert!(!device.device.verifies(DEVICE_PROOF_CONTEXT, &binding[..31], &device.proof));

    let relay: RelayUp = json("api/relay_up_prove");
    let RelayUp::Prove { proof, cursor: 0, ipv6: None, .. } = relay else { panic!("{relay:?}") };
    assert!(device.device.verifies(RELAY_PROOF_CONTEXT, &binding, &proof));
}

#[test]
fn bytes_inside_json_are_the_same_frames() {
    let grant: TicketGrant = json("api/ticket_grant");
    assert_eq!((grant.ticket, grant.lifetime_s, grant.now), (ticket(), 3600, NOW));
    let kicked: Kicked = json("api/kicked");
    let record = KickRecord::decode(kicked.record.0.as_slice().try_into().unwrap());
    assert_eq!(record, Ok(kick()));
    let down: RelayDown = json("api/relay_down_certificate");
    assert_eq!(down, RelayDown::Certificate { certificate: certificate() });
    let membership: Membership = json("api/membership");
    assert_eq!(membership.party.kicks, [kick()]);
}

#[test]
fn a_party_state_keeps_its_fields() {
    let party = json::<Membership>("api/membership").party;
    assert_eq!((party.session, party.you), (SESSION, member()));
    assert_eq!(party.subnet, std::net::Ipv4Addr::new(10, 66, 5, 0));
    let [owner, newcomer] = &party.members[..] else { panic!("{:?}", party.members) };
    assert_eq!((owner.role, owner.online), (Role::Owner, true));
    assert!(owner.entry.as_ref().unwrap().is_genuine(&crate::samples::SECRET));
    assert_eq!((newcomer.role, newcomer.online, &newcomer.entry), (Role::Member, false, &None));
}

#[test]
fn unknown_fields_of_a_request_are_refused_and_of_an_answer_ignored() {
    assert!(serde_json::from_str::<OpenInvite>(r#"{"invite":"","x":1}"#).is_err());
    let registered = format!(r#"{{"token":"{}","now":1,"later":true}}"#, "A".repeat(43));
    assert!(serde_json::from_str::<Registered>(&registered).is_ok());
}

#[test]
fn bytes_are_unpadded_url_safe_base64_of_their_length() {
    let key = |text: &str| serde_json::from_value::<DeviceKey>(text.into());
    let right = format!("{}-_A", "A".repeat(40));
    assert_eq!(serde_json::to_value(key(&right).unwrap()).unwrap(), *right);
    for (wrong, why) in [
        (right.replace('-', "+"), "the other alphabet"),
        (right.clone() + "=", "padding"),
        (right[1..].to_owned(), "too short"),
        (right.clone() + "A", "too long"),
        (right[..42].to_owned() + "B", "bits beyond the last byte"),
        (" ".to_owned() + &right, "space"),
    ] {
        assert!(key(&wrong).is_err(), "{why}");
    }
    assert!(serde_json::from_value::<Signature>("".into()).is_err());
    assert_eq!(serde_json::from_value::<Blob>("".into()).unwrap(), Blob(vec![]));
    assert!(serde_json::from_value::<Blob>("AA==".into()).is_err());
}

#[test]
fn ids_in_json() {
    let session = |text: &str| text.parse::<SessionId>();
    assert_eq!(session("0123456789abcdef"), Ok(SESSION));
    assert_eq!(session("0123456789ABCDEF"), Ok(SESSION));
    for wrong in
        ["", "123456789abcdef", "0x23456789abcdef", "+123456789abcdef", "00123456789abcdef"]
    {
        assert!(session(wrong).is_err(), "{wrong}");
    }
    for (number, accepted) in [(0, false), (1, true), (250, true), (251, false), (256, false)] {
        assert_eq!(serde_json::from_value::<Member>(number.into()).is_ok(), accepted, "{number}");
    }
}

#[test]
fn error_codes_keep_their_names_and_statuses() {
    for (name, status) in [
        ("bad_request", 400),
        ("unauthorized", 401),
        ("bad_proof", 403),
        ("forbidden", 403),
        ("not_found", 404),
        ("invite_unknown", 404),
        ("invite_expired", 410),
        ("invite_used_up", 410),
        ("invite_void", 410),
        ("conflict", 409),
        ("name_taken", 409),
        ("party_full", 409),
        ("no_relay", 409),
        ("rate_limited", 429),
        ("bad_enrolment", 403),
        ("internal", 500),
    ] {
        let code: ErrorCode = serde_json::from_value(name.into()).unwrap();
        assert_eq!(code.status(), status, "{name}");
        assert_eq!(serde_json::to_value(code).unwrap(), *name);
    }
    let later: ErrorCode = serde_json::from_value("made_later".into()).unwrap();
    assert_eq!(later, ErrorCode::Other);
}

#[test]
fn paths_name_their_party() {
    let filled = path::of_party(path::TICKET, SESSION);
    assert_eq!(filled, "/v1/parties/0123456789abcdef/ticket");
}
