//! What the operating system says of this process, under the names that
//! Prometheus clients use. Absent where the system does not tell.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

/// Figures of this process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    /// User and system CPU time, in seconds.
    pub(super) cpu: f64,
    /// Resident memory, in bytes.
    pub(super) resident: u64,
    /// Open file descriptors.
    pub(super) open_fds: u64,
    /// Threads.
    pub(super) threads: u64,
}

impl Process {
    /// Reads `/proc/self`.
    pub(super) fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the program's name in brackets and may hold blanks.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)?;
        Some(Self {
            cpu: ticks as f64 / clock_ticks_per_second() as f64,
            resident: field(24)? * page_size() as u64,
            open_fds: open_fds()?,
            threads: field(20)?,
        })
    }
}

/// Linux tells the number as the folder's size since 6.2; before, only counting
/// helps, which takes milliseconds with thousands of callers.
fn open_fds() -> Option<u64> {
    let folder = "/proc/self/fd";
    match fs::metadata(folder).ok()?.len() {
        0 => Some(fs::read_dir(folder).ok()?.count() as u64),
        size => Some(size),
    }
}
