//! The serving loop: one thread, one epoll(7) instance, which is the only call that
//! blocks.

mod connection;
mod connections;
mod endpoint;
mod listener;
mod log_rate_limit;
mod redact;
mod stats;

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use self::connection::Connection;
use self::connections::Connections;
use self::endpoint::Endpoint;
use self::listener::{Accepted, Listener};
use self::redact::RedactedAddr;
use self::stats::{Stats, Totals, counted};
use crate::error::{Error, os_message};
use crate::event;
use crate::mode::Mode;
use crate::poller::{Poller, Token};
use crate::settings::{Limits, Settings};
use crate::signals::{Sender, Signals, WakeSocket};
use crate::socket::{DiscardBuffer, Interest, ListenSocket, Socket};
use crate::sockets::ServerSockets;
use crate::sys;
use crate::systemd::notify::{self, Notifier};
use crate::time_format;

/// Connections that are accepted per loop iteration and listener, so that the open
/// ones are handled, too.
const ACCEPT_BATCH: usize = 128;
/// How long nothing is accepted after a shortage of descriptors or memory, unless a
/// connection ends earlier.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Descriptors that connections cannot use: the process has about fifteen open
/// beside its sockets, and needs some more to notify systemd and to reload.
const RESERVED_FDS: usize = 32;
/// A shortage is logged again only if there was none for this long.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How often the status text is sent, at most.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// Before the exit the backlogs are accepted once more: how many connections, and how
/// long to wait until their greetings are delivered.
const LAST_ACCEPT_LIMIT: usize = 4096;
const LAST_ACCEPT_TIMEOUT: Duration = Duration::from_millis(100);
/// How far apart the two signals of one `systemctl reload` are, at most.
const RELOAD_PAIR_INTERVAL: Duration = Duration::from_secs(1);
/// Errors of epoll_wait(2) in a row after which the service fails, and how long to
/// wait after each.
const MAX_WAIT_ERRORS: u32 = 10;
const WAIT_ERROR_DELAY: Duration = Duration::from_millis(20);

/// Loads the settings again.
pub type LoadSettings<'a> = dyn FnMut() -> Result<Settings, Error> + 'a;

/// The serving loop. A per-connection service has no listener and one connection.
pub struct Server<'a> {
    listeners: Vec<Listener>,
    /// The listener that is asked next, so that each gets its share of the
    /// connections that `connections` allows.
    next_listener: usize,
    connections: Connections,
    settings: Settings,
    stats: Stats,
    notifier: Notifier,
    poller: Poller,
    signals: Signals,
    wake: Option<WakeSocket>,
    load_settings: &'a mut LoadSettings<'a>,
    phase: Phase,
    /// The part of the status text about the last reload, if it failed.
    reload_error: String,
    /// The last SIGHUP, until the other one of the same `systemctl reload` has arrived.
    unpaired_reload: Option<(Sender, Instant)>,
    /// What the last status text contained.
    last_status: StatusContent,
    next_status: Instant,
    /// Set after a shortage of descriptors or memory.
    accept_paused_until: Option<Instant>,
    /// For how many connections there are descriptors.
    fd_capacity: usize,
    last_shortage: Option<Instant>,
    /// The interval of `WATCHDOG=1`, and when it has to be sent next.
    watchdog: Option<(Duration, Instant)>,
    /// Since when there is no connection.
    idle_since: Instant,
    /// Errors of epoll_wait(2) since it last succeeded.
    wait_errors: u32,
    /// Connections that were cut off before the service began to stop.
    cut_off_before_drain: u64,
}

/// What the loop does.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Connections are accepted.
    Serving,
    /// After SIGTERM: open connections are finished until `deadline`.
    Draining { deadline: Instant },
    /// The last connections, from the backlogs, are finished until `deadline`.
    Leaving {
        reason: ExitReason,
        deadline: Instant,
    },
}

/// Why the serving loop ends.
#[derive(Debug, Clone, Copy)]
enum ExitReason {
    /// The only connection was closed (modes accepted and inet).
    Served,
    /// SIGTERM or SIGINT.
    Stopped,
    /// There were no connections for `idle_timeout`.
    Idle(Duration),
}

