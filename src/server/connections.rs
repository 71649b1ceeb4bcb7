//! The open connections, with their deadlines and the number per source.
//!
//! After its greeting was sent, a connection is left alone for a moment and then
//! advanced once: almost all peers have closed by then, and their sockets were never
//! registered with epoll(7), which saves two system calls per connection. Connections
//! still open are then registered. None is advanced again without an event, however
//! many peers do not close.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use slab::Slab;

use super::connection::{Connection, Outcome, Progress};
use super::stats::Stats;
use crate::poller::{Poller, Token};
use crate::socket::{DiscardBuffer, Interest};

/// How long a greeted connection is left alone, at least.
const REGISTER_DELAY: Duration = Duration::from_millis(5);
/// How long [`Connections::next_deadline`] waits for more of them.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);
/// How long to wait before a connection is advanced again that no event will report.
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// How often deadlines are checked, at most.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);
/// The same while the service stops.
const DRAIN_EXPIRY_INTERVAL: Duration = Duration::from_millis(10);

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    slots: Slab<Slot>,
    /// When each connection was greeted that was not swept since; the oldest first.
    recently_greeted: VecDeque<(Instant, usize)>,
    /// When each connection has to be advanced that no event will report; the
    /// earliest first.
    retries: VecDeque<(Instant, usize)>,
    per_source: PerSource,
    /// When deadlines are checked next.
    next_expiry_check: Instant,
    /// Set while the service stops: when the last connection is closed.
    drain_deadline: Option<Instant>,
    discard_buffer: DiscardBuffer,
}

#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// Whether the connection is counted in `per_source`.
    is_counted: bool,
    /// What epoll(7) reports the connection for, if it is registered.
    registered: Option<Interest>,
    /// Whether the connection is in `retries`.
    retrying: bool,
}

impl Connections {
    /// No connection.
    pub fn new(now: Instant) -> Self {
        Self {
            slots: Slab::new(),
            recently_greeted: VecDeque::new(),
            retries: VecDeque::new(),
            per_source: PerSource::default(),
            next_expiry_check: now,
            drain_deadline: None,
            discard_buffer: DiscardBuffer::default(),
        }
    }

