//! What accepts connections: the listening sockets, whose turn it is, for how many
//! connections there is room, and the pause after a shortage.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::every::Every;
use super::listener::{AcceptResult, Listener};
use super::stats::counted;
use crate::error::{Error, os_message};
use crate::event;
use crate::poller::{Poller, Token};
use crate::settings::Settings;
use crate::socket::{ListenSocket, Socket};
use crate::sys;

/// How long nothing is accepted after a shortage of descriptors or memory, unless a
/// connection ends earlier.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// Descriptors that connections cannot use: the process has about fifteen open
/// beside its sockets, and needs some more to notify systemd and to reload.
const RESERVED_FDS: usize = 32;
/// How long there may be clients in the backlogs without a place for them, before open
/// connections that make no progress are closed.
const MAX_STALL: Duration = Duration::from_millis(500);
/// How often a shortage is logged, at most.
const SHORTAGE_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The listening sockets. A per-connection service has none.
#[derive(Debug)]
pub struct Acceptor {
    listeners: Vec<Listener>,
    /// The listener that is asked next, so that each gets its share of the
    /// connections that `connections` allows.
    next_listener: usize,
    /// `connections` of the settings.
    connection_limit: usize,
    /// For how many connections there are descriptors.
    fd_capacity: usize,
    /// Set after a shortage of descriptors or memory.
    paused_until: Option<Instant>,
    shortage_warnings: Every,
    /// Since when there have been clients in the backlogs, and no place for the next one.
    stalled_since: Option<Instant>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub struct AcceptedSocket {
    socket: Socket,
    peer: Option<SocketAddr>,
    listener: usize,
}

impl Acceptor {
    /// An acceptor without sockets.
    pub fn new() -> Self {
        Self {
            listeners: Vec::new(),
            next_listener: 0,
            connection_limit: 0,
            fd_capacity: usize::MAX,
            paused_until: None,
            shortage_warnings: Every::new(SHORTAGE_LOG_INTERVAL),
            stalled_since: None,
        }
    }

    /// Takes the listening sockets and registers them.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn listen(
        &mut self,
        sockets: Vec<ListenSocket>,
        settings: &Settings,
        poller: &Poller,
    ) -> io::Result<()> {
        let reserved = RESERVED_FDS + sockets.len();
        self.fd_capacity = sys::descriptor_limit().saturating_sub(reserved).max(1);
        for (index, socket) in sockets.into_iter().enumerate() {
            let listener = Listener::new(socket, settings);
            poller.register_readable(listener.socket(), Token::Listener(index))?;
            self.listeners.push(listener);
        }
        self.apply_settings(settings);
        Ok(())
    }

    /// Applies new settings to the connections that are accepted from now on.
    pub fn apply_settings(&mut self, settings: &Settings) {
        self.connection_limit = settings.limits.connections as usize;
        for listener in &mut self.listeners {
            listener.apply_settings(settings);
        }
    }

    /// Whether there is no socket: the process serves one connection.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// The listening sockets.
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Called when epoll(7) has reported a listening socket.
    pub fn handle_event(&mut self, listener: usize) {
        self.listeners[listener].set_may_have_pending();
    }

    /// Whether one more connection is allowed beside the `open` ones.
    pub fn has_room(&self, open: usize) -> bool {
        self.paused_until.is_none() && open < self.connection_limit.min(self.fd_capacity)
    }

    /// Whether the backlog of a socket may be non-empty.
    pub fn has_pending(&self, now: Instant) -> bool {
        self.listeners.iter().any(|listener| listener.is_ready(now))
    }

    /// Returns when a connection may be accepted again that now must wait, unless an open
    /// one is closed before.
    pub fn next_attempt(&self, open: usize) -> Option<Instant> {
        if self.has_room(open) {
            self.listeners.iter().filter_map(Listener::pause_end).min()
        } else {
            let stall_end = self.stalled_since.map(|since| since + MAX_STALL);
            [self.paused_until, stall_end].into_iter().flatten().min()
        }
    }

    /// Returns, once every [`MAX_STALL`], whether clients have waited so long for one of the
    /// `open` connections to end: a backlog that was never empty meanwhile, even if some of
    /// them were accepted.
    pub fn take_stall(&mut self, open: usize, now: Instant) -> bool {
        if !self.has_pending(now) {
            self.stalled_since = None;
            return false;
        }
        if self.has_room(open) {
            return false;
        }
        let since = *self.stalled_since.get_or_insert(now);
        if now < since + MAX_STALL {
            return false;
        }
        // A backlog that may be non-empty need not be.
        let has_connection = self.listeners.iter().any(Listener::has_connection);
        self.stalled_since = has_connection.then_some(now);
        has_connection
    }

