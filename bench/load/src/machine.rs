//! CPU time, to the nanosecond, of threads and of the machine.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::topology::{LOAD_CPU, RELAY_CPU};

/// What was measured on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// As the CPU calls itself.
    pub cpu: String,
    /// CPUs on line.
    pub cpus: usize,
    /// MiB.
    pub memory_mib: u64,
    /// Whether it is a guest, as its CPU says.
    pub virtual_machine: bool,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
        let flags = field(&cpuinfo, "flags").unwrap_or_default();
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu: field(&cpuinfo, "model name").unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: kib / 1024,
            virtual_machine: flags.split(' ').any(|flag| flag == "hypervisor"),
        }
    }
}

/// Time used until a moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    at: Instant,
    process: Duration,
    load: Duration,
    load_cpu_tasks: Duration,
    idle: Duration,
    switches: u64,
}

/// Whose time is read.
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// The contestant's process; without one the kernel itself forwards.
    pub process: Option<u32>,
    /// The sink's thread.
    pub sink: u32,
    /// The generator's thread.
    pub generator: u32,
}

/// Time used between two moments.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Used {
    /// Length, in seconds; so are all the others.
    pub wall: f64,
    /// Of the contestant's process.
    pub process: f64,
    /// Of the machine: all that the contestant's CPU was not idle, interrupts included, and every
    /// task of the load's CPU but the generator and the sink.
    pub machine: f64,
    /// Share of the contestant's CPU that was not idle, 0 to 1.
    pub busy: f64,
    /// Voluntary switches away from the contestant: how often it waited.
    pub waits: u64,
}

impl Watched {
    /// Reads all clocks.
    ///
    /// # Errors
    ///
    /// A thread is gone.
    pub fn read(&self) -> anyhow::Result<Snapshot> {
        let own = thread_time(self.sink)? + thread_time(self.generator)?;
        Ok(Snapshot {
            process: self.process.map(process_time).transpose()?.unwrap_or_default(),
            load: own,
            load_cpu_tasks: tasks_time(LOAD_CPU)?,
            idle: idle_time(RELAY_CPU)?,
            switches: self.process.map(waits).transpose()?.unwrap_or_default(),
            at: Instant::now(),
        })
    }
}

impl Snapshot {
    /// What was used since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Used {
        let wall = (self.at - earlier.at).as_secs_f64();
        let seconds = |now: Duration, then: Duration| now.saturating_sub(then).as_secs_f64();
        let busy = (wall - seconds(self.idle, earlier.idle)).max(0.0);
        let others =
            seconds(self.load_cpu_tasks, earlier.load_cpu_tasks) - seconds(self.load, earlier.load);
        Used {
            wall,
            process: seconds(self.process, earlier.process),
            machine: busy + others.max(0.0),
            busy: busy / wall,
            // A rival's threads may end, and their switches with them.
            waits: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// Of all threads of a process, those that ended excepted: no contestant ends threads under load.
fn process_time(process: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{process}/task");
    let mut sum = Duration::ZERO;
    for task in fs::read_dir(&tasks).with_context(|| format!("the contestant is gone: {tasks}"))? {
        sum += schedstat(&task.context("listing threads")?.path()).unwrap_or_default();
    }
    Ok(sum)
}

fn thread_time(thread: u32) -> anyhow::Result<Duration> {
    schedstat(Path::new(&format!("/proc/{thread}")))
}

/// The first field is the time on a CPU, in nanoseconds (Documentation/scheduler/sched-stats.rst).
fn schedstat(task: &Path) -> anyhow::Result<Duration> {
    let path = task.join("schedstat");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("schedstat without a time")?))
}

/// Of all tasks on a CPU since the start, kernel threads included: the root control group's account.
fn tasks_time(cpu: usize) -> anyhow::Result<Duration> {
    let path = "/sys/fs/cgroup/cpuacct/cpuacct.usage_percpu";
    let text = fs::read_to_string(path)
        .with_context(|| format!("{path}: mount the cpuacct control group (version 1)"))?;
    let nanoseconds = text.split_whitespace().nth(cpu).and_then(|field| field.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.context("no such CPU in cpuacct.usage_percpu")?))
}

/// Idle and waiting for I/O, in nanoseconds: /proc/stat has the same two in ticks of 10 ms
/// (`print_cpu`, kernel/time/timer_list.c). Interrupts end an idle time, so theirs is not in it.
fn idle_time(cpu: usize) -> anyhow::Result<Duration> {
    let path = "/proc/timer_list";
    let text = fs::read_to_string(path).with_context(|| format!("{path}: be root"))?;
    let section = text.split_once(&format!("\ncpu: {cpu}\n")).context("no such CPU")?.1;
    let field = |name: &str| {
        let line = section.lines().find(|line| line.trim_start().starts_with(name))?;
        line.split_once(':')?.1.trim().strip_suffix(" nsecs")?.parse::<u64>().ok()
    };
    let times = field(".idle_sleeptime").zip(field(".iowait_sleeptime"));
    let (idle, waiting) = times.with_context(|| format!("{path} without idle times"))?;
    Ok(Duration::from_nanos(idle + waiting))
}

fn waits(process: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{process}/task")).context("listing threads")? {
        let path = task.context("listing threads")?.path().join("status");
        let status = fs::read_to_string(&path).unwrap_or_default();
        let switches =
            status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += switches.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}
