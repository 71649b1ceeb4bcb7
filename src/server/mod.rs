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
use std::rc::Rc;
use std::time::{Duration, Instant};

use self::connection::{Connection, Progress};
use self::connections::Connections;
use self::endpoint::Endpoint;
use self::listener::{Listener, is_shortage};
use self::redact::RedactedAddr;
use self::stats::{Stats, counted};
use crate::error::{Error, os_message};
use crate::event;
use crate::mode::Mode;
use crate::poller::{Poller, Token};
use crate::settings::{Limits, Settings};
use crate::signals::Signals;
use crate::socket::{DiscardBuffer, Interest, ListenSocket, Socket};
use crate::sockets::ServerSockets;
use crate::sys;
use crate::systemd::notify::{self, Notifier};
use crate::time_format;

/// Connections that one listener may accept per loop iteration, so that no other
/// listener starves.
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

/// Loads the settings again.
pub type LoadSettings<'a> = dyn FnMut() -> Result<Settings, Error> + 'a;

/// Serves until SIGTERM or SIGINT, or until there are no more connections to expect.
/// `load_settings` is called for a reload.
///
/// # Errors
/// [`Error::Io`] if a listening socket or epoll(7) fails.
pub fn serve(
    sockets: ServerSockets,
    settings: Settings,
    signals: Signals,
    load_settings: &mut LoadSettings<'_>,
) -> Result<(), Error> {
    let mut server = Server::new(settings, signals, load_settings)?;
    match sockets {
        ServerSockets::Listening(sockets) => server.start_listening(sockets)?,
        ServerSockets::Accepted { socket, name, mode } => {
            server.start_serving(socket, name, mode)?;
        }
    }
    server.run()
}

/// The state of the serving loop. A per-connection service has no listener and one
/// connection.
struct Server<'a> {
    listeners: Vec<Listener>,
    connections: Connections,
    settings: Settings,
    stats: Stats,
    notifier: Notifier,
    poller: Poller,
    signals: Signals,
    load_settings: &'a mut LoadSettings<'a>,
    /// The part of the status text about the last reload, if it failed.
    reload_error: String,
    /// What the last status text contained.
    last_status: StatusCounts,
    next_status: Instant,
    /// Set after a shortage of descriptors or memory.
    accept_paused_until: Option<Instant>,
    /// For how many connections there are descriptors.
    fd_capacity: usize,
    last_shortage: Option<Instant>,
    /// The interval of `WATCHDOG=1`, and when it has to be sent next.
    watchdog: Option<(Duration, Instant)>,
    last_accept: Instant,
    /// Set after SIGTERM: when open connections are closed.
    drain_deadline: Option<Instant>,
}

/// The numbers in the status text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct StatusCounts {
    sent: u64,
    open: usize,
}

impl<'a> Server<'a> {
    fn new(
        settings: Settings,
        signals: Signals,
        load_settings: &'a mut LoadSettings<'a>,
    ) -> Result<Self, Error> {
        let now = Instant::now();
        let poller = Poller::new().map_err(epoll_error)?;
        poller
            .register(&signals, Token::Signals, Interest::Readable)
            .map_err(epoll_error)?;
        Ok(Self {
            listeners: Vec::new(),
            connections: Connections::new(now),
            stats: Stats::new(settings.log_peer, now),
            settings,
            notifier: Notifier::from_environment(),
            poller,
            signals,
            load_settings,
            reload_error: String::new(),
            last_status: StatusCounts { sent: 0, open: 0 },
            next_status: now,
            accept_paused_until: None,
            fd_capacity: usize::MAX,
            last_shortage: None,
            watchdog: notify::watchdog_interval().map(|interval| (interval, now + interval)),
            last_accept: now,
            drain_deadline: None,
        })
    }

