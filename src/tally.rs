//! What is said of the clients: who one is, the counts of all, the status text. Floor 5.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::clock;
use crate::event;
use crate::settings::values::PeerDetail;

/// Lines that clients may cause in a second; the rest is counted in one.
pub const LINES_A_SECOND: u64 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// What `log_peer = "prefix"` leaves of an address.
const V4: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
const V6: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0);

/// A client's address and port as they may be logged; `-` where they may not.
pub struct Peer {
    /// GREETER_PEER.
    pub address: String,
    /// GREETER_PEER_PORT.
    pub port: String,
}

impl Peer {
    /// Cuts an address down to what `log_peer` allows.
    pub fn new(peer: Option<SocketAddr>, detail: PeerDetail) -> Self {
        let address = match (peer.map(|peer| peer.ip()), detail) {
            (Some(ip), PeerDetail::Full) => ip.to_string(),
            (Some(IpAddr::V4(ip)), PeerDetail::Prefix) => format!("{}/24", ip & V4),
            (Some(IpAddr::V6(ip)), PeerDetail::Prefix) => format!("{}/48", ip & V6),
            (_, PeerDetail::None) | (None, _) => "-".to_owned(),
        };
        let port = peer.filter(|_| detail == PeerDetail::Full);
        let port = port.map_or("-".to_owned(), |peer| peer.port().to_string());
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
    last: Option<(Option<SocketAddr>, SystemTime)>,
    /// When the current second began, and how many lines it would have.
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
    pub fn count(&mut self, peer: Option<SocketAddr>) {
        self.greeted += 1;
        self.last = Some((peer, SystemTime::now()));
    }

    /// Whether one more client may have a line of its own. If not, it is counted.
    pub fn may_log(&mut self) -> bool {
        let wanted = log::max_level() >= log::LevelFilter::Info;
        self.lines += u64::from(wanted);
        wanted && self.lines <= LINES_A_SECOND
    }

    /// When [`Tally::turn_second`] has something to say, if it has.
    pub fn due(&self) -> Option<Instant> {
        (self.lines > LINES_A_SECOND).then(|| self.second + SECOND)
    }

    /// Once the second of lines is over, says how many clients had none, and
    /// begins the next.
    pub fn turn_second(&mut self, now: Instant) {
        if now < self.second + SECOND {
            return;
        }
        if self.lines > LINES_A_SECOND {
            let count = grouped(self.lines - LINES_A_SECOND);
            log::info!(MESSAGE_ID = event::SUPPRESSED; "served {count} more clients without a line each");
        }
        (self.second, self.lines) = (now, 0);
    }

    /// The status text, such as `Greeted 1,204, 3 connected; last 203.0.113.9 at 10:12:01`.
    pub fn status(&self, connected: usize, detail: PeerDetail) -> String {
        let (greeted, connected) = (grouped(self.greeted), grouped(connected as u64));
        let mut text = format!("Greeted {greeted}, {connected} connected");
        if let Some((peer, moment)) = self.last {
            // RFC 3339 has the time of day behind the T.
            let moment = clock::rfc3339(moment);
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

    fn ip(text: &str) -> Option<SocketAddr> {
        Some(text.parse().unwrap())
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
        let check = |address, detail, expected: &str| {
            assert_eq!(Peer::new(address, detail).to_string(), expected);
        };
        check(
            ip("203.0.113.9:4711"),
            PeerDetail::Full,
            "203.0.113.9 port 4711",
        );
        check(ip("203.0.113.9:4711"), PeerDetail::Prefix, "203.0.113.0/24");
        check(
            ip("[2001:db8:1:2::3]:1"),
            PeerDetail::Prefix,
            "2001:db8:1::/48",
        );
        check(ip("203.0.113.9:4711"), PeerDetail::None, "a client");
        check(None, PeerDetail::Full, "a client");
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
        assert_eq!((allowed, tally.due()), (50, Some(start + SECOND)));
        tally.turn_second(start + Duration::from_millis(999));
        assert!(!tally.may_log());
        tally.turn_second(start + Duration::from_secs(1));
        assert!(tally.may_log() && tally.due().is_none());
    }
}
