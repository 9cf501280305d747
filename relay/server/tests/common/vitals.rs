use std::fs;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
pub struct Vitals {
    /// VmRSS, in KiB.
    pub resident_kib: u64,
    pub descriptors: usize,
    pub threads: u64,
}

impl Vitals {
    pub fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
        };
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        Self { resident_kib: number("VmRSS:"), descriptors, threads: number("Threads:") }
    }
}

/// Whether what takes minutes runs whole.
pub fn is_soak() -> bool {
    std::env::var_os("LANRAGE_SOAK").is_some()
}