    /// Ends the pause after a shortage if its time is over, or if a connection was closed.
    pub fn resume(&mut self, some_closed: bool, now: Instant) {
        if some_closed || self.paused_until.is_some_and(|until| now >= until) {
            self.paused_until = None;
        }
    }

    /// Accepts a connection from the next socket that has one; `None` if none has, or
    /// after a shortage. `open` is the number of open connections.
    pub fn accept(&mut self, open: usize, now: Instant) -> Option<AcceptedSocket> {
        let mut without_connection = 0;
        while without_connection < self.listeners.len() {
            let index = self.next_listener;
            self.next_listener = (index + 1) % self.listeners.len();
            let listener = &mut self.listeners[index];
            if !listener.is_ready(now) {
                without_connection += 1;
                continue;
            }
            match listener.accept(now) {
                AcceptResult::Connection(socket, peer) => {
                    return Some(AcceptedSocket {
                        socket,
                        peer,
                        listener: index,
                    });
                }
                AcceptResult::Nothing => without_connection += 1,
                AcceptResult::ConnectionFailed => without_connection = 0,
                AcceptResult::Shortage(error) => {
                    self.pause(&error, open, now);
                    return None;
                }
            }
        }
        None
    }

    /// The connection of an accepted socket, with the settings in force.
    pub fn connection(&self, accepted: AcceptedSocket, now: Instant) -> Connection {
        let listener = &self.listeners[accepted.listener];
        listener.connection(accepted.socket, accepted.peer, now)
    }

    /// Before the exit: asks every socket once more. A backlog may be non-empty although
    /// no event was handled yet.
    pub fn expect_last_connections(&mut self) {
        self.paused_until = None;
        for listener in &mut self.listeners {
            listener.set_may_have_pending();
        }
    }

    /// Accepts nothing for a while after a shortage of descriptors or memory.
    pub fn pause(&mut self, cause: &io::Error, open: usize, now: Instant) {
        self.paused_until = Some(now + SHORTAGE_PAUSE);
        self.warn_shortage(&os_message(cause), open, now);
    }

    /// Warns if it is descriptors that are missing for more connections, not `connections`.
    pub fn check_descriptors(&mut self, open: usize, now: Instant) {
        if open >= self.fd_capacity && self.fd_capacity < self.connection_limit {
            let cause = "LimitNOFILE= of the service is too low for 'connections'";
            self.warn_shortage(cause, open, now);
        }
    }

    fn warn_shortage(&mut self, cause: &str, open: usize, now: Instant) {
        if self.shortage_warnings.is_due(now) {
            let open = counted(open as u64, "connection");
            log::warn!(
                MESSAGE_ID = event::RESOURCES;
                "cannot accept more than {open}: {cause}; further clients wait in the backlog"
            );
        }
    }

    /// The sockets on which accept(2) fails.
    pub fn failing(&self) -> impl Iterator<Item = &Listener> {
        self.listeners
            .iter()
            .filter(|listener| listener.is_failing())
    }

