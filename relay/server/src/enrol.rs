use std::time::Duration;

use lanrage_control_client::{ControlClient, Endpoint, Error, Method};
use lanrage_proto::DeviceKey;
use lanrage_proto::api::{self, Enrolled, EnrolmentToken, path};

use crate::backoff::Backoff;
use crate::config::Config;
use crate::failure::Failure;
use crate::state::{Enrolment, Keys, StateDir};

const DEADLINE: Duration = Duration::from_secs(10);

/// Which relay this is: as the state directory says, or else by enrolling, for as long as control
/// cannot be reached.
pub(crate) async fn enrolment(
    config: &Config,
    state: &StateDir,
    keys: &Keys,
) -> Result<Enrolment, Failure> {
    if let Some(enrolment) = state.enrolment()? {
        return Ok(enrolment);
    }
    let (Some((host, port)), Some(token)) = (&config.control, &config.enrolment_token) else {
        return Err(Failure::NotEnrolled(format!(
            "this relay has never enrolled: set control = \"HOST:PORT\", and {} to what \
             `lanrage-control relay token` prints",
            crate::config::TOKEN_VARIABLE
        )));
    };
    let endpoint = Endpoint { host: host.clone(), port: *port, root: token.root };
    let client = ControlClient::new(endpoint);
    let mut backoff = Backoff::new();
    loop {
        match enrol(&client, config, keys, token).await {
            Ok(Enrolled { relay, pool, .. }) => {
                let enrolment = Enrolment { root: token.root, relay, pool };
                state.set_enrolment(&enrolment)?;
                tracing::info!(relay = relay.0, pool = pool.0, "enrolled");
                return Ok(enrolment);
            }
            Err(error @ (Error::Api(_) | Error::OtherRoot { .. })) => {
                return Err(Failure::NotEnrolled(format!("control refuses this relay: {error}")));
            }
            Err(
                error @ (Error::Unreachable { .. }
                | Error::Tls { .. }
                | Error::BadAnswer { .. }
                | Error::Broken { .. }
                | Error::TimedOut { .. }),
            ) => tracing::warn!(%error, "not enrolled yet, not ready; trying again"),
        }
        backoff.wait().await;
    }
}

async fn enrol(
    client: &ControlClient,
    config: &Config,
    keys: &Keys,
    token: &EnrolmentToken,
) -> Result<Enrolled, Error> {
    let body = api::Enrolment {
        token: token.secret,
        name: config.name.clone(),
        identity: DeviceKey(keys.identity().verifying_key().to_bytes()),
        key: keys.tunnel_key(),
        ipv4: config.advertise_ipv4,
        ipv6: config.advertise_ipv6,
    };
    let connection = client.connect(DEADLINE).await?;
    connection.request(Method::POST, path::ENROL, None, &body, DEADLINE).await
}
