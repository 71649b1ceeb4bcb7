//! What is said of the clients: the line of one, the counts of all, the status
//! text. Floor 5.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::event;
use crate::mode::Mode;
use crate::settings::values::PeerDetail;
use crate::socket::Address;

/// Lines that clients may cause in a second; the rest is counted in one.
pub const LINES_A_SECOND: u64 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// What `log_peer = "prefix"` leaves of an address.
const V4: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0);

/// How it ended for a client: GREETER_RESULT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel took all of the greeting.
    Sent,
    /// The client left before that.
    Gone,
    /// The client did not take it within `write_timeout`.
    Timeout,
    /// The client's source holds all the connections that it may.
    Refused,
}

/// One client as the journal knows it.
pub struct Report<'a> {
    /// The mode it was served in.
    pub mode: Mode,
    /// The name of the socket that it came to.
    pub socket: &'a str,
    /// Who it is, as far as that may be logged.
    pub peer: &'a Peer,
    /// What it reached.
    pub local: &'a Address,
    /// How many bytes the kernel took.
    pub bytes: usize,
    /// From the accept until now.
    pub duration: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

impl Report<'_> {
    /// Writes the client's line.
    pub fn log(&self) {
        let say = |result: &str, text: fmt::Arguments<'_>| {
            log::info!(
                MESSAGE_ID = event::GREETED,
                GREETER_MODE = self.mode.name(),
                GREETER_SOCKET = self.socket,
                GREETER_PEER:% = self.peer.address,
                GREETER_PEER_PORT:% = self.peer.port,
                GREETER_LOCAL:% = self.local,
                GREETER_BYTES = self.bytes,
                GREETER_DURATION_USEC = self.duration.as_micros(),
                GREETER_RESULT = result;
                "{text}"
            );
        };
        let (peer, socket, bytes) = (self.peer, self.socket, self.bytes);
        match self.outcome {
            Outcome::Sent => say(
                "sent",
                format_args!("greeted {peer} on '{socket}', {bytes} bytes"),
            ),
            Outcome::Gone => say(
                "gone",
                format_args!("{peer} left '{socket}' before it was greeted"),
            ),
            Outcome::Timeout => say(
                "timeout",
                format_args!("{peer} on '{socket}' did not take its greeting in time"),
            ),
            Outcome::Refused => say(
                "refused",
                format_args!("refused {peer} on '{socket}': too many connections of this source"),
            ),
        }
    }
}

/// A client's address as it may be logged.
pub struct Peer {
    address: String,
    port: String,
}

impl Peer {
    /// Cuts an address down to what `log_peer` allows.
    pub fn new(address: &Address, detail: PeerDetail) -> Self {
        let dash = || "-".to_owned();
        let (address, port) = match (address.ip(), detail) {
            (Some((ip, port)), PeerDetail::Full) => (ip.to_string(), port.to_string()),
            (Some((IpAddr::V4(ip), _)), PeerDetail::Prefix) => (format!("{}/24", ip & V4), dash()),
            (Some((IpAddr::V6(ip), _)), PeerDetail::Prefix) => (format!("{}/48", ip & V6), dash()),
            (Some(_), PeerDetail::None) | (None, _) => (dash(), dash()),
        };
        Self { address, port }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address.as_str(), self.port.as_str()) {
            ("-", _) => f.write_str("a client"),
            (address, "-") => f.write_str(address),
            (address, port) => write!(f, "{address} port {port}"),
        }
    }
}

/// The counts of a running service.
#[derive(Debug)]
pub struct Tally {
    /// How many were greeted.
    pub greeted: u64,
    /// The last client and when it was greeted.
    last: Option<(Address, SystemTime)>,
    /// When the current second of lines began, and how many it would have.
    second: Instant,
    lines: u64,
}

impl Tally {
    /// Nobody yet.
    pub fn new(now: Instant) -> Self {
        Self {
            greeted: 0,
            last: None,
            second: now,
            lines: 0,
        }
    }

    /// Counts a client that was greeted.
    pub fn count(&mut self, peer: &Address) {
        self.greeted += 1;
        self.last = Some((peer.clone(), SystemTime::now()));
    }

