//! The clients that are connected: greeted, waited for, closed. Floor 8.
//!
//! After its greeting a client is left alone for a moment and then looked at
//! once: almost all are gone by then and were never registered with epoll, which
//! saves two system calls each. Whoever is still there is registered. Nobody is
//! looked at twice without cause, however many clients do not leave.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use slab::Slab;

use super::desk::{Desk, Guest};
use crate::client::{Client, Origin, Step};
use crate::poller::Poller;
use crate::socket::{Address, Scratch, Stream};
use crate::tally::Outcome;

/// Deadlines are looked at this often at most.
const DEADLINE_TICK: Duration = Duration::from_millis(100);

/// How long a client is left alone after its greeting.
const GRACE: Duration = Duration::from_millis(10);
/// Once it is time for one, it is for all who were greeted so long ago: one turn
/// for many costs less than a turn for each.
const GRACE_IN_COMPANY: Duration = Duration::from_millis(5);

/// Everybody who is connected.
#[derive(Debug, Default)]
pub struct Crowd {
    guests: Slab<Entry>,
    /// Who was greeted, when, and has not been looked at; the oldest first.
    fresh: VecDeque<(Instant, usize)>,
    origins: HashMap<Origin, u32>,
    scratch: Scratch,
    deadlines_due: Option<Instant>,
    left: bool,
}

#[derive(Debug)]
struct Entry {
    guest: Guest,
    /// Registered with epoll.
    watched: bool,
}