    /// Mode accept: registers the listening sockets, then READY=1.
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
        let addresses: Vec<String> = self
            .listeners
            .iter()
            .map(|listener| listener.endpoint().local_addr.to_string())
            .collect();
        let addresses = addresses.join(", ");
        log::info!(
            MESSAGE_ID = event::READY,
            GREETER_MODE = Mode::Accept.name();
            "listening on {addresses}"
        );
        self.notifier.notify_ready();
        self.notifier
            .notify_status(&format!("Listening on {addresses}; no connections yet"));
        Ok(())
    }

    /// The modes accepted and inet: READY=1, then the greeting is sent.
    fn start_serving(&mut self, socket: Socket, name: String, mode: Mode) -> Result<(), Error> {
        let peer = socket.peer_addr();
        let redacted = RedactedAddr::new(peer, self.settings.log_peer);
        self.notifier.notify_ready();
        self.notifier.notify_status(&format!("Greeting {redacted}"));
        let endpoint = Endpoint {
            local_addr: socket.local_addr(),
            name,
            mode,
        };
        let greeting = self.settings.greetings.for_socket(&endpoint.name);
        let greeting = endpoint.render(greeting, &socket, peer);
        let limits = Rc::clone(&self.settings.limits);
        let now = Instant::now();
        let connection = Connection::new(socket, peer, Rc::new(endpoint), greeting, limits, now);
        self.add_connection(connection, now)?;
        self.sweep_greeted(now);
        Ok(())
    }

    fn run(mut self) -> Result<(), Error> {
        let result = self.run_until_exit();
        if self.is_long_running() && self.drain_deadline.is_none() {
            self.notifier.notify_stopping();
            self.notifier
                .notify_status("Exiting; the next connection starts the service again");
        }
        self.notifier.flush();
        result
    }

    fn run_until_exit(&mut self) -> Result<(), Error> {
        loop {
            if let Some(reason) = self.exit_reason(Instant::now()) {
                self.log_exit(reason);
                return Ok(());
            }
            self.run_once()?;
        }
    }

    /// One loop iteration: waits for events and handles them, then the timers.
    fn run_once(&mut self) -> Result<(), Error> {
        let ready = self
            .poller
            .wait(self.timeout())
            .map_err(|error| Error::io("wait for events", error))?;
        let now = Instant::now();
        let open_before = self.connections.len();
        self.stats.report_suppressed(now);
        for token in ready {
            match token {
                Token::Signals => self.signals.drain_wake(),
                Token::Listener(index) => self.listeners[index].set_may_have_pending(),
                Token::Connection(key) => {
                    self.connections.handle_event(key, now, &mut self.stats);
                }
            }
        }
        self.handle_signals(now);
        self.connections.close_expired(now, &mut self.stats);
        let some_closed = self.connections.len() < open_before;
        if some_closed || self.accept_paused_until.is_some_and(|until| now >= until) {
            self.accept_paused_until = None;
        }
        self.accept_pending(now)?;
        self.sweep_greeted(now);
        self.send_notifications(now);
        Ok(())
    }

    /// SIGTERM and SIGINT stop the service; SIGHUP reloads it, if it is long-running.
    fn handle_signals(&mut self, now: Instant) {
        if self.signals.take_stop() {
            self.begin_drain(now);
        }
        if self.signals.take_reload() && self.is_long_running() && self.drain_deadline.is_none() {
            self.reload();
        }
    }

    /// How long to wait for events at most; `None` is without limit.
    fn timeout(&self) -> Option<Duration> {
        if self.any_listener_ready() && self.can_accept() {
            return Some(Duration::ZERO);
        }
        let deadlines = [
            self.connections.next_deadline(),
            self.accept_paused_until,
            self.drain_deadline,
            self.watchdog.map(|(_, next)| next),
            self.idle_deadline(),
            self.stats.next_report(),
            self.notifier.next_retry(),
            self.status_changed().then_some(self.next_status),
        ];
        let next = deadlines.into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    /// Whether the process ends by a signal or after `idle_timeout`, and not after
    /// its only connection.
    fn is_long_running(&self) -> bool {
        !self.listeners.is_empty()
    }

    /// Whether the backlog of a listener may be non-empty.
    fn any_listener_ready(&self) -> bool {
        self.listeners.iter().any(Listener::may_have_pending)
    }

    /// Whether one more connection is allowed.
    fn can_accept(&self) -> bool {
        let limit = self.settings.limits.connections as usize;
        self.drain_deadline.is_none()
            && self.accept_paused_until.is_none()
            && self.connections.len() < limit.min(self.fd_capacity)
    }

    /// Accepts the connections in the backlogs and sends their greetings.
    fn accept_pending(&mut self, now: Instant) -> Result<(), Error> {
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPT_BATCH {
                if !self.listeners[index].may_have_pending() || !self.can_accept() {
                    break;
                }
                match self.listeners[index].accept() {
                    Ok(Some((socket, peer))) => {
                        // A SIGHUP that was sent before the client connected has
                        // arrived by now: the client gets the new greeting.
                        if self.signals.has_reload() {
                            self.handle_signals(now);
                        }
                        self.last_accept = now;
                        let connection = self.listeners[index].connection(socket, peer, now);
                        self.add_connection(connection, now)?;
                    }
                    Ok(None) => {}
                    Err(error) if is_shortage(&error) => self.back_off(&error, now),
                    Err(error) => {
                        let address = &self.listeners[index].endpoint().local_addr;
                        return Err(Error::io(format!("accept on '{address}'"), error));
                    }
                }
            }
        }
        Ok(())
    }

    fn add_connection(&mut self, connection: Connection, now: Instant) -> Result<(), Error> {
        let result = self
            .connections
            .add(connection, now, &self.poller, &mut self.stats);
        match result {
            Err(error) if is_shortage(&error) => {
                self.back_off(&error, now);
                Ok(())
            }
            Err(error) => Err(Error::io("register a connection with epoll", error)),
            Ok(()) => Ok(()),
        }
    }

    /// Closes the greeted connections whose peers have closed.
    fn sweep_greeted(&mut self, now: Instant) {
        // If no more can be accepted, or none will come, each close must be known at once.
        let all = !self.can_accept() || !self.is_long_running();
        let result = self
            .connections
            .sweep_greeted(all, now, &self.poller, &mut self.stats);
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
        if last.is_none_or(|last| now.duration_since(last) > SHORTAGE_LOG_INTERVAL) {
            let open = counted(self.connections.len() as u64, "connection");
            log::warn!(
                MESSAGE_ID = event::RESOURCES;
                "cannot accept more than {open}: {cause}; further clients wait in the backlog"
            );
        }
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
        if self.status_changed() && now >= self.next_status {
            self.notifier.notify_status(&self.status());
            self.last_status = self.status_counts();
            self.next_status = now + STATUS_INTERVAL;
        }
    }

    /// Whether there is a new status text. That of a per-connection service stays.
    fn status_changed(&self) -> bool {
        self.is_long_running()
            && self.drain_deadline.is_none()
            && self.last_status != self.status_counts()
    }

    fn status_counts(&self) -> StatusCounts {
        StatusCounts {
            sent: self.stats.greetings_sent(),
            open: self.connections.len(),
        }
    }

    fn status(&self) -> String {
        self.stats.status(self.connections.len()) + &self.reload_error
    }

    /// When the process exits for lack of connections; `None` if it does not.
    fn idle_deadline(&self) -> Option<Instant> {
        let idle_timeout = self.settings.limits.idle_timeout?;
        let is_idle = self.is_long_running() && self.connections.is_empty();
        is_idle.then(|| self.last_accept + idle_timeout)
    }

    /// Why the loop ends now; `None` if it goes on.
    fn exit_reason(&self, now: Instant) -> Option<ExitReason> {
        let no_connections = self.connections.is_empty();
        if !self.is_long_running() {
            return no_connections.then_some(ExitReason::Served);
        }
        if let Some(deadline) = self.drain_deadline {
            let is_drained = no_connections || now >= deadline;
            return is_drained.then_some(ExitReason::Stopped);
        }
        let idle_timeout = self.settings.limits.idle_timeout?;
        let is_idle = no_connections && !self.any_listener_ready();
        let is_over = now >= self.last_accept + idle_timeout;
        (is_idle && is_over).then_some(ExitReason::Idle(idle_timeout))
    }

    fn log_exit(&self, reason: ExitReason) {
        match reason {
            ExitReason::Served => {}
            ExitReason::Stopped => self.log_shutdown(),
            ExitReason::Idle(idle_timeout) => {
                let idle_timeout = time_format::format_duration(idle_timeout);
                log::info!(
                    MESSAGE_ID = event::IDLE;
                    "no connections for {idle_timeout}, exiting; the socket stays open"
                );
            }
        }
    }

    fn log_shutdown(&self) {
        let unsent = self.connections.unsent();
        if unsent > 0 {
            let connections = counted(unsent as u64, "connection");
            log::warn!(
                MESSAGE_ID = event::DRAIN_EXPIRED;
                "closed {connections} after drain_timeout before the greeting was sent"
            );
        }
        let greetings = counted(self.stats.greetings_sent(), "greeting");
        log::info!(MESSAGE_ID = event::STOPPED; "stopped; {greetings} sent");
    }

    /// SIGTERM: stops accepting; the backlog is left to the next start. Open
    /// connections have `drain_timeout`.
    fn begin_drain(&mut self, now: Instant) {
        if self.drain_deadline.is_none() {
            self.drain_deadline = Some(now + self.settings.limits.drain_timeout);
            self.notifier.notify_stopping();
            self.notifier
                .notify_status(&format!("Stopping; {}", self.status()));
        }
    }

    /// SIGHUP: loads the settings again; if they are invalid, the current ones are kept.
    fn reload(&mut self) {
        self.notifier.notify_reloading();
        match (self.load_settings)() {
            Ok(settings) => {
                self.apply_settings(settings);
                self.reload_error.clear();
                log::info!(MESSAGE_ID = event::RELOADED; "settings reloaded");
            }
            Err(error) => {
                log::error!(
                    MESSAGE_ID = event::RELOAD_FAILED;
                    "reload failed, keeping the current settings: {error}"
                );
                self.reload_error = format!("; reload failed: {error}");
            }
        }
        self.notifier.notify_ready();
        self.notifier.notify_status(&self.status());
    }

    /// Applies settings to everything but the open connections.
    fn apply_settings(&mut self, settings: Settings) {
        log::set_max_level(settings.log_level);
        self.stats.set_log_peer(settings.log_peer);
        for listener in &mut self.listeners {
            listener.apply_settings(&settings);
        }
        self.settings = settings;
    }
}

