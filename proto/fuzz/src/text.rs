use std::fmt::{Debug, Display};
use std::str::FromStr;

use lanrage_proto::api::{
    ApiError, CreateInvite, CreateParty, DeviceDown, DeviceUp, Enrolled, Enrolment, EnrolmentToken,
    InviteInfo, Kick, Kicked, Membership, OpenInvite, OpenedInvite, Promote, PublishEntry,
    RedeemInvite, RegisterDevice, Registered, RelayDown, RelayUp,
};
use lanrage_proto::ids::SessionId;
use lanrage_proto::map::{RelayMap, SignedMap, root_hash};
use lanrage_proto::party::{Entry, EpochCopy, Invite, ServerAddress};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Texts that users paste: what is read prints as something that reads the same.
pub fn invite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    printed::<Invite>(text);
    printed::<ServerAddress>(text);
    printed::<EnrolmentToken>(text);
    printed::<SessionId>(text);
}

fn printed<T: FromStr + Display + Debug + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert_eq!(value.to_string().parse().ok(), Some(value));
    }
}

/// The relay map, signed and inside.
pub fn map(bytes: &[u8]) {
    written::<RelayMap>(bytes);
    if let Some(signed) = written::<SignedMap>(bytes)
        && let Ok(map) = signed.verify(&root_hash(&signed.root))
    {
        let text = serde_json::to_vec(&map).expect("a map has string keys only");
        assert_eq!(written::<RelayMap>(&text), Some(map));
    }
}

/// Bodies and stream messages of the control API.
pub fn api(bytes: &[u8]) {
    written::<ApiError>(bytes);
    written::<RegisterDevice>(bytes);
    written::<Registered>(bytes);
    written::<CreateParty>(bytes);
    written::<Membership>(bytes);
    if let Some(body) = written::<PublishEntry>(bytes) {
        body.entry.is_signed();
    }
    written::<CreateInvite>(bytes);
    written::<InviteInfo>(bytes);
    written::<OpenInvite>(bytes);
    written::<OpenedInvite>(bytes);
    written::<RedeemInvite>(bytes);
    written::<Kick>(bytes);
    written::<Kicked>(bytes);
    written::<Promote>(bytes);
    written::<Enrolment>(bytes);
    written::<Enrolled>(bytes);
    written::<DeviceUp>(bytes);
    written::<DeviceDown>(bytes);
    written::<RelayUp>(bytes);
    written::<RelayDown>(bytes);
    written::<Entry>(bytes);
    written::<EpochCopy>(bytes);
}

/// Reads a value and checks that its own JSON reads the same.
fn written<T: Serialize + DeserializeOwned + Debug + PartialEq>(bytes: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_vec(&value).expect("all keys are strings");
    assert_eq!(serde_json::from_slice::<T>(&text).ok().as_ref(), Some(&value));
    Some(value)
}
