//! A listening socket with its greeting, and the errors of accept(2).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::every::Every;
use crate::error::{Error, os_message};
use crate::event;
use crate::mode::Mode;
use crate::settings::{Limits, Settings, SocketSettings};
use crate::socket::{ListenSocket, Socket};
use crate::sys;
use crate::sys::ffi::errno::{
    ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN, ENETUNREACH,
    ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOSPC, EPERM, EPROTO, ETIMEDOUT,
};

/// Errors in a row that concern one connection each, without a connection between them,
/// after which they count as a failure of the socket: a lasting one must not occupy the
/// loop.
const MAX_CONNECTION_ERRORS: u32 = 16;
/// How long a socket pauses after its first failure; doubled each time.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause. If every socket has reached it, the service fails.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How often the failures of a socket are logged, at most.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: ListenSocket,
    endpoint: Rc<Endpoint>,
    settings: SocketSettings,
    limits: Rc<Limits>,
    may_have_pending: bool,
    /// Errors that concerned one connection each, since the last connection.
    connection_errors: u32,
    /// Set while accept(2) fails.
    pause: Option<Pause>,
    warnings: Every,
}

/// accept(2) has failed, and is not called for a while.
#[derive(Debug, Clone, Copy)]
struct Pause {
    until: Instant,
    length: Duration,
    /// The last error, of errno(3).
    errno: i32,
}

/// What [`Listener::accept`] returns.
#[derive(Debug)]
pub enum AcceptResult {
    /// A connection, and the peer's address if it is TCP.
    Connection(Socket, Option<SocketAddr>),
    /// The backlog is empty, or the socket pauses.
    Nothing,
    /// A connection failed before it was accepted; there may be more.
    ConnectionFailed,
    /// The process or the system is out of descriptors or memory.
    Shortage(io::Error),
}

impl Listener {
    /// A listener with the greeting and limits of `settings`.
    pub fn new(socket: ListenSocket, settings: &Settings) -> Self {
        let endpoint = Endpoint {
            name: socket.name().to_owned(),
            mode: Mode::Accept,
            local_addr: socket.local_addr(),
        };
        Self {
            settings: settings.greetings.for_socket(&endpoint.name).clone(),
            limits: Rc::clone(&settings.limits),
            socket,
            endpoint: Rc::new(endpoint),
            may_have_pending: true,
            connection_errors: 0,
            pause: None,
            warnings: Every::new(WARN_INTERVAL),
        }
    }

    /// Applies new settings to the connections that are accepted from now on.
    pub fn apply_settings(&mut self, settings: &Settings) {
        let own = settings.greetings.for_socket(&self.endpoint.name);
        self.settings = own.clone();
        self.limits = Rc::clone(&settings.limits);
    }

    /// The socket, to be registered.
    pub fn socket(&self) -> &ListenSocket {
        &self.socket
    }

    /// The socket's name, mode and address.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Whether accept(2) should be called: the backlog may be non-empty, and the
    /// socket does not pause.
    pub fn is_ready(&self, now: Instant) -> bool {
        self.may_have_pending && self.pause.is_none_or(|pause| now >= pause.until)
    }

    /// When the pause of a socket ends whose backlog may be non-empty.
    pub fn pause_end(&self) -> Option<Instant> {
        let pause = self.pause.filter(|_| self.may_have_pending)?;
        Some(pause.until)
    }

    /// Whether accept(2) fails.
    pub fn is_failing(&self) -> bool {
        self.pause.is_some()
    }

    /// The last error of accept(2), if it has failed for as long as a pause can be.
    pub fn lasting_failure(&self) -> Option<Error> {
        let pause = self.pause.filter(|pause| pause.length == MAX_PAUSE)?;
        let action = format!("accept on '{}'", self.endpoint.local_addr);
        let error = io::Error::from_raw_os_error(pause.errno);
        Some(Error::io(action, error))
    }

    /// Whether there is a connection in the backlog, as poll(2) says.
    pub fn has_connection(&self) -> bool {
        sys::wait_readable(self.socket.as_fd(), Duration::ZERO)
    }

    /// Called when epoll(7) has reported the socket.
    pub fn set_may_have_pending(&mut self) {
        self.may_have_pending = true;
    }

    /// Accepts the next connection, and decides what an error of accept(2) leads to: one
    /// that concerns one connection is passed over, a shortage is returned, as it concerns
    /// all sockets, and any other error pauses this socket.
    pub fn accept(&mut self, now: Instant) -> AcceptResult {
        let error = match self.socket.accept() {
            Ok((socket, peer)) => {
                self.connection_errors = 0;
                self.pause = None;
                return AcceptResult::Connection(socket, peer);
            }
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            self.may_have_pending = false;
            AcceptResult::Nothing
        } else if is_shortage(&error) {
            AcceptResult::Shortage(error)
        } else if concerns_one_connection(&error) && self.connection_errors < MAX_CONNECTION_ERRORS
        {
            self.connection_errors += 1;
            AcceptResult::ConnectionFailed
        } else {
            self.begin_pause(&error, now);
            AcceptResult::Nothing
        }
    }