impl Crowd {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.guests.is_empty()
    }

    /// How many have not taken their greeting yet.
    pub fn ungreeted(&self) -> usize {
        self.guests
            .iter()
            .filter(|(_, entry)| entry.guest.client.is_writing())
            .count()
    }

    /// When [`Crowd::settle`] has something to do.
    pub fn settle_due(&self) -> Option<Instant> {
        self.fresh.front().map(|(greeted, _)| *greeted + GRACE)
    }

    /// When [`Crowd::close_late`] has something to look at.
    pub fn deadlines_due(&self) -> Option<Instant> {
        self.deadlines_due
    }

    /// Whether anybody left since this was asked last.
    pub fn somebody_left(&mut self) -> bool {
        std::mem::take(&mut self.left)
    }

    /// Greets a client: for almost all of them this is the only write.
    ///
    /// # Errors
    /// epoll cannot watch a client that does not take its greeting at once; the
    /// client is closed.
    pub fn greet(
        &mut self,
        (stream, peer): (Stream, Address),
        port: usize,
        desk: &mut Desk,
        poller: &Poller,
        now: Instant,
    ) -> io::Result<()> {
        let limits = &desk.settings.limits;
        let counted = peer.ip().filter(|_| limits.connections_per_source > 0);
        let origin = counted.map(|(address, _)| Origin::new(address));
        let held = origin.map_or(0, |origin| {
            self.origins.get(&origin).copied().unwrap_or_default()
        });
        let refused = origin.is_some() && held >= limits.connections_per_source;
        let mut client = if refused {
            Client::dismissed(stream, now, limits)
        } else {
            let greeting = desk.ports[port].greeting(&stream, &peer);
            Client::new(stream, greeting, now, limits)
        };
        let step = client.advance(&mut self.scratch, now, limits);
        if refused {
            // One read, so that what it said already does not make its end a reset.
            client.advance(&mut self.scratch, now, limits);
        }
        let guest = Guest {
            client,
            port,
            peer,
            begun: now,
        };
        match step {
            _ if refused => desk.report(&guest, Outcome::Refused),
            Step::Gone => desk.report(&guest, Outcome::Gone),
            Step::Sent => {
                desk.report(&guest, Outcome::Sent);
                let key = self.insert(guest, origin);
                self.fresh.push_back((now, key));
            }
            _ => {
                let key = self.insert(guest, origin);
                return self.watch(key, poller, desk.ports.len());
            }
        }
        Ok(())
    }

    /// Goes on with a client of which epoll told.
    pub fn wake(&mut self, key: usize, desk: &mut Desk, now: Instant) {
        // One that ended earlier in this turn can still be named here.
        let Some(Entry { guest, .. }) = self.guests.get_mut(key) else {
            return;
        };
        if !guest.client.is_writing() {
            self.hear_out(key, desk, now);
            return;
        }
        match guest
            .client
            .advance(&mut self.scratch, now, &desk.settings.limits)
        {
            Step::Sent => {
                desk.report(guest, Outcome::Sent);
                let deadline = guest.client.deadline;
                self.expect(deadline);
                self.hear_out(key, desk, now);
            }
            Step::Gone => {
                desk.report(guest, Outcome::Gone);
                self.close(key);
            }
            _ => {}
        }
    }

    /// Looks at who was greeted a while ago, or, where `all` is set because their
    /// places are wanted, at everybody: closes who is done and has epoll watch
    /// the others.
    ///
    /// # Errors
    /// epoll cannot watch a client; it is closed.
    pub fn settle(
        &mut self,
        desk: &Desk,
        poller: &Poller,
        now: Instant,
        all: bool,
    ) -> io::Result<()> {
        if !all && self.settle_due().is_none_or(|due| now < due) {
            return Ok(());
        }
        while let Some((greeted, key)) = self.fresh.front().copied() {
            if !all && now.duration_since(greeted) < GRACE_IN_COMPANY {
                break;
            }
            self.fresh.pop_front();
            // A deadline may have closed it, and its key have gone to somebody else.
            let waits = self.guests.get(key).is_some_and(|entry| !entry.watched);
            if waits && !self.hear_out(key, desk, now) {
                self.watch(key, poller, desk.ports.len())?;
            }
        }
        Ok(())
    }

    /// Drops what a greeted client said, and closes it at its end: then true.
    fn hear_out(&mut self, key: usize, desk: &Desk, now: Instant) -> bool {
        let Some(Entry { guest, .. }) = self.guests.get_mut(key) else {
            return true;
        };
        let limits = &desk.settings.limits;
        loop {
            match guest.client.advance(&mut self.scratch, now, limits) {
                Step::Over => break,
                Step::Spoke => {}
                _ => return false,
            }
        }
        self.close(key);
        true
    }

    /// Closes whoever is past its deadline.
    pub fn close_late(&mut self, desk: &mut Desk, now: Instant) {
        if self.deadlines_due.is_none_or(|due| now < due) {
            return;
        }
        let late: Vec<usize> = self
            .guests
            .iter_mut()
            .filter_map(|(key, entry)| entry.guest.client.is_late(now).then_some(key))
            .collect();
        for key in late {
            if let Some(Entry { guest, .. }) = self.close(key) {
                if guest.client.is_writing() {
                    desk.report(&guest, Outcome::Timeout);
                }
            }
        }
        let next = self
            .guests
            .iter()
            .map(|(_, entry)| entry.guest.client.deadline)
            .min();
        self.deadlines_due = next.map(|next| next.max(now + DEADLINE_TICK));
    }

    fn insert(&mut self, mut guest: Guest, origin: Option<Origin>) -> usize {
        guest.client.origin = origin;
        if let Some(origin) = origin {
            *self.origins.entry(origin).or_default() += 1;
        }
        self.expect(guest.client.deadline);
        self.guests.insert(Entry {
            guest,
            watched: false,
        })
    }

    fn close(&mut self, key: usize) -> Option<Entry> {
        let entry = self.guests.try_remove(key)?;
        self.left = true;
        if let Some(origin) = entry.guest.client.origin {
            if let Some(count) = self.origins.get_mut(&origin) {
                *count -= 1;
                if *count == 0 {
                    self.origins.remove(&origin);
                }
            }
        }
        Some(entry)
    }

    fn watch(&mut self, key: usize, poller: &Poller, offset: usize) -> io::Result<()> {
        let Some(entry) = self.guests.get_mut(key) else {
            return Ok(());
        };
        entry.watched = true;
        let client = &entry.guest.client;
        let watched = poller.watch(&client.stream, offset + key, client.is_writing());
        if watched.is_err() {
            self.close(key);
        }
        watched
    }

    fn expect(&mut self, deadline: Instant) {
        if self.deadlines_due.is_none_or(|due| deadline < due) {
            self.deadlines_due = Some(deadline);
        }
    }
}
