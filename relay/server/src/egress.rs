//! What was sent and what was not, for fairness while the way out is short.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use lanrage_relay_core::{DropReason, SentTotals};
use lanrage_relay_uring::SendFailure;

use crate::published::ShardView;

/// The host's counts of UDP datagrams that found no room.
///
/// A queueing discipline that drops says so to the kernel, but not to a socket without IP_RECVERR, whose
/// send succeeds; what counts it is SndbufErrors (net/ipv4/udp.c, `udp_send_skb`), and EAGAIN too. With
/// IP_RECVERR anybody's ICMP would make sends fail.
#[derive(Debug)]
pub(crate) struct HostEgress {
    ipv4: Option<File>,
    ipv6: Option<File>,
}

/// /proc/net/snmp has less than 2 KiB, snmp6 some 5.
const LEN_MAX: usize = 16 * 1024;

impl HostEgress {
    /// Where /proc cannot be read, what sockets say has to do.
    pub(crate) fn open() -> Self {
        let open = |path| {
            let opened = File::open(path);
            opened.inspect_err(|error| tracing::warn!(path, %error, "send errors are unknown")).ok()
        };
        Self { ipv4: open("/proc/thread-self/net/snmp"), ipv6: open("/proc/thread-self/net/snmp6") }
    }

    /// Of all shards.
    pub(crate) fn sent(&self, shards: &[Arc<ShardView>]) -> SentTotals {
        let mut sent = SentTotals::default();
        for shard in shards {
            let kernel = &shard.kernel;
            sent.datagrams += kernel.tx_planned.get();
            sent.bytes += kernel.tx_bytes.get();
            sent.failed += kernel.tx_failed(SendFailure::WouldBlock);
            sent.failed += kernel.tx_failed(SendFailure::NoBuffers);
            sent.cut += shard.counters().dropped_for(DropReason::EgressShare);
        }
        let ipv4 = self.ipv4.as_ref().and_then(read).and_then(|text| snmp(&text));
        let ipv6 = self.ipv6.as_ref().and_then(read).and_then(|text| snmp6(&text));
        if let (Some(ipv4), Some(ipv6)) = (ipv4, ipv6) {
            sent.failed = ipv4 + ipv6;
        }
        sent
    }
}

fn read(file: &File) -> Option<String> {
    let mut bytes = vec![0; LEN_MAX];
    let len = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(len);
    String::from_utf8(bytes).ok()
}

/// Two lines a protocol: names, and numbers in the same order.
fn snmp(text: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let mut columns = names.split_whitespace().zip(numbers.split_whitespace());
    columns.find(|(name, _)| *name == "SndbufErrors")?.1.parse().ok()
}

/// A line a count.
fn snmp6(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("Udp6SndbufErrors"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_counts_what_was_not_sent() {
        let host = HostEgress::open();
        assert!(snmp(&read(host.ipv4.as_ref().unwrap()).unwrap()).is_some());
        assert!(snmp6(&read(host.ipv6.as_ref().unwrap()).unwrap()).is_some());
    }

    #[test]
    fn the_column_is_found_by_its_name() {
        let text =
            "Ip: A\nIp: 1\nUdp: InDatagrams SndbufErrors X\nUdp: 7 42 9\nUdpLite: SndbufErrors\n";
        assert_eq!(snmp(text), Some(42));
        assert_eq!(snmp("Udp: InDatagrams\nUdp: 7\n"), None);
        assert_eq!(snmp6("Udp6InDatagrams\t1\nUdp6SndbufErrors                \t3\n"), Some(3));
    }
}
