//! System calls that std lacks, behind safe functions; wraps rustix.

pub mod ffi;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::panic;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{PidfdFlags, Resource, getpid, getrlimit, pidfd_open};
use rustix::system::uname;

/// The host name as uname(2) reports it: no lookup, no file.
pub fn hostname() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// The identifier of this process that is not reused: the inode number of its pidfd
/// (pidfd_open(2), Linux 6.9 and newer); `None` if it cannot be asked for.
pub fn pidfd_id() -> Option<u64> {
    let pidfd = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    Some(File::from(pidfd).metadata().ok()?.ino())
}

/// Whether the process runs as root (geteuid(2)).
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Microseconds of `CLOCK_MONOTONIC`, which sd_notify(3) requires beside `RELOADING=1`.
pub fn monotonic_usec() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The monotonic clock starts at boot and is never negative.
    now.tv_sec.unsigned_abs() * 1_000_000 + now.tv_nsec.unsigned_abs() / 1_000
}

/// The maximum number of open descriptors of this process (`RLIMIT_NOFILE`, getrlimit(2)).
pub fn descriptor_limit() -> usize {
    match getrlimit(Resource::Nofile).current {
        Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
        None => usize::MAX,
    }
}

/// Waits until a descriptor is readable; `false` after the timeout, or if poll(2) fails.
pub fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> bool {
    // Rounded up, so that the wait does not end before the timeout.
    let milliseconds = timeout.as_millis() + 1;
    ffi::poll_readable(fd, i32::try_from(milliseconds).unwrap_or(i32::MAX))
}

/// Whether stdout and stderr may be used: `false` if one of them is a client's socket
/// and could not be redirected.
pub fn is_output_usable() -> bool {
    OUTPUT_USABLE.load(Ordering::Relaxed)
}

static OUTPUT_USABLE: AtomicBool = AtomicBool::new(true);

/// Redirects stdout and stderr to /dev/null if they are the same socket as
/// `client`, so that no output reaches the client. If that fails, there is no output
/// from now on ([`is_output_usable`]), not even a panic message.
pub fn detach_output_from(client: BorrowedFd<'_>) {
    let Some(client) = socket_identity(client) else {
        return;
    };
    let is_stdout = socket_identity(io::stdout().as_fd()) == Some(client);
    let is_stderr = socket_identity(io::stderr().as_fd()) == Some(client);
    if (is_stdout || is_stderr) && redirect_output(is_stdout, is_stderr).is_err() {
        OUTPUT_USABLE.store(false, Ordering::Relaxed);
        panic::set_hook(Box::new(|_| {}));
    }
}

fn redirect_output(stdout: bool, stderr: bool) -> io::Result<()> {
    let null = File::options().write(true).open("/dev/null")?;
    if stderr {
        rustix::stdio::dup2_stderr(&null)?;
    }
    if stdout {
        rustix::stdio::dup2_stdout(&null)?;
    }
    Ok(())
}

/// Device and inode of a socket, which no other socket has; `None` for anything
/// else. Terminals and files do not count: without systemd, stdin and stderr are
/// one terminal and must stay so.
fn socket_identity(fd: BorrowedFd<'_>) -> Option<(u64, u64)> {
    let file = File::from(fd.try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok()?;
    metadata
        .file_type()
        .is_socket()
        .then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pidfd_id_is_the_inode_of_the_own_pidfd() {
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let inode = File::from(own).metadata().unwrap().ino();
        assert_eq!(pidfd_id(), Some(inode));
    }

    #[test]
    fn hostname_is_that_of_the_kernel() {
        let expected = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(hostname(), expected.trim_end());
    }

    #[test]
    fn monotonic_clock_is_that_of_the_kernel() {
        let clock = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            let nanoseconds = u32::try_from(now.tv_nsec).unwrap();
            let now = Duration::new(now.tv_sec.unsigned_abs(), nanoseconds);
            u64::try_from(now.as_micros()).unwrap()
        };
        for _ in 0..10 {
            let before = clock();
            let now = monotonic_usec();
            assert!((before..=clock()).contains(&now), "{now} after {before}");
        }
    }

    #[test]
    fn wait_does_not_end_before_the_timeout() {
        let (socket, peer) = std::os::unix::net::UnixStream::pair().unwrap();
        let timeout = Duration::from_micros(1900);
        let begun = std::time::Instant::now();
        assert!(!wait_readable(socket.as_fd(), timeout));
        assert!(begun.elapsed() >= timeout);
        drop(peer);
        assert!(wait_readable(socket.as_fd(), Duration::from_secs(5)));
    }
}
