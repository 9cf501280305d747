use std::fs;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// VmRSS, in KiB.
    pub resident_kib: u64,
    pub descriptors: usize,
    /// Without the kernel's own for io_uring, which come and go.
    pub threads: usize,
}

impl Vitals {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kib = resident.split_whitespace().next().unwrap().parse().unwrap();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let names =
            threads.filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        let threads = names.filter(|name| !name.starts_with("iou-")).count();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { resident_kib, descriptors, threads }
    }
}

/// Whether what takes minutes runs whole.
pub fn is_soak() -> bool {
    std::env::var_os("LANRAGE_SOAK").is_some()
}
