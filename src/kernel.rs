//! The few questions to the kernel that std does not ask; the door to rustix. Floor 1.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::process::{Resource, getrlimit};
use rustix::system::uname;

/// The host's name as uname(2) gives it: no lookup, no file.
pub fn hostname() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// Microseconds of `CLOCK_MONOTONIC`, which sd_notify(3) wants beside `RELOADING=1`.
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts at boot and is never negative.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// How many descriptors this process may have open (`RLIMIT_NOFILE`, getrlimit(2)).
pub fn descriptor_limit() -> usize {
    let most = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// Points stdout and stderr to /dev/null where they are `client`'s socket: what
/// is printed must not reach it.
pub fn hide_output_from(client: BorrowedFd<'_>) {
    let null = File::options().write(true).open("/dev/null");
    let (Ok(null), Some(client)) = (null, identity(client)) else {
        return;
    };
    // Where even this fails there is nobody left to tell.
    if identity(io::stderr().as_fd()) == Some(client) {
        let _ = rustix::stdio::dup2_stderr(&null);
    }
    if identity(io::stdout().as_fd()) == Some(client) {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// What no other socket has. Terminals and files do not count: by hand, stdin and
/// stderr are one terminal and must stay so.
fn identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let it = File::from(fd.try_clone_to_owned().ok()?).metadata().ok()?;
    it.file_type().is_socket().then(|| (it.dev(), it.ino()))
}
