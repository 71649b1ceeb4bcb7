//! The open connections, with their deadlines and the number per source.
//!
//! After its greeting was sent, a connection is left alone for a moment and then
//! advanced once: almost all peers have closed by then, and their sockets were never
//! registered with epoll(7), which saves two system calls per connection. Connections
//! still open are then registered, and have a deadline. None is advanced again before an
//! event or its deadline, however many peers do not close.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::connection::{Connection, Drain, Progress};
use super::outcome::Outcome;
use super::stats::Stats;
use crate::poller::{Poller, Token};
use crate::socket::DiscardBuffer;

/// How long a greeted connection is left alone, at least.
const REGISTER_DELAY: Duration = Duration::from_millis(5);
/// How long [`Connections::next_deadline`] waits for more of them.
const SWEEP_INTERVAL: Duration = Duration::from_millis(10);
/// How long to wait before a connection is advanced again that no event will report.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// The open connections, and the statistics of all.
#[derive(Debug)]
pub struct Connections {
    slots: Slab<Slot>,
    /// When each connection was greeted that was not swept since; the oldest first.
    recently_greeted: VecDeque<(Instant, usize)>,
    /// When each of the other connections must be advanced.
    deadlines: BTreeSet<(Instant, usize)>,
    per_source: PerSource,
    /// Set while the service stops.
    drain: Option<Drain>,
    poller: Rc<Poller>,
    stats: Stats,
    /// The last error of epoll_ctl(2), until it is reported.
    shortage: Option<io::Error>,
    discard_buffer: DiscardBuffer,
}

#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// Whether the connection is counted in `per_source`.
    is_counted: bool,
    /// Whether epoll(7) reports the connection.
    is_registered: bool,
    /// Its entry in `deadlines`.
    deadline: Option<Instant>,
}

impl Connections {
    /// No connection.
    pub fn new(poller: Rc<Poller>, stats: Stats) -> Self {
        Self {
            slots: Slab::new(),
            recently_greeted: VecDeque::new(),
            deadlines: BTreeSet::new(),
            per_source: PerSource::default(),
            drain: None,
            poller,
            stats,
            shortage: None,
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

    /// The statistics of all connections.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The statistics, to be told of settings and of the time.
    pub fn stats_mut(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Returns the last error of epoll_ctl(2) since the last call. The connection stays
    /// open and is retried.
    pub fn take_shortage(&mut self) -> Option<io::Error> {
        self.shortage.take()
    }

    /// Returns when [`Connections::sweep_greeted`] or [`Connections::handle_deadlines`] is
    /// due; `None` if no connection is open.
    pub fn next_deadline(&self) -> Option<Instant> {
        let sweep = self.recently_greeted.front();
        let sweep = sweep.map(|(greeted_at, _)| *greeted_at + SWEEP_INTERVAL);
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        [sweep, deadline].into_iter().flatten().min()
    }

    /// Adds an accepted connection and sends its greeting: for almost all this is
    /// the only send(2). If its source has too many connections, it is refused.
    pub fn add(&mut self, mut connection: Connection, now: Instant) {
        self.stats.count_accepted();
        let mut is_counted = false;
        if !connection.is_receiving_header() {
            match self.per_source.count(&connection) {
                Ok(counted) => is_counted = counted,
                Err(TooManyConnections) => {
                    connection.refuse();
                    self.stats.record(&connection, Outcome::Refused);
                    return;
                }
            }
        }
        let key = self.slots.insert(Slot {
            connection,
            is_counted,
            is_registered: false,
            deadline: None,
        });
        if self.advance(key, now) == Progress::GreetingSent {
            self.recently_greeted.push_back((now, key));
        }
    }

    /// Advances a connection that epoll(7) has reported. If its greeting is sent now, its
    /// close is not left for later as in [`Connections::add`]: it was slow already.
    pub fn handle_event(&mut self, key: usize, now: Instant) {
        // A connection that was closed in this loop iteration can still be reported.
        if self.slots.contains(key) && self.advance(key, now) == Progress::GreetingSent {
            self.advance(key, now);
        }
    }

    /// Advances the connections whose greeting was sent [`REGISTER_DELAY`] ago, or,
    /// with `all`, because their slots are needed, every greeted one. Those that are
    /// done are closed, the rest registered.
    pub fn sweep_greeted(&mut self, all: bool, now: Instant) {
        while let Some((greeted_at, key)) = self.recently_greeted.front().copied() {
            if !all && now.duration_since(greeted_at) < REGISTER_DELAY {
                break;
            }
            self.recently_greeted.pop_front();
            // The connection may have been closed, and its key reused.
            let is_unregistered = self.slots.get(key).is_some_and(|slot| !slot.is_registered);
            if is_unregistered {
                self.advance(key, now);
            }
        }
    }

    /// Advances the connections whose deadline has passed; those that are not done by
    /// then are closed.
    pub fn handle_deadlines(&mut self, now: Instant) {
        let due = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now);
        let keys: Vec<usize> = due.map(|(_, key)| *key).collect();
        for key in keys {
            self.handle_event(key, now);
        }
    }

    /// Closes the connections that make no progress, because other clients wait.
    pub fn close_without_progress(&mut self, now: Instant) {
        let slots = self.slots.iter();
        let selected = slots.filter(|(_, slot)| slot.connection.makes_no_progress(now));
        let keys: Vec<usize> = selected.map(|(key, _)| key).collect();
        for key in keys {
            let outcome = self.slots[key].connection.cut_off();
            self.close(key, outcome);
        }
    }

    /// The service stops: closes the connections whose greeting was delivered; the
    /// rest, and those that are added from now on, are closed when theirs is, at
    /// `deadline` at the latest.
    pub fn drain(&mut self, deadline: Instant, now: Instant) {
        self.drain = Some(Drain {
            since: now,
            deadline,
        });
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.handle_event(key, now);
        }
    }

    /// Closes all connections because the service fails.
    pub fn abort_all(&mut self) {
        let keys: Vec<usize> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            let outcome = self.slots[key].connection.abort();
            self.close(key, outcome);
        }
    }

