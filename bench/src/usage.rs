//! CPU and memory use of a process, as reported in /proc.

use std::fs;
use std::io;

/// CPU time of all threads since their start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Exact.
    pub nanoseconds: u64,
    /// In clock ticks, which is too coarse for one round, but sufficient for the
    /// shares of user and system time over all rounds.
    pub user_ticks: u64,
    pub system_ticks: u64,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    /// Pages that no other process shares, which excludes code and libraries.
    pub private: u64,
}

/// The CPU time that the process has used until now.
///
/// # Errors
///
/// The process has exited.
pub fn cpu(pid: u32) -> io::Result<Cpu> {
    let mut cpu = Cpu::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        cpu.nanoseconds += field(&schedstat, 0)?;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may contain spaces.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    cpu.user_ticks = field(after_name, 11)?;
    cpu.system_ticks = field(after_name, 12)?;
    Ok(cpu)
}

/// The memory that the process uses now.
///
/// # Errors
///
/// The process has exited, or belongs to another user.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    Ok(Memory {
        rss: size(&rollup, "Rss:")?,
        pss: size(&rollup, "Pss:")?,
        private: size(&rollup, "Private_Clean:")? + size(&rollup, "Private_Dirty:")?,
    })
}

/// The number of open descriptors of the process.
///
/// # Errors
///
/// The process has exited, or belongs to another user.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

/// A size of `smaps_rollup` in bytes; 0 if it is not listed.
fn size(rollup: &str, name: &str) -> io::Result<u64> {
    match rollup.lines().find_map(|line| line.strip_prefix(name)) {
        Some(kibibytes) => Ok(field(kibibytes, 0)? * 1024),
        None => Ok(0),
    }
}

fn field(text: &str, index: usize) -> io::Result<u64> {
    text.split_whitespace()
        .nth(index)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other("unexpected format of a file in /proc"))
}