    /// Whether one more client may have a line of its own. If not, it is counted.
    pub fn may_log(&mut self) -> bool {
        let wanted = log::max_level() >= log::LevelFilter::Info;
        self.lines += u64::from(wanted);
        wanted && self.lines <= LINES_A_SECOND
    }

    /// Ends the second of lines once it is over: says how many had none.
    pub fn turn_second(&mut self, now: Instant) {
        if now.duration_since(self.second) < SECOND {
            return;
        }
        let suppressed = self.suppressed();
        (self.second, self.lines) = (now, 0);
        if suppressed > 0 {
            let count = grouped(suppressed);
            log::info!(MESSAGE_ID = event::SUPPRESSED; "served {count} more clients without a line each");
        }
    }

    /// When [`Tally::turn_second`] has something to say, if it has.
    pub fn due(&self) -> Option<Instant> {
        (self.suppressed() > 0).then(|| self.second + SECOND)
    }

    fn suppressed(&self) -> u64 {
        self.lines.saturating_sub(LINES_A_SECOND)
    }

    /// The status text, such as `Greeted 1,204, 3 connected; last 203.0.113.9 at 10:12:01`.
    pub fn status(&self, connected: usize, detail: PeerDetail) -> String {
        let (greeted, connected) = (grouped(self.greeted), grouped(connected as u64));
        let mut text = format!("Greeted {greeted}, {connected} connected");
        if let Some((peer, moment)) = &self.last {
            // RFC 3339 has the time of day behind the T.
            let moment = clock::rfc3339(*moment);
            let time = moment.get(11..19).unwrap_or_default();
            text += &match Peer::new(peer, detail).address.as_str() {
                "-" => format!("; last at {time}"),
                peer => format!("; last {peer} at {time}"),
            };
        }
        text
    }
}

/// A number with a comma between its thousands.
fn grouped(number: u64) -> String {
    match number {
        0..1000 => number.to_string(),
        _ => format!("{},{:03}", grouped(number / 1000), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Address {
        Address::Ip(text.parse().unwrap())
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
    }

    #[test]
    fn a_peer_is_cut_down_to_what_may_be_logged() {
        let check = |address: &Address, detail, expected: &str| {
            assert_eq!(Peer::new(address, detail).to_string(), expected);
        };
        check(
            &ip("203.0.113.9:4711"),
            PeerDetail::Full,
            "203.0.113.9 port 4711",
        );
        check(
            &ip("203.0.113.9:4711"),
            PeerDetail::Prefix,
            "203.0.113.0/24",
        );
        check(
            &ip("[2001:db8:1:2::3]:1"),
            PeerDetail::Prefix,
            "2001:db8:1::/48",
        );
        check(&ip("203.0.113.9:4711"), PeerDetail::None, "a client");
        check(&Address::Unnamed, PeerDetail::Full, "a client");
    }

    #[test]
    fn the_status_says_how_many_and_who_was_last() {
        let mut tally = Tally::new(Instant::now());
        assert_eq!(tally.status(0, PeerDetail::Full), "Greeted 0, 0 connected");
        tally.greeted = 1204;
        let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(10 * 3600 + 12 * 60 + 1);
        tally.last = Some((ip("203.0.113.9:4711"), moment));
        assert_eq!(
            tally.status(3, PeerDetail::Full),
            "Greeted 1,204, 3 connected; last 203.0.113.9 at 10:12:01"
        );
        assert_eq!(
            tally.status(3, PeerDetail::None),
            "Greeted 1,204, 3 connected; last at 10:12:01"
        );
    }

    #[test]
    fn lines_are_bounded_each_second() {
        log::set_max_level(log::LevelFilter::Info);
        let start = Instant::now();
        let mut tally = Tally::new(start);
        let allowed = (0..60).filter(|_| tally.may_log()).count();
        assert_eq!((allowed, tally.suppressed()), (50, 10));
        assert_eq!(tally.due(), Some(start + Duration::from_secs(1)));
        tally.turn_second(start + Duration::from_millis(999));
        assert!(!tally.may_log());
        tally.turn_second(start + Duration::from_secs(1));
        assert!(tally.may_log() && tally.due().is_none());
    }
}
