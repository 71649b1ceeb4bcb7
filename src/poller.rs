//! Waits for sockets; wraps mio (epoll(7)).

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll};

/// What a registered socket is, as stored in the 64 bits of data that epoll(7)
/// returns with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token {
    /// A listening socket, by its index.
    Listener(usize),
    /// A connection, by its key.
    Connection(usize),
    /// The socket that the signal handlers write to.
    Signals,
}

impl Token {
    /// The kind in the lowest two bits, the number above.
    fn to_mio(self) -> mio::Token {
        mio::Token(match self {
            Self::Signals => 0,
            Self::Listener(index) => (index << 2) + 1,
            Self::Connection(key) => (key << 2) + 2,
        })
    }

    fn from_mio(token: mio::Token) -> Self {
        let number = token.0 >> 2;
        match token.0 & 3 {
            0 => Self::Signals,
            1 => Self::Listener(number),
            _ => Self::Connection(number),
        }
    }
}

/// An epoll(7) instance. It is edge-triggered: a socket is reported once for each
/// change, so it must be used until it returns EAGAIN. A closed socket is no longer
/// reported.
#[derive(Debug)]
pub struct Poller {
    /// Borrowed during a call only: what waits and what registers share the instance.
    poll: RefCell<Poll>,
    events: RefCell<Events>,
}

impl Poller {
    /// Creates an instance without registered sockets.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: RefCell::new(Poll::new()?),
            events: RefCell::new(Events::with_capacity(256)),
        })
    }

    /// Reports `socket` as `token` whenever it becomes readable.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn register_readable(&self, socket: &impl AsRawFd, token: Token) -> io::Result<()> {
        self.register(socket, token, Interest::READABLE)
    }

    /// Reports `socket` as `token` whenever there is input or room to send, when the peer
    /// has closed, and when it has acknowledged the FIN of shutdown(2): the kernel reports
    /// that only to those who wait for room to send.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn register_connection(&self, socket: &impl AsRawFd, token: Token) -> io::Result<()> {
        self.register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    fn register(&self, socket: &impl AsRawFd, token: Token, interest: Interest) -> io::Result<()> {
        let fd = socket.as_raw_fd();
        let poll = self.poll.borrow();
        let registry = poll.registry();
        registry.register(&mut SourceFd(&fd), token.to_mio(), interest)
    }

    /// Waits until sockets are ready, or until `timeout` has expired (`None`: without
    /// limit), and returns them. None is ready after the timeout, and when a signal
    /// interrupts the wait.
    ///
    /// # Errors
    /// Those of epoll_wait(2), except EINTR.
    pub fn wait(&self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        let mut events = self.events.borrow_mut();
        match self.poll.borrow_mut().poll(&mut events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            result => result?,
        }
        let ready = events.iter();
        Ok(ready.map(|event| Token::from_mio(event.token())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use crate::socket::Socket;
    use crate::socket::tests::pair_with_small_window;

    #[test]
    fn tokens_survive_the_way_through_epoll() {
        for token in [
            Token::Signals,
            Token::Listener(0),
            Token::Listener(4095),
            Token::Connection(0),
            Token::Connection(1_000_000),
        ] {
            assert_eq!(Token::from_mio(token.to_mio()), token);
        }
    }

    #[test]
    fn wait_reports_ready_sockets() {
        let poller = Poller::new().unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        let token = Token::Connection(7);
        poller.register_readable(&socket, token).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        drop(peer);
        let timeout = Some(Duration::from_secs(5));
        assert_eq!(poller.wait(timeout).unwrap(), [token]);
    }

    #[test]
    fn connection_is_reported_for_room_and_for_input() {
        let poller = Poller::new().unwrap();
        let (socket, mut peer) = UnixStream::pair().unwrap();
        let token = Token::Connection(7);
        poller.register_connection(&socket, token).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), [token]);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        peer.write_all(b"x").unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), [token]);
    }

    /// What tells that a greeting was delivered: the peer's kernel has all of it and the
    /// FIN, whether its program has read it or not.
    #[test]
    fn acknowledgement_of_the_fin_is_reported() {
        let (server, mut client) = pair_with_small_window();
        let sent = server.send(&[b'x'; 100_000]).unwrap();
        server.shutdown(Shutdown::Write).unwrap();

        let poller = Poller::new().unwrap();
        let token = Token::Connection(7);
        poller.register_connection(&server, token).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), [token]);
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        client.read_exact(&mut vec![0; sent]).unwrap();
        let server = Socket::from(OwnedFd::from(server));
        while !server.is_delivered() {
            let timeout = Some(Duration::from_secs(5));
            assert_eq!(poller.wait(timeout).unwrap(), [token]);
        }
    }
}
