use axum::extract::{MatchedPath, Request, State};
use axum::http::Extensions;
use axum::middleware::Next;
use axum::response::Response;
use lanrage_proto::DeviceKey;
use lanrage_proto::api::path;

use super::Api;
use super::answer::Refused;
use super::extract::Connection;
use crate::domain::Refusal;
use crate::limiter::Purpose;
use crate::network::Network;
use crate::service::Service;

/// Counts a request for its network, before anything is read or looked up for it.
pub(super) async fn count_network(
    State(api): State<Api>,
    connection: Connection,
    request: Request,
    next: Next,
) -> Result<Response, Refused> {
    api.service.limit_network(Purpose::Request, connection.network)?;
    let purpose = match matched_path(request.extensions()) {
        path::DEVICES => Some(Purpose::Register),
        path::ENROL => Some(Purpose::Enrol),
        path::RELAY_STREAM => Some(Purpose::Prove),
        _ => None,
    };
    if let Some(purpose) = purpose {
        api.service.limit_network(purpose, connection.network)?;
    }
    Ok(next.run(request).await)
}

/// Counts the request of a device, before its body is read. For the device first: what it is refused
/// costs its neighbours nothing.
pub(super) fn count_device(
    service: &Service,
    extensions: &Extensions,
    device: &DeviceKey,
    network: Network,
) -> Result<(), Refusal> {
    service.limit_device(Purpose::Request, device)?;
    let purposes: &[Purpose] = match matched_path(extensions) {
        path::INVITE_OPEN | path::INVITE_REDEEM => &[Purpose::Invite],
        path::ENTRY | path::LEAVE | path::PROMOTE => &[Purpose::Change],
        path::PARTIES | path::INVITES | path::KICK => &[Purpose::Change, Purpose::Make],
        // A stream counts as often as it begins anew; see `device_stream`.
        _ => &[],
    };
    purposes.iter().try_for_each(|purpose| count(service, *purpose, device, network))
}

/// Counts something else that a device asks.
pub(super) fn count(
    service: &Service,
    purpose: Purpose,
    device: &DeviceKey,
    network: Network,
) -> Result<(), Refusal> {
    service.limit_device(purpose, device)?;
    service.limit_network(purpose, network)
}

fn matched_path(extensions: &Extensions) -> &str {
    extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str)
}