/// What a status text depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct StatusContent {
    totals: Totals,
    open: usize,
    failing: usize,
}

impl<'a> Server<'a> {
    /// A server without sockets. `load_settings` is called for a reload.
    ///
    /// # Errors
    /// [`Error::Io`] if epoll(7) cannot be set up.
    pub fn new(
        settings: Settings,
        signals: Signals,
        load_settings: &'a mut LoadSettings<'a>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let poller = Poller::new().map_err(epoll_error)?;
        Ok(Self {
            listeners: Vec::new(),
            next_listener: 0,
            connections: Connections::new(now),
            stats: Stats::new(&settings, now),
            settings,
            notifier: Notifier::from_environment(),
            poller,
            signals,
            wake: None,
            load_settings,
            phase: Phase::Serving,
            reload_error: String::new(),
            unpaired_reload: None,
            last_status: StatusContent::default(),
            next_status: now,
            accept_paused_until: None,
            fd_capacity: usize::MAX,
            last_shortage: None,
            watchdog: notify::watchdog_interval().map(|interval| (interval, now + interval)),
            idle_since: now,
            wait_errors: 0,
            cut_off_before_drain: 0,
        })
    }

    /// Serves until SIGTERM or SIGINT, or until there are no more connections to
    /// expect.
    ///
    /// # Errors
    /// [`Error::Io`] if epoll(7) or all listening sockets fail.
    pub fn serve(mut self, sockets: ServerSockets) -> Result<(), Error> {
        match sockets {
            ServerSockets::Listening(sockets) => self.start_listening(sockets)?,
            ServerSockets::Accepted { socket, name, mode } => {
                self.start_serving(socket, name, mode);
            }
        }
        let result = self.run_until_exit();
        if result.is_err() {
            self.connections.abort_all(&mut self.stats);
        }
        self.end(&result);
        result.map(drop)
    }

    /// Mode accept: registers the listening sockets and the signals, logs the addresses,
    /// sends STATUS=, then READY=1.
    fn start_listening(&mut self, sockets: Vec<ListenSocket>) -> Result<(), Error> {
        let reserved = RESERVED_FDS + sockets.len();
        self.fd_capacity = sys::descriptor_limit().saturating_sub(reserved).max(1);
        for (index, socket) in sockets.into_iter().enumerate() {
            let listener = Listener::new(socket, &self.settings);
            self.poller
                .register(
                    listener.socket(),
                    Token::Listener(index),
                    Interest::Readable,
                )
                .map_err(epoll_error)?;
            self.listeners.push(listener);
        }
        self.register_wake()
            .map_err(|error| Error::io("handle signals", error))?;
        let addresses: Vec<String> = self
            .listeners
            .iter()
            .map(|listener| listener.endpoint().to_string())
            .collect();
        let addresses = addresses.join(", ");
        log::info!(
            MESSAGE_ID = event::READY,
            GREETER_MODE = Mode::Accept.name();
            "listening on {addresses}"
        );
        self.warn_misspelt_names();
        self.notifier
            .notify_status(&format!("Listening on {addresses}; no connections yet"));
        self.notifier.notify_ready();
        Ok(())
    }

    /// Warns if a socket has no greeting of its own, but a similar name has one.
    fn warn_misspelt_names(&self) {
        let sockets = self.listeners.iter();
        let sockets = sockets.map(|listener| listener.endpoint().name.as_str());
        for (socket, table) in self.settings.greetings.misspelt(&sockets.collect()) {
            log::warn!(
                MESSAGE_ID = event::NAME_MISSPELT,
                GREETER_SOCKET = socket;
                "no greeting of its own for the socket '{socket}', and no socket for \
                 [greeting.{table}]; correct the table, or FileDescriptorName= in the socket unit"
            );
        }
    }

    fn register_wake(&mut self) -> io::Result<()> {
        let wake = WakeSocket::new()?;
        self.poller
            .register(&wake, Token::Signals, Interest::Readable)?;
        self.wake = Some(wake);
        Ok(())
    }

