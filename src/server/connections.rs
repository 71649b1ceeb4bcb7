//! The open connections, with their deadlines and the number per source.
//!
//! After its greeting was sent, a connection is left alone for a moment and then
//! advanced once: almost all peers have closed by then, and their sockets were never
//! registered with epoll(7), which saves two system calls per connection. Connections
//! still open are then registered. None is advanced again without an event, however
//! many peers do not close.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv6Addr};
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
/// How often deadlines are checked, at most.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(100);

/// The open connections.
#[derive(Debug)]
pub struct Connections {
    slots: Slab<Slot>,
    /// When each connection was greeted that was not swept since; the oldest first.
    recently_greeted: VecDeque<(Instant, usize)>,
    per_source: PerSource,
    /// When deadlines are checked next.
    next_expiry_check: Instant,
    discard_buffer: DiscardBuffer,
}

#[derive(Debug)]
struct Slot {
    connection: Connection,
    /// The source that the connection is counted for, if sources are counted.
    source: Option<IpAddr>,
    registered: bool,
}

impl Connections {
    /// No connection.
    pub fn new(now: Instant) -> Self {
        Self {
            slots: Slab::new(),
            recently_greeted: VecDeque::new(),
            per_source: PerSource::default(),
            next_expiry_check: now,
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

    /// The number of connections whose greeting was not sent yet.
    pub fn unsent(&self) -> usize {
        let slots = self.slots.iter();
        slots
            .filter(|(_, slot)| slot.connection.is_sending())
            .count()
    }

    /// When [`Connections::sweep_greeted`] or [`Connections::close_expired`] has to be
    /// called next; `None` if no connection is open.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.slots.is_empty() {
            return None;
        }
        let sweep = self.recently_greeted.front();
        let sweep = sweep.map(|(greeted_at, _)| *greeted_at + SWEEP_INTERVAL);
        Some(match sweep {
            Some(sweep) => sweep.min(self.next_expiry_check),
            None => self.next_expiry_check,
        })
    }

    /// Adds an accepted connection and sends its greeting: for almost all this is
    /// the only send(2). If its source has too many connections, it is refused.
    ///
    /// # Errors
    /// Those of epoll_ctl(2), if the greeting was not sent at once; the connection is
    /// closed.
    pub fn add(
        &mut self,
        connection: Connection,
        now: Instant,
        poller: &Poller,
        stats: &mut Stats,
    ) -> io::Result<()> {
        let limit = connection.limits().connections_per_source;
        let source = match connection.peer() {
            Some(peer) if limit > 0 => Some(source_key(peer.ip())),
            _ => None,
        };
        if let Some(source) = source {
            if !self.per_source.try_add(source, limit) {
                connection.refuse(&mut self.discard_buffer);
                stats.record(&connection, Outcome::Refused);
                return Ok(());
            }
        }
        let key = self.slots.insert(Slot {
            connection,
            source,
            registered: false,
        });
        self.check_expiry_by(now + EXPIRY_INTERVAL);
        match self.advance(key, now, stats) {
            Progress::GreetingSent => {
                self.recently_greeted.push_back((now, key));
                Ok(())
            }
            Progress::Pending(interest) => self.register(key, interest, poller),
            Progress::Disconnected | Progress::Done => Ok(()),
        }
    }

    /// Advances a connection that epoll(7) has reported.
    pub fn handle_event(&mut self, key: usize, now: Instant, stats: &mut Stats) {
        // A connection that was closed in this loop iteration can still be reported.
        if self.slots.contains(key) && self.advance(key, now, stats) == Progress::GreetingSent {
            self.advance(key, now, stats);
        }
    }

    /// Advances the connections whose greeting was sent [`REGISTER_DELAY`] ago, or,
    /// with `all`, because their slots are needed, every greeted one. Those that are
    /// done are closed, the others registered.
    ///
    /// # Errors
    /// Those of epoll_ctl(2) for a connection; it is closed.
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
            let is_unregistered = self.slots.get(key).is_some_and(|slot| !slot.registered);
            if is_unregistered {
                if let Progress::Pending(interest) = self.advance(key, now, stats) {
                    self.register(key, interest, poller)?;
                }
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
            if slot.connection.expire_or_extend(now) {
                expired.push(key);
            }
        }
        for key in expired {
            let connection = &self.slots[key].connection;
            if connection.is_sending() {
                stats.record(connection, Outcome::TimedOut);
            }
            self.close(key);
        }
        let deadlines = self
            .slots
            .iter()
            .map(|(_, slot)| slot.connection.deadline());
        self.next_expiry_check = match deadlines.min() {
            Some(deadline) => deadline.max(now + EXPIRY_INTERVAL),
            None => now,
        };
    }

    /// Advances a connection and records its outcome; closes it if it has ended.
    fn advance(&mut self, key: usize, now: Instant, stats: &mut Stats) -> Progress {
        let connection = &mut self.slots[key].connection;
        let progress = connection.advance(&mut self.discard_buffer, now);
        match progress {
            Progress::Pending(_) => {}
            Progress::GreetingSent => {
                stats.record(connection, Outcome::Sent);
                self.check_expiry_by(now + EXPIRY_INTERVAL);
            }
            Progress::Disconnected => {
                stats.record(connection, Outcome::Disconnected);
                self.close(key);
            }
            Progress::Done => self.close(key),
        }
        progress
    }

    /// Deadlines are checked at `time` at the latest.
    fn check_expiry_by(&mut self, time: Instant) {
        self.next_expiry_check = self.next_expiry_check.min(time);
    }

    fn register(&mut self, key: usize, interest: Interest, poller: &Poller) -> io::Result<()> {
        let slot = &mut self.slots[key];
        let result = poller.register(slot.connection.socket(), Token::Connection(key), interest);
        match result {
            Ok(()) => slot.registered = true,
            Err(_) => self.close(key),
        }
        result
    }

    /// Closes a connection: its socket is dropped, and its source counts one less.
    fn close(&mut self, key: usize) {
        let slot = self.slots.remove(key);
        if let Some(source) = slot.source {
            self.per_source.remove(source);
        }
    }
}

/// The number of open connections per source, for `connections_per_source`.
#[derive(Debug, Default)]
struct PerSource(HashMap<IpAddr, u32>);

impl PerSource {
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

/// What `connections_per_source` counts as one source: an IPv4 address or an IPv6 /64.
fn source_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => {
            let network = u128::from(v6) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_ipv4_addresses_and_ipv6_64_networks() {
        let source = |text: &str| source_key(text.parse().unwrap());
        assert_eq!(source("2001:db8:1:2::3"), source("2001:db8:1:2:ffff::"));
        assert_ne!(source("2001:db8:1:2::3"), source("2001:db8:1:3::3"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.2"), source("192.0.2.1"));
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
