//! The serving loop: one thread, one epoll(7) instance, no call that waits but the
//! one at the top of a turn. Floor 9.
//!
//! Where systemd accepts there is one client, and the loop ends with it.

mod crowd;
mod guest;
mod port;

use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::event;
use crate::handover::Handover;
use crate::kernel;
use crate::mode::Mode;
use crate::poller::Wake;
use crate::settings::values::Settings;
use crate::systemd::notify::{self, Notifier};
use crate::tally::Peer;
use crowd::Crowd;
use port::Port;

/// Clients that one socket may bring in a turn, so that none starves the others.
const BATCH: usize = 128;
/// How long nothing is accepted when the kernel is out of descriptors or memory,
/// unless a client ends sooner.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Descriptors that are kept from clients: the process holds about fifteen beside
/// its sockets, and needs some more to tell systemd how it goes and to reload.
const RESERVE: usize = 32;
/// A shortage that comes back within this is not told again.
const SHORTAGE_OVER: Duration = Duration::from_secs(60);
/// The status text changes this often at most.
const STATUS_TICK: Duration = Duration::from_secs(1);

/// The loop and all that it serves.
pub struct Server<'a> {
    mode: Mode,
    crowd: Crowd,
    notifier: Notifier,
    reload: &'a mut dyn FnMut() -> Result<Settings, Error>,
    /// What the last reload met, for the status text.
    trouble: String,
    /// The counts of the last status, and when the next may be told.
    told: (u64, usize),
    status_due: Instant,
    paused_until: Option<Instant>,
    /// For how many clients there are descriptors.
    room: usize,
    shortage_met: Option<Instant>,
    watchdog: Option<(Duration, Instant)>,
    last_arrival: Instant,
    stop_by: Option<Instant>,
}

impl<'a> Server<'a> {
    /// A server of what was handed over. `reload` reads the settings anew.
    ///
    /// # Errors
    /// The kernel gives no descriptors.
    pub fn new(
        Handover { mode, sockets }: Handover,
        settings: Settings,
        reload: &'a mut dyn FnMut() -> Result<Settings, Error>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let held = RESERVE + sockets.len();
        let sockets = sockets.into_iter();
        let ports = sockets.map(|(socket, name)| Port::new(socket, name, mode));
        let failed = |error| Error::os("prepare to wait for clients", error);
        let mut crowd = Crowd::new(ports.collect(), settings, now).map_err(failed)?;
        if mode == Mode::Accept {
            crowd.poller.watch_signals().map_err(failed)?;
        }
        Ok(Self {
            mode,
            crowd,
            notifier: Notifier::default(),
            reload,
            trouble: String::new(),
            told: (0, 0),
            status_due: now,
            paused_until: None,
            room: match mode {
                Mode::Accept => kernel::descriptor_limit().saturating_sub(held).max(1),
                _ => usize::MAX,
            },
            shortage_met: None,
            watchdog: notify::watchdog_interval().map(|interval| (interval, now + interval)),
            last_arrival: now,
            stop_by: None,
        })
    }

    /// Serves until told to stop, or until nobody comes any more.
    ///
    /// # Errors
    /// A socket is broken, or epoll is.
    pub fn run(mut self) -> Result<(), Error> {
        let ports = self.crowd.ports.iter();
        if self.mode == Mode::Accept {
            let places: Vec<&str> = ports.map(|port| port.local.text.as_str()).collect();
            let places = places.join(", ");
            log::info!(MESSAGE_ID = event::READY, GREETER_MODE = self.mode.name(); "listening on {places}");
            self.notifier
                .ready(&format!("Listening on {places}; nobody came yet"));
        } else {
            let peer = ports.filter_map(|port| port.socket.as_ref()?.peer()).next();
            let peer = Peer::new(peer, self.crowd.settings.log_peer);
            self.notifier.ready(&format!("Greeting {peer}"));
        }
        let outcome = loop {
            match self.turn() {
                Ok(false) => {}
                over => break over.map(drop),
            }
        };
        if self.mode == Mode::Accept && self.stop_by.is_none() {
            let why = "Ending; the next client starts the service again";
            self.notifier.stopping(why);
        }
        outcome
    }

    /// Waits for something and does it. Whether the loop is at its end.
    fn turn(&mut self) -> Result<bool, Error> {
        let failed = |error| Error::os("wait for clients", error);
        let wakes = self.crowd.poller.wait(self.timeout()).map_err(failed)?;
        let now = Instant::now();
        let before = self.crowd.len();
        self.crowd.tally.turn_second(now);
        for wake in wakes {
            let ports = self.crowd.ports.len();
            match wake {
                Wake::Reload => self.reload(),
                Wake::Stop => self.stop(now),
                Wake::Socket(number) if number < ports => self.crowd.ports[number].ready = true,
                Wake::Socket(number) => self.crowd.wake(number - ports, now),
            }
        }
        self.crowd.close_late(now);
        if self.crowd.len() < before || self.paused_until.is_some_and(|due| now >= due) {
            self.paused_until = None;
        }
        self.accept(now)?;
        // Where nobody else is let in, or will come, each end must be known at once.
        let full = !self.may_accept() || self.mode != Mode::Accept;
        if let Err(error) = self.crowd.settle(now, full) {
            self.back_off(&error, now);
        }
        self.tell(now);
        Ok(self.is_over(now))
    }

