//! The clients that are connected: greeted, waited for, closed. Floor 8.
//!
//! After its greeting a client is left alone for a moment and then looked at
//! once: almost all are gone by then and were never registered with epoll, which
//! saves two system calls each. Whoever is still there is registered. Nobody is
//! looked at twice without cause, however many clients do not leave.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use slab::Slab;

use super::guest::{self, Guest, Outcome};
use super::port::Port;
use crate::client::{Client, Step};
use crate::mode::Mode;
use crate::poller::Poller;
use crate::settings::values::Settings;
use crate::socket::Scratch;
use crate::tally::Tally;

/// How long a client is left alone after its greeting, at least.
const GRACE: Duration = Duration::from_millis(5);
/// Deadlines are looked at this often at most.
const TICK: Duration = Duration::from_millis(100);

/// The sockets, the settings, and everybody who is connected.
pub struct Crowd {
    /// Where clients come from.
    pub ports: Vec<Port>,
    /// The settings in force.
    pub settings: Settings,
    /// The counts.
    pub tally: Tally,
    /// Tells of ports by their place in the list, and of guests by theirs behind it.
    pub poller: Poller,
    guests: Slab<Guest>,
    /// Who was greeted, when, and has not been looked at; the oldest first.
    fresh: VecDeque<(Instant, usize)>,
    /// How many there are of each origin, where that is limited.
    origins: HashMap<IpAddr, u32>,
    scratch: Scratch,
    /// When the deadlines are looked at.
    look_at: Instant,
}

impl Crowd {
    /// Nobody yet.
    ///
    /// # Errors
    /// The kernel gives no descriptors.
    pub fn new(mut ports: Vec<Port>, settings: Settings, now: Instant) -> io::Result<Self> {
        let poller = Poller::new()?;
        for (number, port) in ports.iter_mut().enumerate() {
            port.agree(&settings);
            if let (Some(socket), Mode::Accept) = (&port.socket, port.mode) {
                poller.watch(socket, number, false)?;
            }
        }
        Ok(Self {
            ports,
            settings,
            tally: Tally::new(now),
            poller,
            guests: Slab::new(),
            fresh: VecDeque::new(),
            origins: HashMap::new(),
            scratch: Scratch::default(),
            look_at: now,
        })
    }

    /// Puts other settings in force, for new clients.
    pub fn agree(&mut self, settings: Settings) {
        for port in &mut self.ports {
            port.agree(&settings);
        }
        self.settings = settings;
    }

    /// Whether somebody may be waiting to be accepted.
    pub fn somebody_waits(&self) -> bool {
        self.ports.iter().any(|port| port.ready)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.guests.len()
    }

    /// How many have not taken their greeting yet.
    pub fn ungreeted(&self) -> usize {
        let guests = self.guests.iter();
        guests
            .filter(|(_, guest)| guest.client.is_writing())
            .count()
    }

    /// When somebody must be looked at again, if nothing happens.
    pub fn due(&self) -> Option<Instant> {
        let fresh = self.fresh.front().map(|(greeted, _)| *greeted + 2 * GRACE);
        let late = (!self.guests.is_empty()).then_some(self.look_at);
        fresh.into_iter().chain(late).min()
    }

    /// Takes the next client of a port, if there is one, and greets it: for almost
    /// all of them this is the only write. Whether there was one.
    ///
    /// # Errors
    /// Those of [`Port::accept`], or epoll cannot watch a client that does not take
    /// its greeting at once; the client is closed.
    pub fn accept(&mut self, port: usize, now: Instant) -> io::Result<bool> {
        let Some((socket, peer)) = self.ports[port].accept()? else {
            return Ok(false);
        };
        let most = self.settings.limits.connections_per_source;
        let origin = peer
            .filter(|_| most > 0)
            .map(|peer| guest::origin(peer.ip()));
        let held = origin.map_or(0, |origin| {
            let held = self.origins.entry(origin).or_default();
            *held += 1;
            *held
        });
        let greeting = self.ports[port].greeting(&socket, peer);
        let key = self.guests.insert(Guest {
            client: Client::new(socket, greeting, now, &self.settings.limits),
            port,
            peer,
            origin,
            begun: now,
            watched: false,
        });
        self.look_at = self.look_at.min(now + TICK);
        if held > most {
            let socket = &self.guests[key].client.socket;
            socket.finish();
            // One read, so that what it said already does not make its end a reset.
            let _ = socket.drop_input(&mut self.scratch, usize::MAX);
            self.report(key, Outcome::Refused);
            self.close(key);
            return Ok(true);
        }
        match self.advance(key, now) {
            Step::Sent => self.fresh.push_back((now, key)),
            Step::Wait => self.watch(key)?,
            Step::Gone | Step::Over => {}
        }
        Ok(true)
    }

