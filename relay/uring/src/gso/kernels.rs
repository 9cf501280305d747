//! Kernels known to spoil trains.

/// A bug in a range of kernels.
#[derive(Debug, PartialEq, Eq)]
pub struct KnownBug {
    /// The first release that has it.
    pub since: Release,
    /// The first release that does not.
    pub fixed: Release,
    /// What goes wrong.
    pub effect: &'static str,
    /// Where that is said.
    pub source: &'static str,
}

/// A kernel's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u32, pub u32, pub u32);

/// The bugs, oldest first. What a distribution has mended under an old number cannot be told from it:
/// `gso = "on"` is for that.
pub const KNOWN_BUGS: [KnownBug; 1] = [KnownBug {
    since: Release(7, 0, 0),
    fixed: Release(7, 1, 5),
    effect: "trains of equal datagrams leave some devices with wrong UDP lengths and checksums",
    // Brought by b10b446 (7.0-rc1), mended by 78effd8 and 5f17ae0 (7.1-rc5; stable: 7.1.5).
    source: "https://github.com/tailscale/tailscale/issues/19777, .../pull/19918",
}];

impl Release {
    /// Reads what `uname -r` says: numbers up to the first that is none, as in `7.0.2-6-pve`,
    /// `6.18.44`, `7.1-rc3` or `7.0.0+`. `None` without a major and a minor number.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut number = || {
            let len = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (digits, tail) = rest.split_at(len);
            rest = tail.strip_prefix('.').unwrap_or_default();
            digits.parse::<u32>().ok()
        };
        Some(Self(number()?, number()?, number().unwrap_or(0)))
    }

    /// The first known bug of this release.
    pub fn known_bug(self) -> Option<&'static KnownBug> {
        KNOWN_BUGS.iter().find(|bug| (bug.since..bug.fixed).contains(&self))
    }
}

impl std::fmt::Display for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions() {
        for (text, expected) in [
            ("6.18.44-fc-v669", Some(Release(6, 18, 44))),
            ("7.0.2-6-pve", Some(Release(7, 0, 2))),
            ("7.1.4-200.fc44.x86_64", Some(Release(7, 1, 4))),
            ("7.0.3-arch1-1", Some(Release(7, 0, 3))),
            ("7.1-rc3", Some(Release(7, 1, 0))),
            ("7.0.0+", Some(Release(7, 0, 0))),
            ("5.15.167.4-microsoft-standard-WSL2", Some(Release(5, 15, 167))),
            ("6.1.0-28-cloud-amd64", Some(Release(6, 1, 0))),
            ("4.18.0-553.el8_10.x86_64", Some(Release(4, 18, 0))),
            ("7.1.99999999999", Some(Release(7, 1, 0))),
            ("7", None),
            ("7.", None),
            ("", None),
            ("next-20260101", None),
        ] {
            assert_eq!(Release::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn the_known_bad_ones() {
        let is_bad = |text| Release::parse(text).unwrap().known_bug().is_some();
        for text in ["7.0.0-rc1", "7.0.0", "7.0.2-6-pve", "7.0.14-pve", "7.1-rc3", "7.1.4-arch1"] {
            assert!(is_bad(text), "{text}");
        }
        for text in ["6.18.44-fc-v669", "6.19.99", "7.1.5", "7.1.5-generic", "7.2.0-rc1", "8.0.0"] {
            assert!(!is_bad(text), "{text}");
        }
    }

    #[test]
    fn ranges_are_ranges() {
        assert!(KNOWN_BUGS.iter().all(|bug| bug.since < bug.fixed));
        assert!(KNOWN_BUGS.is_sorted_by_key(|bug| bug.since));
    }
}
