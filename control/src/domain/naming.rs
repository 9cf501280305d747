use std::net::{Ipv4Addr, Ipv6Addr};

use lanrage_proto::api::ErrorCode;
use lanrage_proto::party::{NAME_LEN_MAX, valid_name};

use super::{Refusal, refuse};

/// # Errors
/// [`ErrorCode::BadRequest`] for what is no [`valid_name`].
pub(crate) fn check_name(name: &str) -> Result<(), Refusal> {
    if valid_name(name) {
        return Ok(());
    }
    Err(refuse(
        ErrorCode::BadRequest,
        "a name has 1 to 32 characters: a-z, 0-9 and inner hyphens; choose another",
    ))
}

/// The wish, or the wish with the lowest number that makes it unique.
pub(crate) fn free_name(wish: &str, taken: impl Fn(&str) -> bool) -> String {
    let numbered = |number: u32| {
        let suffix = format!("-{number}");
        let stem = &wish[..wish.len().min(NAME_LEN_MAX - suffix.len())];
        format!("{}{suffix}", stem.trim_end_matches('-'))
    };
    std::iter::once(wish.to_owned())
        .chain((2..).map(numbered))
        .find(|name| !taken(name))
        .expect("there are more numbers than members")
}

/// The asked /24 of 10.66.0.0/16, or a random one that the device's other parties do not use.
///
/// # Errors
/// [`ErrorCode::BadRequest`] for another network.
pub(crate) fn subnet(
    asked: Option<Ipv4Addr>,
    used: &[Ipv4Addr],
    random: u8,
) -> Result<Ipv4Addr, Refusal> {
    if let Some(asked) = asked {
        let [a, b, _, d] = asked.octets();
        return if (a, b, d) == (10, 66, 0) {
            Ok(asked)
        } else {
            Err(refuse(ErrorCode::BadRequest, "a party's subnet is 10.66.X.0, X from 0 to 255"))
        };
    }
    let third = (0..=255).map(|step| random.wrapping_add(step));
    let network = |third| Ipv4Addr::new(10, 66, third, 0);
    Ok(third.map(network).find(|network| !used.contains(network)).unwrap_or(network(random)))
}

/// A random unique local /64 (RFC 4193: fd, 40 random bits, 16 of subnet).
pub(crate) fn prefix(random: [u8; 7]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&random);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_names_get_numbers_and_stay_valid() {
        let taken = ["anna".to_owned(), "anna-2".to_owned(), "x".repeat(32)];
        let free = |wish: &str| free_name(wish, |name| taken.iter().any(|t| t == name));
        assert_eq!(free("bert"), "bert");
        assert_eq!(free("anna"), "anna-3");
        assert_eq!(free(&"x".repeat(32)), format!("{}-2", "x".repeat(30)));
        assert!(valid_name(&free(&"x".repeat(32))));
    }

    #[test]
    fn subnets_are_of_the_right_network_and_avoid_the_used() {
        assert!(subnet(Some(Ipv4Addr::new(10, 66, 3, 0)), &[], 0).is_ok());
        for wrong in [[10, 67, 3, 0], [10, 66, 3, 1], [192, 168, 1, 0]] {
            assert!(subnet(Some(wrong.into()), &[], 0).is_err());
        }
        let used = [Ipv4Addr::new(10, 66, 255, 0), Ipv4Addr::new(10, 66, 0, 0)];
        assert_eq!(subnet(None, &used, 255), Ok(Ipv4Addr::new(10, 66, 1, 0)));
    }
}
