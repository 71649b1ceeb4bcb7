//! The serving loop: one thread, one epoll(7) instance, which is the only call that
//! blocks.

mod acceptor;
mod connection;
mod connections;
mod endpoint;
mod every;
mod listener;
mod log_rate_limit;
mod outcome;
mod redact;
mod stats;
mod status;

use std::io;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use self::acceptor::Acceptor;
use self::connection::Connection;
use self::connections::Connections;
use self::endpoint::Endpoint;
use self::redact::RedactedAddr;
use self::stats::{Stats, counted};
use self::status::Status;
use crate::error::Error;
use crate::event;
use crate::mode::Mode;
use crate::passed_sockets::ServerSockets;
use crate::poller::{Poller, Token};
use crate::settings::Settings;
use crate::signals::{Signals, WakeSocket};
use crate::socket::{ListenSocket, Socket};
use crate::time_format;

/// Connections that are accepted per loop iteration, so that the open ones are handled
/// as well.
const ACCEPT_BATCH: usize = 128;
/// Before the exit the backlogs are accepted once more: how many connections, and how
/// long to wait until their greetings are delivered.
const LAST_ACCEPT_LIMIT: usize = 4096;
const LAST_ACCEPT_TIMEOUT: Duration = Duration::from_millis(100);
/// Errors of epoll_wait(2) in a row after which the service fails, and how long to
/// wait after each.
const MAX_WAIT_ERRORS: u32 = 10;
const WAIT_ERROR_DELAY: Duration = Duration::from_millis(20);

/// Loads the settings again.
pub type LoadSettings<'a> = dyn FnMut() -> Result<Settings, Error> + 'a;

/// The serving loop. A per-connection service has no listening socket and one connection.
pub struct Server<'a> {
    acceptor: Acceptor,
    connections: Connections,
    status: Status,
    settings: Settings,
    load_settings: &'a mut LoadSettings<'a>,
    phase: Phase,
    signals: Signals,
    wake: Option<WakeSocket>,
    poller: Rc<Poller>,
    /// Errors of epoll_wait(2) since it last succeeded.
    wait_errors: u32,
    /// Since when there is no connection.
    idle_since: Instant,
}

/// What the loop does.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Connections are accepted.
    Serving,
    /// After SIGTERM: the open connections are finished.
    Draining {
        /// Connections that were cut off before.
        cut_off_before: u64,
    },
    /// The last connections, from the backlogs, are finished.
    Leaving(ExitReason),
}

/// Why the serving loop ends.
#[derive(Debug, Clone, Copy)]
enum ExitReason {
    /// The only connection was closed (modes accepted and inet).
    Served,
    /// SIGTERM or SIGINT.
    Stopped {
        /// Connections that were cut off before.
        cut_off_before: u64,
    },
    /// There were no connections for `idle_timeout`.
    Idle(Duration),
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
        let poller = Rc::new(Poller::new().map_err(epoll_error)?);
        let stats = Stats::new(&settings, now);
        Ok(Self {
            acceptor: Acceptor::new(),
            connections: Connections::new(Rc::clone(&poller), stats),
            status: Status::from_environment(now),
            settings,
            load_settings,
            phase: Phase::Serving,
            signals,
            wake: None,
            poller,
            wait_errors: 0,
            idle_since: now,
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
            ServerSockets::Connection { socket, name, mode } => {
                self.start_serving(socket, name, mode);
            }
        }
        let result = self.run_until_exit();
        if result.is_err() {
            self.connections.abort_all();
        }
        self.end(&result);
        result.map(drop)
    }

    /// Mode accept: registers the listening sockets and the signals, logs the addresses,
    /// sends STATUS=, then READY=1.
    fn start_listening(&mut self, sockets: Vec<ListenSocket>) -> Result<(), Error> {
        self.acceptor
            .listen(sockets, &self.settings, &self.poller)
            .map_err(epoll_error)?;
        self.register_wake()
            .map_err(|error| Error::io("handle signals", error))?;
        let listeners = self.acceptor.listeners().iter();
        let addresses: Vec<String> = listeners
            .map(|listener| listener.endpoint().to_string())
            .collect();
        let addresses = addresses.join(", ");
        log::info!(
            MESSAGE_ID = event::READY,
            GREETER_MODE = Mode::Accept.name();
            "listening on {addresses}"
        );
        self.warn_misspelt_names();
        let text = format!("Listening on {addresses}; no connections yet");
        self.status.notify_ready(&text);
        Ok(())
    }

