//! The few questions to the kernel that std does not ask; the door to rustix. Floor 1.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;

/// The host's name as uname(2) gives it: no lookup, no file.
#[must_use]
pub fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Microseconds of `CLOCK_MONOTONIC`, which sd_notify(3) wants beside `RELOADING=1`.
#[must_use]
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts at boot and is never negative.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// How many descriptors this process may have open (`RLIMIT_NOFILE`, getrlimit(2)).
#[must_use]
pub fn descriptor_limit() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit
        .current
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(usize::MAX)
}

/// Points stdout and stderr to /dev/null where they are `client`'s socket: what
/// is printed must not reach it.
pub fn hide_output_from(client: BorrowedFd<'_>) {
    let Ok(null) = File::options().write(true).open("/dev/null") else {
        return;
    };
    // Where even this fails there is nobody left to tell.
    if same_socket(client, io::stderr().as_fd()).unwrap_or(false) {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    if same_socket(client, io::stdout().as_fd()).unwrap_or(false) {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Whether two descriptors are one socket. Terminals and files do not count: by
/// hand, stdin and stderr are one terminal and must stay so.
fn same_socket(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    const SOCKET: u32 = 0o140_000;
    const KIND: u32 = 0o170_000;
    let look = |fd: BorrowedFd<'_>| File::from(fd.try_clone_to_owned()?).metadata();
    let (a, b) = (look(a)?, look(b)?);
    Ok(a.mode() & KIND == SOCKET && (a.dev(), a.ino()) == (b.dev(), b.ino()))
}
