//! What the devices' streams send: a bounded feed of changes per device, in the order of the
//! store's commits. A feed outlives its stream for a while, so that a device can resume.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dashmap::DashMap;
use lanrage_proto::DeviceKey;
use lanrage_proto::api::Change;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::Notify;

use crate::random::random_bytes;

/// Changes a stream may be behind before it gets a snapshot instead.
const FEED_LEN_MAX: usize = 64;
/// Bytes a feed may hold.
const FEED_BYTES_MAX: usize = 512 << 10;
/// Bytes all feeds may hold; beyond it each has an equal part, so that those that hold much lose it
/// and the others nothing. Changes that several members' feeds share count in each.
const FEEDS_BYTES_MAX: usize = 256 << 20;
/// A device whose stream is lost for less than this stays online to others.
const OFFLINE_DELAY_S: u64 = 3;
/// A feed without a stream is dropped after this; the device gets a snapshot then.
const FEED_KEPT_S: u64 = 300;

/// All feeds.
#[derive(Debug)]
pub(crate) struct Hub {
    feeds: DashMap<DeviceKey, Feed>,
    /// What all feeds hold.
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl Default for Hub {
    fn default() -> Self {
        Self { feeds: DashMap::new(), bytes: AtomicUsize::new(0), bytes_max: FEEDS_BYTES_MAX }
    }
}

/// A change in JSON, encoded once for all its readers.
pub(crate) type Encoded = Arc<RawValue>;

/// Names one stream of a device: a newer one replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(u64);

#[derive(Debug)]
struct Feed {
    cursor: u64,
    /// The newest changes, the last of which has `cursor`.
    /// Each with the bytes it counts for.
    changes: VecDeque<(Encoded, usize)>,
    bytes: usize,
    wake: Arc<Notify>,
    stream: Option<StreamId>,
    /// What others have been told.
    online: bool,
    idle_since: u64,
}

/// What a stream does next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send these; the first has the cursor after the one that was asked for.
    Changes(Vec<Encoded>),
    /// Wait.
    UpToDate,
    /// The feed no longer has what follows: send a snapshot.
    Lost,
    /// The device has a newer stream: end.
    Replaced,
}

/// A stream's hold on its feed.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) stream: StreamId,
    pub(crate) wake: Arc<Notify>,
    /// Others have not yet been told that the device is online.
    pub(crate) came_online: bool,
}

/// Encodes a change for [`Hub::publish`].
pub(crate) fn encode(change: &Change) -> Encoded {
    to_raw_value(change).expect("changes have string keys only").into()
}

impl Hub {
    /// Adds a change to a device's feed, if it has one.
    pub(crate) fn publish(&self, device: &DeviceKey, change: &Encoded) {
        let share = self.share();
        if let Some(mut feed) = self.feeds.get_mut(device) {
            self.change(&mut feed, |feed| feed.push(change, change.get().len(), share));
        }
    }

    /// Adds a change to all feeds. They share it, and have at most the last 64 of them, so that it
    /// counts in none.
    pub(crate) fn publish_all(&self, change: &Encoded) {
        let share = self.share();
        let push = |feed: &mut Feed| feed.push(change, 0, share);
        self.feeds.iter_mut().for_each(|mut feed| self.change(&mut feed, push));
    }

    /// Whether a change for this device would be kept.
    pub(crate) fn has_feed(&self, device: &DeviceKey) -> bool {
        self.feeds.contains_key(device)
    }

    /// Whether others see the device as online.
    pub(crate) fn is_online(&self, device: &DeviceKey) -> bool {
        self.feeds.get(device).is_some_and(|feed| feed.online)
    }