    /// Warns if a socket has no greeting of its own, but a similar name has one.
    fn warn_misspelt_names(&self) {
        let listeners = self.acceptor.listeners().iter();
        let sockets = listeners.map(|listener| listener.endpoint().name.as_str());
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
        self.poller.register_readable(&wake, Token::Signals)?;
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
        self.status.notify_ready(&format!("Greeting {redacted}"));
        let endpoint = Endpoint {
            local_addr: socket.local_addr(),
            name,
            mode,
        };
        let own = self.settings.greetings.for_socket(&endpoint.name).clone();
        let limits = Rc::clone(&self.settings.limits);
        let now = Instant::now();
        let connection = Connection::new(socket, peer, Rc::new(endpoint), &own, limits, now);
        self.connections.add(connection, now);
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
        self.connections.stats_mut().report_suppressed(now);
        for token in ready {
            match token {
                Token::Signals => {
                    if let Some(wake) = &self.wake {
                        wake.drain();
                    }
                }
                Token::Listener(index) => self.acceptor.handle_event(index),
                Token::Connection(key) => self.connections.handle_event(key, now),
            }
        }
        self.handle_signals(now);
        self.connections.handle_deadlines(now);
        let some_closed = self.connections.len() < open_before;
        self.acceptor.resume(some_closed, now);
        self.accept_pending(now);
        self.sweep_greeted(now);
        // Last, so that a stall begins when the places have just been filled.
        if self.is_serving() && self.acceptor.take_stall(self.connections.len(), now) {
            self.connections.close_without_progress(now);
        }
        if let Some(error) = self.connections.take_shortage() {
            self.acceptor.pause(&error, self.connections.len(), now);
        }
        if open_before > 0 || !self.connections.is_empty() {
            self.idle_since = now;
        }
        self.acceptor.check_descriptors(self.connections.len(), now);
        self.status.send_pending(now);
        if self.is_serving() {
            self.status.update(&self.connections, &self.acceptor, now);
        }
        self.acceptor.check_failures()
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
        if self.signals.take_reload() && self.is_serving() {
            self.reload(now);
        }
    }

