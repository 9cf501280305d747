use std::fmt;
use std::str::FromStr;

use super::invite::{DEFAULT_PORT, checksum, split_authority};
use crate::bytes::{RootHash, decode_base64, encode_base64};

const SCHEME: &str = "lanrage-server://";
const VERSION: u8 = 1;
const CONTENT_LEN: usize = 1 + 32;
const FRAGMENT_LEN: usize = CONTENT_LEN + 4;

/// What an operator gives to those who may make parties (§10.1): `lanrage-server://host[:port]/#fragment`.
///
/// The fragment is base64 of {version, SHA-256 of control's root key, checksum}; nothing is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Control's host name or address, as in a URL (IPv6 in brackets).
    pub host: String,
    /// Control's port.
    pub port: u16,
    /// Pins control.
    pub root: RootHash,
}

/// What is wrong with the text of a server address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadServerAddress {
    /// No `lanrage-server://host/#…`.
    #[error("a server address looks like {SCHEME}host/#…; `lanrage-control address` prints it")]
    Shape,
    /// The host or port cannot be one.
    #[error("the server address names no usable host; `lanrage-control address` prints it")]
    Host,
    /// Made by a newer program.
    #[error("the server address has version {0}, this program knows {VERSION}: update LANrage")]
    Version(u8),
    /// Characters are missing or wrong.
    #[error("the server address is damaged (a character is missing or wrong): copy it whole")]
    Damaged,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fragment = [VERSION; FRAGMENT_LEN];
        fragment[1..CONTENT_LEN].copy_from_slice(&self.root.0);
        let check = checksum(&fragment[..CONTENT_LEN]);
        fragment[CONTENT_LEN..].copy_from_slice(&check);
        let fragment = encode_base64(&fragment);
        match self.port {
            DEFAULT_PORT => write!(f, "{SCHEME}{}/#{fragment}", self.host),
            port => write!(f, "{SCHEME}{}:{port}/#{fragment}", self.host),
        }
    }
}

impl FromStr for ServerAddress {
    type Err = BadServerAddress;

    fn from_str(text: &str) -> Result<Self, BadServerAddress> {
        let rest = text.trim().strip_prefix(SCHEME).ok_or(BadServerAddress::Shape)?;
        let (authority, fragment) = rest.split_once("/#").ok_or(BadServerAddress::Shape)?;
        let (host, port) = split_authority(authority).ok_or(BadServerAddress::Host)?;
        let bytes = decode_base64::<FRAGMENT_LEN>(fragment).ok_or(BadServerAddress::Damaged)?;
        let (content, check) = bytes.split_at(CONTENT_LEN);
        if checksum(content) != check {
            return Err(BadServerAddress::Damaged);
        }
        if content[0] != VERSION {
            return Err(BadServerAddress::Version(content[0]));
        }
        let root = content[1..].try_into().map_err(|_| BadServerAddress::Damaged)?;
        Ok(Self { host, port, root: RootHash(root) })
    }
}

/// Host and port of `host`, `host:port`, `[v6]` or `[v6]:port`; port 443 when none is named.
///
/// # Errors
/// [`BadServerAddress::Host`].
pub fn parse_authority(text: &str) -> Result<(String, u16), BadServerAddress> {
    split_authority(text).ok_or(BadServerAddress::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_address_survives_its_text() {
        for (host, port) in [("lan.example", 443), ("127.0.0.1", 8443), ("[2001:db8::1]", 7000)] {
            let address = ServerAddress { host: host.into(), port, root: RootHash([7; 32]) };
            assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn damage_is_told_apart() {
        let text =
            ServerAddress { host: "h".into(), port: 443, root: RootHash([7; 32]) }.to_string();
        let parse = |text: &str| text.parse::<ServerAddress>();
        assert_eq!(parse("lanrage://h/#x"), Err(BadServerAddress::Shape));
        assert_eq!(parse(&text.replace("//h/", "//h:0/")), Err(BadServerAddress::Host));
        assert_eq!(parse(&text[..text.len() - 1]), Err(BadServerAddress::Damaged));
        assert_eq!(parse(&text.replace("BwcH", "BwcI")), Err(BadServerAddress::Damaged));
    }
}