    /// The modes accepted and inet: STATUS=, READY=1, then the greeting is sent.
    fn start_serving(&mut self, socket: Socket, name: String, mode: Mode) {
        // An error is ignored: the greeting matters more than the moment at which
        // SIGTERM is seen.
        let _ = self.register_wake();
        let peer = socket.peer_addr();
        let redacted = RedactedAddr::new(peer, self.settings.log_peer);
        self.notifier.notify_status(&format!("Greeting {redacted}"));
        self.notifier.notify_ready();
        let endpoint = Endpoint {
            local_addr: socket.local_addr(),
            name,
            mode,
        };
        let own = self.settings.greetings.for_socket(&endpoint.name).clone();
        let limits = Rc::clone(&self.settings.limits);
        let now = Instant::now();
        let connection = Connection::new(socket, peer, Rc::new(endpoint), &own, limits, now);
        self.add_connection(connection, now);
        self.sweep_greeted(now);
    }

    fn run_until_exit(&mut self) -> Result<ExitReason, Error> {
        loop {
            if let Some(reason) = self.next_phase(Instant::now()) {
                return Ok(reason);
            }
            self.run_once()?;
        }
    }

    /// One loop iteration: waits for events and handles them, then the timers.
    fn run_once(&mut self) -> Result<(), Error> {
        let ready = self.wait()?;
        let now = Instant::now();
        let open_before = self.connections.len();
        self.stats.report_suppressed(now);
        for token in ready {
            match token {
                Token::Signals => {
                    if let Some(wake) = &self.wake {
                        wake.drain();
                    }
                }
                Token::Listener(index) => self.listeners[index].set_may_have_pending(),
                Token::Connection(key) => {
                    let result =
                        self.connections
                            .handle_event(key, now, &self.poller, &mut self.stats);
                    self.back_off_after(result, now);
                }
            }
        }
        self.handle_signals(now);
        let result = self.connections.retry(now, &self.poller, &mut self.stats);
        self.back_off_after(result, now);
        self.connections.close_expired(now, &mut self.stats);
        let some_closed = self.connections.len() < open_before;
        if some_closed || self.accept_paused_until.is_some_and(|until| now >= until) {
            self.accept_paused_until = None;
        }
        self.accept_pending(now);
        self.sweep_greeted(now);
        if open_before > 0 || !self.connections.is_empty() {
            self.idle_since = now;
        }
        self.send_notifications(now);
        self.check_listeners()
    }

    /// Waits for events. A single error of epoll_wait(2) only delays the loop.
    fn wait(&mut self) -> Result<Vec<Token>, Error> {
        match self.poller.wait(self.timeout()) {
            Ok(ready) => {
                self.wait_errors = 0;
                Ok(ready)
            }
            Err(_) if self.wait_errors < MAX_WAIT_ERRORS => {
                self.wait_errors += 1;
                thread::sleep(WAIT_ERROR_DELAY);
                Ok(Vec::new())
            }
            Err(error) => Err(Error::io("wait for events", error)),
        }
    }

    /// SIGTERM and SIGINT stop the service. SIGHUP reloads it, if it is long-running
    /// and does not stop; otherwise it is ignored.
    fn handle_signals(&mut self, now: Instant) {
        if self.signals.take_stop() {
            self.begin_drain(now);
        }
        if let Some(sender) = self.signals.take_reload() {
            if self.is_long_running() && matches!(self.phase, Phase::Serving) {
                self.reload(sender, now);
            }
        }
    }

