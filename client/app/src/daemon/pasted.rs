//! Invites and addresses as they come out of chats: in quotes, broken into lines, without scheme.

use std::borrow::Cow;

use lanrage_proto::party::{Invite, ServerAddress};
use zeroize::Zeroizing;

use crate::failure::{Failure, FailureKind};

const INVITE_SCHEME: &str = "lanrage://";

/// What chats and people put around a link.
const AROUND: &str = "\"'`<>()\u{ab}\u{bb}\u{2018}\u{2019}\u{201c}\u{201d}\u{201e}\u{200b}\u{feff}";

/// In one line, without what stands around it, and without white space in the fragment.
pub(super) fn pasted(text: &str) -> Zeroizing<String> {
    let line: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !c.is_control()).collect());
    let line = line.trim_matches(|c: char| c.is_whitespace() || AROUND.contains(c));
    Zeroizing::new(match line.split_once("/#") {
        None => line.to_owned(),
        Some((place, fragment)) => {
            let fragment = Zeroizing::new(fragment.split_whitespace().collect::<String>());
            format!("{place}/#{}", *fragment)
        }
    })
}

/// The invite in what a user pasted.
pub(super) fn parse_invite(text: &str) -> Result<Invite, Failure> {
    let text = pasted(text);
    if text.parse::<ServerAddress>().is_ok() {
        let message = "that is a server address, which makes parties: ask a member of the party for \
                       an invite, which looks like lanrage://host/#…";
        return Err(Failure::new(FailureKind::InviteMalformed, message));
    }
    let whole = if !text.contains("://") && text.contains("/#") {
        Cow::Owned(format!("{INVITE_SCHEME}{}", *text))
    } else {
        Cow::Borrowed(text.as_str())
    };
    Ok(whole.parse::<Invite>()?)
}

#[cfg(test)]
mod tests {
    use lanrage_proto::RootHash;
    use lanrage_proto::party::InviteKey;

    use super::*;

    fn invite(host: &str) -> Invite {
        let key = InviteKey(Zeroizing::new([7; 32]));
        Invite { host: host.to_owned(), port: 443, key, root: RootHash([9; 32]) }
    }

    #[test]
    fn what_chats_do_to_an_invite_is_undone() {
        for host in ["lan.example", "[2001:db8::1]"] {
            let invite = invite(host);
            let text = invite.to_string();
            let (start, end) = text.split_at(40);
            let (early, late) = text.split_at(13);
            for pasted in [
                format!("  {text}\n"),
                format!("\"{text}\""),
                format!("'{text}'"),
                format!("\u{201e}{text}\u{201c}"),
                format!("<{text}>"),
                format!("{start}\n{end}"),
                format!("{start} {end}"),
                format!("{start}\r\n  {end}"),
                format!("{early}\n{late}"),
                text.trim_start_matches(INVITE_SCHEME).to_owned(),
            ] {
                let found = parse_invite(&pasted);
                assert_eq!(found.as_ref(), Ok(&invite), "{pasted}");
            }
        }
    }

    #[test]
    fn server_address_is_called_that() {
        let address =
            ServerAddress { host: "lan.example".to_owned(), port: 443, root: RootHash([9; 32]) };
        let failure = parse_invite(&address.to_string()).unwrap_err();
        assert!(failure.message.starts_with("that is a server address"), "{failure}");
        assert_eq!(failure.kind, FailureKind::InviteMalformed);
    }

    #[test]
    fn other_text_is_no_invite() {
        for text in
            ["", "hello", "https://lan.example/#abc", "lanrage://no such host/#abc", "\"\"", "/#"]
        {
            assert!(parse_invite(text).is_err(), "{text}");
        }
    }
}
