//! A listening socket with its greeting, and the errors of accept(2).

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::endpoint::Endpoint;
use crate::error::{Error, os_message};
use crate::event;
use crate::mode::Mode;
use crate::settings::{Limits, Settings, SocketSettings};
use crate::socket::{ListenSocket, Socket};
use crate::sys::ffi::errno::{
    EBADF, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EINVAL, EMFILE, ENETDOWN,
    ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOSPC, ENOTSOCK, EOPNOTSUPP, EPERM,
    EPROTO, ETIMEDOUT,
};

/// Transient errors in a row, without a connection, after which they count as a
/// failure of the socket: a lasting one must not occupy the loop.
const MAX_TRANSIENT_ERRORS: u32 = 16;
/// How long a socket pauses after its first failure; doubled at each further one.
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// Failures in a row after which a socket that cannot recover is given up.
const MAX_FAILURES: u32 = 10;
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
    /// Transient errors since the last connection.
    transient_errors: u32,
    health: Health,
    last_warning: Option<Instant>,
}

/// Whether accept(2) works.
#[derive(Debug)]
enum Health {
    Working,
    /// accept(2) has failed `failures` times in a row.
    Paused {
        failures: u32,
        until: Instant,
    },
    /// accept(2) will not work any more, because of this error.
    GivenUp(io::Error),
}

/// What [`Listener::accept`] returns.
#[derive(Debug)]
pub enum Accepted {
    /// A connection, and the peer's address if it is TCP.
    Connection(Socket, Option<SocketAddr>),
    /// The backlog is empty, or the socket pauses.
    Nothing,
    /// A connection failed before it was accepted; there may be others.
    Transient,
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
            settings: endpoint.adopt(settings.greetings.for_socket(&endpoint.name)),
            limits: Rc::clone(&settings.limits),
            socket,
            endpoint: Rc::new(endpoint),
            may_have_pending: true,
            transient_errors: 0,
            health: Health::Working,
            last_warning: None,
        }
    }

    /// Applies new settings to the connections that are accepted from now on.
    pub fn apply_settings(&mut self, settings: &Settings) {
        let own = settings.greetings.for_socket(&self.endpoint.name);
        self.settings = self.endpoint.adopt(own);
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
        self.may_have_pending
            && match self.health {
                Health::Working => true,
                Health::Paused { until, .. } => now >= until,
                Health::GivenUp(_) => false,
            }
    }

    /// When the pause of a socket ends whose backlog may be non-empty.
    pub fn pause_end(&self) -> Option<Instant> {
        match self.health {
            Health::Paused { until, .. } if self.may_have_pending => Some(until),
            _ => None,
        }
    }

    /// Whether accept(2) fails.
    pub fn is_failing(&self) -> bool {
        !matches!(self.health, Health::Working)
    }

    /// Whether the socket was given up: accept(2) will not work any more.
    fn is_given_up(&self) -> bool {
        matches!(self.health, Health::GivenUp(_))
    }

    /// Called when epoll(7) has reported the socket.
    pub fn set_may_have_pending(&mut self) {
        self.may_have_pending = true;
    }

    /// Accepts the next connection, and decides what an error of accept(2) leads to: a
    /// temporary one of a single connection is passed over, a shortage is returned and
    /// pauses all sockets (`Server::back_off`), anything else pauses this one, or ends it.
    pub fn accept(&mut self, now: Instant) -> Accepted {
        let error = match self.socket.accept() {
            Ok((socket, peer)) => {
                self.transient_errors = 0;
                self.health = Health::Working;
                return Accepted::Connection(socket, peer);
            }
            Err(error) => error,
        };
        if error.kind() == io::ErrorKind::WouldBlock {
            self.may_have_pending = false;
            Accepted::Nothing
        } else if is_shortage(&error) {
            Accepted::Shortage(error)
        } else if is_transient(&error) && self.transient_errors < MAX_TRANSIENT_ERRORS {
            self.transient_errors += 1;
            Accepted::Transient
        } else {
            self.fail(error, now);
            Accepted::Nothing
        }
    }

    /// Pauses the socket for a growing time, or gives it up.
    fn fail(&mut self, error: io::Error, now: Instant) {
        let failures = match self.health {
            Health::Paused { failures, .. } => failures + 1,
            Health::Working | Health::GivenUp(_) => 1,
        };
        let is_given_up = failures >= MAX_FAILURES && is_lasting(&error);
        let is_due = match self.last_warning {
            Some(last) => now.duration_since(last) >= WARN_INTERVAL,
            None => true,
        };
        if is_due || is_given_up {
            self.last_warning = Some(now);
            let address = &self.endpoint.local_addr;
            let cause = os_message(&error);
            let then = if is_given_up { "giving up" } else { "retrying" };
            log::warn!(
                MESSAGE_ID = event::LISTENER_FAILED,
                GREETER_SOCKET = self.endpoint.name.as_str();
                "cannot accept on '{address}': {cause}; {then}, other sockets are not affected"
            );
        }
        self.health = if is_given_up {
            Health::GivenUp(error)
        } else {
            let pause = MIN_PAUSE * 2_u32.pow(failures.min(8) - 1);
            Health::Paused {
                failures,
                until: now + pause.min(MAX_PAUSE),
            }
        };
    }

    /// The connection of an accepted socket, with the greeting and limits in force.
    pub fn connection(&self, socket: Socket, peer: Option<SocketAddr>, now: Instant) -> Connection {
        let endpoint = Rc::clone(&self.endpoint);
        let limits = Rc::clone(&self.limits);
        Connection::new(socket, peer, endpoint, &self.settings, limits, now)
    }
}

