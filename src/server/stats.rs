//! Connection statistics: counts, the log line of each connection, the status text.

use std::fmt;
use std::mem;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use log::LevelFilter;

use super::connection::Connection;
use super::every::Every;
use super::log_rate_limit::LogRateLimiter;
use super::outcome::Outcome;
use super::redact::RedactedAddr;
use crate::event;
use crate::settings::network::Network;
use crate::settings::{PeerDetail, Settings};
use crate::time_format;

/// The statistics of the process.
#[derive(Debug)]
pub struct Stats {
    totals: Totals,
    last_client: Option<LastClient>,
    rate_limiter: LogRateLimiter,
    log_peer: PeerDetail,
    log_exclude: Vec<Network>,
    /// Connections without a greeting that have no line of their own, because of
    /// `log_level = "warn"`.
    unlogged: Totals,
    /// Due when they must be reported.
    summary: Every,
}

/// How often connections without a greeting are reported with `log_level = "warn"`.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);

/// The number of connections since the start, by outcome. The outcomes and the open
/// connections add up to the accepted ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// See [`Outcome::Sent`].
    pub sent: u64,
    /// See [`Outcome::Gone`].
    pub gone: u64,
    /// See [`Outcome::Timeout`].
    pub timeout: u64,
    /// See [`Outcome::Refused`].
    pub refused: u64,
    /// See [`Outcome::InvalidHeader`].
    pub invalid_header: u64,
    /// See [`Outcome::CutOff`].
    pub cut_off: u64,
}

impl Totals {
    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Sent => &mut self.sent,
            Outcome::Gone => &mut self.gone,
            Outcome::Timeout => &mut self.timeout,
            Outcome::Refused => &mut self.refused,
            Outcome::InvalidHeader => &mut self.invalid_header,
            Outcome::CutOff => &mut self.cut_off,
        }
    }

    /// The outcomes other than a sent greeting, such as `2 gone, 1 refused`; those
    /// without connections are omitted.
    fn unsent(&self) -> String {
        let mut parts = Vec::new();
        for (number, result) in [
            (self.gone, "gone"),
            (self.timeout, "timeout"),
            (self.refused, "refused"),
            (self.invalid_header, "invalid header"),
            (self.cut_off, "cut off"),
        ] {
            if number > 0 {
                parts.push(format!("{} {result}", grouped(number)));
            }
        }
        parts.join(", ")
    }
}

impl fmt::Display for Totals {
    /// `1,204 greetings sent, 2 gone, 1 refused`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sent", counted(self.sent, "greeting"))?;
        match self.unsent().as_str() {
            "" => Ok(()),
            unsent => write!(f, ", {unsent}"),
        }
    }
}

#[derive(Debug)]
struct LastClient {
    peer: Option<SocketAddr>,
    closed_at: SystemTime,
}