    /// How long to wait for events at most; `None` is without limit.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        if self.can_accept() && self.acceptor.has_pending(now) {
            return Some(Duration::ZERO);
        }
        let next_attempt = self.acceptor.next_attempt(self.connections.len());
        let next_notification = if self.is_serving() {
            self.status
                .next_notification(&self.connections, &self.acceptor, now)
        } else {
            self.status.next_retry()
        };
        let deadlines = [
            self.idle_deadline(),
            next_attempt.filter(|_| self.is_serving()),
            self.connections.next_deadline(),
            self.connections.stats().next_report(),
            next_notification,
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(now))
    }

    /// Whether the process ends by a signal or after `idle_timeout`, and not after
    /// its only connection.
    fn is_long_running(&self) -> bool {
        !self.acceptor.is_empty()
    }

    /// Whether the process accepts connections, and not after SIGTERM.
    fn is_serving(&self) -> bool {
        self.is_long_running() && matches!(self.phase, Phase::Serving)
    }

    /// Whether one more connection is allowed.
    fn can_accept(&self) -> bool {
        self.is_serving() && self.acceptor.has_room(self.connections.len())
    }

    /// Accepts the connections in the backlogs and sends their greetings.
    fn accept_pending(&mut self, now: Instant) {
        for _ in 0..ACCEPT_BATCH {
            if !self.can_accept() || !self.accept_one(now) {
                return;
            }
        }
    }

    /// Accepts a connection and sends its greeting; returns whether there was one.
    fn accept_one(&mut self, now: Instant) -> bool {
        let Some(accepted) = self.acceptor.accept(self.connections.len(), now) else {
            return false;
        };
        // A SIGHUP that was sent before the client connected has arrived by now: the
        // client gets the new greeting.
        if self.signals.has_reload() {
            self.handle_signals(now);
        }
        self.idle_since = now;
        let connection = self.acceptor.connection(accepted, now);
        self.connections.add(connection, now);
        true
    }

    /// Closes the greeted connections whose peers have closed.
    fn sweep_greeted(&mut self, now: Instant) {
        // If no more can be accepted, or none will come, each close must be known at once.
        let all = !self.can_accept();
        self.connections.sweep_greeted(all, now);
    }

    /// When the process exits for lack of connections; `None` if it does not.
    fn idle_deadline(&self) -> Option<Instant> {
        let idle_timeout = self.settings.limits.idle_timeout?;
        let is_idle = self.is_serving() && self.connections.is_empty();
        is_idle.then(|| self.idle_since + idle_timeout)
    }

    /// Enters the next phase if the present one is over; returns why the loop ends.
    fn next_phase(&mut self, now: Instant) -> Option<ExitReason> {
        match self.phase {
            Phase::Serving if self.is_long_running() => {
                let idle_timeout = self.settings.limits.idle_timeout?;
                let is_idle = self.idle_deadline().is_some_and(|deadline| now >= deadline);
                if !is_idle || self.acceptor.has_pending(now) {
                    return None;
                }
                self.serve_last_backlog(ExitReason::Idle(idle_timeout), now);
            }
            Phase::Draining { cut_off_before }
                if self.is_long_running() && self.connections.is_empty() =>
            {
                self.serve_last_backlog(ExitReason::Stopped { cut_off_before }, now);
            }
            _ => {}
        }
        let reason = match self.phase {
            Phase::Serving => ExitReason::Served,
            Phase::Draining { cut_off_before } => ExitReason::Stopped { cut_off_before },
            Phase::Leaving(reason) => reason,
        };
        self.connections.is_empty().then_some(reason)
    }

    /// SIGTERM: stops accepting. What is delivered is closed at once; the other
    /// connections have `drain_timeout`.
    fn begin_drain(&mut self, now: Instant) {
        if !matches!(self.phase, Phase::Serving) {
            return;
        }
        let cut_off_before = self.connections.stats().totals().cut_off;
        self.phase = Phase::Draining { cut_off_before };
        self.status
            .notify_draining(&self.connections, &self.acceptor);
        let deadline = now + self.settings.limits.drain_timeout;
        self.connections.drain(deadline, now);
    }

    /// Accepts what is in the backlogs once more, so that no client waits for a
    /// service that is about to exit.
    fn serve_last_backlog(&mut self, reason: ExitReason, now: Instant) {
        self.phase = Phase::Leaving(reason);
        self.connections.drain(now + LAST_ACCEPT_TIMEOUT, now);
        self.acceptor.expect_last_connections();
        for _ in 0..LAST_ACCEPT_LIMIT {
            if !self.accept_one(now) {
                break;
            }
        }
        self.sweep_greeted(now);
    }

    /// Reports the end: lines, STOPPING=1, status.
    fn end(&mut self, result: &Result<ExitReason, Error>) {
        if self.is_long_running() {
            self.report_end(result);
        }
        self.status.flush();
    }

    fn report_end(&mut self, result: &Result<ExitReason, Error>) {
        let stats = self.connections.stats_mut();
        match result {
            Ok(ExitReason::Served) => {}
            Ok(ExitReason::Stopped { cut_off_before }) => {
                let cut_off = stats.totals().cut_off - cut_off_before;
                if cut_off > 0 {
                    let connections = counted(cut_off, "connection");
                    log::warn!(
                        MESSAGE_ID = event::DRAIN_EXPIRED;
                        "closed {connections} after drain_timeout before the greeting was delivered"
                    );
                }
                stats.log_end(event::STOPPED, "stopped");
            }
            Ok(ExitReason::Idle(idle_timeout)) => {
                let idle_timeout = time_format::format_duration(*idle_timeout);
                let reason =
                    format!("no connections for {idle_timeout}, exiting; the socket stays open");
                stats.log_end(event::IDLE, &reason);
                self.status.notify_idle();
            }
            Err(_) => {
                stats.log_end(event::STOPPED, "stopping after an error");
                self.status.notify_failing();
            }
        }
    }

    /// SIGHUP: loads the settings again; if they are invalid, the current ones are kept.
    fn reload(&mut self, now: Instant) {
        self.status.begin_reload();
        match (self.load_settings)() {
            Ok(settings) => {
                let is_changed = settings != self.settings;
                self.apply_settings(settings);
                if self.status.record_reload(Ok(is_changed), now) {
                    log::info!(MESSAGE_ID = event::RELOADED; "settings reloaded");
                    self.warn_misspelt_names();
                }
            }
            Err(error) => {
                if self.status.record_reload(Err(&error), now) {
                    log::error!(
                        MESSAGE_ID = event::RELOAD_FAILED;
                        "reload failed, keeping the current settings: {error}"
                    );
                }
            }
        }
        self.status.end_reload(&self.connections, &self.acceptor);
    }

    /// Applies settings to everything but the open connections.
    fn apply_settings(&mut self, settings: Settings) {
        log::set_max_level(settings.log_level);
        self.connections.stats_mut().apply_settings(&settings);
        self.acceptor.apply_settings(&settings);
        self.settings = settings;
    }
}

fn epoll_error(error: io::Error) -> Error {
    Error::io("set up epoll", error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    use super::listener::tests::default_settings;
    use crate::settings::Limits;
    use crate::signals::tests::SERIAL;

    /// A server with one listening socket, and its socket.
    fn listening_server<'a>(
        settings: Settings,
        load_settings: &'a mut LoadSettings<'a>,
    ) -> (Server<'a>, TcpListener) {
        let signals = Signals::install().unwrap();
        let mut server = Server::new(settings, signals, load_settings).unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = socket.try_clone().unwrap().into();
        let sockets = vec![ListenSocket::new(fd, String::new()).unwrap()];
        let listening = server
            .acceptor
            .listen(sockets, &server.settings, &server.poller);
        listening.unwrap();
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
            assert_eq!(server.connections.len(), 1);
            // A registered one is looked at again when its time is over.
            let next = server.connections.next_deadline().unwrap();
            assert_eq!(next < now + Duration::from_millis(50), is_left_alone);
        }
    }
}
