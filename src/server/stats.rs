//! Connection statistics: counts, the log line of each connection, the status text.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Instant, SystemTime};

use super::connection::{Connection, Outcome};
use super::log_rate_limit::LogRateLimiter;
use super::redact::RedactedAddr;
use crate::event;
use crate::settings::PeerDetail;
use crate::time_format;

/// The statistics of the process.
#[derive(Debug)]
pub struct Stats {
    totals: Totals,
    last_client: Option<LastClient>,
    rate_limiter: LogRateLimiter,
    log_peer: PeerDetail,
}

/// The number of connections since the start, by outcome. The outcomes and the open
/// connections add up to the accepted ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Connections accepted.
    pub accepted: u64,
    /// See [`Outcome::Sent`].
    pub sent: u64,
    /// See [`Outcome::Disconnected`].
    pub gone: u64,
    /// See [`Outcome::TimedOut`].
    pub timeout: u64,
    /// See [`Outcome::Refused`].
    pub refused: u64,
    /// See [`Outcome::CutOff`].
    pub cut_off: u64,
}

impl Totals {
    fn of(&mut self, outcome: Outcome) -> &mut u64 {
        match outcome {
            Outcome::Sent => &mut self.sent,
            Outcome::Disconnected => &mut self.gone,
            Outcome::TimedOut => &mut self.timeout,
            Outcome::Refused => &mut self.refused,
            Outcome::CutOff => &mut self.cut_off,
        }
    }
}

impl Totals {
    /// The outcomes other than a sent greeting, such as `2 gone, 1 refused`; those
    /// without connections are omitted.
    fn unsent(&self) -> String {
        let mut parts = Vec::new();
        for (number, result) in [
            (self.gone, "gone"),
            (self.timeout, "timeout"),
            (self.refused, "refused"),
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
    pub fn new(log_peer: PeerDetail, now: Instant) -> Self {
        Self {
            totals: Totals::default(),
            last_client: None,
            rate_limiter: LogRateLimiter::new(now),
            log_peer,
        }
    }

    /// Changes how much of addresses is shown from now on.
    pub fn set_log_peer(&mut self, log_peer: PeerDetail) {
        self.log_peer = log_peer;
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
    /// logs it unless the rate limit is reached.
    pub fn record(&mut self, connection: &Connection, outcome: Outcome) {
        *self.totals.of(outcome) += 1;
        if outcome == Outcome::Sent {
            self.last_client = Some(LastClient {
                peer: connection.peer(),
                closed_at: SystemTime::now(),
            });
        }
        if log::max_level() >= log::LevelFilter::Info && self.rate_limiter.allow() {
            self.log(connection, outcome);
        }
    }

    fn log(&self, connection: &Connection, outcome: Outcome) {
        let endpoint = connection.endpoint();
        let socket = endpoint.name.as_str();
        let peer = RedactedAddr::new(connection.peer(), self.log_peer);
        let local = connection.local_addr().to_string();
        let bytes = connection.bytes_sent();
        let (result, message) = match outcome {
            Outcome::Sent => (
                "sent",
                format!("greeted {peer} on '{socket}', {bytes} bytes"),
            ),
            Outcome::Disconnected => (
                "gone",
                format!("{peer} disconnected from '{socket}' before the greeting was sent"),
            ),
            Outcome::TimedOut => (
                "timeout",
                format!("{peer} on '{socket}' did not receive the greeting within write_timeout"),
            ),
            Outcome::Refused => (
                "refused",
                format!("refused {peer} on '{socket}': too many connections from this address"),
            ),
            Outcome::CutOff => (
                "cut_off",
                format!(
                    "closed the connection of {peer} on '{socket}' before the greeting was delivered"
                ),
            ),
        };
        log::info!(
            MESSAGE_ID = event::GREETED,
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

    /// When [`Stats::report_suppressed`] has to be called; `None` if it has nothing
    /// to report.
    pub fn next_report(&self) -> Option<Instant> {
        self.rate_limiter.next_report()
    }

    /// Logs how many connections had no line of their own in the last second.
    pub fn report_suppressed(&mut self, now: Instant) {
        log_suppressed(self.rate_limiter.roll_over(now));
    }

    /// Logs the end of the service with all totals, as text and as fields.
    pub fn log_end(&mut self, message_id: &str, reason: &str) {
        log_suppressed(self.rate_limiter.suppressed());
        let totals = self.totals;
        log::info!(
            MESSAGE_ID = message_id,
            GREETER_TOTAL_ACCEPTED = totals.accepted,
            GREETER_TOTAL_SENT = totals.sent,
            GREETER_TOTAL_GONE = totals.gone,
            GREETER_TOTAL_TIMEOUT = totals.timeout,
            GREETER_TOTAL_REFUSED = totals.refused,
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
    use std::time::Duration;

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
        let mut stats = Stats::new(PeerDetail::Full, Instant::now());
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
        stats.set_log_peer(PeerDetail::None);
        assert_eq!(
            stats.status(3),
            "1,204 greetings sent, 3 open connections; 2 refused; last client at 10:12:01 UTC"
        );
    }
}
