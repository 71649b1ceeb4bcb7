//! Tells the service manager how it goes (sd_notify(3)). Floor 3.

use std::time::Duration;

use libsystemd::daemon::{self, NotifyState};

use crate::error::one_line;
use crate::event;
use crate::kernel;

/// The way to the service manager.
#[derive(Debug, Default)]
pub struct Notifier {
    failed: bool,
}

impl Notifier {
    /// The service is ready, and how it goes in words.
    pub fn ready(&mut self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(one_line(status))]);
    }

    /// How it goes in words.
    pub fn status(&mut self, status: &str) {
        self.tell(&[NotifyState::Status(one_line(status))]);
    }

    /// A reload begins; [`Notifier::ready`] ends it. Without the time stamp
    /// `systemctl reload` would wait until it times out.
    pub fn reloading(&mut self) {
        let stamp = format!("MONOTONIC_USEC={}", kernel::monotonic_usec());
        self.tell(&[NotifyState::Reloading, NotifyState::Other(stamp)]);
    }

    /// The service is about to end, and why in words.
    pub fn stopping(&mut self, status: &str) {
        self.tell(&[NotifyState::Stopping, NotifyState::Status(one_line(status))]);
    }

    /// The serving loop still turns.
    pub fn watchdog(&mut self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    /// Being unable to tell is no reason not to greet: it is said once.
    fn tell(&mut self, states: &[NotifyState]) {
        let told = daemon::notify(false, states);
        if let (Err(error), false) = (&told, self.failed) {
            log::warn!(
                MESSAGE_ID = event::NOTIFY_FAILED;
                "cannot tell the service manager at NOTIFY_SOCKET how it goes: {error}; greeting all the same"
            );
        }
        self.failed = told.is_err();
    }
}

/// How often the watchdog wants to be told: half of `WatchdogSec=`, as
/// sd_watchdog_enabled(3) recommends. None where it is off.
pub fn watchdog_interval() -> Option<Duration> {
    daemon::watchdog_enabled(false)
        .map(|limit| limit / 2)
        .filter(|half| !half.is_zero())
}