    /// Makes a stream the device's only one.
    pub(crate) fn attach(&self, device: &DeviceKey) -> Attached {
        let stream = StreamId(u64::from_be_bytes(random_bytes()));
        let mut feed = self.feeds.entry(*device).or_insert_with(|| Feed {
            cursor: origin(),
            changes: VecDeque::new(),
            bytes: 0,
            wake: Arc::default(),
            stream: None,
            online: false,
            idle_since: 0,
        });
        feed.stream = Some(stream);
        feed.wake.notify_waiters();
        Attached { stream, wake: Arc::clone(&feed.wake), came_online: !feed.online }
    }

    /// Ends a stream's hold, if it still has it.
    pub(crate) fn detach(&self, device: &DeviceKey, stream: StreamId, uptime_s: u64) {
        if let Some(mut feed) = self.feeds.get_mut(device)
            && feed.stream == Some(stream)
        {
            feed.stream = None;
            feed.idle_since = uptime_s;
        }
    }

    /// The cursor of the newest change; 0 for a device without a feed.
    pub(crate) fn cursor(&self, device: &DeviceKey) -> u64 {
        self.feeds.get(device).map_or(0, |feed| feed.cursor)
    }

    /// What the stream sends after `cursor`.
    pub(crate) fn next(&self, device: &DeviceKey, stream: StreamId, cursor: u64) -> Next {
        let Some(feed) = self.feeds.get(device) else { return Next::Replaced };
        if feed.stream != Some(stream) {
            return Next::Replaced;
        }
        let behind = feed.cursor.checked_sub(cursor).and_then(|behind| behind.try_into().ok());
        match behind {
            Some(0) => Next::UpToDate,
            Some(behind) if behind <= feed.changes.len() => {
                let skip = feed.changes.len() - behind;
                Next::Changes(
                    feed.changes.iter().skip(skip).map(|(change, _)| Arc::clone(change)).collect(),
                )
            }
            _ => Next::Lost,
        }
    }

    /// Devices that have streams.
    pub(crate) fn connected(&self) -> Vec<DeviceKey> {
        let connected = self.feeds.iter().filter(|feed| feed.stream.is_some());
        connected.map(|feed| *feed.key()).collect()
    }

    /// Devices whose turn to online or offline has not been told yet; drops feeds that nobody has
    /// resumed, and what feeds hold beyond their share.
    pub(crate) fn sweep(&self, uptime_s: u64) -> Vec<(DeviceKey, bool)> {
        let idle = |feed: &Feed, for_s| {
            feed.stream.is_none() && feed.idle_since.saturating_add(for_s) <= uptime_s
        };
        self.feeds.retain(|_, feed| {
            let kept = feed.online || !idle(feed, FEED_KEPT_S);
            if !kept {
                self.bytes.fetch_sub(feed.bytes, Ordering::Relaxed);
            }
            kept
        });
        let share = self.share();
        let mut turns = Vec::new();
        for mut feed in self.feeds.iter_mut() {
            self.change(&mut feed, |feed| feed.trim(share));
            if feed.online && idle(&feed, OFFLINE_DELAY_S) {
                turns.push((*feed.key(), false));
            } else if !feed.online && feed.stream.is_some() {
                turns.push((*feed.key(), true));
            }
        }
        turns
    }

    /// Takes a device's turn, which is to be told now; `false` when it has a stream again, or none
    /// any more, or the turn was taken.
    pub(crate) fn turn(&self, device: &DeviceKey, online: bool) -> bool {
        let Some(mut feed) = self.feeds.get_mut(device) else { return false };
        let turns = feed.stream.is_some() == online && feed.online != online;
        feed.online ^= turns;
        turns
    }

    /// A turn could not be told: it is to be taken again.
    pub(crate) fn untold(&self, device: &DeviceKey, online: bool) {
        if let Some(mut feed) = self.feeds.get_mut(device) {
            feed.online = !online;
        }
    }

    /// What one feed may hold: less when all hold too much. Locks all feeds for a moment.
    fn share(&self) -> usize {
        if self.bytes.load(Ordering::Relaxed) <= self.bytes_max {
            return FEED_BYTES_MAX;
        }
        (self.bytes_max / self.feeds.len().max(1)).min(FEED_BYTES_MAX)
    }

