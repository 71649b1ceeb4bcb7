//! Signals: which are handled, and which have arrived; wraps signal-hook.
//!
//! A handler sets a flag, which cannot fail, and writes a byte into a socket pair,
//! which wakes epoll_wait(2). If the write fails, epoll_wait(2) still returns EINTR,
//! and the flag is read at each loop iteration.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::socket;
use crate::sys::ffi;

/// The handled signals.
const HANDLED: [i32; 3] = [SIGHUP, SIGTERM, SIGINT];

/// Which of the handled signals have arrived.
#[derive(Debug)]
pub struct Signals {
    reload: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Signals {
    /// Handles SIGHUP (reload), SIGTERM and SIGINT (stop) from now on, and ignores the
    /// signals that would end a process for reasons that do not concern it. It takes no
    /// descriptor. Signals that the parent process blocked wait for [`WakeSocket::new`].
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub fn install() -> io::Result<Self> {
        ffi::ignore_signals();
        let signals = Self {
            reload: Arc::new(AtomicBool::new(false)),
            stop: Arc::new(AtomicBool::new(false)),
        };
        flag::register(SIGHUP, Arc::clone(&signals.reload))?;
        flag::register(SIGTERM, Arc::clone(&signals.stop))?;
        flag::register(SIGINT, Arc::clone(&signals.stop))?;
        Ok(signals)
    }

    /// Whether SIGHUP has arrived since the last call.
    pub fn take_reload(&self) -> bool {
        self.reload.swap(false, Ordering::Relaxed)
    }

    /// Whether SIGHUP has arrived and was not taken.
    pub fn has_reload(&self) -> bool {
        self.reload.load(Ordering::Relaxed)
    }

    /// Whether SIGTERM or SIGINT has arrived since the last call.
    pub fn take_stop(&self) -> bool {
        self.stop.swap(false, Ordering::Relaxed)
    }
}

/// Makes another greeter process reload its settings: sends SIGHUP.
///
/// # Errors
/// The process does not handle SIGHUP, which would end it, or those of kill(2).
pub fn request_reload(pid: i32) -> io::Result<()> {
    // In the sandbox of a unit, other processes may be invisible (ProtectProc=): systemd
    // passes the right one.
    if let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        if handles(&status, SIGHUP) == Some(false) {
            let message = "it does not handle SIGHUP, so it is not a greeter service";
            return Err(io::Error::other(message));
        }
    }
    ffi::send_sighup(pid)
}

/// Whether a process has a handler for a signal, by `SigCgt` of its `/proc/PID/status`
/// (proc(5)); `None` if that is not in the text.
fn handles(status: &str, signal: i32) -> Option<bool> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))?;
    let mask = u64::from_str_radix(mask.trim(), 16).ok()?;
    Some(mask >> (signal - 1) & 1 == 1)
}

/// A socket that becomes readable when a handled signal arrives. Without one, a signal
/// that arrives just before epoll_wait(2) is seen after it.
#[derive(Debug)]
pub struct WakeSocket(UnixStream);

impl WakeSocket {
    /// Must be called after [`Signals::install`], so that the flag is set before the
    /// byte is written, and after threads were started, as the C library blocks all
    /// signals meanwhile.
    ///
    /// # Errors
    /// Those of pthread_sigmask(3), socketpair(2), fcntl(2) and sigaction(2).
    pub fn new() -> io::Result<Self> {
        ffi::unblock_signals(&HANDLED)?;
        let (read, write) = socket::pair()?;
        for signal in HANDLED {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    /// Reads the bytes of the handlers, so that the next one is an event again.
    pub fn drain(&self) {
        socket::discard_all(&self.0);
    }
}

impl AsRawFd for WakeSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::sys;
    use std::sync::Mutex;
    use std::time::Duration;

    /// A signal reaches every test of the process: one at a time.
    pub static SERIAL: Mutex<()> = Mutex::new(());

    #[test]
    fn arrived_signals_are_taken_once() {
        let _serial = SERIAL.lock();
        let signals = Signals::install().unwrap();
        assert!(!signals.has_reload());
        assert!(!signals.take_reload() && !signals.take_stop());
        signal_hook::low_level::raise(SIGHUP).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(signals.has_reload());
        assert!(signals.take_reload());
        assert!(!signals.take_reload());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(signals.take_stop());
    }

    #[test]
    fn signal_makes_the_wake_socket_readable() {
        use std::os::fd::AsFd;
        let _serial = SERIAL.lock();
        let signals = Signals::install().unwrap();
        let wake = WakeSocket::new().unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(sys::wait_readable(wake.0.as_fd(), Duration::ZERO));
        assert!(signals.take_reload());
        wake.drain();
        assert!(!sys::wait_readable(wake.0.as_fd(), Duration::ZERO));
    }

    #[test]
    fn caught_signals_are_read_from_the_mask() {
        let status = "Name:\tx\nSigIgn:\tffffffffffffffff\nSigCgt:\t0000000000004001\n";
        assert_eq!(handles(status, SIGHUP), Some(true));
        assert_eq!(handles(status, SIGTERM), Some(true));
        assert_eq!(handles(status, SIGINT), Some(false));
        assert_eq!(handles("Name:\tx\n", SIGHUP), None);
    }

    #[test]
    fn ignored_signals_do_not_end_the_process() {
        let _signals = Signals::install().unwrap();
        for signal in ffi::IGNORED_SIGNALS {
            signal_hook::low_level::raise(signal).unwrap();
        }
    }
}
