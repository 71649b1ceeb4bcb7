//! A listening socket with its greeting, and the errors of accept(2).

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;

use super::connection::Connection;
use super::endpoint::Endpoint;
use crate::greeting::Greeting;
use crate::mode::Mode;
use crate::settings::{Limits, Settings};
use crate::socket::{ListenSocket, Socket};
use crate::sys::ffi::errno::{
    ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN, ENETUNREACH,
    ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOSPC, EOPNOTSUPP, EPERM, EPROTO, ETIMEDOUT,
};

/// A listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: ListenSocket,
    endpoint: Rc<Endpoint>,
    greeting: Greeting,
    limits: Rc<Limits>,
    may_have_pending: bool,
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
            greeting: endpoint.adopt(settings.greetings.for_socket(&endpoint.name)),
            limits: Rc::clone(&settings.limits),
            socket,
            endpoint: Rc::new(endpoint),
            may_have_pending: true,
        }
    }

    /// Applies new settings to the connections that are accepted from now on.
    pub fn apply_settings(&mut self, settings: &Settings) {
        let greeting = settings.greetings.for_socket(&self.endpoint.name);
        self.greeting = self.endpoint.adopt(greeting);
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

    /// Whether the backlog may be non-empty: accept until it is not.
    pub fn may_have_pending(&self) -> bool {
        self.may_have_pending
    }

    /// Called when epoll(7) has reported the socket.
    pub fn set_may_have_pending(&mut self) {
        self.may_have_pending = true;
    }

    /// Accepts the next connection. `None` if there is none (the backlog is empty),
    /// or if it failed before it was accepted (a transient error).
    ///
    /// # Errors
    /// Those of accept(2) that concern the process ([`is_shortage`]) or the socket.
    pub fn accept(&mut self) -> io::Result<Option<(Socket, Option<SocketAddr>)>> {
        match self.socket.accept() {
            Ok(accepted) => Ok(Some(accepted)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.may_have_pending = false;
                Ok(None)
            }
            Err(error) if is_transient(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The connection of an accepted socket, with the greeting and limits in force.
    pub fn connection(&self, socket: Socket, peer: Option<SocketAddr>, now: Instant) -> Connection {
        let greeting = self.endpoint.render(&self.greeting, &socket, peer);
        let endpoint = Rc::clone(&self.endpoint);
        let limits = Rc::clone(&self.limits);
        Connection::new(socket, peer, endpoint, greeting, limits, now)
    }
}

/// Whether an error of accept(2) concerns only the connection that it would have
/// returned. accept(2) lists the network errors that are to be treated like EAGAIN;
/// EPERM is a firewall's.
fn is_transient(error: &io::Error) -> bool {
    const NETWORK_ERRORS: [i32; 8] = [
        ENETDOWN,
        EPROTO,
        ENOPROTOOPT,
        EHOSTDOWN,
        ENONET,
        EHOSTUNREACH,
        EOPNOTSUPP,
        ENETUNREACH,
    ];
    const OTHER_ERRORS: [i32; 5] = [ECONNABORTED, ECONNRESET, ETIMEDOUT, EPERM, EINTR];
    error
        .raw_os_error()
        .is_some_and(|errno| NETWORK_ERRORS.contains(&errno) || OTHER_ERRORS.contains(&errno))
}

/// Whether the process or the system is out of descriptors, memory or epoll watches.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(ENOMEM | ENFILE | EMFILE | ENOBUFS | ENOSPC)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_errors_are_transient_shortages_or_fatal() {
        let check = |errnos: &[i32], transient, shortage| {
            for errno in errnos {
                let error = io::Error::from_raw_os_error(*errno);
                assert_eq!(is_transient(&error), transient, "{error}");
                assert_eq!(is_shortage(&error), shortage, "{error}");
            }
        };
        check(&[103, 4, 71, 113, 1], true, false);
        check(&[12, 23, 24, 105], false, true);
        check(&[9, 22, 88], false, false);
    }
}
