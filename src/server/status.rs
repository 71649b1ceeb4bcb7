//! What the service manager is told, and when: READY, STATUS, WATCHDOG, STOPPING, and the
//! results of reloads.

use std::time::{Duration, Instant};

use super::acceptor::Acceptor;
use super::connections::Connections;
use super::every::Every;
use super::stats::Totals;
use crate::error::Error;
use crate::systemd::notify::{self, Notifier};

/// How often the status text is sent, at most.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the result of a reload is not logged again. `systemctl reload` sends SIGHUP
/// twice: systemd does (`Type=notify-reload`), and so does `greeter --reload`.
const RELOAD_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// The state of the service as systemd sees it.
#[derive(Debug)]
pub struct Status {
    notifier: Notifier,
    watchdog: Option<Every>,
    /// Due when the next status text may be sent.
    texts: Every,
    /// What the last one contained.
    last: Content,
    /// The part of the status text about the last reload, if it failed.
    reload_error: String,
    reload_lines: Every,
}

/// What a status text depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Content {
    totals: Totals,
    open: usize,
    failing: usize,
}

impl Content {
    fn new(connections: &Connections, acceptor: &Acceptor) -> Self {
        Self {
            totals: connections.stats().totals(),
            open: connections.len(),
            failing: acceptor.failing().count(),
        }
    }
}

impl Status {
    /// A status for the service manager that the environment names.
    pub fn from_environment(now: Instant) -> Self {
        Self::new(
            Notifier::from_environment(),
            notify::watchdog_interval(),
            now,
        )
    }

    fn new(notifier: Notifier, watchdog_interval: Option<Duration>, now: Instant) -> Self {
        let watchdog = watchdog_interval.map(|interval| {
            let mut watchdog = Every::new(interval);
            watchdog.begin(now);
            watchdog
        });
        Self {
            notifier,
            watchdog,
            texts: Every::new(STATUS_INTERVAL),
            last: Content::default(),
            reload_error: String::new(),
            reload_lines: Every::new(RELOAD_LOG_INTERVAL),
        }
    }

    /// The service has started. In this order: `systemctl status` shows the text when
    /// `systemctl start` returns.
    pub fn notify_ready(&mut self, text: &str) {
        self.notifier.notify_status(text);
        self.notifier.notify_ready();
    }

    /// Returns when [`Status::update`] or [`Status::send_pending`] has something to send;
    /// `None` if neither has.
    pub fn next_notification(
        &self,
        connections: &Connections,
        acceptor: &Acceptor,
        now: Instant,
    ) -> Option<Instant> {
        let is_changed = self.last != Content::new(connections, acceptor);
        let text = is_changed.then(|| self.texts.next().unwrap_or(now));
        [text, self.next_retry()].into_iter().flatten().min()
    }

