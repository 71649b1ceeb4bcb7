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

/// Points stderr to /dev/null where it is the socket that stdin is: under a
/// super-server of the inetd kind a warning would reach the client.
pub fn hide_stderr_from_client() {
    let shared = same_file(io::stdin().as_fd(), io::stderr().as_fd());
    if let (Ok(true), Ok(null)) = (shared, File::options().write(true).open("/dev/null")) {
        // Where even this fails there is nobody left to tell.
        let _ = rustix::stdio::dup2_stderr(null);
    }
}

/// Points stdin and stdout to /dev/null, once the client on them is held elsewhere.
///
/// # Errors
/// /dev/null cannot be opened, or dup2(2) fails.
pub fn detach_stdin_and_stdout() -> io::Result<()> {
    let null = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(())
}

/// Whether two descriptors are one socket. Terminals and files do not count: by
/// hand, stdin and stderr are one terminal and must stay so.
fn same_file(a: BorrowedFd<'_>, b: BorrowedFd<'_>) -> io::Result<bool> {
    const SOCKET: u32 = 0o140_000;
    const KIND: u32 = 0o170_000;
    let look = |fd: BorrowedFd<'_>| File::from(fd.try_clone_to_owned()?).metadata();
    let (a, b) = (look(a)?, look(b)?);
    Ok(a.mode() & KIND == SOCKET && (a.dev(), a.ino()) == (b.dev(), b.ino()))
}