    /// The number of open connections.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// When a timer of the connections is due next; `None` if no
    /// connection is open.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.slots.is_empty() {
            return None;
        }
        let sweep = self.recently_greeted.front();
        let sweep = sweep.map(|(greeted_at, _)| *greeted_at + SWEEP_INTERVAL);
        let retry = self.retries.front().map(|(retry_at, _)| *retry_at);
        [sweep, retry, Some(self.next_expiry_check)]
            .into_iter()
            .flatten()
            .min()
    }

    /// Adds an accepted connection and sends its greeting: for almost all this is
    /// the only send(2). If its source has too many connections, it is refused.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), if the greeting was not sent at once; the connection
    /// stays open and is retried.
    pub fn add(
        &mut self,
        mut connection: Connection,
        now: Instant,
        poller: &Poller,
        stats: &mut Stats,
    ) -> io::Result<()> {
        stats.count_accepted();
        let mut is_counted = false;
        if !connection.is_receiving_header() {
            match self.per_source.count(&connection) {
                Ok(counted) => is_counted = counted,
                Err(TooManyConnections) => {
                    connection.refuse(&mut self.discard_buffer);
                    stats.record(&connection, Outcome::Refused);
                    return Ok(());
                }
            }
        }
        if let Some(deadline) = self.drain_deadline {
            connection.drain(now, deadline);
        }
        let key = self.slots.insert(Slot {
            connection,
            is_counted,
            registered: None,
            retrying: false,
        });
        self.check_expiry_by(now + self.expiry_interval());
        if self.advance(key, now, poller, stats)? == Progress::GreetingSent {
            self.recently_greeted.push_back((now, key));
        }
        Ok(())
    }

    /// Advances a connection that epoll(7) has reported.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the connection stays open and is retried.
    pub fn handle_event(
        &mut self,
        key: usize,
        now: Instant,
        poller: &Poller,
        stats: &mut Stats,
    ) -> io::Result<()> {
        // A connection that was closed in this loop iteration can still be reported.
        if self.slots.contains(key)
            && self.advance(key, now, poller, stats)? == Progress::GreetingSent
        {
            self.advance(key, now, poller, stats)?;
        }
        Ok(())
    }

    /// Advances the connections whose greeting was sent [`REGISTER_DELAY`] ago, or,
    /// with `all`, because their slots are needed, every greeted one. Those that are
    /// done are closed, the others registered.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the connection stays open and is retried.
    pub fn sweep_greeted(
        &mut self,
        all: bool,
        now: Instant,
        poller: &Poller,
        stats: &mut Stats,
    ) -> io::Result<()> {
        while let Some((greeted_at, key)) = self.recently_greeted.front().copied() {
            if !all && now.duration_since(greeted_at) < REGISTER_DELAY {
                break;
            }
            self.recently_greeted.pop_front();
            // The connection may have expired, and its key may have been reused.
            let is_unregistered = self
                .slots
                .get(key)
                .is_some_and(|slot| slot.registered.is_none());
            if is_unregistered {
                self.advance(key, now, poller, stats)?;
            }
        }
        Ok(())
    }

    /// Advances the connections whose retry is due.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the connection stays open and is retried.
    pub fn retry(&mut self, now: Instant, poller: &Poller, stats: &mut Stats) -> io::Result<()> {
        while let Some((_, key)) = self.retries.front().filter(|(due, _)| *due <= now).copied() {
            self.retries.pop_front();
            if let Some(slot) = self.slots.get_mut(key) {
                slot.retrying = false;
                self.handle_event(key, now, poller, stats)?;
            }
        }
        Ok(())
    }

    /// Closes the connections whose deadline has passed.
    pub fn close_expired(&mut self, now: Instant, stats: &mut Stats) {
        if now < self.next_expiry_check {
            return;
        }
        let mut expired = Vec::new();
        for (key, slot) in &mut self.slots {
            if let Some(outcome) = slot.connection.expire_or_extend(now) {
                expired.push((key, outcome));
            }
        }
        for (key, outcome) in expired {
            self.close(key, outcome, stats);
        }
        let deadlines = self
            .slots
            .iter()
            .map(|(_, slot)| slot.connection.deadline());
        self.next_expiry_check = match deadlines.min() {
            Some(deadline) => deadline.max(now + self.expiry_interval()),
            None => now,
        };
    }

    /// The service stops: closes the connections whose greeting was delivered; the
    /// others, and those that are added from now on, are closed when theirs is, at
    /// `deadline` at the latest.
    ///
    /// # Errors
    /// Those of epoll_ctl(2); the connection stays open and is retried.
    pub fn drain(
        &mut self,
        deadline: Instant,
        now: Instant,
        poller: &Poller,
        stats: &mut Stats,
    ) -> io::Result<()> {
        self.drain_deadline = Some(deadline);
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        let mut result = Ok(());
        for key in keys {
            self.slots[key].connection.drain(now, deadline);
            result = result.and(self.handle_event(key, now, poller, stats));
        }
        self.check_expiry_by(now + DRAIN_EXPIRY_INTERVAL);
        result
    }

    /// Closes all connections because the service fails.
    pub fn abort_all(&mut self, stats: &mut Stats) {
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let outcome = self.slots[key].connection.abort();
            self.close(key, outcome, stats);
        }
    }

    /// Advances a connection, then closes, registers or retries it as its progress
    /// demands.
    fn advance(
        &mut self,
        key: usize,
        now: Instant,
        poller: &Poller,
        stats: &mut Stats,
    ) -> io::Result<Progress> {
        let slot = &mut self.slots[key];
        let connection = &mut slot.connection;
        let mut progress = connection.advance(&mut self.discard_buffer, now);
        if progress == Progress::HeaderReceived {
            progress = match self.per_source.count(connection) {
                Ok(is_counted) => {
                    slot.is_counted = is_counted;
                    connection.advance(&mut self.discard_buffer, now)
                }
                Err(TooManyConnections) => {
                    connection.refuse(&mut self.discard_buffer);
                    Progress::Finished(Outcome::Refused)
                }
            };
        }
        let deadline = connection.deadline();
        match progress {
            Progress::GreetingSent => self.check_expiry_by(now + self.expiry_interval()),
            Progress::Pending(interest) => {
                self.check_expiry_by(deadline.max(now + self.expiry_interval()));
                self.register(key, interest, now, poller)?;
            }
            Progress::HeaderReceived | Progress::RetryLater => self.retry_later(key, now),
            Progress::Finished(outcome) => self.close(key, outcome, stats),
        }
        Ok(progress)
    }

    /// Deadlines are checked at `time` at the latest.
    fn check_expiry_by(&mut self, time: Instant) {
        self.next_expiry_check = self.next_expiry_check.min(time);
    }

    fn expiry_interval(&self) -> Duration {
        match self.drain_deadline {
            Some(_) => DRAIN_EXPIRY_INTERVAL,
            None => EXPIRY_INTERVAL,
        }
    }

    /// Registers a connection with epoll(7), unless it is reported for as much already.
    fn register(
        &mut self,
        key: usize,
        interest: Interest,
        now: Instant,
        poller: &Poller,
    ) -> io::Result<()> {
        let slot = &mut self.slots[key];
        let socket = slot.connection.socket();
        let token = Token::Connection(key);
        let result = match (slot.registered, interest) {
            (None, _) => poller.register(socket, token, interest),
            (Some(Interest::Readable), Interest::ReadableAndWritable) => {
                poller.reregister(socket, token, interest)
            }
            (Some(_), _) => return Ok(()),
        };
        match result {
            Ok(()) => slot.registered = Some(interest),
            Err(_) => self.retry_later(key, now),
        }
        result
    }

    fn retry_later(&mut self, key: usize, now: Instant) {
        let slot = &mut self.slots[key];
        if !slot.retrying {
            slot.retrying = true;
            self.retries.push_back((now + RETRY_DELAY, key));
        }
    }

    /// Closes a connection: its outcome is recorded, its socket is dropped, and its
    /// source counts one less.
    fn close(&mut self, key: usize, outcome: Outcome, stats: &mut Stats) {
        let slot = self.slots.remove(key);
        if let (true, Some(peer)) = (slot.is_counted, slot.connection.peer()) {
            self.per_source.remove(source_key(peer));
        }
        stats.record(&slot.connection, outcome);
    }
}