    /// How long to wait for events at most; `None` is without limit.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        if self.can_accept() && self.any_listener_ready(now) {
            return Some(Duration::ZERO);
        }
        let phase_end = match self.phase {
            Phase::Serving => self.idle_deadline(),
            Phase::Draining { deadline } | Phase::Leaving { deadline, .. } => Some(deadline),
        };
        let pause_end = self.listeners.iter().filter_map(Listener::pause_end).min();
        let deadlines = [
            phase_end,
            pause_end.filter(|_| self.can_accept()),
            self.connections.next_deadline(),
            self.accept_paused_until,
            self.watchdog.map(|(_, next)| next),
            self.stats.next_report(),
            self.notifier.next_retry(),
            self.status_changed().then_some(self.next_status),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Whether the process ends by a signal or after `idle_timeout`, and not after
    /// its only connection.
    fn is_long_running(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Whether the backlog of a listener may be non-empty.
    fn any_listener_ready(&self, now: Instant) -> bool {
        self.listeners.iter().any(|listener| listener.is_ready(now))
    }

    /// Whether one more connection is allowed.
    fn can_accept(&self) -> bool {
        let limit = self.settings.limits.connections as usize;
        matches!(self.phase, Phase::Serving)
            && self.accept_paused_until.is_none()
            && self.connections.len() < limit.min(self.fd_capacity)
    }

    /// Accepts the connections in the backlogs and sends their greetings, one of each
    /// listener in turn.
    fn accept_pending(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            let mut any_ready = false;
            for _ in 0..self.listeners.len() {
                if !self.can_accept() {
                    return;
                }
                let index = self.next_listener;
                self.next_listener = (index + 1) % self.listeners.len();
                if self.listeners[index].is_ready(now) {
                    any_ready = true;
                    self.accept_from(index, now);
                }
            }
            if !any_ready {
                return;
            }
        }
    }

    fn accept_from(&mut self, index: usize, now: Instant) {
        match self.listeners[index].accept(now) {
            Accepted::Connection(socket, peer) => {
                // A SIGHUP that was sent before the client connected has arrived by
                // now: the client gets the new greeting.
                if self.signals.has_reload() {
                    self.handle_signals(now);
                }
                self.idle_since = now;
                let connection = self.listeners[index].connection(socket, peer, now);
                self.add_connection(connection, now);
            }
            Accepted::Nothing | Accepted::Transient => {}
            Accepted::Shortage(error) => self.back_off(&error, now),
        }
    }

    fn add_connection(&mut self, connection: Connection, now: Instant) {
        let result = self
            .connections
            .add(connection, now, &self.poller, &mut self.stats);
        self.back_off_after(result, now);
    }

    /// Closes the greeted connections whose peers have closed.
    fn sweep_greeted(&mut self, now: Instant) {
        // If no more can be accepted, or none will come, each close must be known at once.
        let all = !self.can_accept() || !self.is_long_running();
        let result = self
            .connections
            .sweep_greeted(all, now, &self.poller, &mut self.stats);
        self.back_off_after(result, now);
    }

    /// After an error of epoll_ctl(2): the connection is retried, and no further one
    /// is accepted for a while.
    fn back_off_after(&mut self, result: io::Result<()>, now: Instant) {
        if let Err(error) = result {
            self.back_off(&error, now);
        }
    }

    /// Pauses accept(2) after a shortage of descriptors or memory.
    fn back_off(&mut self, cause: &io::Error, now: Instant) {
        self.accept_paused_until = Some(now + ACCEPT_BACKOFF);
        self.warn_shortage(&os_message(cause), now);
    }

    fn warn_shortage(&mut self, cause: &str, now: Instant) {
        let last = self.last_shortage.replace(now);
        if is_new_shortage(last, now) {
            let open = counted(self.connections.len() as u64, "connection");
            log::warn!(
                MESSAGE_ID = event::RESOURCES;
                "cannot accept more than {open}: {cause}; further clients wait in the backlog"
            );
        }
    }

    /// Fails if no listener is left that could accept a connection.
    fn check_listeners(&mut self) -> Result<(), Error> {
        listener::given_up_error(&mut self.listeners).map_or(Ok(()), Err)
    }

    /// Sends the notifications that are due: WATCHDOG=1 and STATUS=.
    fn send_notifications(&mut self, now: Instant) {
        if let Some((interval, next)) = &mut self.watchdog {
            if now >= *next {
                *next = now + *interval;
                self.notifier.notify_watchdog();
            }
        }
        self.notifier.send_pending(now);
        let limit = self.settings.limits.connections as usize;
        if self.connections.len() >= self.fd_capacity && self.fd_capacity < limit {
            let cause = "LimitNOFILE= of the service is too low for 'connections'";
            self.warn_shortage(cause, now);
        }
        if now >= self.next_status && self.status_changed() {
            self.notifier.notify_status(&self.status());
            self.last_status = self.status_content();
            self.next_status = now + STATUS_INTERVAL;
        }
    }

    /// Whether there is a new status text. That of a per-connection service stays.
    fn status_changed(&self) -> bool {
        self.is_long_running()
            && matches!(self.phase, Phase::Serving)
            && self.last_status != self.status_content()
    }

    fn status_content(&self) -> StatusContent {
        StatusContent {
            totals: self.stats.totals(),
            open: self.connections.len(),
            failing: self.failing().count(),
        }
    }

    /// The listeners on which accept(2) fails.
    fn failing(&self) -> impl Iterator<Item = &Listener> {
        self.listeners
            .iter()
            .filter(|listener| listener.is_failing())
    }

    fn status(&self) -> String {
        let mut text = self.stats.status(self.connections.len());
        for listener in self.failing() {
            text += &format!("; cannot accept on {}", listener.endpoint().local_addr);
        }
        text + &self.reload_error
    }

    /// When the process exits for lack of connections; `None` if it does not.
    fn idle_deadline(&self) -> Option<Instant> {
        let idle_timeout = self.settings.limits.idle_timeout?;
        let is_idle = self.connections.is_empty();
        is_idle.then(|| self.idle_since + idle_timeout)
    }

    /// Enters the next phase if the present one is over; returns why the loop ends.
    fn next_phase(&mut self, now: Instant) -> Option<ExitReason> {
        let no_connections = self.connections.is_empty();
        match self.phase {
            Phase::Serving => {
                if !self.is_long_running() {
                    return no_connections.then_some(ExitReason::Served);
                }
                let idle_timeout = self.settings.limits.idle_timeout?;
                let is_idle = self.idle_deadline().is_some_and(|deadline| now >= deadline);
                if is_idle && !self.any_listener_ready(now) {
                    self.leave(ExitReason::Idle(idle_timeout), now);
                    return self.next_phase(now);
                }
                None
            }
            Phase::Draining { .. } if no_connections && self.is_long_running() => {
                self.leave(ExitReason::Stopped, now);
                self.next_phase(now)
            }
            Phase::Draining { .. } => no_connections.then_some(ExitReason::Stopped),
            Phase::Leaving { reason, .. } => no_connections.then_some(reason),
        }
    }

    /// SIGTERM: stops accepting. What is delivered is closed at once; the other
    /// connections have `drain_timeout`.
    fn begin_drain(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        self.cut_off_before_drain = self.stats.totals().cut_off;
        let deadline = now + self.settings.limits.drain_timeout;
        self.phase = Phase::Draining { deadline };
        self.notifier.notify_stopping();
        self.notifier
            .notify_status(&format!("Stopping; {}", self.status()));
        let result = self
            .connections
            .drain(deadline, now, &self.poller, &mut self.stats);
        self.back_off_after(result, now);
    }

    /// Accepts what is in the backlogs once more, so that no client waits for a
    /// service that is about to exit.
    fn leave(&mut self, reason: ExitReason, now: Instant) {
        let deadline = now + LAST_ACCEPT_TIMEOUT;
        self.phase = Phase::Leaving { reason, deadline };
        let result = self
            .connections
            .drain(deadline, now, &self.poller, &mut self.stats);
        self.back_off_after(result, now);
        let mut left = LAST_ACCEPT_LIMIT;
        for index in 0..self.listeners.len() {
            // The backlog may be non-empty although no event was handled yet.
            self.listeners[index].set_may_have_pending();
            while left > 0 && self.listeners[index].is_ready(now) {
                match self.listeners[index].accept(now) {
                    Accepted::Connection(socket, peer) => {
                        let connection = self.listeners[index].connection(socket, peer, now);
                        self.add_connection(connection, now);
                        left -= 1;
                    }
                    Accepted::Nothing | Accepted::Transient => {}
                    Accepted::Shortage(_) => break,
                }
            }
        }
        self.sweep_greeted(now);
    }

    /// Reports the end: lines, STOPPING=1, status.
    fn end(&mut self, result: &Result<ExitReason, Error>) {
        if !self.is_long_running() {
            self.notifier.flush();
            return;
        }
        let is_stopped = matches!(result, Ok(ExitReason::Stopped));
        let cut_off = self.stats.totals().cut_off - self.cut_off_before_drain;
        if is_stopped && cut_off > 0 {
            let connections = counted(cut_off, "connection");
            log::warn!(
                MESSAGE_ID = event::DRAIN_EXPIRED;
                "closed {connections} after drain_timeout before the greeting was delivered"
            );
        }
        match result {
            Ok(ExitReason::Served) => {}
            Ok(ExitReason::Stopped) => self.stats.log_end(event::STOPPED, "stopped"),
            Ok(ExitReason::Idle(idle_timeout)) => {
                let idle_timeout = time_format::format_duration(*idle_timeout);
                let reason =
                    format!("no connections for {idle_timeout}, exiting; the socket stays open");
                self.stats.log_end(event::IDLE, &reason);
            }
            Err(_) => self
                .stats
                .log_end(event::STOPPED, "stopping after an error"),
        }
        if !is_stopped {
            self.notifier.notify_stopping();
            if result.is_ok() {
                self.notifier
                    .notify_status("Exiting; the next connection starts the service again");
            }
        }
        self.notifier.flush();
    }

    /// SIGHUP: loads the settings again; if they are invalid, the current ones are kept.
    fn reload(&mut self, sender: Sender, now: Instant) {
        self.notifier.notify_reloading();
        let is_second = self.is_second_signal(sender, now);
        match (self.load_settings)() {
            Ok(settings) => {
                let is_repeated = self.reload_error.is_empty() && settings == self.settings;
                self.apply_settings(settings);
                self.reload_error.clear();
                if !is_second || !is_repeated {
                    log::info!(MESSAGE_ID = event::RELOADED; "settings reloaded");
                    self.warn_misspelt_names();
                }
            }
            Err(error) => {
                let reload_error = format!("; reload failed: {error}");
                if !is_second || self.reload_error != reload_error {
                    log::error!(
                        MESSAGE_ID = event::RELOAD_FAILED;
                        "reload failed, keeping the current settings: {error}"
                    );
                }
                self.reload_error = reload_error;
            }
        }
        // In this order: `systemctl status` shows the text when `systemctl reload` returns.
        self.notifier.notify_status(&self.status());
        self.notifier.notify_ready();
    }

    /// Whether a SIGHUP is the second of one `systemctl reload`: systemd sends one
    /// (`Type=notify-reload`), and so does `greeter --reload`, in either order.
    fn is_second_signal(&mut self, sender: Sender, now: Instant) -> bool {
        let first = self.unpaired_reload.take();
        let is_second = first.is_some_and(|(first, at)| {
            first != sender && now.duration_since(at) < RELOAD_PAIR_INTERVAL
        });
        if !is_second && sender != Sender::Both {
            self.unpaired_reload = Some((sender, now));
        }
        is_second
    }

    /// Applies settings to everything but the open connections.
    fn apply_settings(&mut self, settings: Settings) {
        log::set_max_level(settings.log_level);
        self.stats.apply_settings(&settings);
        for listener in &mut self.listeners {
            listener.apply_settings(&settings);
        }
        self.settings = settings;
    }
}