/// If all listeners were given up, the error of the first one.
pub fn given_up_error(listeners: &mut [Listener]) -> Option<Error> {
    if !listeners.iter().all(Listener::is_given_up) {
        return None;
    }
    let first = listeners.first_mut()?;
    let address = &first.endpoint.local_addr;
    match mem::replace(&mut first.health, Health::Working) {
        Health::GivenUp(error) => Some(Error::io(format!("accept on '{address}'"), error)),
        Health::Working | Health::Paused { .. } => None,
    }
}

/// Whether an error of accept(2) concerns only the connection that it would have
/// returned. accept(2) lists the network errors that are to be treated like EAGAIN;
/// EPERM is a firewall's.
fn is_transient(error: &io::Error) -> bool {
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

/// Whether an error of accept(2) means that the descriptor is not a listening socket
/// (any more), so that it will not recover.
fn is_lasting(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(EBADF | ENOTSOCK | EINVAL | EOPNOTSUPP)
    )
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

    #[test]
    fn lasting_failures_pause_for_growing_times_and_end_the_socket() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut failing = listener(&socket);
        // accept(2) returns EINVAL from now on.
        let shutdown = socket2::SockRef::from(&socket).shutdown(Shutdown::Both);
        shutdown.unwrap();
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        while !failing.is_given_up() {
            assert!(failing.is_ready(now));
            assert!(matches!(failing.accept(now), Accepted::Nothing));
            assert!(failing.is_failing());
            if let Some(end) = failing.pause_end() {
                assert!(!failing.is_ready(end - Duration::from_millis(1)));
                pauses.push((end - now).as_millis());
                now = end;
            }
        }
        let doubled = [100, 200, 400, 800, 1600, 3200, 6400];
        assert_eq!(pauses, [&doubled[..], &[10_000, 10_000]].concat());
        assert!(!failing.is_ready(now));

        let working = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listeners = [failing, listener(&working)];
        assert!(given_up_error(&mut listeners).is_none());
        let error = given_up_error(&mut listeners[..1]).unwrap().to_string();
        assert!(error.starts_with("cannot accept on '127.0.0.1:"), "{error}");
        assert!(given_up_error(&mut []).is_none());
    }

    #[test]
    fn other_failures_never_end_the_socket_and_are_logged_once_a_minute() {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut listener = listener(&socket);
        let first = Instant::now();
        let mut fail = |seconds| {
            let now = first + Duration::from_secs(seconds);
            listener.fail(io::Error::from_raw_os_error(EPERM), now);
            assert!(!listener.is_given_up());
            listener
                .last_warning
                .unwrap()
                .duration_since(first)
                .as_secs()
        };
        let warned: Vec<u64> = [0, 1, 59, 60, 61, 119, 120, 121, 122, 123, 124]
            .map(&mut fail)
            .to_vec();
        assert_eq!(warned, [0, 0, 0, 60, 60, 60, 120, 120, 120, 120, 120]);
        // No connection is left, so nothing is to be done at the end of the pause.
        assert!(matches!(listener.accept(first), Accepted::Nothing));
        assert_eq!(listener.pause_end(), None);
        // The next connection ends the failures.
        let _client = std::net::TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        let accepted = listener.accept(first);
        assert!(matches!(accepted, Accepted::Connection(_, Some(_))));
        assert!(!listener.is_failing());
    }

    #[test]
    fn accept_errors_are_transient_shortages_lasting_or_unknown() {
        let check = |errnos: &[i32], expected: [bool; 3]| {
            for errno in errnos {
                let error = io::Error::from_raw_os_error(*errno);
                let actual = [
                    is_transient(&error),
                    is_shortage(&error),
                    is_lasting(&error),
                ];
                assert_eq!(actual, expected, "{error}");
            }
        };
        check(
            &[103, 104, 110, 4, 71, 92, 100, 101, 112, 113, 64, 1],
            [true, false, false],
        );
        check(&[12, 23, 24, 28, 105], [false, true, false]);
        check(&[9, 22, 88, 95], [false, false, true]);
        check(&[5, 13], [false, false, false]);
    }
}
