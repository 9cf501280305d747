use axum::extract::State;
use axum::response::Response;
use lanrage_proto::DeviceKey;
use lanrage_proto::api::{DeviceDown, DeviceUp};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{MissedTickBehavior, interval_at};

use super::Api;
use super::answer::Refused;
use super::counting::count;
use super::extract::{Caller, Connection};
use super::stream::{End, PING_PERIOD, Stream, Upgrade, accept, encode};
use crate::domain::Refusal;
use crate::hub::{Attached, Next};
use crate::limiter::Purpose;
use crate::network::Network;
use crate::service::Service;

pub(super) async fn open(
    State(api): State<Api>,
    connection: Connection,
    Caller(device): Caller,
    upgrade: Upgrade,
) -> Result<Response, Refused> {
    Ok(accept(upgrade)?.on_upgrade(async move |socket| {
        let _place = connection.place;
        let mut stream = Stream::new(socket);
        let end = match stream.first::<DeviceUp>(&mut api.stopping.clone()).await {
            Ok(DeviceUp::Follow { cursor }) => {
                serve(&api, device, connection.network, &mut stream, cursor).await
            }
            Err(end) => end,
        };
        stream.end(end).await;
    }))
}

async fn serve(
    api: &Api,
    device: DeviceKey,
    network: Network,
    stream: &mut Stream,
    cursor: Option<u64>,
) -> End {
    if let Err(refusal) = count(&api.service, Purpose::Follow, &device, network) {
        return refusal.into();
    }
    let gauge = metrics::gauge!("lanrage_control_streams", "kind" => "device");
    gauge.increment(1);
    let attached = api.service.hub.attach(&device);
    let Err(end) = follow(api, &device, network, stream, &attached, cursor).await;
    api.service.hub.detach(&device, attached.stream, api.service.clock.uptime_s());
    gauge.decrement(1);
    end
}

/// Sends changes until the stream ends, which is never without a reason.
async fn follow(
    api: &Api,
    device: &DeviceKey,
    network: Network,
    stream: &mut Stream,
    attached: &Attached,
    cursor: Option<u64>,
) -> Result<std::convert::Infallible, End> {
    let service = &api.service;
    if attached.came_online {
        service.tell_turn(device, true).await.map_err(Refusal::from)?;
        // Noted again each minute: a disk that is full ends no stream.
        if let Err(error) = service.note_seen(std::slice::from_ref(device)).await {
            tracing::warn!(%error, "cannot note that a device is there");
        }
    }
    let mut stopping = api.stopping.clone();
    let mut pings = interval_at(tokio::time::Instant::now() + PING_PERIOD, PING_PERIOD);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut cursor = match cursor {
        Some(cursor) => cursor,
        None => send_snapshot(service, device, network, stream).await?,
    };
    loop {
        // Made before the feed is read, so that no change falls between.
        let woken = attached.wake.notified();
        match service.hub.next(device, attached.stream, cursor) {
            Next::Changes(changes) => {
                for change in &changes {
                    cursor += 1;
                    stream.send(&Delta::new(cursor, change)).await?;
                }
                continue;
            }
            Next::Lost => {
                metrics::counter!("lanrage_control_stream_snapshots_total").increment(1);
                cursor = send_snapshot(service, device, network, stream).await?;
                continue;
            }
            Next::Replaced => return Err(End::Over),
            Next::UpToDate => {}
        }
        tokio::select! {
            () = woken => {}
            _ = pings.tick() => stream.ping().await?,
            message = stream.receive() => {
                let DeviceUp::Follow { cursor: again } = message?;
                count(service, Purpose::Follow, device, network)?;
                cursor = match again {
                    Some(cursor) => cursor,
                    None => send_snapshot(service, device, network, stream).await?,
                };
            }
            () = stopping.begun() => return Err(End::Over),
        }
    }
}

/// Sends the whole truth and gives its cursor. View and cursor are of one moment.
async fn send_snapshot(
    service: &Service,
    device: &DeviceKey,
    network: Network,
    stream: &mut Stream,
) -> Result<u64, End> {
    let len = service.snapshot_len(device).await.map_err(Refusal::from)?;
    let _memory = service.snapshot_memory(len, network).await?;
    let (mut view, order) = service.store.ordered_view().await.map_err(Refusal::from)?;
    let (cursor, map) = (service.hub.cursor(device), service.map.borrow().clone());
    drop(order);
    let parties = service.parties_of(&mut view, device).await.map_err(Refusal::from)?;
    let put_out = service.put_out(&mut view, device).await.map_err(Refusal::from)?;
    drop(view);
    let now = service.clock.now();
    let map = Box::new((*map).clone());
    let snapshot = DeviceDown::Snapshot { cursor, parties, put_out, map, now };
    let text = encode(&snapshot);
    drop(snapshot);
    stream.send_text(text).await?;
    Ok(cursor)
}

/// [`DeviceDown::Delta`] around a change that is already encoded.
#[derive(Serialize)]
struct Delta<'a> {
    r#type: &'static str,
    cursor: u64,
    change: &'a RawValue,
}

impl<'a> Delta<'a> {
    const fn new(cursor: u64, change: &'a RawValue) -> Self {
        Self { r#type: "delta", cursor, change }
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::SessionId;
    use lanrage_proto::api::Change;

    use super::*;

    #[test]
    fn an_encoded_delta_is_what_the_protocol_says() {
        let change = Change::Relays { session: SessionId(7), relays: Vec::new() };
        let encoded = crate::hub::encode(&change);
        let sent = serde_json::to_string(&Delta::new(9, &encoded)).unwrap();
        let read: DeviceDown = serde_json::from_str(&sent).unwrap();
        assert_eq!(read, DeviceDown::Delta { cursor: 9, change: Box::new(change) });
    }
}