/// Whether a shortage has to be logged; `last` is when there was one before.
fn is_new_shortage(last: Option<Instant>, now: Instant) -> bool {
    last.is_none_or(|last| now.duration_since(last) > SHORTAGE_LOG_INTERVAL)
}

fn epoll_error(error: io::Error) -> Error {
    Error::io("set up epoll", error)
}

/// Closes a connection gracefully without a greeting: FIN, then its input is
/// discarded until the peer closes or `limits` end the wait. For a client of a
/// per-connection service that cannot serve it. It needs no epoll, which may be what
/// has failed.
pub fn close_gracefully(socket: &Socket, limits: &Limits) {
    socket.shutdown_write();
    let mut buffer = DiscardBuffer::default();
    let mut discarded = 0;
    let deadline = Instant::now() + limits.linger_timeout;
    while discarded < limits.linger_bytes as usize {
        match socket.discard(&mut buffer, usize::MAX) {
            Ok(0) => return,
            Ok(count) => discarded += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let timeout = deadline.saturating_duration_since(Instant::now());
                if timeout.is_zero() || !sys::wait_readable(socket.as_fd(), timeout) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::listener::tests::{default_settings, listener};
    use crate::signals::tests::SERIAL;

    #[test]
    fn shortage_is_logged_again_if_there_was_none_for_a_minute() {
        let first = Instant::now();
        assert!(is_new_shortage(None, first));
        for (seconds, expected) in [(0, false), (59, false), (60, false), (61, true)] {
            let now = first + Duration::from_secs(seconds);
            assert_eq!(is_new_shortage(Some(first), now), expected, "{seconds}");
        }
    }

    /// A server with one listener, and its socket.
    fn listening_server<'a>(
        settings: Settings,
        load_settings: &'a mut LoadSettings<'a>,
    ) -> (Server<'a>, TcpListener) {
        let signals = Signals::install().unwrap();
        let mut server = Server::new(settings, signals, load_settings).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        server.listeners.push(listener(&socket));
        (server, socket)
    }

    #[test]
    fn wait_without_clients_has_no_limit() {
        let mut load_settings = || Ok(default_settings());
        let (mut server, _socket) = listening_server(default_settings(), &mut load_settings);
        // The backlog was not looked at yet.
        assert_eq!(server.timeout(), Some(Duration::ZERO));
        server.accept_pending(Instant::now());
        assert_eq!(server.timeout(), None);
    }

    #[test]
    fn service_fails_when_all_listeners_were_given_up() {
        let mut load_settings = || Ok(default_settings());
        let (mut server, socket) = listening_server(default_settings(), &mut load_settings);
        // accept(2) returns EINVAL from now on.
        let shutdown = socket2::SockRef::from(&socket).shutdown(Shutdown::Both);
        shutdown.unwrap();
        let mut now = Instant::now();
        for _ in 0..10 {
            assert!(server.check_listeners().is_ok());
            server.accept_pending(now);
            now += Duration::from_secs(10);
        }
        let error = server.check_listeners().unwrap_err().to_string();
        assert!(error.starts_with("cannot accept on '127.0.0.1:"), "{error}");
    }

    /// Almost all clients close soon, and are then never registered with epoll(7).
    #[test]
    fn greeted_connection_is_left_alone_unless_its_place_is_needed() {
        // A signal that another test sends would be handled.
        let _serial = SERIAL.lock();
        for (connections, is_left_alone) in [(2, true), (1, false)] {
            let settings = Settings {
                limits: Rc::new(Limits {
                    connections,
                    ..Limits::default()
                }),
                ..default_settings()
            };
            let mut load_settings = || Ok(default_settings());
            let (mut server, socket) = listening_server(settings, &mut load_settings);
            let _client = TcpStream::connect(socket.local_addr().unwrap()).unwrap();
            let now = Instant::now();
            server.accept_pending(now);
            server.sweep_greeted(now);
            server.connections.close_expired(now, &mut server.stats);
            assert_eq!(server.connections.len(), 1);
            // A registered one is looked at again when its time is over.
            let next = server.connections.next_deadline().unwrap();
            assert_eq!(next < now + Duration::from_millis(50), is_left_alone);
        }
    }

    /// A client that stays open; what it sends reaches `linger_bytes`.
    #[test]
    fn graceful_close_ends_with_the_last_byte_to_discard() {
        let (server, mut client) = UnixStream::pair().unwrap();
        client.write_all(b"hello").unwrap();
        let limits = Limits {
            linger_bytes: 5,
            linger_timeout: Duration::from_secs(5),
            ..Limits::default()
        };
        let begun = Instant::now();
        close_gracefully(&Socket::from(OwnedFd::from(server)), &limits);
        assert!(begun.elapsed() < Duration::from_secs(1));
    }
}
