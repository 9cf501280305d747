//! Packet captures.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::{Error, Host, Process, lab::require_tool};

const TCPDUMP_PATIENCE: Duration = Duration::from_secs(5);

/// A running tcpdump. Dropped without [`Capture::stop`] it leaves what it has written so far.
#[derive(Debug)]
pub struct Capture {
    tcpdump: Process,
    path: PathBuf,
}

impl Capture {
    pub(crate) fn start(host: &Host, name: &str) -> Result<Self, Error> {
        require_tool("tcpdump", "tcpdump")?;
        let path = host.dir.join(format!("{}-{name}.pcap", host.name));
        let mut command = host.command("tcpdump");
        // -Z root: Debian's tcpdump else becomes a user that cannot write here.
        command
            .args(["-i", "eth0", "-n", "-s", "0", "-B", "16384"])
            .args(["--immediate-mode", "-U", "-Z", "root", "-w"])
            .arg(&path);
        let mut tcpdump = host.spawn(&format!("{name}-tcpdump"), command)?;
        tcpdump.wait_for_log("listening on", TCPDUMP_PATIENCE)?;
        Ok(Self { tcpdump, path })
    }

    /// Ends the capture; the file is whole when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if tcpdump does not end.
    pub fn stop(mut self) -> Result<PathBuf, Error> {
        self.tcpdump.signal(Signal::INT)?;
        self.tcpdump.wait(TCPDUMP_PATIENCE)?;
        Ok(self.path.clone())
    }
}

/// How many packets of a pcap file hold `needle`, Ethernet headers included.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be read; [`Error::BadCapture`] if it is not a whole pcap file.
pub fn packets_containing(pcap: &Path, needle: &[u8]) -> Result<usize, Error> {
    let bytes = fs::read(pcap).map_err(Error::io(format!("read {}", pcap.display())))?;
    let packets = packets(&bytes).ok_or_else(|| Error::BadCapture(pcap.display().to_string()))?;
    let holds = |packet: &&&[u8]| {
        needle.is_empty() || packet.windows(needle.len()).any(|window| window == needle)
    };
    Ok(packets.iter().filter(holds).count())
}

/// The packets of a classic pcap file (draft-ietf-opsawg-pcap §4, §5) of this machine's byte order.
fn packets(mut file: &[u8]) -> Option<Vec<&[u8]>> {
    const FILE_HEADER_LEN: usize = 24;
    const MAGIC_MICROSECONDS: u32 = 0xa1b2_c3d4;
    const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
    const RECORD_HEADER_LEN: usize = 16;
    const CAPTURED_LEN_AT: usize = 8;

    let header = file.split_off(..FILE_HEADER_LEN)?;
    let magic = u32::from_ne_bytes(*header.first_chunk()?);
    if ![MAGIC_MICROSECONDS, MAGIC_NANOSECONDS].contains(&magic) {
        return None;
    }
    let mut packets = Vec::new();
    while !file.is_empty() {
        let record = file.split_off(..RECORD_HEADER_LEN)?;
        let len = u32::from_ne_bytes(*record[CAPTURED_LEN_AT..].first_chunk()?);
        packets.push(file.split_off(..usize::try_from(len).ok()?)?);
    }
    Some(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pcap(payloads: &[&[u8]]) -> Vec<u8> {
        let mut file = 0xa1b2_c3d4_u32.to_ne_bytes().to_vec();
        file.extend([0; 20]);
        for payload in payloads {
            let len = u32::try_from(payload.len()).unwrap().to_ne_bytes();
            file.extend([0; 8]);
            file.extend(len);
            file.extend(len);
            file.extend(*payload);
        }
        file
    }

    #[test]
    fn packets_are_told_apart() {
        let file = pcap(&[b"one", b"", b"three"]);
        assert_eq!(packets(&file), Some(vec![&b"one"[..], b"", b"three"]));
        assert_eq!(packets(&file[..file.len() - 1]), None);
        assert_eq!(packets(b"not a capture, only long enough"), None);
    }
}
