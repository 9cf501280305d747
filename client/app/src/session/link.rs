use std::sync::Arc;
use std::time::Duration;

use lanrage_control_client::{Error, Method};
use lanrage_proto::SessionId;
use lanrage_proto::api::{
    Change, DeviceDown, DeviceUp, ErrorCode, PartyState, PublishEntry, TicketGrant, path,
};
use lanrage_proto::map::SignedMap;
use lanrage_proto::party::Entry;
use lanrage_proto::signed::KickRecord;
use serde::Deserialize;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{Backoff, Control, brief, random_fraction};

/// A ticket whose lifetime is not known is asked for again after this.
const TICKET_LIFETIME_MIN: Duration = Duration::from_secs(10);

/// What control says about the active party.
#[derive(Debug)]
pub enum ControlEvent {
    /// The whole truth.
    Snapshot {
        /// The device's parties.
        parties: Vec<PartyState>,
        /// Kicks of this device that it may not have heard of, not yet verified.
        put_out: Vec<KickRecord>,
        /// Not yet verified.
        map: Box<SignedMap>,
    },
    /// One change.
    Change(Box<Change>),
    /// A fresh ticket.
    Ticket(TicketGrant),
    /// Control's clock was read; see [`Control::unix_time`].
    Clock,
    /// The stream is open.
    Connected,
    /// The stream failed; it is opened again.
    Failed(Error),
    /// This device's entry does not fit the party as control has it: see a snapshot.
    EntryRefused,
}

/// Follows control for one party until dropped: its stream, tickets, and this device's entry. Each
/// goes on by itself, and tries again for ever.
#[derive(Debug)]
pub struct ControlLink {
    snapshot_wanted: Arc<Notify>,
    ticket_wanted: Arc<Notify>,
    entry: watch::Sender<Option<Entry>>,
    _tasks: JoinSet<()>,
}

impl ControlLink {
    /// `ticket_left` is how long the party's ticket still holds; `None` asks for one at once.
    pub fn start(
        control: Control,
        session: SessionId,
        ticket_left: Option<Duration>,
        events: mpsc::Sender<ControlEvent>,
    ) -> Self {
        let snapshot_wanted = Arc::new(Notify::new());
        let ticket_wanted = Arc::new(Notify::new());
        let (entry, entries) = watch::channel(None);
        let mut tasks = JoinSet::new();
        let stream = follow(control.clone(), Arc::clone(&snapshot_wanted), events.clone());
        tasks.spawn(stream);
        let tickets = renew(
            control.clone(),
            session,
            ticket_left,
            Arc::clone(&ticket_wanted),
            events.clone(),
        );
        tasks.spawn(tickets);
        tasks.spawn(publish(control, session, entries, events));
        Self { snapshot_wanted, ticket_wanted, entry, _tasks: tasks }
    }

    /// Asks for the party in full.
    pub fn want_snapshot(&self) {
        self.snapshot_wanted.notify_one();
    }

    /// Asks for a fresh ticket.
    pub fn want_ticket(&self) {
        self.ticket_wanted.notify_one();
    }

    /// Publishes this device's entry until control has it; the same one again does nothing.
    pub fn publish(&self, entry: Entry) {
        self.entry.send_if_modified(|published| {
            let new = published.as_ref() != Some(&entry);
            *published = Some(entry);
            new
        });
    }
}

async fn follow(control: Control, wanted: Arc<Notify>, events: mpsc::Sender<ControlEvent>) {
    let mut cursor = None;
    let mut backoff = Backoff::default();
    // An outage of days is one line, not one a try.
    let mut is_news = true;
    loop {
        tokio::select! {
            result = read_stream(&control, &mut cursor, &mut backoff, &events, &mut is_news) => {
                let closed = || control.endpoint().broken("it closed the stream");
                let error = result.err().unwrap_or_else(closed);
                let reason = brief(&error);
                if std::mem::take(&mut is_news) {
                    tracing::info!(reason, "the stream from control is down; play goes on");
                } else {
                    tracing::debug!(reason, "the stream from control is still down");
                }
                if events.send(ControlEvent::Failed(error)).await.is_err() {
                    return;
                }
                sleep(backoff.wait()).await;
            }
            () = wanted.notified() => cursor = None,
        }
    }
}

