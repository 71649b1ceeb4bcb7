//! What a process costs, by the kernel's own books.

use std::fs;
use std::io;

/// CPU of all threads since their start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// To the nanosecond.
    pub nanoseconds: u64,
    /// In clock ticks: too coarse for one round, good enough for the shares of
    /// user and system over all of them.
    pub user_ticks: u64,
    pub system_ticks: u64,
}

/// Memory in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    /// What no other process shares: text and libraries left out.
    pub private: u64,
}

/// Reads what the process has used up to now.
///
/// # Errors
///
/// The process is gone.
pub fn cpu(pid: u32) -> io::Result<Cpu> {
    let mut cpu = Cpu::default();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let schedstat = fs::read_to_string(task?.path().join("schedstat"))?;
        cpu.nanoseconds += field(&schedstat, 0)?;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold spaces.
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    cpu.user_ticks = field(after_name, 11)?;
    cpu.system_ticks = field(after_name, 12)?;
    Ok(cpu)
}

/// Reads what the process holds now.
///
/// # Errors
///
/// The process is gone or another user's.
pub fn memory(pid: u32) -> io::Result<Memory> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kib = |name: &str| {
        rollup
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or(Ok(0), |rest| field(rest, 0))
            .map(|kib| kib * 1024)
    };
    Ok(Memory {
        rss: kib("Rss:")?,
        pss: kib("Pss:")?,
        private: kib("Private_Clean:")? + kib("Private_Dirty:")?,
    })
}

/// How many descriptors the process has open.
///
/// # Errors
///
/// The process is gone or another user's.
pub fn descriptors(pid: u32) -> io::Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}

fn field(text: &str, n: usize) -> io::Result<u64> {
    text.split_whitespace()
        .nth(n)
        .and_then(|word| word.parse().ok())
        .ok_or_else(|| io::Error::other("/proc does not read as expected"))
}
