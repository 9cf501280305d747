use anyhow::Context as _;

use crate::config::Config;
use crate::enrol;
use crate::failure::Failure;
use crate::state::enrolment_in;

/// What a relay would run with, as a configuration file. Changes nothing, and may be asked while
/// the relay runs.
///
/// # Errors
/// The relay has never enrolled and could not, or its state directory cannot be read.
pub fn check(config: &Config) -> Result<String, Failure> {
    let settings = config.to_toml().context("writing the configuration")?;
    let enrolled = match enrolment_in(&config.state_dir)? {
        Some(enrolment) => {
            format!("enrolled as relay {} of pool {}", enrolment.relay.0, enrolment.pool.0)
        }
        None => {
            enrol::first(config)?;
            "not enrolled: `run` does so by the token".to_owned()
        }
    };
    Ok(format!("# {enrolled}\n{settings}"))
}
