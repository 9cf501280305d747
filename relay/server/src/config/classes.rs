//! Rate classes in the file.
//!
//! ```toml
//! [rate_class.0]                  # as tickets name it, 0 to 127
//! lease = { packets = 50000, bytes = 67108864, copies = 10000 }
//! session = { packets = 200000, bytes = 268435456, copies = 40000 }
//! ```

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use lanrage_relay_core::classes::TICKET_CLASSES;
use lanrage_relay_core::{ClassLimits, Limits};
use serde::{Deserialize, Serialize};

use super::{ConfigError, number};

/// The file's `[rate_class]`, by class.
pub type RateClasses = BTreeMap<String, RateClassSetting>;

/// One class; it replaces the relay's own of that number.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateClassSetting {
    /// Of one lease.
    pub lease: LimitsSetting,
    /// Of all leases of a session.
    pub session: LimitsSetting,
}

/// Units a second; what is left out has no limit.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSetting {
    /// Frames received.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "Option::is_none")]
    pub packets: Option<u64>,
    /// Bytes received, and bytes of copies sent.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Copies of broadcasts sent.
    #[serde(deserialize_with = "number::whole", skip_serializing_if = "Option::is_none")]
    pub copies: Option<u64>,
}

/// The classes with their numbers.
pub(super) fn resolve(classes: &RateClasses) -> Result<Vec<(u8, ClassLimits)>, ConfigError> {
    let resolved = classes.iter().map(|(name, class)| {
        let number = name.parse().ok().filter(|number| *number < TICKET_CLASSES);
        let number = number.ok_or_else(|| bad(format!("{name:?}: give a class of 0 to 127")))?;
        let (lease, session) = (limits(name, class.lease)?, limits(name, class.session)?);
        Ok((number, ClassLimits { lease, session }))
    });
    resolved.collect()
}

/// As the file would say it.
pub(super) fn to_settings(classes: &[(u8, ClassLimits)]) -> RateClasses {
    let of = |limits: Limits| LimitsSetting {
        packets: limits.packets.map(NonZeroU64::get),
        bytes: limits.bytes.map(NonZeroU64::get),
        copies: limits.copies.map(NonZeroU64::get),
    };
    let setting = |limits: &ClassLimits| RateClassSetting {
        lease: of(limits.lease),
        session: of(limits.session),
    };
    classes.iter().map(|(class, limits)| (class.to_string(), setting(limits))).collect()
}

fn limits(class: &str, setting: LimitsSetting) -> Result<Limits, ConfigError> {
    let limit = |units: Option<u64>| {
        units.map(|units| NonZeroU64::new(units).ok_or_else(|| zero(class))).transpose()
    };
    Ok(Limits {
        packets: limit(setting.packets)?,
        bytes: limit(setting.bytes)?,
        copies: limit(setting.copies)?,
    })
}

fn zero(class: &str) -> ConfigError {
    bad(format!(
        "{class}: 0 would let nothing through: give 1 or more a second, or leave it out for no limit"
    ))
}

const fn bad(problem: String) -> ConfigError {
    ConfigError::Setting { key: "rate_class", problem }
}

#[cfg(test)]
mod tests {
    use super::super::Settings;

    fn resolve(toml: &str) -> Result<super::super::Config, String> {
        let settings = toml::from_str::<Settings>(toml).map_err(|error| error.to_string())?;
        settings.resolve(None).map_err(|error| error.to_string())
    }

    #[test]
    fn classes_are_configured_and_printed() {
        let given = "name = \"a\"\n[rate_class.7]\nlease = { packets = 1000, bytes = 9 }\n\
                     [rate_class.0.session]\ncopies = 5\n";
        let config = resolve(given).unwrap();
        let [(0, class_0), (7, class_7)] = config.rate_classes[..] else {
            panic!("{:?}", config.rate_classes);
        };
        assert_eq!(class_0.session.copies.map(u64::from), Some(5));
        assert_eq!(class_0.lease, lanrage_relay_core::Limits::default(), "no limit");
        assert_eq!(class_7.lease.packets.map(u64::from), Some(1000));
        let printed = config.to_toml().unwrap();
        assert_eq!(resolve(&printed).unwrap().rate_classes, config.rate_classes);
    }

    #[test]
    fn what_is_no_class_is_refused() {
        for (toml, says) in [
            ("[rate_class.128]", "0 to 127"),
            ("[rate_class.fast]", "0 to 127"),
            ("[rate_class.1]\nlease = { packets = 0 }", "leave it out"),
            ("[rate_class.1]\nlease = { packets = -1 }", "whole number"),
            ("[rate_class.1]\nlease = { bits = 1 }", "bits"),
        ] {
            let message = resolve(toml).unwrap_err();
            assert!(message.contains(says), "{toml}: {message}");
        }
    }
}