impl Stats {
    /// Statistics without connections. `log_peer` applies to log lines and STATUS.
    pub fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            totals: Totals::default(),
            last_client: None,
            rate_limiter: LogRateLimiter::new(now),
            log_peer: settings.log_peer,
            log_exclude: settings.log_exclude.clone(),
            unlogged: Totals::default(),
            summary: Every::new(SUMMARY_INTERVAL),
        }
    }

    /// Applies what the settings say about log lines, from now on.
    pub fn apply_settings(&mut self, settings: &Settings) {
        self.log_peer = settings.log_peer;
        self.log_exclude.clone_from(&settings.log_exclude);
    }

    /// The number of connections by outcome.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Counts an accepted connection.
    pub fn count_accepted(&mut self) {
        self.totals.accepted += 1;
    }

    /// Records the outcome of a connection, once, when it is closed: counts it, and
    /// logs it unless it is excluded or the rate limit is reached.
    pub fn record(&mut self, connection: &Connection, outcome: Outcome) {
        *self.totals.of(outcome) += 1;
        if self.is_excluded(connection.peer()) {
            return;
        }
        if outcome == Outcome::Sent {
            self.last_client = Some(LastClient {
                peer: connection.peer(),
                closed_at: SystemTime::now(),
            });
        }
        match log::max_level() {
            LevelFilter::Off | LevelFilter::Error => {}
            LevelFilter::Warn if outcome == Outcome::Sent => {}
            LevelFilter::Warn if outcome == Outcome::Gone && connection.is_check() => {}
            LevelFilter::Warn => {
                if !self.has_unlogged() {
                    self.summary.begin(Instant::now());
                }
                *self.unlogged.of(outcome) += 1;
            }
            LevelFilter::Info | LevelFilter::Debug | LevelFilter::Trace => {
                if self.rate_limiter.allow() {
                    self.log(connection, outcome);
                    self.log_detail(connection);
                }
            }
        }
    }

    fn is_excluded(&self, peer: Option<SocketAddr>) -> bool {
        // Almost always empty, and then this costs nothing.
        let mut networks = self.log_exclude.iter();
        peer.is_some_and(|peer| networks.any(|network| network.contains(peer.ip())))
    }

    /// At the level debug: why a connection was closed.
    fn log_detail(&mut self, connection: &Connection) {
        if log::max_level() < LevelFilter::Debug || !self.rate_limiter.allow_detail() {
            return;
        }
        let peer = RedactedAddr::new(connection.peer(), self.log_peer);
        let (discarded, lingered) = connection.lingered();
        log::debug!(
            "closed the connection of {peer} on '{}': {}; {discarded} bytes discarded, \
             {}.{:03} ms after the last byte was sent",
            connection.endpoint().name,
            connection.close_reason(),
            lingered.as_millis(),
            lingered.as_micros() % 1000,
        );
    }

    fn log(&self, connection: &Connection, outcome: Outcome) {
        let endpoint = connection.endpoint();
        let socket = endpoint.name.as_str();
        let peer = RedactedAddr::new(connection.peer(), self.log_peer);
        let local = connection.local_addr().to_string();
        let bytes = connection.bytes_sent();
        let mut message_id = event::CONNECTION_CLOSED;
        let (result, message) = match outcome {
            Outcome::Sent => (
                "sent",
                format!("greeted {peer} on '{socket}', {bytes} bytes"),
            ),
            Outcome::Gone => (
                "gone",
                format!("{peer} disconnected from '{socket}' before the greeting was sent"),
            ),
            Outcome::Timeout => (
                "timeout",
                format!("{peer} on '{socket}' did not receive the greeting within write_timeout"),
            ),
            Outcome::Refused => (
                "refused",
                format!("refused {peer} on '{socket}': too many connections from this address"),
            ),
            Outcome::InvalidHeader => {
                message_id = event::INVALID_HEADER;
                let reason = connection.close_reason();
                (
                    "invalid_header",
                    format!("no greeting for {peer} on '{socket}': {reason}"),
                )
            }
            Outcome::CutOff => (
                "cut_off",
                format!(
                    "closed the connection of {peer} on '{socket}' before the greeting was delivered"
                ),
            ),
        };
        log::info!(
            MESSAGE_ID = message_id,
            GREETER_MODE = endpoint.mode.name(),
            GREETER_SOCKET = socket,
            GREETER_PEER = peer.address.as_str(),
            GREETER_PEER_PORT = peer.port.as_str(),
            GREETER_LOCAL = local.as_str(),
            GREETER_BYTES = bytes,
            GREETER_DURATION_USEC = connection.duration().as_micros(),
            GREETER_RESULT = result;
            "{message}"
        );
    }

    /// Returns when [`Stats::report_suppressed`] must be called; `None` if it has nothing
    /// to report.
    pub fn next_report(&self) -> Option<Instant> {
        let summary = self.summary.next().filter(|_| self.has_unlogged());
        let reports = [self.rate_limiter.next_report(), summary];
        reports.into_iter().flatten().min()
    }

    /// Logs how many connections had no line of their own in the last second, or, with
    /// `log_level = "warn"`, which results they had in the last minute.
    pub fn report_suppressed(&mut self, now: Instant) {
        log_suppressed(self.rate_limiter.roll_over(now));
        if self.has_unlogged() && self.summary.is_due(now) {
            self.log_summary();
        }
    }

    fn has_unlogged(&self) -> bool {
        self.unlogged != Totals::default()
    }

    fn log_summary(&mut self) {
        let unsent = mem::take(&mut self.unlogged).unsent();
        log::warn!(
            MESSAGE_ID = event::SUPPRESSED;
            "connections without a greeting, not logged individually: {unsent}"
        );
    }

    /// Logs the end of the service with all totals, as text and as fields.
    pub fn log_end(&mut self, message_id: &str, reason: &str) {
        log_suppressed(self.rate_limiter.suppressed());
        if self.has_unlogged() {
            self.log_summary();
        }
        let totals = self.totals;
        log::info!(
            MESSAGE_ID = message_id,
            GREETER_TOTAL_ACCEPTED = totals.accepted,
            GREETER_TOTAL_SENT = totals.sent,
            GREETER_TOTAL_GONE = totals.gone,
            GREETER_TOTAL_TIMEOUT = totals.timeout,
            GREETER_TOTAL_REFUSED = totals.refused,
            GREETER_TOTAL_INVALID_HEADER = totals.invalid_header,
            GREETER_TOTAL_CUT_OFF = totals.cut_off;
            "{reason}; {totals}"
        );
    }

    /// The status text, such as
    /// `1,204 greetings sent, 3 open connections; 2 refused; last client 203.0.113.9 at 10:12:01 UTC`.
    pub fn status(&self, open: usize) -> String {
        let sent = counted(self.totals.sent, "greeting");
        let open = counted(open as u64, "open connection");
        let mut text = format!("{sent} sent, {open}");
        let unsent = self.totals.unsent();
        if !unsent.is_empty() {
            text += &format!("; {unsent}");
        }
        if let Some(client) = &self.last_client {
            // The time of day in RFC 3339.
            let time = time_format::rfc3339(client.closed_at);
            let time = time.get(11..19).unwrap_or(&time);
            text += &match RedactedAddr::new(client.peer, self.log_peer)
                .address
                .as_str()
            {
                "-" => format!("; last client at {time} UTC"),
                address => format!("; last client {address} at {time} UTC"),
            };
        }
        text
    }
}

