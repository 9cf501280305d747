//! The guardian: a process that tears a lab down when its owner is gone.
//!
//! ```text
//!   owner ──pipe──► guardian (sh) ── end of pipe: kill processes, delete namespaces and files
//!     └─ lock ─┬───────┘
//!     /run/lanrage-lab/<id>   unlocked and not standing = both died: the next lab sweeps it
//! ```

use std::{
    env, fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    process::{Pid, Signal, kill_process},
};

use crate::{Error, netns::NETNS_DIR};

const REGISTRY: &str = "/run/lanrage-lab";
const SCRIPT: &str = include_str!("guardian.sh");
const DOWN_PATIENCE: Duration = Duration::from_secs(10);

/// Names a lab among those of this machine: four of a-z and 0-9.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabId(String);

impl LabId {
    fn random() -> Result<Self, Error> {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut bytes = [0; 4];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::io("get random bytes")(io::Error::other(error)))?;
        let letter = |byte: u8| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]);
        Ok(Self(bytes.map(letter).iter().collect()))
    }

    /// The name `ip netns` knows a host by.
    pub fn netns(&self, host: &str) -> String {
        format!("lr-{self}-{host}")
    }

    fn entry(&self) -> PathBuf {
        Path::new(REGISTRY).join(&self.0)
    }
}

impl fmt::Display for LabId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LabId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self, Error> {
        let legal =
            id.len() == 4 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        if legal { Ok(Self(id.to_owned())) } else { Err(Error::NoSuchLab(id.to_owned())) }
    }
}

/// A lab that this machine knows of.
#[derive(Debug, Clone)]
pub struct Standing {
    pub id: LabId,
    /// The process that made it, and whether it still runs.
    pub owner: u32,
    pub owner_alive: bool,
    /// The hosts, as the lab named them.
    pub hosts: Vec<String>,
}

/// The owner's end of the pipe, and the lab's claim on its id.
#[derive(Debug)]
pub(crate) struct Guardian {
    id: LabId,
    dir: PathBuf,
    shell: Child,
    /// Holds the lock; the shell holds the same one.
    entry: File,
}

impl Guardian {
    /// Sweeps dead labs, claims an id and starts the guardian. A run directory is made in the
    /// temporary directory, and is the guardian's to remove, unless `dir` is given.
    pub(crate) fn start(dir: Option<&Path>) -> Result<Self, Error> {
        let _registry = lock_registry()?;
        sweep()?;
        let (id, mut entry) = claim()?;
        let keep = env::var_os("LAB_KEEP").map(PathBuf::from);
        let run_dir = match dir {
            Some(_) => None,
            None => Some(env::temp_dir().join(format!("lanrage-lab-{id}"))),
        };
        let record = Record {
            owner: std::process::id(),
            owner_started: start_time(std::process::id()).unwrap_or_default(),
            run_dir: run_dir.clone().unwrap_or_default(),
            keep_dir: keep.map(absolute).transpose()?.unwrap_or_default(),
            standing: false,
        };
        entry
            .write_all(record.to_text().as_bytes())
            .map_err(Error::io(format!("write {}", id.entry().display())))?;
        let dir = absolute(dir.map_or_else(|| run_dir.unwrap_or_default(), Path::to_owned))?;
        fs::create_dir_all(&dir).map_err(Error::io(format!("create {}", dir.display())))?;
        let shell = shell(&id, &record, &entry, Stdio::piped())?;
        Ok(Self { id, dir, shell, entry })
    }

    pub(crate) fn id(&self) -> &LabId {
        &self.id
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Ends the guardian and leaves the lab.
    pub(crate) fn stand_down(&mut self) -> Result<(), Error> {
        self.entry.write_all(b"standing\n").map_err(Error::io("mark the lab as standing"))?;
        if let Some(mut orders) = self.shell.stdin.take() {
            orders.write_all(b"stand\n").map_err(Error::io("tell the guardian to stand down"))?;
        }
        self.shell.wait().map_err(Error::io("wait for the guardian"))?;
        // Its mark protects it from sweeps; the lock would keep `down` out.
        flock(&self.entry, FlockOperation::Unlock).map_err(Error::io("unlock the registry entry"))
    }
}

impl Drop for Guardian {
    /// Ends the pipe and waits until the lab is gone.
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        // Whatever stays, the next lab sweeps.
        let _swept_later = self.shell.wait();
    }
}

/// The labs of this machine.
///
/// # Errors
///
/// [`Error::Io`] if the registry cannot be read.
pub fn list() -> Result<Vec<Standing>, Error> {
    let _registry = lock_registry()?;
    let mut labs = Vec::new();
    for id in registered()? {
        let Some(record) = Record::read(&id) else {
            continue;
        };
        labs.push(Standing {
            owner: record.owner,
            owner_alive: record.owner_alive(),
            hosts: hosts(&id),
            id,
        });
    }
    labs.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(labs)
}

