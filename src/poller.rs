//! Waits for sockets; wraps mio (epoll(7)).

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll};

use crate::socket::Interest;

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

fn to_mio(interest: Interest) -> mio::Interest {
    match interest {
        Interest::Readable => mio::Interest::READABLE,
        Interest::ReadableAndWritable => mio::Interest::READABLE | mio::Interest::WRITABLE,
    }
}

/// An epoll(7) instance. It is edge-triggered: a socket is reported once for each
/// change, so it must be used until it returns EAGAIN.
pub struct Poller {
    poll: Poll,
    events: Events,
}

impl Poller {
    /// A poller without registered sockets.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(256),
        })
    }

    /// Reports `socket` as `token` whenever it becomes ready for `interest`.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn register(
        &self,
        socket: &impl AsRawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.poll.registry().register(
            &mut SourceFd(&socket.as_raw_fd()),
            token.to_mio(),
            to_mio(interest),
        )
    }

    /// Reports a registered socket when it becomes ready for `interest` instead.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn reregister(
        &self,
        socket: &impl AsRawFd,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.poll.registry().reregister(
            &mut SourceFd(&socket.as_raw_fd()),
            token.to_mio(),
            to_mio(interest),
        )
    }

    /// Waits until sockets are ready, or until `timeout` has expired (`None`: without
    /// limit), and returns them. None is ready after the timeout, and when a signal
    /// interrupts the wait.
    ///
    /// # Errors
    /// Those of epoll_wait(2), except EINTR.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Token>> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            result => result?,
        }
        let ready = self.events.iter();
        Ok(ready.map(|event| Token::from_mio(event.token())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

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
        let mut poller = Poller::new().unwrap();
        let (socket, peer) = UnixStream::pair().unwrap();
        poller
            .register(&socket, Token::Connection(7), Interest::Readable)
            .unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        drop(peer);
        let timeout = Some(Duration::from_secs(5));
        assert_eq!(poller.wait(timeout).unwrap(), [Token::Connection(7)]);
    }

    #[test]
    fn reregistered_socket_is_reported_for_its_new_interest() {
        let mut poller = Poller::new().unwrap();
        let (socket, _peer) = UnixStream::pair().unwrap();
        let token = Token::Connection(7);
        poller.register(&socket, token, Interest::Readable).unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        poller
            .reregister(&socket, token, Interest::ReadableAndWritable)
            .unwrap();
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), [token]);
    }
}
