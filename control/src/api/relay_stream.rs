use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use lanrage_proto::RelayId;
use lanrage_proto::api::{ErrorCode, RelayDown, RelayUp};
use lanrage_proto::signed::RelayCertificate;
use tokio::time::{MissedTickBehavior, interval};

use super::Api;
use super::answer::Refused;
use super::extract::Connection;
use super::stream::{End, Stream, Upgrade, accept};
use crate::domain::limits::REVOCATIONS_AT_ONCE;
use crate::domain::refuse;
use crate::domain::relays::Addresses;
use crate::fleet::StreamId;
use crate::service::Service;

const TICK_PERIOD: Duration = Duration::from_secs(5);

pub(super) async fn open(
    State(api): State<Api>,
    connection: Connection,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    Ok(accept(upgrade)?.on_upgrade(async move |socket| {
        let mut stream = Stream::new(socket);
        // `connection` lives to the end: the stream keeps its place.
        let Err(end) = serve(&api, &connection, &mut stream).await;
        stream.end(end).await;
    }))
}

async fn serve(
    api: &Api,
    connection: &Connection,
    stream: &mut Stream,
) -> Result<std::convert::Infallible, End> {
    let first = stream.first(&mut api.stopping.clone()).await?;
    let RelayUp::Prove { relay, proof, ipv4, ipv6, tls, cursor } = first else {
        return Err(refuse(ErrorCode::BadProof, "the first message is the proof").into());
    };
    let service = &api.service;
    let binding = &connection.channel_binding;
    let addresses = Addresses { ipv4, ipv6, tls };
    let id = service.prove_relay(relay, &proof, binding, addresses).await?;
    tracing::info!(relay = relay.0, "a relay connected");
    let gauge = metrics::gauge!("lanrage_control_streams", "kind" => "relay");
    gauge.increment(1);
    let Err(end) = follow(api, (relay, id), stream, cursor).await;
    service.fleet.detach(relay, id);
    gauge.decrement(1);
    tracing::info!(relay = relay.0, "a relay's stream ended");
    Err(end)
}

async fn follow(
    api: &Api,
    (relay, id): (RelayId, StreamId),
    stream: &mut Stream,
    cursor: u64,
) -> Result<std::convert::Infallible, End> {
    let service = &api.service;
    let (mut stopping, mut maps) = (api.stopping.clone(), service.map.subscribe());
    let mut revoked = service.revoked.subscribe();
    let mut ticks = interval(TICK_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);

    let mut certificate = None;
    send_certificate(service, relay, stream, &mut certificate).await?;
    send_map(&mut maps, stream).await?;
    let mut cursor = catch_up(service, stream, cursor).await?;
    loop {
        tokio::select! {
            biased;
            () = stopping.begun() => return Err(End::Over),
            Ok(()) = revoked.changed() => cursor = send_revocations(service, stream, cursor).await?,
            Ok(()) = maps.changed() => {
                send_certificate(service, relay, stream, &mut certificate).await?;
                send_map(&mut maps, stream).await?;
            }
            _ = ticks.tick() => stream.send(&RelayDown::Tick { now: service.clock.now() }).await?,
            message = stream.receive() => match message? {
                RelayUp::Heartbeat(heartbeat) => {
                    service.hear_relay(relay, id, &heartbeat).await;
                }
                RelayUp::Prove { .. } => {
                    return Err(refuse(ErrorCode::BadRequest, "the relay is proven").into());
                }
            },
        }
    }
}

/// Sends the relay's certificate when it is another than the last one sent; a relay that was
/// removed from the pool is told so.
async fn send_certificate(
    service: &Service,
    relay: RelayId,
    stream: &mut Stream,
    sent: &mut Option<RelayCertificate>,
) -> Result<(), End> {
    let certificate = service.certificate(relay).await?;
    if *sent != Some(certificate) {
        stream.send(&RelayDown::Certificate { certificate }).await?;
        *sent = Some(certificate);
    }
    Ok(())
}

async fn send_map(
    maps: &mut tokio::sync::watch::Receiver<std::sync::Arc<lanrage_proto::map::SignedMap>>,
    stream: &mut Stream,
) -> Result<(), End> {
    let map = (**maps.borrow_and_update()).clone();
    stream.send(&RelayDown::Map { map }).await
}

/// Sends a snapshot to a relay that has nothing, or that is ahead of a database restored from a
/// backup; to others what they lack. Revocations that no longer matter are in neither. A snapshot is
/// one message, which relays read up to 16 MiB of: what does not fit follows it one by one.
async fn catch_up(service: &Service, stream: &mut Stream, cursor: u64) -> Result<u64, End> {
    let last = service.last_revocation().await?;
    if (1..=last).contains(&cursor) {
        return send_revocations(service, stream, cursor).await;
    }
    let first = service.revocations(0).await?;
    let full = first.len() == REVOCATIONS_AT_ONCE;
    let newest = first.last().map_or(0, |(cursor, _)| *cursor);
    let cursor = if full { newest } else { newest.max(last) };
    let revocations = first.into_iter().map(|(_, revocation)| revocation).collect();
    stream.send(&RelayDown::Snapshot { cursor, revocations }).await?;
    send_revocations(service, stream, cursor).await
}

async fn send_revocations(
    service: &Service,
    stream: &mut Stream,
    mut cursor: u64,
) -> Result<u64, End> {
    loop {
        let revocations = service.revocations(cursor).await?;
        let more = revocations.len() == REVOCATIONS_AT_ONCE;
        for (at, revocation) in revocations {
            stream.send(&RelayDown::Revoke { cursor: at, revocation }).await?;
            cursor = at;
        }
        if !more {
            return Ok(cursor);
        }
    }
}