    /// Returns when [`Status::send_pending`] has something to send.
    pub fn next_retry(&self) -> Option<Instant> {
        let watchdog = self.watchdog.as_ref().and_then(Every::next);
        [watchdog, self.notifier.next_retry()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Sends `WATCHDOG=1` if it is due, and what could not be sent before.
    pub fn send_pending(&mut self, now: Instant) {
        if let Some(watchdog) = &mut self.watchdog {
            if watchdog.is_due(now) {
                self.notifier.notify_watchdog();
            }
        }
        self.notifier.send_pending(now);
    }

    /// Sends the status text if it has changed and is due.
    pub fn update(&mut self, connections: &Connections, acceptor: &Acceptor, now: Instant) {
        let content = Content::new(connections, acceptor);
        if self.last != content && self.texts.is_due(now) {
            self.last = content;
            let text = self.text(connections, acceptor);
            self.notifier.notify_status(&text);
        }
    }

    fn text(&self, connections: &Connections, acceptor: &Acceptor) -> String {
        let mut text = connections.stats().status(connections.len());
        for listener in acceptor.failing() {
            text += &format!("; cannot accept on {}", listener.endpoint().local_addr);
        }
        text + &self.reload_error
    }

    /// A reload begins.
    pub fn begin_reload(&mut self) {
        self.notifier.notify_reloading();
    }

    /// Records the result of a reload: its error, or whether it has changed the settings.
    /// Returns whether it must be logged; the same result is not logged again within
    /// [`RELOAD_LOG_INTERVAL`].
    pub fn record_reload(&mut self, result: Result<bool, &Error>, now: Instant) -> bool {
        let (is_changed, error) = match result {
            Ok(is_changed) => (is_changed, String::new()),
            Err(error) => (false, format!("; reload failed: {error}")),
        };
        let is_repeated = !is_changed && error == self.reload_error;
        self.reload_error = error;
        if is_repeated {
            return self.reload_lines.is_due(now);
        }
        self.reload_lines.begin(now);
        true
    }

    /// The reload has ended. In this order: `systemctl status` shows the text when
    /// `systemctl reload` returns.
    pub fn end_reload(&mut self, connections: &Connections, acceptor: &Acceptor) {
        let text = self.text(connections, acceptor);
        self.notify_ready(&text);
    }

    /// The service stops, and its connections are finished.
    pub fn notify_draining(&mut self, connections: &Connections, acceptor: &Acceptor) {
        self.notifier.notify_stopping();
        let text = format!("Stopping; {}", self.text(connections, acceptor));
        self.notifier.notify_status(&text);
    }

    /// The service is about to exit because of an error.
    pub fn notify_failing(&mut self) {
        self.notifier.notify_stopping();
    }

    /// The service is about to exit for lack of connections.
    pub fn notify_idle(&mut self) {
        self.notifier.notify_stopping();
        self.notifier
            .notify_status("Exiting; the next connection starts the service again");
    }

    /// Before the exit: waits for a moment until what could not be sent is.
    pub fn flush(&mut self) {
        self.notifier.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::rc::Rc;

    use super::super::connection::tests::unix_connection;
    use super::super::listener::tests::default_settings;
    use super::super::stats::Stats;
    use crate::poller::Poller;
    use crate::systemd::notify::tests::{pair, receive, receive_all};

    fn connections(now: Instant) -> Connections {
        let poller = Rc::new(Poller::new().unwrap());
        Connections::new(poller, Stats::new(&default_settings(), now))
    }

    #[test]
    fn status_is_sent_once_a_second_at_most_and_only_if_it_has_changed() {
        let start = Instant::now();
        let (notifier, manager) = pair("status-interval");
        let mut status = Status::new(notifier, None, start);
        let mut connections = connections(start);
        let acceptor = Acceptor::new();
        status.update(&connections, &acceptor, start);
        assert_eq!(receive(&manager), None);
        assert_eq!(
            status.next_notification(&connections, &acceptor, start),
            None
        );

        let (first, _client) = unix_connection(b"hello\n");
        connections.add(first, start);
        let next = status.next_notification(&connections, &acceptor, start);
        assert_eq!(next, Some(start));
        status.update(&connections, &acceptor, start);
        let text = receive(&manager).unwrap();
        assert!(
            text.ends_with("0 greetings sent, 1 open connection"),
            "{text}"
        );

        let (second, _client) = unix_connection(b"hello\n");
        connections.add(second, start);
        let later = start + STATUS_INTERVAL;
        let next = status.next_notification(&connections, &acceptor, start);
        assert_eq!(next, Some(later));
        status.update(&connections, &acceptor, later - Duration::from_nanos(1));
        assert_eq!(receive(&manager), None);
        status.update(&connections, &acceptor, later);
        assert!(receive(&manager).unwrap().contains("2 open connections"));
    }

    #[test]
    fn watchdog_is_notified_at_each_interval() {
        let start = Instant::now();
        let (notifier, manager) = pair("watchdog");
        let interval = Duration::from_secs(5);
        let mut status = Status::new(notifier, Some(interval), start);
        assert_eq!(status.next_retry(), Some(start + interval));
        status.send_pending(start + interval - Duration::from_nanos(1));
        assert_eq!(receive(&manager), None);
        status.send_pending(start + interval);
        status.send_pending(start + interval);
        assert_eq!(receive_all(&manager), ["WATCHDOG=1"]);
        assert_eq!(status.next_retry(), Some(start + 2 * interval));
    }

    #[test]
    fn same_result_of_a_reload_is_not_logged_twice_within_a_second() {
        let start = Instant::now();
        let (notifier, manager) = pair("reload");
        let mut status = Status::new(notifier, None, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let invalid = |reason: &str| Error::io(reason, io::Error::from_raw_os_error(5));
        for (milliseconds, result, is_logged) in [
            (0, Ok(false), true),
            (10, Ok(false), false),
            (20, Ok(true), true),
            (1019, Ok(false), false),
            (1020, Ok(false), true),
            (1030, Err(invalid("a")), true),
            (1040, Err(invalid("a")), false),
            (1050, Err(invalid("b")), true),
            (1060, Ok(false), true),
            (2060, Ok(false), true),
        ] {
            let result = result.as_ref().map(|is_changed| *is_changed);
            let actual = status.record_reload(result, at(milliseconds));
            assert_eq!(actual, is_logged, "{milliseconds}");
        }
        status.record_reload(Err(&invalid("read 'x'")), at(3000));
        status.end_reload(&connections(start), &Acceptor::new());
        let received = receive_all(&manager);
        assert!(received[0].ends_with("; reload failed: cannot read 'x': input/output error"));
        assert_eq!(received[1], "READY=1");
    }
}