    /// Changes a feed and keeps the sum of all.
    fn change(&self, feed: &mut Feed, change: impl FnOnce(&mut Feed)) {
        let before = feed.bytes;
        change(feed);
        // Wraps around and back where a feed has shrunk.
        self.bytes.fetch_add(feed.bytes.wrapping_sub(before), Ordering::Relaxed);
    }
}

/// A new feed's first cursor: random, so that a cursor of an earlier feed of the device, of this
/// run of the service or another, is told apart and answered by a snapshot.
fn origin() -> u64 {
    u64::from(u32::from_be_bytes(random_bytes()) >> 1) << 32
}

impl Feed {
    fn push(&mut self, change: &Encoded, len: usize, share: usize) {
        self.cursor += 1;
        self.bytes += len;
        self.changes.push_back((Arc::clone(change), len));
        self.trim(share);
        self.wake.notify_waiters();
    }

    /// Drops the oldest changes beyond the feed's bounds.
    fn trim(&mut self, share: usize) {
        while self.changes.len() > FEED_LEN_MAX || self.bytes > share {
            let Some((_, len)) = self.changes.pop_front() else { break };
            self.bytes -= len;
        }
    }
}

#[cfg(test)]
mod tests {
    use lanrage_proto::SessionId;

    use super::*;

    const DEVICE: DeviceKey = DeviceKey([1; 32]);

    fn change() -> Encoded {
        encode(&Change::Relays { session: SessionId(1), relays: Vec::new() })
    }

    #[test]
    fn a_feed_resumes_from_what_it_still_has_and_no_further() {
        let hub = Hub::default();
        hub.publish(&DEVICE, &change());
        let attached = hub.attach(&DEVICE);
        let begin = hub.cursor(&DEVICE);
        assert!(matches!(hub.next(&DEVICE, attached.stream, begin), Next::UpToDate));
        for _ in 0..FEED_LEN_MAX {
            hub.publish(&DEVICE, &change());
        }
        let next = hub.next(&DEVICE, attached.stream, begin);
        assert!(matches!(next, Next::Changes(changes) if changes.len() == FEED_LEN_MAX));
        let next = hub.next(&DEVICE, attached.stream, begin + 60);
        assert!(matches!(next, Next::Changes(changes) if changes.len() == FEED_LEN_MAX - 60));
        hub.publish(&DEVICE, &change());
        assert!(matches!(hub.next(&DEVICE, attached.stream, begin), Next::Lost));
        let ahead = hub.cursor(&DEVICE) + 1;
        assert!(matches!(hub.next(&DEVICE, attached.stream, ahead), Next::Lost));
    }

    /// A device came back after its feed was dropped, found a new one that began at the same cursor,
    /// and never heard what had changed meanwhile.
    #[test]
    fn regression_a_cursor_of_a_dropped_feed_is_lost() {
        let hub = Hub::default();
        let attached = hub.attach(&DEVICE);
        let begin = hub.cursor(&DEVICE);
        hub.detach(&DEVICE, attached.stream, 0);
        hub.sweep(OFFLINE_DELAY_S);
        hub.sweep(FEED_KEPT_S);
        assert!(!hub.has_feed(&DEVICE));
        let attached = hub.attach(&DEVICE);
        assert!(matches!(hub.next(&DEVICE, attached.stream, begin), Next::Lost));
        hub.publish(&DEVICE, &change());
        assert!(matches!(hub.next(&DEVICE, attached.stream, begin), Next::Lost));
        assert!(matches!(hub.next(&DEVICE, attached.stream, begin + 1), Next::Lost));
    }