    /// How long nothing needs doing; none is for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.crowd.somebody_waits() && self.may_accept() {
            return Some(Duration::ZERO);
        }
        let now = Instant::now();
        let idle_timeout = self.crowd.settings.limits.idle_timeout;
        let idle = idle_timeout.filter(|_| self.crowd.len() == 0);
        let due = [
            self.crowd.due(),
            self.paused_until,
            self.stop_by,
            self.watchdog.map(|(_, due)| due),
            idle.map(|idle| self.last_arrival + idle),
            self.crowd.tally.due(),
            self.has_news().then_some(self.status_due),
        ];
        let next = due.into_iter().flatten().min();
        next.map(|next| next.saturating_duration_since(now))
    }

    fn may_accept(&self) -> bool {
        let most = self.crowd.settings.limits.connections.min(self.room);
        self.stop_by.is_none() && self.paused_until.is_none() && self.crowd.len() < most
    }

    /// Accepts and greets whoever waits.
    fn accept(&mut self, now: Instant) -> Result<(), Error> {
        for number in 0..self.crowd.ports.len() {
            for _ in 0..BATCH {
                if !self.crowd.ports[number].ready || !self.may_accept() {
                    break;
                }
                match self.crowd.accept(number, now) {
                    Ok(true) => self.last_arrival = now,
                    Ok(false) => {}
                    Err(error) if port::is_shortage(&error) => self.back_off(&error, now),
                    Err(error) => {
                        let place = &self.crowd.ports[number].local.text;
                        return Err(Error::os(format!("accept on '{place}'"), error));
                    }
                }
            }
        }
        Ok(())
    }

    fn back_off(&mut self, cause: &dyn Display, now: Instant) {
        self.paused_until = Some(now + BACK_OFF);
        self.tell_shortage(cause, now);
    }

    fn tell_shortage(&mut self, cause: &dyn Display, now: Instant) {
        let met = self.shortage_met.replace(now);
        if met.is_none_or(|met| now.duration_since(met) > SHORTAGE_OVER) {
            log::warn!(
                MESSAGE_ID = event::RESOURCES;
                "cannot accept more than {} clients at once: {cause}; the others wait in the kernel's queue",
                self.crowd.len()
            );
        }
    }

    /// Says what is due to be said.
    fn tell(&mut self, now: Instant) {
        if let Some((interval, due)) = self.watchdog.as_mut().filter(|(_, due)| now >= *due) {
            *due = now + *interval;
            self.notifier.watchdog();
        }
        let connections = self.crowd.settings.limits.connections;
        if self.crowd.len() >= self.room && self.room < connections {
            let cause = "LimitNOFILE= of the service is too low for 'connections'";
            self.tell_shortage(&cause, now);
        }
        if self.has_news() && now >= self.status_due {
            self.notifier.status(&self.status());
            (self.told, self.status_due) = (self.counts(), now + STATUS_TICK);
        }
    }

    /// Whether there is another status to tell; of an instance's only client all is said.
    fn has_news(&self) -> bool {
        self.mode == Mode::Accept && self.stop_by.is_none() && self.told != self.counts()
    }

    fn counts(&self) -> (u64, usize) {
        (self.crowd.tally.greeted, self.crowd.len())
    }

    fn status(&self) -> String {
        let detail = self.crowd.settings.log_peer;
        self.crowd.tally.status(self.crowd.len(), detail) + &self.trouble
    }

    fn is_over(&self, now: Instant) -> bool {
        let nobody = self.crowd.len() == 0;
        if self.mode != Mode::Accept && nobody {
            return true;
        }
        if let Some(stop_by) = self.stop_by {
            let over = nobody || now >= stop_by;
            if over {
                self.say_farewell();
            }
            return over;
        }
        let idle_timeout = self.crowd.settings.limits.idle_timeout;
        let idle = idle_timeout.filter(|_| nobody && !self.crowd.somebody_waits());
        let idle = idle.filter(|idle| now.duration_since(self.last_arrival) >= *idle);
        if let Some(idle) = idle {
            let idle = clock::spell_duration(idle);
            log::info!(MESSAGE_ID = event::IDLE; "nobody came for {idle}; the next client starts the service again");
        }
        idle.is_some()
    }

    fn say_farewell(&self) {
        let (cut, greeted) = (self.crowd.ungreeted(), self.crowd.tally.greeted);
        if cut > 0 {
            log::warn!(
                MESSAGE_ID = event::DRAIN_EXPIRED;
                "cut off {cut} clients that did not take their greeting within drain_timeout"
            );
        }
        log::info!(MESSAGE_ID = event::STOPPED; "stopped; clients greeted: {greeted}");
    }

    /// From here on nobody is accepted: whoever waits is the next start's.
    fn stop(&mut self, now: Instant) {
        if self.stop_by.is_none() {
            self.stop_by = Some(now + self.crowd.settings.limits.drain_timeout);
            let status = format!("Stopping; {}", self.status());
            self.notifier.stopping(&status);
        }
    }

    /// Reads the settings anew; where they are wrong, the old ones stay.
    fn reload(&mut self) {
        self.notifier.reloading();
        match (self.reload)() {
            Ok(settings) => {
                log::set_max_level(settings.log_level);
                self.crowd.agree(settings);
                self.trouble.clear();
                log::info!(MESSAGE_ID = event::RELOADED; "read the settings anew");
            }
            Err(error) => {
                log::error!(MESSAGE_ID = event::RELOAD_FAILED; "the settings from before stay in force: {error}");
                self.trouble = format!("; reload failed: {error}");
            }
        }
        self.notifier.ready(&self.status());
    }
}