/// Why the serving loop ends.
#[derive(Debug, Clone, Copy)]
enum ExitReason {
    /// The only connection was closed (modes accepted and inet).
    Served,
    /// SIGTERM or SIGINT, and the connections are closed or `drain_timeout` is over.
    Stopped,
    /// There were no connections for `idle_timeout`.
    Idle(Duration),
}

fn epoll_error(error: io::Error) -> Error {
    Error::io("set up epoll", error)
}

/// Closes a connection gracefully without a greeting: FIN, then its input is
/// discarded until the peer closes or `limits` end the wait. For a client of a
/// per-connection service whose settings are invalid.
///
/// # Errors
/// Those of epoll_create1(2), epoll_ctl(2) and epoll_wait(2).
pub fn close_gracefully(
    socket: Socket,
    name: String,
    mode: Mode,
    limits: Limits,
) -> io::Result<()> {
    let endpoint = Endpoint {
        local_addr: socket.local_addr(),
        name,
        mode,
    };
    let mut connection = Connection::new(
        socket,
        None,
        Rc::new(endpoint),
        Rc::new([]),
        Rc::new(limits),
        Instant::now(),
    );
    let mut poller = Poller::new()?;
    poller.register(
        connection.socket(),
        Token::Connection(0),
        Interest::Readable,
    )?;
    let mut buffer = DiscardBuffer::default();
    loop {
        match connection.advance(&mut buffer, Instant::now()) {
            Progress::GreetingSent => {}
            Progress::Pending(_) => {
                let now = Instant::now();
                if connection.expire_or_extend(now) {
                    return Ok(());
                }
                poller.wait(Some(connection.deadline().saturating_duration_since(now)))?;
            }
            Progress::Disconnected | Progress::Done => return Ok(()),
        }
    }
}