    /// Fails if accept(2) has failed on every socket for so long that the service must
    /// exit: systemd then opens the sockets again.
    ///
    /// # Errors
    /// [`Error::Io`] of the first socket.
    pub fn check_failures(&self) -> Result<(), Error> {
        let mut failures = self.listeners.iter().map(Listener::lasting_failure);
        match failures.next().flatten() {
            Some(error) if failures.all(|failure| failure.is_some()) => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    use super::super::listener::tests::{default_settings, failing_listener, listener};

    fn acceptor(listeners: Vec<Listener>) -> Acceptor {
        let mut acceptor = Acceptor::new();
        acceptor.listeners = listeners;
        acceptor.apply_settings(&default_settings());
        acceptor
    }

    fn connect(socket: &TcpListener) -> TcpStream {
        TcpStream::connect(socket.local_addr().unwrap()).unwrap()
    }

    #[test]
    fn each_socket_gets_its_turn() {
        let now = Instant::now();
        let sockets = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let mut acceptor = acceptor(sockets.iter().map(listener).collect());
        let _clients = [0, 0, 0, 1].map(|index| connect(&sockets[index]));
        let order: Vec<usize> = std::iter::from_fn(|| acceptor.accept(0, now))
            .map(|accepted| accepted.listener)
            .collect();
        assert_eq!(order, [0, 1, 0, 0]);
        assert!(!acceptor.has_pending(now));
        acceptor.handle_event(1);
        assert!(acceptor.has_pending(now));
        assert!(acceptor.accept(0, now).is_none());
    }

    #[test]
    fn room_is_limited_by_connections_and_descriptors() {
        let mut acceptor = acceptor(Vec::new());
        assert!(acceptor.has_room(1023));
        assert!(!acceptor.has_room(1024));
        acceptor.fd_capacity = 7;
        assert!(acceptor.has_room(6));
        assert!(!acceptor.has_room(7));
    }

    #[test]
    fn shortage_pauses_all_sockets_until_a_connection_is_closed() {
        let now = Instant::now();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut acceptor = acceptor(vec![listener(&socket)]);
        let error = io::Error::from_raw_os_error(24);
        acceptor.pause(&error, 1, now);
        assert!(!acceptor.has_room(0));
        assert_eq!(acceptor.next_attempt(0), Some(now + SHORTAGE_PAUSE));
        acceptor.resume(false, now);
        assert!(!acceptor.has_room(0));
        acceptor.resume(true, now);
        assert!(acceptor.has_room(0));
        acceptor.pause(&error, 1, now);
        acceptor.resume(false, now + SHORTAGE_PAUSE);
        assert!(acceptor.has_room(0));
        assert_eq!(acceptor.next_attempt(0), None);
    }

    #[test]
    fn clients_that_wait_too_long_are_a_stall() {
        let now = Instant::now();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut acceptor = acceptor(vec![listener(&socket)]);
        let later = now + MAX_STALL;
        // Nobody waits.
        assert!(!acceptor.take_stall(1024, now));
        assert_eq!(acceptor.next_attempt(1024), Some(later));
        assert!(!acceptor.take_stall(1024, later));
        let _client = connect(&socket);
        assert!(!acceptor.take_stall(1024, now));
        assert!(!acceptor.take_stall(1024, later - Duration::from_millis(1)));
        assert!(acceptor.take_stall(1024, later));
        // It begins again without an event, and goes on while some are accepted.
        assert_eq!(acceptor.next_attempt(1024), Some(later + MAX_STALL));
        let _another_client = connect(&socket);
        assert!(!acceptor.take_stall(1024, later));
        assert!(!acceptor.take_stall(1023, later + MAX_STALL));
        assert!(acceptor.accept(1023, later).is_some());
        assert!(acceptor.take_stall(1024, later + MAX_STALL));
        // It ends when the backlog is empty.
        assert!(!acceptor.take_stall(1024, later));
        assert!(acceptor.accept(1023, later).is_some());
        assert!(acceptor.accept(1023, later).is_none());
        assert!(!acceptor.take_stall(1024, later + MAX_STALL));
        assert_eq!(acceptor.next_attempt(1024), None);
    }

    #[test]
    fn shortage_is_logged_once_a_minute() {
        let first = Instant::now();
        let mut acceptor = acceptor(Vec::new());
        for (seconds, warned) in [(0, 0), (59, 0), (60, 60), (61, 60), (120, 120)] {
            let now = first + Duration::from_secs(seconds);
            acceptor.warn_shortage("cause", 1, now);
            let next = first + Duration::from_secs(warned) + SHORTAGE_LOG_INTERVAL;
            assert_eq!(acceptor.shortage_warnings.next(), Some(next), "{seconds}");
        }
    }

    #[test]
    fn missing_descriptors_are_a_shortage_but_enough_are_none() {
        let now = Instant::now();
        for (open, fd_capacity, is_shortage) in [
            (7, 7, true),
            (6, 7, false),
            (1024, 1024, false),
            (1024, 2000, false),
        ] {
            let mut acceptor = acceptor(Vec::new());
            acceptor.fd_capacity = fd_capacity;
            acceptor.check_descriptors(open, now);
            assert_eq!(
                acceptor.shortage_warnings.next().is_some(),
                is_shortage,
                "{open}"
            );
        }
    }

    #[test]
    fn service_fails_when_every_socket_fails() {
        let working = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut acceptor = acceptor(vec![failing_listener(), listener(&working)]);
        let mut now = Instant::now();
        for _ in 0..20 {
            assert!(acceptor.accept(0, now).is_none());
            assert!(acceptor.check_failures().is_ok());
            assert_eq!(acceptor.failing().count(), 1);
            now += Duration::from_secs(10);
        }
        acceptor.listeners.pop();
        let error = acceptor.check_failures().unwrap_err().to_string();
        assert!(error.starts_with("cannot accept on '127.0.0.1:"), "{error}");
        // A per-connection service has no sockets that could fail.
        acceptor.listeners.clear();
        assert!(acceptor.check_failures().is_ok());
    }

    #[test]
    fn failing_socket_is_asked_again_after_its_pause() {
        let now = Instant::now();
        let mut acceptor = acceptor(vec![failing_listener()]);
        assert!(acceptor.accept(0, now).is_none());
        let pause_end = acceptor.next_attempt(0).unwrap();
        assert!(pause_end > now);
        assert!(!acceptor.has_pending(now));
        assert!(acceptor.has_pending(pause_end));
    }
}
