//! Signals: which are handled, and which have arrived; wraps signal-hook.
//!
//! A handler sets a flag, which cannot fail, and writes a byte into a socket pair,
//! which wakes epoll_wait(2). If the write fails, epoll_wait(2) still returns EINTR,
//! and the flag is read at each loop iteration.

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
#[derive(Debug)]
pub struct Signals {
    reload: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    wake: UnixStream,
}

impl Signals {
    /// Handles SIGHUP (reload), SIGTERM and SIGINT (stop) from now on, also if the
    /// parent process blocked them, and ignores the signals that would end a process
    /// for reasons that do not concern it.
    ///
    /// # Errors
    /// Those of socketpair(2) and sigaction(2).
    pub fn install() -> io::Result<Self> {
        ffi::ignore_signals();
        let (wake, write) = socket::pair()?;
        let signals = Self {
            reload: Arc::new(AtomicBool::new(false)),
            stop: Arc::new(AtomicBool::new(false)),
            wake,
        };
        for (signal, arrived) in [
            (SIGHUP, &signals.reload),
            (SIGTERM, &signals.stop),
            (SIGINT, &signals.stop),
        ] {
            // In this order: the byte must not arrive before the flag.
            flag::register(signal, Arc::clone(arrived))?;
            pipe::register(signal, write.try_clone()?)?;
        }
        ffi::unblock_signals(&[SIGHUP, SIGTERM, SIGINT]);
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

    /// Reads the bytes of the handlers, so that the next one wakes epoll_wait(2) again.
    pub fn drain_wake(&self) {
        socket::discard_all(&self.wake);
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.wake.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrived_signals_are_taken_once() {
        let signals = Signals::install().unwrap();
        assert!(!signals.take_reload() && !signals.take_stop());
        signal_hook::low_level::raise(SIGHUP).unwrap();
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert!(signals.has_reload() && signals.take_reload());
        assert!(!signals.take_reload());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        assert!(signals.take_stop());
    }

    #[test]
    fn ignored_signals_do_not_end_the_process() {
        let _signals = Signals::install().unwrap();
        for signal in ffi::IGNORED_SIGNALS {
            signal_hook::low_level::raise(signal).unwrap();
        }
    }
}