/// The number of open connections per source, for `connections_per_source`.
#[derive(Debug, Default)]
struct PerSource(HashMap<IpAddr, u32>);

/// The source of a connection has `connections_per_source` open ones.
#[derive(Debug)]
struct TooManyConnections;

impl PerSource {
    /// Counts the source of a connection; `false` if sources are not counted.
    fn count(&mut self, connection: &Connection) -> Result<bool, TooManyConnections> {
        let limit = connection.limits().connections_per_source;
        let source = match connection.peer() {
            Some(peer) if limit > 0 => source_key(peer),
            _ => return Ok(false),
        };
        if self.try_add(source, limit) {
            Ok(true)
        } else {
            Err(TooManyConnections)
        }
    }

    /// Counts one more connection, unless the source has `limit` connections.
    fn try_add(&mut self, source: IpAddr, limit: u32) -> bool {
        let count = self.0.entry(source).or_default();
        if *count >= limit {
            return false;
        }
        *count += 1;
        true
    }

    /// Counts one connection less.
    fn remove(&mut self, source: IpAddr) {
        if let Some(count) = self.0.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(&source);
            }
        }
    }
}

/// What `connections_per_source` counts as one source: an IPv4 address, an IPv6 /64,
/// or a whole link-local address, as all hosts of a link share that network.
fn source_key(peer: SocketAddr) -> IpAddr {
    match peer.ip().to_canonical() {
        IpAddr::V6(v6) if !v6.is_unicast_link_local() => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::super::connection::tests::{connection_with_small_window, limits, unix_connection};
    use super::super::listener::tests::default_settings;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Connections with what they need, at a time that the tests choose.
    struct Fixture {
        connections: Connections,
        poller: Poller,
        stats: Stats,
    }

    impl Fixture {
        fn new(now: Instant) -> Self {
            Self {
                connections: Connections::new(now),
                poller: Poller::new().unwrap(),
                stats: Stats::new(&default_settings(), now),
            }
        }

        /// Adds a connection with this greeting, and returns its client.
        fn add(&mut self, greeting: &[u8], now: Instant) -> UnixStream {
            let (connection, client) = unix_connection(greeting);
            self.add_connection(connection, now);
            client
        }

        fn add_connection(&mut self, connection: Connection, now: Instant) {
            let (connections, stats) = (&mut self.connections, &mut self.stats);
            let result = connections.add(connection, now, &self.poller, stats);
            result.unwrap();
        }

        fn handle_event(&mut self, now: Instant) -> io::Result<()> {
            let (connections, stats) = (&mut self.connections, &mut self.stats);
            connections.handle_event(0, now, &self.poller, stats)
        }

        fn sweep(&mut self, all: bool, now: Instant) -> io::Result<()> {
            let (connections, stats) = (&mut self.connections, &mut self.stats);
            connections.sweep_greeted(all, now, &self.poller, stats)
        }

        fn retry(&mut self, now: Instant) -> io::Result<()> {
            let (connections, stats) = (&mut self.connections, &mut self.stats);
            connections.retry(now, &self.poller, stats)
        }

        fn close_expired(&mut self, now: Instant) {
            self.connections.close_expired(now, &mut self.stats);
        }

        /// The time from `now` to the next deadline.
        fn next_deadline(&self, now: Instant) -> Duration {
            let deadline = self.connections.next_deadline().unwrap();
            deadline.checked_duration_since(now).unwrap()
        }
    }

    #[test]
    fn greeted_connection_is_left_alone_for_a_moment() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        assert_eq!(fixture.connections.next_deadline(), None);
        let client = fixture.add(b"hello\n", now);
        fixture.close_expired(now);
        assert_eq!(fixture.next_deadline(now), SWEEP_INTERVAL);
        drop(client);
        fixture
            .sweep(false, now + REGISTER_DELAY - MILLISECOND)
            .unwrap();
        assert_eq!(fixture.connections.len(), 1);
        fixture.sweep(false, now + REGISTER_DELAY).unwrap();
        assert!(fixture.connections.is_empty());
        assert_eq!(fixture.stats.totals().sent, 1);
    }

    #[test]
    fn expiry_is_checked_at_the_nearest_deadline_but_not_all_the_time() {
        let now = Instant::now();
        let linger_timeout = limits().linger_timeout;
        let mut fixture = Fixture::new(now);
        let _first = fixture.add(b"hello\n", now);
        fixture.sweep(true, now).unwrap();
        fixture.close_expired(now);
        assert_eq!(fixture.next_deadline(now), linger_timeout);
        // Nothing can expire before: this one is not checked.
        let _second = fixture.add(b"hello\n", now);
        fixture.sweep(true, now).unwrap();
        assert_eq!(fixture.next_deadline(now), EXPIRY_INTERVAL);
        // Just before its deadline: the next check would be too early without the interval.
        let almost = now + linger_timeout - MILLISECOND;
        fixture.close_expired(almost);
        assert_eq!(fixture.next_deadline(almost), EXPIRY_INTERVAL);
        let late = almost + EXPIRY_INTERVAL;
        fixture.close_expired(late - MILLISECOND);
        assert_eq!(fixture.connections.len(), 2);
        fixture.close_expired(late);
        assert!(fixture.connections.is_empty());
    }

    /// More than `linger_bytes` ends the time of a connection at once, but its greeting is
    /// not delivered.
    #[test]
    fn expired_connection_is_not_checked_all_the_time() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let (connection, mut client) = connection_with_small_window();
        fixture.add_connection(connection, now);
        fixture.sweep(true, now).unwrap();
        fixture.close_expired(now);
        assert!(fixture.next_deadline(now) > EXPIRY_INTERVAL);
        client.write_all(&[b'x'; 100]).unwrap();
        fixture.handle_event(now).unwrap();
        assert_eq!(fixture.next_deadline(now), EXPIRY_INTERVAL);
    }

    #[test]
    fn connection_that_epoll_refused_is_retried_after_a_while() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let _client = fixture.add(b"hello\n", now);
        // epoll_ctl(2) returns EEXIST from now on.
        let socket = fixture.connections.slots[0].connection.socket();
        let (token, interest) = (Token::Connection(0), Interest::Readable);
        fixture.poller.register(socket, token, interest).unwrap();
        fixture.sweep(true, now).unwrap_err();
        fixture.close_expired(now);
        assert_eq!(fixture.next_deadline(now), RETRY_DELAY);
        fixture.retry(now + RETRY_DELAY - MILLISECOND).unwrap();
        fixture.retry(now + RETRY_DELAY).unwrap_err();
        fixture.poller = Poller::new().unwrap();
        fixture.retry(now + 2 * RETRY_DELAY).unwrap();
        assert!(fixture.connections.retries.is_empty());
        assert_eq!(fixture.connections.slots[0].registered, Some(interest));
    }

    #[test]
    fn event_of_a_closed_connection_is_passed_over() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        fixture.handle_event(now).unwrap();
    }

    #[test]
    fn stopping_service_checks_more_often() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let delivered = fixture.add(b"hello\n", now);
        let _slow = fixture.add(&vec![b'x'; 4 << 20], now);
        fixture.close_expired(now);
        let (connections, stats) = (&mut fixture.connections, &mut fixture.stats);
        let deadline = now + Duration::from_millis(500);
        let result = connections.drain(deadline, now, &fixture.poller, stats);
        result.unwrap();
        assert_eq!(fixture.connections.len(), 1);
        assert_eq!(fixture.next_deadline(now), DRAIN_EXPIRY_INTERVAL);
        fixture.close_expired(deadline);
        assert!(fixture.connections.is_empty());
        assert_eq!(fixture.stats.totals().cut_off, 1);
        drop(delivered);
    }

    #[test]
    fn failed_service_closes_all_connections() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let _clients = [b"hello\n", b"world\n"].map(|greeting| fixture.add(greeting, now));
        fixture.connections.abort_all(&mut fixture.stats);
        assert!(fixture.connections.is_empty());
        assert_eq!(fixture.stats.totals().sent, 2);
    }

    /// bench/README.md gives the memory of 10,000 connections.
    #[test]
    fn connection_uses_little_memory() {
        let size = size_of::<Slot>();
        assert!(size <= 168, "{size} bytes");
    }

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_64_networks() {
        let source = |text: &str| source_key(SocketAddr::new(text.parse().unwrap(), 1));
        assert_eq!(source("2001:db8:1:2::3"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::3"), source("2001:db8:1:3::3"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
        assert_ne!(source("fe80::1"), source("fe80::2"));
    }

    #[test]
    fn connections_are_counted_per_source() {
        let mut per_source = PerSource::default();
        let source: IpAddr = "192.0.2.1".parse().unwrap();
        assert!(per_source.try_add(source, 2) && per_source.try_add(source, 2));
        assert!(!per_source.try_add(source, 2));
        per_source.remove(source);
        assert!(per_source.try_add(source, 2));
        per_source.remove(source);
        per_source.remove(source);
        assert!(per_source.0.is_empty());
    }
}
