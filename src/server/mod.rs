//! The serving loop of mode accept: one thread, one epoll(7) instance, no call
//! that waits but the one at the top of a turn. Floor 9.

mod crowd;
mod desk;
mod port;

use std::io;
use std::time::{Duration, Instant};

use crate::clock;
use crate::error::Error;
use crate::event;
use crate::kernel;
use crate::mode::Mode;
use crate::poller::{Poller, Wake};
use crate::settings::values::Settings;
use crate::socket::Listener;
use crate::systemd::notify::{self, Notifier};
use crowd::Crowd;
use desk::Desk;
use port::{Arrival, Port};

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
    desk: Desk,
    crowd: Crowd,
    poller: Poller,
    notifier: Notifier,
    reload: &'a mut dyn FnMut() -> Result<Settings, Error>,
    /// What the last reload met, for the status text.
    trouble: Option<String>,
    status_due: Option<Instant>,
    status_next: Instant,
    paused_until: Option<Instant>,
    /// For how many clients there are descriptors.
    room: usize,
    shortage_met: Option<Instant>,
    watchdog: Option<(Duration, Instant)>,
    last_arrival: Instant,
    stop_by: Option<Instant>,
}

impl<'a> Server<'a> {
    /// A server of `listeners`, each with its name. `reload` reads the settings
    /// anew.
    ///
    /// # Errors
    /// The kernel gives no descriptors.
    pub fn new(
        listeners: Vec<(Listener, String)>,
        settings: Settings,
        reload: &'a mut dyn FnMut() -> Result<Settings, Error>,
    ) -> Result<Self, Error> {
        let poller =
            watch(&listeners).map_err(|error| Error::os("prepare to wait for clients", error))?;
        let now = Instant::now();
        let room = kernel::descriptor_limit()
            .saturating_sub(RESERVE + listeners.len())
            .max(1);
        let ports = listeners
            .into_iter()
            .map(|(listener, name)| Port::new(listener, name))
            .collect();
        Ok(Self {
            desk: Desk::new(ports, settings, now),
            crowd: Crowd::default(),
            poller,
            notifier: Notifier::default(),
            reload,
            trouble: None,
            status_due: None,
            status_next: now,
            paused_until: None,
            room,
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
        let places: Vec<String> = self
            .desk
            .ports
            .iter()
            .map(|port| port.listener().local().to_string())
            .collect();
        let places = places.join(", ");
        log::info!(MESSAGE_ID = event::READY, GREETER_MODE = Mode::Accept.name(); "listening on {places}");
        self.notifier
            .ready(&format!("Listening on {places}; nobody came yet"));
        let outcome = self.turn_until_done();
        if self.stop_by.is_none() {
            self.notifier
                .stopping("Ending; the next client starts the service again");
        }
        outcome
    }

    fn turn_until_done(&mut self) -> Result<(), Error> {
        let mut wakes = Vec::new();
        loop {
            wakes.clear();
            self.poller
                .wait(self.timeout(), &mut wakes)
                .map_err(|error| Error::os("wait for clients", error))?;
            let now = Instant::now();
            for wake in &wakes {
                self.wake(*wake, now);
            }
            self.accept(now)?;
            // Where nobody else is let in, each end must be known at once.
            let full = !self.may_accept();
            let settled = self.crowd.settle(&self.desk, &self.poller, now, full);
            settled.unwrap_or_else(|error| self.back_off(&error, now));
            if self.end_turn(now) {
                return Ok(());
            }
        }
    }

    /// How long nothing needs doing; none is for ever.
    fn timeout(&self) -> Option<Duration> {
        if self.may_accept() && self.desk.ports.iter().any(|port| port.ready) {
            return Some(Duration::ZERO);
        }
        let idle = self
            .desk
            .settings
            .limits
            .idle_timeout
            .filter(|_| self.crowd.is_empty());
        let due = [
            self.paused_until,
            self.crowd.deadlines_due(),
            self.crowd.settle_due(),
            self.watchdog.map(|(_, due)| due),
            self.desk.tally.due(),
            self.stop_by,
            self.status_due,
            idle.map(|idle| self.last_arrival + idle),
        ];
        let now = Instant::now();
        due.into_iter()
            .flatten()
            .min()
            .map(|due| due.saturating_duration_since(now))
    }

    fn may_accept(&self) -> bool {
        let most = self.desk.settings.limits.connections.min(self.room);
        self.stop_by.is_none() && self.paused_until.is_none() && self.crowd.len() < most
    }

    fn wake(&mut self, wake: Wake, now: Instant) {
        match wake {
            Wake::Reload => self.reload(),
            Wake::Stop => self.stop(now),
            Wake::Socket(number) => match self.desk.ports.get_mut(number) {
                Some(port) => port.ready = true,
                None => self
                    .crowd
                    .wake(number - self.desk.ports.len(), &mut self.desk, now),
            },
        }
    }

    /// Accepts and greets whoever waits.
    fn accept(&mut self, now: Instant) -> Result<(), Error> {
        let mut arrived = false;
        for number in 0..self.desk.ports.len() {
            for _ in 0..BATCH {
                if !self.desk.ports[number].ready || !self.may_accept() {
                    break;
                }
                match self.desk.ports[number].accept() {
                    Arrival::Client(stream, peer) => {
                        arrived = true;
                        let greeted = self.crowd.greet(
                            (stream, peer),
                            number,
                            &mut self.desk,
                            &self.poller,
                            now,
                        );
                        greeted.unwrap_or_else(|error| self.back_off(&error, now));
                    }
                    Arrival::Nobody | Arrival::Gone => {}
                    Arrival::Shortage(error) => self.back_off(&error, now),
                    Arrival::Broken(error) => {
                        let place = self.desk.ports[number].listener().local().to_string();
                        return Err(Error::os(format!("accept on '{place}'"), error));
                    }
                }
            }
        }
        if arrived {
            self.last_arrival = now;
            self.status_due.get_or_insert(self.status_next);
        }
        Ok(())
    }

    fn back_off(&mut self, error: &io::Error, now: Instant) {
        self.paused_until = Some(now + BACK_OFF);
        self.tell_shortage(&error.to_string(), now);
    }

    fn tell_shortage(&mut self, cause: &str, now: Instant) {
        let met = self.shortage_met.replace(now);
        if met.is_none_or(|met| now.duration_since(met) > SHORTAGE_OVER) {
            log::warn!(
                MESSAGE_ID = event::RESOURCES;
                "cannot accept more than {} clients at once: {cause}; the others wait in the kernel's queue",
                self.crowd.len()
            );
        }
    }

    /// Everything that is due at a time. Whether the loop is at its end.
    fn end_turn(&mut self, now: Instant) -> bool {
        if self.crowd.len() >= self.room && self.room < self.desk.settings.limits.connections {
            self.tell_shortage(
                "LimitNOFILE= of the service is too low for 'connections'",
                now,
            );
        }
        self.crowd.close_late(&mut self.desk, now);
        self.desk.tally.turn_second(now);
        if self.crowd.somebody_left() {
            self.paused_until = None;
            self.status_due.get_or_insert(self.status_next);
        }
        if self.paused_until.is_some_and(|due| now >= due) {
            self.paused_until = None;
        }
        if let Some((interval, due)) = self.watchdog.as_mut().filter(|(_, due)| now >= *due) {
            *due = now + *interval;
            self.notifier.watchdog();
        }
        if let Some(stop_by) = self.stop_by {
            return self.is_drained(now, stop_by);
        }
        if self.status_due.is_some_and(|due| now >= due) {
            self.notifier.status(&self.status());
            self.status_due = None;
            self.status_next = now + STATUS_TICK;
        }
        self.is_idle(now)
    }

    fn status(&self) -> String {
        let trouble = self
            .trouble
            .as_ref()
            .map(|trouble| format!("; {trouble}"))
            .unwrap_or_default();
        self.desk
            .tally
            .status(self.crowd.len(), self.desk.settings.log_peer)
            + &trouble
    }

    fn is_idle(&self, now: Instant) -> bool {
        let Some(idle) = self.desk.settings.limits.idle_timeout else {
            return false;
        };
        let nobody = self.crowd.is_empty() && !self.desk.ports.iter().any(|port| port.ready);
        let over = nobody && now.duration_since(self.last_arrival) >= idle;
        if over {
            let idle = clock::spell_duration(idle);
            log::info!(MESSAGE_ID = event::IDLE; "nobody came for {idle}; the next client starts the service again");
        }
        over
    }

    /// From here on nobody is accepted: whoever waits is the next start's.
    fn stop(&mut self, now: Instant) {
        if self.stop_by.is_none() {
            self.stop_by = Some(now + self.desk.settings.limits.drain_timeout);
            self.notifier
                .stopping(&format!("Stopping; {}", self.status()));
        }
    }

    fn is_drained(&self, now: Instant, stop_by: Instant) -> bool {
        if !self.crowd.is_empty() && now < stop_by {
            return false;
        }
        let cut = self.crowd.ungreeted();
        if cut > 0 {
            log::warn!(
                MESSAGE_ID = event::DRAIN_EXPIRED;
                "cut off {cut} clients that did not take their greeting within drain_timeout"
            );
        }
        log::info!(MESSAGE_ID = event::STOPPED; "stopped; clients greeted: {}", self.desk.tally.greeted);
        true
    }

    /// Reads the settings anew; where they are wrong, the old ones stay.
    fn reload(&mut self) {
        self.notifier.reloading();
        match (self.reload)() {
            Ok(settings) => {
                log::set_max_level(settings.log_level);
                self.desk.replace(settings);
                self.trouble = None;
                log::info!(MESSAGE_ID = event::RELOADED; "read the settings anew");
            }
            Err(error) => {
                log::error!(MESSAGE_ID = event::RELOAD_FAILED; "the settings from before stay in force: {error}");
                self.trouble = Some(format!("reload failed: {error}"));
            }
        }
        self.notifier.ready(&self.status());
    }
}

/// A poller that watches the signals and, by their place in the list, the sockets.
fn watch(listeners: &[(Listener, String)]) -> io::Result<Poller> {
    let mut poller = Poller::new()?;
    poller.watch_signals()?;
    for (number, (listener, _)) in listeners.iter().enumerate() {
        poller.watch(listener, number, false)?;
    }
    Ok(poller)
}