    /// Advances a connection, then closes it, or registers it and sets its deadline, as
    /// its progress demands.
    fn advance(&mut self, key: usize, now: Instant) -> Progress {
        let slot = &mut self.slots[key];
        let connection = &mut slot.connection;
        let mut progress = connection.advance(&mut self.discard_buffer, now, self.drain);
        if progress == Progress::HeaderReceived {
            progress = match self.per_source.count(connection) {
                Ok(is_counted) => {
                    slot.is_counted = is_counted;
                    connection.advance(&mut self.discard_buffer, now, self.drain)
                }
                Err(TooManyConnections) => {
                    connection.refuse();
                    Progress::Finished(Outcome::Refused)
                }
            };
        }
        match progress {
            Progress::GreetingSent => {}
            Progress::Pending => self.wait_for_event(key, now),
            Progress::HeaderReceived | Progress::RetryLater => self.retry_later(key, now),
            Progress::Finished(outcome) => self.close(key, outcome),
        }
        progress
    }

    /// The connection goes on at its next event or at its deadline.
    fn wait_for_event(&mut self, key: usize, now: Instant) {
        let slot = &mut self.slots[key];
        if !slot.is_registered {
            let socket = slot.connection.socket();
            let token = Token::Connection(key);
            if let Err(error) = self.poller.register_connection(socket, token) {
                self.shortage = Some(error);
                self.retry_later(key, now);
                return;
            }
            slot.is_registered = true;
        }
        let deadline = slot.connection.next_deadline(now, self.drain);
        self.set_deadline(key, Some(deadline));
    }

    /// The connection goes on after a while, or at its deadline if that is sooner.
    fn retry_later(&mut self, key: usize, now: Instant) {
        let deadline = self.slots[key].connection.next_deadline(now, self.drain);
        self.set_deadline(key, Some(deadline.min(now + RETRY_DELAY)));
    }