    /// Pauses the socket, each time for longer.
    fn begin_pause(&mut self, error: &io::Error, now: Instant) {
        let length = match self.pause {
            Some(pause) => MAX_PAUSE.min(pause.length * 2),
            None => MIN_PAUSE,
        };
        self.pause = Some(Pause {
            until: now + length,
            length,
            errno: error.raw_os_error().unwrap_or_default(),
        });
        if self.warnings.is_due(now) {
            log::warn!(
                MESSAGE_ID = event::LISTENER_FAILED,
                GREETER_SOCKET = self.endpoint.name.as_str();
                "cannot accept on '{}': {}; retrying, other sockets are not affected",
                self.endpoint.local_addr,
                os_message(error)
            );
        }
    }

    /// The connection of an accepted socket, with the greeting and limits in force.
    pub fn connection(&self, socket: Socket, peer: Option<SocketAddr>, now: Instant) -> Connection {
        let endpoint = Rc::clone(&self.endpoint);
        let limits = Rc::clone(&self.limits);
        Connection::new(socket, peer, endpoint, &self.settings, limits, now)
    }
}

/// Whether an error of accept(2) concerns only the connection that it would have
/// returned. accept(2) lists the network errors that are to be treated like EAGAIN;
/// EPERM is a firewall's.
fn concerns_one_connection(error: &io::Error) -> bool {
    const NETWORK_ERRORS: [i32; 7] = [
        ENETDOWN,
        EPROTO,
        ENOPROTOOPT,
        EHOSTDOWN,
        ENONET,
        EHOSTUNREACH,
        ENETUNREACH,
    ];
    const OTHER_ERRORS: [i32; 5] = [ECONNABORTED, ECONNRESET, ETIMEDOUT, EPERM, EINTR];
    error
        .raw_os_error()
        .is_some_and(|errno| NETWORK_ERRORS.contains(&errno) || OTHER_ERRORS.contains(&errno))
}

/// Whether the process or the system is out of descriptors, memory or epoll watches.
fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS | ENOSPC)
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::net::{Shutdown, TcpListener};

    use crate::settings::layers::Layers;
    use crate::settings::load;

    /// The settings of an empty file.
    pub fn default_settings() -> Settings {
        let layers = Layers::read("/dev/null", None).unwrap();
        load::settings(&layers, None).unwrap()
    }

    pub fn listener(socket: &TcpListener) -> Listener {
        let fd = socket.try_clone().unwrap().into();
        let socket = ListenSocket::new(fd, String::new()).unwrap();
        Listener::new(socket, &default_settings())
    }

    /// A listener on which accept(2) returns EINVAL.
    pub fn failing_listener() -> Listener {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let shutdown = socket2::SockRef::from(&socket).shutdown(Shutdown::Both);
        shutdown.unwrap();
        listener(&socket)
    }

    #[test]
    fn failing_socket_pauses_for_growing_times() {
        let mut failing = failing_listener();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        while failing.lasting_failure().is_none() {
            assert!(failing.is_ready(now));
            assert!(matches!(failing.accept(now), AcceptResult::Nothing));
            assert!(failing.is_failing());
            let end = failing.pause_end().unwrap();
            assert!(!failing.is_ready(end - Duration::from_millis(1)));
            pauses.push((end - now).as_millis());
            now = end;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
        // It is tried again all the same, as the other sockets may work.
        assert!(failing.is_ready(now));
        let error = failing.lasting_failure().unwrap().to_string();
        assert!(error.starts_with("cannot accept on '127.0.0.1:"), "{error}");
        assert!(error.ends_with(": invalid argument"), "{error}");
    }

    #[test]
    fn failures_are_logged_once_a_minute_and_end_with_a_connection() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listener = listener(&socket);
        let first = Instant::now();
        let mut fail = |seconds| {
            let now = first + Duration::from_secs(seconds);
            listener.begin_pause(&io::Error::from_raw_os_error(EPERM), now);
            let next_warning = listener.warnings.next().unwrap();
            (next_warning - WARN_INTERVAL - first).as_secs()
        };
        let warned: Vec<u64> = [0, 1, 59, 60, 61, 119, 120, 121, 122, 123, 124]
            .map(&mut fail)
            .to_vec();
        assert_eq!(warned, [0, 0, 0, 60, 60, 60, 120, 120, 120, 120, 120]);
        // No connection is left, so nothing is to be done at the end of the pause.
        assert!(matches!(listener.accept(first), AcceptResult::Nothing));
        assert_eq!(listener.pause_end(), None);
        // The next connection ends the failures.
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let accepted = listener.accept(first);
        assert!(matches!(accepted, AcceptResult::Connection(_, Some(_))));
        assert!(!listener.is_failing());
    }

    #[test]
    fn accept_errors_concern_one_connection_or_all_sockets_or_this_one() {
        let check = |errnos: &[i32], expected: [bool; 2]| {
            for errno in errnos {
                let error = io::Error::from_raw_os_error(*errno);
                let actual = [concerns_one_connection(&error), is_shortage(&error)];
                assert_eq!(actual, expected, "{error}");
            }
        };
        check(
            &[103, 104, 110, 4, 71, 92, 100, 101, 112, 113, 64, 1],
            [true, false],
        );
        check(&[12, 23, 24, 28, 105], [false, true]);
        check(&[9, 22, 88, 95, 5, 13], [false, false]);
    }
}
