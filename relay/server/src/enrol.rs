use std::time::Duration;

use lanrage_control_client::{ControlClient, Endpoint, Error, Method};
use lanrage_proto::DeviceKey;
use lanrage_proto::api::{self, ENROLMENT_PROOF_CONTEXT, Enrolled, EnrolmentToken, path};
use lanrage_proto::signed::sign;

use crate::backoff::Backoff;
use crate::config::{Config, TOKEN_VARIABLE};
use crate::failure::Failure;
use crate::state::{Enrolment, Keys, StateDir, token_hash};

const DEADLINE: Duration = Duration::from_secs(10);
/// Where there are leases to resume, nobody waits long for control.
const DEADLINE_AGAIN: Duration = Duration::from_secs(3);

/// Which relay this is: as the state directory says, or else by enrolling, for as long as control
/// cannot be reached. A fresh token is tried once where the relay has enrolled before: it brings
/// back a relay that was removed, and renames one that was not.
///
/// # Errors
/// Control refuses a relay that has never enrolled, or it was never told how; the state directory
/// cannot be used.
pub(crate) async fn enrolment(
    config: &Config,
    state: &StateDir,
    keys: &Keys,
) -> Result<Enrolment, Failure> {
    let Some(known) = state.enrolment()? else {
        let (client, token) = first(config)?;
        return enrol_first(&client, config, state, keys, token).await;
    };
    let fresh = credentials(config).filter(|(_, token)| !known.is_by(token));
    let Some((client, token)) = fresh else {
        return Ok(known);
    };
    let why = match state.check_room() {
        Err(error) => error.to_string(),
        Ok(()) => match enrol(&client, config, keys, token, DEADLINE_AGAIN).await {
            Ok(enrolled) => return keep(config, state, token, enrolled),
            Err(error) => explain(error, client.endpoint()),
        },
    };
    tracing::warn!(
        relay = known.relay.0,
        why,
        "not enrolled by the fresh token; going on as the relay that enrolled before"
    );
    Ok(known)
}

/// How a relay that has never enrolled is to enrol.
///
/// # Errors
/// The settings do not say.
pub(crate) fn first(config: &Config) -> Result<(ControlClient, &EnrolmentToken), Failure> {
    credentials(config).ok_or_else(|| {
        Failure::NotEnrolled(format!(
            "this relay has never enrolled: set control = \"HOST\", and \
             --enrolment-token-file to a file with what `lanrage-control relay token` prints, or \
             {TOKEN_VARIABLE} to that"
        ))
    })
}

fn credentials(config: &Config) -> Option<(ControlClient, &EnrolmentToken)> {
    let (host, port) = config.control.clone()?;
    let token = config.enrolment_token.as_ref()?;
    Some((ControlClient::new(Endpoint { host, port, root: token.root }), token))
}

async fn enrol_first(
    client: &ControlClient,
    config: &Config,
    state: &StateDir,
    keys: &Keys,
    token: &EnrolmentToken,
) -> Result<Enrolment, Failure> {
    let mut backoff = Backoff::new();
    loop {
        // Otherwise the token is spent on a relay that cannot serve.
        state.check_room()?;
        match enrol(client, config, keys, token, DEADLINE).await {
            Ok(enrolled) => return keep(config, state, token, enrolled),
            Err(error @ (Error::Api(_) | Error::OtherRoot { .. })) => {
                return Err(Failure::NotEnrolled(explain(error, client.endpoint())));
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

fn keep(
    config: &Config,
    state: &StateDir,
    token: &EnrolmentToken,
    Enrolled { relay, pool, .. }: Enrolled,
) -> Result<Enrolment, Failure> {
    let enrolment = Enrolment { root: token.root, relay, pool, token: Some(token_hash(token)) };
    state.set_enrolment(&enrolment)?;
    tracing::info!(relay = relay.0, pool = pool.0, name = config.name, "enrolled");
    Ok(enrolment)
}

/// What an operator who gave a token is to do.
fn explain(error: Error, endpoint: &Endpoint) -> String {
    match error {
        Error::OtherRoot { .. } => format!(
            "{endpoint} is not the control service that the enrolment token is of: correct \
             --control, or get a token there with `lanrage-control relay token`"
        ),
        Error::Api(error) => format!("control refuses this relay: {error}"),
        Error::Unreachable { .. }
        | Error::Tls { .. }
        | Error::BadAnswer { .. }
        | Error::Broken { .. }
        | Error::TimedOut { .. } => error.to_string(),
    }
}

async fn enrol(
    client: &ControlClient,
    config: &Config,
    keys: &Keys,
    token: &EnrolmentToken,
    deadline: Duration,
) -> Result<Enrolled, Error> {
    let connection = client.connect(deadline).await?;
    let identity = keys.identity();
    let body = api::Enrolment {
        token: token.secret,
        name: config.name.clone(),
        identity: DeviceKey(identity.verifying_key().to_bytes()),
        proof: sign(&identity, ENROLMENT_PROOF_CONTEXT, &connection.channel_binding()),
        key: keys.tunnel_key(),
        ipv4: config.advertise_ipv4,
        ipv6: config.advertise_ipv6,
    };
    connection.request(Method::POST, path::ENROL, None, &body, deadline).await
}