    fn set_deadline(&mut self, key: usize, deadline: Option<Instant>) {
        let previous = mem::replace(&mut self.slots[key].deadline, deadline);
        if previous != deadline {
            if let Some(previous) = previous {
                self.deadlines.remove(&(previous, key));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, key));
            }
        }
    }

    /// Closes a connection: its outcome is recorded, its socket is dropped, and its
    /// source counts one less.
    fn close(&mut self, key: usize, outcome: Outcome) {
        self.set_deadline(key, None);
        let slot = self.slots.remove(key);
        if let (true, Some(peer)) = (slot.is_counted, slot.connection.peer()) {
            self.per_source.remove(source_key(peer));
        }
        self.stats.record(&slot.connection, outcome);
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
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::super::connection::tests::{
        connection_with_header, connection_with_small_window, limits, unix_connection,
    };
    use super::super::listener::tests::default_settings;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// Connections with what they need, at a time that the tests choose.
    struct Fixture {
        connections: Connections,
    }

    impl Fixture {
        fn new(now: Instant) -> Self {
            let poller = Rc::new(Poller::new().unwrap());
            let stats = Stats::new(&default_settings(), now);
            Self {
                connections: Connections::new(poller, stats),
            }
        }

        /// Adds a connection with this greeting, and returns its client.
        fn add(&mut self, greeting: &[u8], now: Instant) -> UnixStream {
            let (connection, client) = unix_connection(greeting);
            self.connections.add(connection, now);
            client
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
        let connections = &mut fixture.connections;
        assert_eq!(connections.next_deadline(), None);
        let client = fixture.add(b"hello\n", now);
        assert_eq!(fixture.next_deadline(now), SWEEP_INTERVAL);
        drop(client);
        let connections = &mut fixture.connections;
        connections.sweep_greeted(false, now + REGISTER_DELAY - MILLISECOND);
        assert_eq!(connections.len(), 1);
        connections.sweep_greeted(false, now + REGISTER_DELAY);
        assert!(connections.is_empty());
        assert_eq!(connections.stats().totals().sent, 1);
        assert_eq!(connections.next_deadline(), None);
    }

    #[test]
    fn connections_expire_at_their_deadlines() {
        let now = Instant::now();
        let linger_timeout = limits().linger_timeout;
        let mut fixture = Fixture::new(now);
        let _first = fixture.add(b"hello\n", now);
        fixture.connections.sweep_greeted(true, now);
        assert_eq!(fixture.next_deadline(now), linger_timeout);
        let later = now + MILLISECOND;
        let _second = fixture.add(b"hello\n", later);
        fixture.connections.sweep_greeted(true, later);
        assert_eq!(fixture.next_deadline(now), linger_timeout);
        let connections = &mut fixture.connections;
        let end = now + linger_timeout;
        connections.handle_deadlines(end - MILLISECOND);
        assert_eq!(connections.len(), 2);
        connections.handle_deadlines(end);
        assert_eq!(connections.len(), 1);
        assert_eq!(fixture.next_deadline(end), MILLISECOND);
        fixture.connections.handle_deadlines(later + linger_timeout);
        assert!(fixture.connections.is_empty());
    }

    /// More than `linger_bytes` ends the wait for the peer at once, but the greeting is
    /// not delivered: the connection waits for that, and is not asked all the time.
    #[test]
    fn undelivered_greeting_has_the_rest_of_write_timeout() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let (connection, mut client) = connection_with_small_window();
        let hard_deadline = limits().write_timeout + limits().linger_timeout;
        fixture.connections.add(connection, now);
        fixture.connections.sweep_greeted(true, now);
        assert_eq!(fixture.next_deadline(now), limits().linger_timeout);
        client.write_all(&[b'x'; 100]).unwrap();
        let linger_end = now + limits().linger_timeout;
        fixture.connections.handle_deadlines(linger_end);
        assert_eq!(fixture.connections.len(), 1);
        let next = fixture.next_deadline(linger_end);
        assert!(
            next <= hard_deadline
                && next > hard_deadline - limits().linger_timeout - MILLISECOND * 100
        );
        fixture.connections.handle_deadlines(linger_end + next);
        assert!(fixture.connections.is_empty());
        assert_eq!(fixture.connections.stats().totals().cut_off, 1);
    }

    /// The loop may be late: the process was stopped, or a reload took long.
    #[test]
    fn header_that_arrived_in_time_counts_after_the_deadline() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let (connection, mut client) = connection_with_header();
        fixture.connections.add(connection, now);
        client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
        let late = now + 10 * limits().header_timeout;
        fixture.connections.handle_deadlines(late);
        let mut greeting = [0; 6];
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        client.read_exact(&mut greeting).unwrap();
        assert_eq!(&greeting, b"hello\n");
        assert_eq!(fixture.connections.len(), 1);
        drop(client);
        fixture.connections.handle_event(0, late);
        assert_eq!(fixture.connections.stats().totals().sent, 1);
    }

    /// The kernel reports the acknowledgement of the FIN; nothing asks for it again and
    /// again.
    #[test]
    fn connection_ends_when_its_greeting_is_delivered() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let (connection, mut client) = connection_with_small_window();
        fixture.connections.add(connection, now);
        fixture.connections.sweep_greeted(true, now);
        let linger_end = now + limits().linger_timeout;
        fixture.connections.handle_deadlines(linger_end);
        assert_eq!(fixture.connections.len(), 1);
        client.read_exact(&mut [0; 100_000]).unwrap();
        let timeout = Some(Duration::from_secs(5));
        while !fixture.connections.is_empty() {
            let ready = fixture.connections.poller.wait(timeout).unwrap();
            assert_eq!(ready, [Token::Connection(0)]);
            fixture.connections.handle_event(0, linger_end);
        }
        assert_eq!(fixture.connections.stats().totals().sent, 1);
    }

    #[test]
    fn connection_that_epoll_refused_is_retried_after_a_while() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let _client = fixture.add(b"hello\n", now);
        // epoll_ctl(2) returns EEXIST from now on.
        let connections = &mut fixture.connections;
        let socket = connections.slots[0].connection.socket();
        let registered = connections
            .poller
            .register_connection(socket, Token::Connection(0));
        registered.unwrap();
        connections.sweep_greeted(true, now);
        assert!(connections.take_shortage().is_some());
        assert!(connections.take_shortage().is_none());
        assert_eq!(fixture.next_deadline(now), RETRY_DELAY);
        let connections = &mut fixture.connections;
        connections.handle_deadlines(now + RETRY_DELAY - MILLISECOND);
        assert!(connections.take_shortage().is_none());
        connections.handle_deadlines(now + RETRY_DELAY);
        assert!(connections.take_shortage().is_some());
        connections.poller = Rc::new(Poller::new().unwrap());
        connections.handle_deadlines(now + 2 * RETRY_DELAY);
        assert!(connections.take_shortage().is_none());
        assert!(connections.slots[0].is_registered);
        assert_eq!(fixture.next_deadline(now), limits().linger_timeout);
    }

    #[test]
    fn event_of_a_closed_connection_is_passed_over() {
        let now = Instant::now();
        Fixture::new(now).connections.handle_event(0, now);
    }

    #[test]
    fn stopping_service_closes_what_is_delivered() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let delivered = fixture.add(b"hello\n", now);
        let _slow = fixture.add(&vec![b'x'; 4 << 20], now);
        let deadline = now + Duration::from_millis(500);
        fixture.connections.drain(deadline, now);
        assert_eq!(fixture.connections.len(), 1);
        fixture.connections.handle_deadlines(deadline - MILLISECOND);
        assert_eq!(fixture.connections.len(), 1);
        fixture.connections.handle_deadlines(deadline);
        assert!(fixture.connections.is_empty());
        assert_eq!(fixture.connections.stats().totals().cut_off, 1);
        drop(delivered);
    }

    #[test]
    fn connections_without_progress_make_room() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let _lingering = fixture.add(b"hello\n", now);
        let (undelivered, _client) = connection_with_small_window();
        fixture.connections.add(undelivered, now);
        let _unsent = fixture.add(&vec![b'x'; 4 << 20], now);
        let (waiting, _client) = connection_with_header();
        fixture.connections.add(waiting, now);
        fixture.connections.sweep_greeted(true, now);
        let late = now + limits().linger_timeout;
        fixture
            .connections
            .close_without_progress(late - MILLISECOND);
        assert_eq!(fixture.connections.len(), 4);
        fixture.connections.handle_deadlines(late);
        assert_eq!(fixture.connections.stats().totals().sent, 1);
        fixture.connections.close_without_progress(late);
        // The client whose header has not arrived has its own time.
        assert_eq!(fixture.connections.len(), 1);
        assert_eq!(fixture.connections.stats().totals().cut_off, 2);
    }

    #[test]
    fn failed_service_closes_all_connections() {
        let now = Instant::now();
        let mut fixture = Fixture::new(now);
        let _clients = [b"hello\n", b"world\n"].map(|greeting| fixture.add(greeting, now));
        fixture.connections.abort_all();
        assert!(fixture.connections.is_empty());
        assert_eq!(fixture.connections.stats().totals().sent, 2);
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