    #[test]
    fn big_changes_bound_a_feed_by_bytes() {
        let hub = Hub::default();
        let attached = hub.attach(&DEVICE);
        let begin = hub.cursor(&DEVICE);
        let relays = vec![lanrage_proto::RelayId(60_000); FEED_BYTES_MAX / 16];
        let big = encode(&Change::Relays { session: SessionId(1), relays });
        for _ in 0..3 {
            hub.publish(&DEVICE, &big);
        }
        assert!(matches!(hub.next(&DEVICE, attached.stream, begin), Next::Lost));
        assert!(hub.feeds.get(&DEVICE).unwrap().bytes <= FEED_BYTES_MAX);
    }

    /// Each feed was bounded and their sum was not: whoever had many devices had all the memory.
    #[test]
    fn regression_all_feeds_together_are_bounded_and_who_holds_much_loses_it() {
        const MAX: usize = 64 << 10;
        let hub = Hub { bytes_max: MAX, ..Hub::default() };
        let device = |number: u8| DeviceKey([number; 32]);
        let small = change();
        let relays = vec![lanrage_proto::RelayId(60_000); 2 << 10];
        let big = encode(&Change::Relays { session: SessionId(1), relays });
        let modest = hub.attach(&DEVICE);
        let begin = hub.cursor(&DEVICE);
        for _ in 0..8 {
            hub.publish(&DEVICE, &small);
        }
        for number in 2..10 {
            hub.attach(&device(number));
            (0..20).for_each(|_| hub.publish(&device(number), &big));
        }
        assert!(hub.bytes.load(Ordering::Relaxed) <= 2 * MAX);
        hub.sweep(0);
        assert!(hub.bytes.load(Ordering::Relaxed) <= MAX);
        let next = hub.next(&DEVICE, modest.stream, begin);
        assert!(matches!(next, Next::Changes(changes) if changes.len() == 8));
        for number in 2..10 {
            hub.feeds.get_mut(&device(number)).unwrap().stream = None;
        }
        hub.detach(&DEVICE, modest.stream, 0);
        hub.sweep(FEED_KEPT_S);
        assert_eq!((hub.feeds.len(), hub.bytes.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn the_newest_stream_wins_and_going_offline_is_debounced() {
        let hub = Hub::default();
        let first = hub.attach(&DEVICE);
        assert!(first.came_online && hub.turn(&DEVICE, true) && hub.is_online(&DEVICE));
        let second = hub.attach(&DEVICE);
        assert!(!second.came_online);
        assert!(matches!(hub.next(&DEVICE, first.stream, 0), Next::Replaced));
        hub.detach(&DEVICE, first.stream, 10);
        assert_eq!(hub.sweep(100), [], "the second still holds it");
        hub.detach(&DEVICE, second.stream, 100);
        assert_eq!(hub.sweep(100 + OFFLINE_DELAY_S - 1), []);
        assert_eq!(hub.sweep(100 + OFFLINE_DELAY_S), [(DEVICE, false)]);
        assert!(hub.turn(&DEVICE, false) && !hub.is_online(&DEVICE));
        assert_eq!(hub.sweep(101 + OFFLINE_DELAY_S), [], "told once");
        assert!(hub.has_feed(&DEVICE));
        hub.sweep(100 + FEED_KEPT_S);
        assert!(!hub.has_feed(&DEVICE));
    }

    #[test]
    fn a_turn_is_taken_once_and_again_when_it_could_not_be_told() {
        let hub = Hub::default();
        let attached = hub.attach(&DEVICE);
        assert_eq!(hub.sweep(0), [(DEVICE, true)]);
        assert!(hub.turn(&DEVICE, true) && !hub.turn(&DEVICE, true));
        hub.untold(&DEVICE, true);
        assert!(hub.attach(&DEVICE).came_online);
        assert!(hub.turn(&DEVICE, true));
        assert!(!hub.turn(&DEVICE, false), "it has a stream");
        hub.detach(&DEVICE, attached.stream, 0);
        assert_eq!(hub.sweep(OFFLINE_DELAY_S), [], "the newer stream is there");
    }
}
