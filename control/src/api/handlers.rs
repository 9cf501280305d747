use axum::Json;
use axum::extract::State;
use lanrage_proto::api::{
    CreateInvite, CreateParty, Enrolled, Enrolment, InviteInfo, Kick, Kicked, Membership,
    OpenInvite, OpenedInvite, Promote, PublishEntry, RedeemInvite, RegisterDevice, Registered,
    TicketGrant,
};
use lanrage_proto::map::SignedMap;
use serde::{Deserialize, Serialize};

use super::Api;
use super::answer::Refused;
use super::extract::{Body, Caller, Connection, InParty};

type Answer<T> = Result<Json<T>, Refused>;

/// `{}`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Empty {}

pub(super) async fn register(
    State(api): State<Api>,
    connection: Connection,
    Body(request): Body<RegisterDevice>,
) -> Answer<Registered> {
    Ok(Json(api.service.register(&request, &connection.channel_binding).await?))
}

pub(super) async fn create_party(
    State(api): State<Api>,
    Caller(device): Caller,
    Body(request): Body<CreateParty>,
) -> Answer<Membership> {
    Ok(Json(api.service.create_party(&device, &request).await?))
}

pub(super) async fn publish_entry(
    State(api): State<Api>,
    Caller(device): Caller,
    InParty(session): InParty,
    Body(request): Body<PublishEntry>,
) -> Answer<Empty> {
    api.service.publish_entry(&device, session, request).await?;
    Ok(Json(Empty {}))
}

pub(super) async fn create_invite(
    State(api): State<Api>,
    Caller(device): Caller,
    InParty(session): InParty,
    Body(request): Body<CreateInvite>,
) -> Answer<InviteInfo> {
    Ok(Json(api.service.create_invite(&device, session, &request).await?))
}

pub(super) async fn ticket(
    State(api): State<Api>,
    Caller(device): Caller,
    InParty(session): InParty,
    Body(Empty {}): Body<Empty>,
) -> Answer<TicketGrant> {
    Ok(Json(api.service.ticket(&device, session).await?))
}

pub(super) async fn leave(
    State(api): State<Api>,
    Caller(device): Caller,
    InParty(session): InParty,
    Body(Empty {}): Body<Empty>,
) -> Answer<Empty> {
    api.service.leave(&device, session).await?;
    Ok(Json(Empty {}))
}

pub(super) async fn kick(
    State(api): State<Api>,
    Caller(device): Caller,
    InParty(session): InParty,
    Body(request): Body<Kick>,
) -> Answer<Kicked> {
    Ok(Json(api.service.kick(&device, session, &request).await?))
}

pub(super) async fn promote(
    State(api): State<Api>,
    Caller(device): Caller,
    InParty(session): InParty,
    Body(request): Body<Promote>,
) -> Answer<Empty> {
    api.service.promote(&device, session, &request).await?;
    Ok(Json(Empty {}))
}

pub(super) async fn open_invite(
    State(api): State<Api>,
    Caller(_): Caller,
    Body(request): Body<OpenInvite>,
) -> Answer<OpenedInvite> {
    Ok(Json(api.service.open_invite(&request.invite).await?))
}

pub(super) async fn redeem_invite(
    State(api): State<Api>,
    Caller(device): Caller,
    Body(request): Body<RedeemInvite>,
) -> Answer<Membership> {
    Ok(Json(api.service.redeem_invite(&device, &request).await?))
}

pub(super) async fn map(State(api): State<Api>) -> Json<SignedMap> {
    let map = api.service.map.borrow().clone();
    Json((*map).clone())
}

pub(super) async fn enrol(
    State(api): State<Api>,
    connection: Connection,
    Body(request): Body<Enrolment>,
) -> Answer<Enrolled> {
    Ok(Json(api.service.enrol(&request, &connection.channel_binding).await?))
}