    /// Goes on with a client of which epoll told.
    pub fn wake(&mut self, key: usize, now: Instant) {
        // One that ended earlier in this turn can still be named here.
        if self.guests.contains(key) && self.advance(key, now) == Step::Sent {
            self.advance(key, now);
        }
    }

    /// Looks at who was greeted a while ago, or, where `all` is set because their
    /// places are wanted, at everybody: closes who is done and has epoll watch
    /// the others.
    ///
    /// # Errors
    /// epoll cannot watch a client; it is closed.
    pub fn settle(&mut self, now: Instant, all: bool) -> io::Result<()> {
        while let Some((greeted, key)) = self.fresh.front().copied() {
            if !all && now.duration_since(greeted) < GRACE {
                break;
            }
            self.fresh.pop_front();
            // A deadline may have closed it, and its key have gone to somebody else.
            let waits = self.guests.get(key).is_some_and(|guest| !guest.watched);
            if waits && self.advance(key, now) == Step::Wait {
                self.watch(key)?;
            }
        }
        Ok(())
    }

    /// Closes whoever is past its deadline.
    pub fn close_late(&mut self, now: Instant) {
        if now < self.look_at {
            return;
        }
        let guests = self.guests.iter_mut();
        let late = guests.filter_map(|(key, guest)| guest.client.is_late(now).then_some(key));
        for key in late.collect::<Vec<_>>() {
            if self.guests[key].client.is_writing() {
                self.report(key, Outcome::Timeout);
            }
            self.close(key);
        }
        let guests = self.guests.iter();
        let next = guests.map(|(_, guest)| guest.client.deadline).min();
        self.look_at = next.map_or(now, |next| next.max(now + TICK));
    }

    /// Takes a client to its next step; one that has made its last is closed.
    fn advance(&mut self, key: usize, now: Instant) -> Step {
        let step = self.guests[key].client.advance(&mut self.scratch, now);
        match step {
            Step::Wait => {}
            Step::Sent => {
                self.look_at = self.look_at.min(now + TICK);
                self.report(key, Outcome::Sent);
            }
            Step::Gone => {
                self.report(key, Outcome::Gone);
                self.close(key);
            }
            Step::Over => self.close(key),
        }
        step
    }

    fn watch(&mut self, key: usize) -> io::Result<()> {
        let (guest, number) = (&mut self.guests[key], self.ports.len() + key);
        guest.watched = true;
        let client = &guest.client;
        let watched = self
            .poller
            .watch(&client.socket, number, client.is_writing());
        if watched.is_err() {
            self.close(key);
        }
        watched
    }

    fn close(&mut self, key: usize) {
        let guest = self.guests.remove(key);
        if let Some(origin) = guest.origin {
            let held = self.origins.entry(origin).or_default();
            *held -= 1;
            if *held == 0 {
                self.origins.remove(&origin);
            }
        }
    }

    /// Counts a client, and writes its line if it may have one.
    fn report(&mut self, key: usize, outcome: Outcome) {
        let guest = &self.guests[key];
        if outcome == Outcome::Sent {
            self.tally.count(guest.peer);
        }
        if self.tally.may_log() {
            guest.log(&self.ports[guest.port], outcome, self.settings.log_peer);
        }
    }
}