fn log_suppressed(suppressed: u64) {
    if suppressed > 0 {
        let connections = counted(suppressed, "more connection");
        log::info!(MESSAGE_ID = event::SUPPRESSED; "{connections} not logged individually");
    }
}

/// A number of things, such as `1 greeting` or `1,204 greetings`.
pub fn counted(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", grouped(number))
}

/// A number with a comma between groups of three digits.
fn grouped(number: u64) -> String {
    if number < 1000 {
        number.to_string()
    } else {
        format!("{},{:03}", grouped(number / 1000), number % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use crate::greeting::{Greeting, LineEnding};
    use crate::settings::{Greetings, Limits, ProxyProtocol, SocketSettings};

    fn settings() -> Settings {
        let own = SocketSettings {
            greeting: Greeting::parse(b"x", LineEnding::Lf).unwrap(),
            proxy_protocol: ProxyProtocol::Off,
        };
        Settings {
            mode: None,
            log_level: LevelFilter::Info,
            log_peer: PeerDetail::Full,
            log_exclude: vec!["192.0.2.0/24".parse().unwrap()],
            limits: Rc::new(Limits::default()),
            greetings: Greetings::new(own, BTreeMap::new()),
        }
    }

    #[test]
    fn excluded_networks_are_those_of_the_settings() {
        let mut stats = Stats::new(&settings(), Instant::now());
        let peer = |address: &str| Some(SocketAddr::new(address.parse().unwrap(), 1));
        assert!(stats.is_excluded(peer("192.0.2.10")));
        assert!(!stats.is_excluded(peer("192.0.3.10")));
        assert!(!stats.is_excluded(None));
        stats.apply_settings(&Settings {
            log_exclude: Vec::new(),
            ..settings()
        });
        assert!(!stats.is_excluded(peer("192.0.2.10")));
    }

    #[test]
    fn each_accepted_connection_is_counted() {
        let mut stats = Stats::new(&settings(), Instant::now());
        stats.count_accepted();
        stats.count_accepted();
        assert_eq!(stats.totals().accepted, 2);
    }

    #[test]
    fn suppressed_lines_are_reported_in_time() {
        let start = Instant::now();
        let mut stats = Stats::new(&settings(), start);
        assert_eq!(stats.next_report(), None);
        let allowed = (0..60).filter(|_| stats.rate_limiter.allow()).count();
        assert_eq!(allowed, 50);
        let second = start + Duration::from_secs(1);
        assert_eq!(stats.next_report(), Some(second));
        stats.report_suppressed(second);
        assert_eq!(stats.next_report(), None);

        let minute = start + SUMMARY_INTERVAL;
        stats.summary.begin(start);
        stats.unlogged.refused = 1;
        stats.report_suppressed(second);
        assert_eq!(stats.next_report(), Some(minute));
        stats.report_suppressed(minute);
        assert_eq!(stats.next_report(), None);
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1204, "1,204"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(counted(1, "greeting"), "1 greeting");
        assert_eq!(counted(1204, "greeting"), "1,204 greetings");
    }

    #[test]
    fn status_has_counts_and_last_client() {
        let mut stats = Stats::new(&settings(), Instant::now());
        assert_eq!(stats.status(0), "0 greetings sent, 0 open connections");
        stats.totals.sent = 1204;
        stats.totals.refused = 2;
        let time_of_day = Duration::from_secs(10 * 3600 + 12 * 60 + 1);
        stats.last_client = Some(LastClient {
            peer: Some("203.0.113.9:4711".parse().unwrap()),
            closed_at: SystemTime::UNIX_EPOCH + time_of_day,
        });
        assert_eq!(
            stats.status(3),
            "1,204 greetings sent, 3 open connections; 2 refused; last client 203.0.113.9 at 10:12:01 UTC"
        );
        stats.log_peer = PeerDetail::None;
        assert_eq!(
            stats.status(3),
            "1,204 greetings sent, 3 open connections; 2 refused; last client at 10:12:01 UTC"
        );
    }
}
