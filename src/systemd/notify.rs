//! Notifies the service manager of state changes (sd_notify(3)); wraps libsystemd.

use std::time::Duration;

use libsystemd::daemon::{self, NotifyState};

use crate::error::escape_control;
use crate::event;
use crate::sys;

/// Sends notifications to `$NOTIFY_SOCKET`; does nothing without it.
#[derive(Debug, Default)]
pub struct Notifier {
    /// Whether the last notification failed: only the first failure is logged.
    failed: bool,
}

impl Notifier {
    /// `READY=1`: startup, or a reload, is complete. `status` is the text that
    /// systemctl(1) prints.
    pub fn notify_ready(&mut self, status: &str) {
        self.send(&[NotifyState::Ready, status_state(status)]);
    }

    /// `STATUS=`: the text that systemctl(1) prints.
    pub fn notify_status(&mut self, status: &str) {
        self.send(&[status_state(status)]);
    }

    /// `RELOADING=1`: a reload begins; [`Notifier::notify_ready`] ends it. Without
    /// the timestamp `systemctl reload` would wait until it times out.
    pub fn notify_reloading(&mut self) {
        let timestamp = format!("MONOTONIC_USEC={}", sys::monotonic_usec());
        self.send(&[NotifyState::Reloading, NotifyState::Other(timestamp)]);
    }

    /// `STOPPING=1`: the service is about to exit.
    pub fn notify_stopping(&mut self, status: &str) {
        self.send(&[NotifyState::Stopping, status_state(status)]);
    }

    /// `WATCHDOG=1`: the serving loop runs.
    pub fn notify_watchdog(&mut self) {
        self.send(&[NotifyState::Watchdog]);
    }

    /// A failure does not stop the service: it is logged, once.
    fn send(&mut self, states: &[NotifyState]) {
        let result = daemon::notify(false, states);
        if let Err(error) = &result {
            if !self.failed {
                log::warn!(MESSAGE_ID = event::NOTIFY_FAILED; "sd_notify failed: {error}; continuing");
            }
        }
        self.failed = result.is_err();
    }
}

fn status_state(status: &str) -> NotifyState {
    NotifyState::Status(escape_control(status))
}

/// How often to send `WATCHDOG=1`: half of `WatchdogSec=`, as
/// sd_watchdog_enabled(3) recommends. `None` if the watchdog is off.
pub fn watchdog_interval() -> Option<Duration> {
    let interval = daemon::watchdog_enabled(false)? / 2;
    (!interval.is_zero()).then_some(interval)
}