/// Takes a lab down: ends its owner if it still runs, then all that is left of the lab.
///
/// # Errors
///
/// [`Error::NoSuchLab`]; [`Error::StillUp`] if the owner does not heed SIGTERM within 10 s.
pub fn down(id: &LabId) -> Result<(), Error> {
    let deadline = Instant::now() + DOWN_PATIENCE;
    let record = Record::read(id).ok_or_else(|| Error::NoSuchLab(id.to_string()))?;
    if record.owner_alive() && record.owner != std::process::id() {
        let owner = i32::try_from(record.owner).ok().and_then(Pid::from_raw);
        // It may end by itself at this moment.
        let _gone = owner.map(|owner| kill_process(owner, Signal::TERM));
    }
    while id.entry().exists() {
        if Instant::now() > deadline {
            return Err(Error::StillUp(id.to_string()));
        }
        {
            let _registry = lock_registry()?;
            tear_down_unlocked(id)?;
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// What the registry says of a lab, a line each; `end` closes a record that was written whole.
#[derive(Debug)]
struct Record {
    owner: u32,
    /// Field 22 of /proc/pid/stat: tells the owner from a later process with its id.
    owner_started: u64,
    /// Empty: not the guardian's to remove.
    run_dir: PathBuf,
    /// Empty: nothing is kept.
    keep_dir: PathBuf,
    standing: bool,
}

impl Record {
    fn to_text(&self) -> String {
        format!(
            "{}\n{}\n{}\n{}\nend\n",
            self.owner,
            self.owner_started,
            self.run_dir.display(),
            self.keep_dir.display()
        )
    }

    fn read(id: &LabId) -> Option<Self> {
        let text = fs::read_to_string(id.entry()).ok()?;
        let mut lines = text.lines();
        let record = Self {
            owner: lines.next()?.parse().ok()?,
            owner_started: lines.next()?.parse().ok()?,
            run_dir: lines.next()?.into(),
            keep_dir: lines.next()?.into(),
            standing: text.ends_with("end\nstanding\n"),
        };
        (lines.next()? == "end").then_some(record)
    }

    fn owner_alive(&self) -> bool {
        start_time(self.owner) == Some(self.owner_started)
    }
}

/// One process at a time makes, lists or sweeps labs.
fn lock_registry() -> Result<File, Error> {
    fs::create_dir_all(REGISTRY).map_err(Error::io(format!("create {REGISTRY}")))?;
    let path = Path::new(REGISTRY).join(".lock");
    let file = File::create(&path).map_err(Error::io(format!("create {}", path.display())))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(Error::io(format!("lock {}", path.display())))?;
    Ok(file)
}

fn registered() -> Result<Vec<LabId>, Error> {
    let entries = fs::read_dir(REGISTRY).map_err(Error::io(format!("list {REGISTRY}")))?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

fn claim() -> Result<(LabId, File), Error> {
    loop {
        let id = LabId::random()?;
        let mut options = OpenOptions::new();
        options.append(true).create_new(true);
        match options.open(id.entry()) {
            Ok(entry) => {
                flock(&entry, FlockOperation::LockExclusive)
                    .map_err(Error::io(format!("lock {}", id.entry().display())))?;
                return Ok((id, entry));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::io("claim a lab id")(error)),
        }
    }
}

fn sweep() -> Result<(), Error> {
    for id in registered()? {
        if Record::read(&id).is_none_or(|record| !record.standing) {
            tear_down_unlocked(&id)?;
        }
    }
    Ok(())
}

/// Tears a lab down if neither owner nor guardian holds it; the caller holds the registry.
fn tear_down_unlocked(id: &LabId) -> Result<(), Error> {
    let Ok(entry) = OpenOptions::new().append(true).open(id.entry()) else {
        // The guardian has just removed it.
        return Ok(());
    };
    if flock(&entry, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    // An owner that died while it wrote its record had not made anything yet.
    let Some(record) = Record::read(id) else {
        return fs::remove_file(id.entry()).map_err(Error::io("remove a torn registry entry"));
    };
    shell(id, &record, &entry, Stdio::null())?.wait().map_err(Error::io("wait for a sweep"))?;
    Ok(())
}

fn shell(id: &LabId, record: &Record, entry: &File, orders: Stdio) -> Result<Child, Error> {
    let entry = entry.try_clone().map_err(Error::io("duplicate the registry entry"))?;
    Command::new("sh")
        .args(["-c", SCRIPT, "lanrage-lab-guardian", &id.0])
        .arg(id.entry())
        .arg(&record.run_dir)
        .arg(&record.keep_dir)
        .arg(record.owner.to_string())
        // A group of its own: what ends the owner's group must not end the guardian.
        .process_group(0)
        .stdin(orders)
        .stdout(entry)
        .stderr(Stdio::null())
        .spawn()
        .map_err(Error::io("start the guardian"))
}

fn hosts(id: &LabId) -> Vec<String> {
    let prefix = id.netns("");
    let Ok(entries) = fs::read_dir(NETNS_DIR) else {
        return Vec::new();
    };
    let mut hosts: Vec<String> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Some(name.strip_prefix(&prefix)?.to_owned())
        })
        .collect();
    hosts.sort();
    hosts
}

/// When a process started, in clock ticks since boot (proc_pid_stat(5)).
fn start_time(process: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, field 2, is in parentheses and may hold anything.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(22 - 3)?.parse().ok()
}

fn absolute(path: PathBuf) -> Result<PathBuf, Error> {
    std::path::absolute(&path).map_err(Error::io(format!("resolve {}", path.display())))
}
