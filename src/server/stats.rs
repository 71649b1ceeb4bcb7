//! Connection statistics: counts, the log line of each connection, the status text.

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
    greetings_sent: u64,
    last_client: Option<LastClient>,
    rate_limiter: LogRateLimiter,
    log_peer: PeerDetail,
}

#[derive(Debug)]
struct LastClient {
    peer: Option<SocketAddr>,
    greeted_at: SystemTime,
}

impl Stats {
    /// Statistics without connections. `log_peer` applies to log lines and STATUS.
    pub fn new(log_peer: PeerDetail, now: Instant) -> Self {
        Self {
            greetings_sent: 0,
            last_client: None,
            rate_limiter: LogRateLimiter::new(now),
            log_peer,
        }
    }

    /// Changes how much of addresses is shown from now on.
    pub fn set_log_peer(&mut self, log_peer: PeerDetail) {
        self.log_peer = log_peer;
    }

    /// The number of greetings sent.
    pub fn greetings_sent(&self) -> u64 {
        self.greetings_sent
    }

    /// Records the outcome of a connection: counts it, and logs it unless the rate
    /// limit is reached.
    pub fn record(&mut self, connection: &Connection, outcome: Outcome) {
        if outcome == Outcome::Sent {
            self.greetings_sent += 1;
            self.last_client = Some(LastClient {
                peer: connection.peer(),
                greeted_at: SystemTime::now(),
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
        };
        log::info!(
            MESSAGE_ID = event::GREETED,
            GREETER_MODE = endpoint.mode.name(),
            GREETER_SOCKET = socket,
            GREETER_PEER = peer.address.as_str(),
            GREETER_PEER_PORT = peer.port.as_str(),
            GREETER_LOCAL = local.as_str(),
            GREETER_BYTES = bytes,
            GREETER_DURATION_USEC = connection.accepted_at().elapsed().as_micros(),
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
        let suppressed = self.rate_limiter.roll_over(now);
        if suppressed > 0 {
            let connections = counted(suppressed, "more connection");
            log::info!(MESSAGE_ID = event::SUPPRESSED; "{connections} not logged individually");
        }
    }

    /// The status text, such as
    /// `1,204 greetings sent, 3 open connections; last client 203.0.113.9 at 10:12:01`.
    pub fn status(&self, open: usize) -> String {
        let sent = counted(self.greetings_sent, "greeting");
        let open = counted(open as u64, "open connection");
        let mut text = format!("{sent} sent, {open}");
        if let Some(client) = &self.last_client {
            // The time of day in RFC 3339.
            let time = time_format::rfc3339(client.greeted_at);
            let time = time.get(11..19).unwrap_or(&time);
            text += &match RedactedAddr::new(client.peer, self.log_peer)
                .address
                .as_str()
            {
                "-" => format!("; last client at {time}"),
                address => format!("; last client {address} at {time}"),
            };
        }
        text
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
        stats.greetings_sent = 1204;
        let time_of_day = Duration::from_secs(10 * 3600 + 12 * 60 + 1);
        stats.last_client = Some(LastClient {
            peer: Some("203.0.113.9:4711".parse().unwrap()),
            greeted_at: SystemTime::UNIX_EPOCH + time_of_day,
        });
        assert_eq!(
            stats.status(3),
            "1,204 greetings sent, 3 open connections; last client 203.0.113.9 at 10:12:01"
        );
        stats.set_log_peer(PeerDetail::None);
        assert_eq!(
            stats.status(3),
            "1,204 greetings sent, 3 open connections; last client at 10:12:01"
        );
    }
}