async fn read_stream(
    control: &Control,
    cursor: &mut Option<u64>,
    backoff: &mut Backoff,
    events: &mpsc::Sender<ControlEvent>,
    is_news: &mut bool,
) -> Result<(), Error> {
    let mut stream = control.stream().await?;
    stream.send(&DeviceUp::Follow { cursor: *cursor }).await?;
    let gone = |_| control.endpoint().broken("the daemon is ending");
    events.send(ControlEvent::Connected).await.map_err(gone)?;
    while let Some(message) = stream.receive::<DeviceDown>().await? {
        backoff.reset();
        if !std::mem::replace(is_news, true) {
            tracing::info!("the stream from control is up again");
        }
        let event = match message {
            DeviceDown::Snapshot { cursor: at, parties, put_out, map, now } => {
                *cursor = Some(at);
                control.set_clock(now);
                events.send(ControlEvent::Clock).await.map_err(gone)?;
                ControlEvent::Snapshot { parties, put_out, map }
            }
            DeviceDown::Delta { cursor: at, change } => {
                *cursor = Some(at);
                ControlEvent::Change(change)
            }
        };
        events.send(event).await.map_err(gone)?;
    }
    Ok(())
}

/// Renews the ticket when half its time is over, give or take a tenth.
async fn renew(
    control: Control,
    session: SessionId,
    left: Option<Duration>,
    wanted: Arc<Notify>,
    events: mpsc::Sender<ControlEvent>,
) {
    #[derive(serde::Serialize)]
    struct Empty {}
    let path = path::of_party(path::TICKET, session);
    let half = |lifetime: Duration| lifetime.mul_f64(0.45 + 0.1 * random_fraction());
    let mut wait = left.map_or(Duration::ZERO, half);
    let mut backoff = Backoff::default();
    loop {
        let _early = timeout(wait, wanted.notified()).await;
        match control.call::<_, TicketGrant>(Method::POST, &path, &Empty {}).await {
            Ok(grant) => {
                control.set_clock(grant.now);
                backoff.reset();
                wait = half(Duration::from_secs(grant.lifetime_s).max(TICKET_LIFETIME_MIN));
                if events.send(ControlEvent::Ticket(grant)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                wait = backoff.wait();
                tracing::debug!(%error, "no new ticket yet");
            }
        }
    }
}

async fn publish(
    control: Control,
    session: SessionId,
    mut entries: watch::Receiver<Option<Entry>>,
    events: mpsc::Sender<ControlEvent>,
) {
    /// `{}`; a later version may say more.
    #[derive(Deserialize)]
    struct Published {}
    let path = path::of_party(path::ENTRY, session);
    while entries.changed().await.is_ok() {
        let mut backoff = Backoff::default();
        loop {
            let Some(entry) = entries.borrow_and_update().clone() else { break };
            let body = PublishEntry { entry };
            match control.call::<_, Published>(Method::PUT, &path, &body).await {
                Ok(Published {}) => break,
                Err(error) => {
                    tracing::debug!(%error, "this device's entry is not published yet");
                    if has_moved_on(&error) {
                        let _ending = events.send(ControlEvent::EntryRefused).await;
                        break;
                    }
                    sleep(backoff.wait()).await;
                }
            }
        }
    }
}

/// Whether the same entry would be refused again.
fn has_moved_on(error: &Error) -> bool {
    let final_codes =
        [ErrorCode::BadRequest, ErrorCode::Conflict, ErrorCode::Forbidden, ErrorCode::NotFound];
    matches!(error, Error::Api(error) if final_codes.contains(&error.code))
}
