//! Waits for sockets and signals; wraps mio (epoll(7)) and signal-hook.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::socket::{self, Interest};

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
            Self::Listener(index) => index << 2 | 1,
            Self::Connection(key) => key << 2 | 2,
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

/// What [`Poller::wait`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// SIGHUP: reload the settings.
    Reload,
    /// SIGTERM or SIGINT: stop.
    Stop,
    /// The backlog of the listener of this index may be non-empty.
    Listener(usize),
    /// The connection of this key may be able to make progress.
    Connection(usize),
}

/// An epoll(7) instance. It is edge-triggered: a socket is reported once for each
/// change, so it must be used until it returns EAGAIN.
pub struct Poller {
    poll: Poll,
    events: Events,
    signals: Option<SignalDelivery<UnixStream, SignalOnly>>,
}

impl Poller {
    /// A poller without registered sockets and signals.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(256),
            signals: None,
        })
    }

    /// Reports SIGHUP, SIGTERM and SIGINT as events from now on; they no longer
    /// end the process. Their handlers write a byte into a socket pair, which is
    /// safe in a signal handler (signal-safety(7)).
    ///
    /// # Errors
    /// Those of socketpair(2), epoll_ctl(2) and sigaction(2).
    pub fn register_signals(&mut self) -> io::Result<()> {
        let (read, write) = socket::pair()?;
        self.register(&read, Token::Signals, Interest::Readable)?;
        let signals = [SIGHUP, SIGTERM, SIGINT];
        let delivery = SignalDelivery::with_pipe(read, write, SignalOnly, signals)?;
        self.signals = Some(delivery);
        Ok(())
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
        let interest = match interest {
            Interest::Readable => mio::Interest::READABLE,
            Interest::ReadableAndWritable => mio::Interest::READABLE | mio::Interest::WRITABLE,
        };
        self.poll
            .registry()
            .register(&mut SourceFd(&socket.as_raw_fd()), token.to_mio(), interest)
    }

    /// Waits for events until `timeout` has expired (`None`: without limit). The
    /// result is empty after the timeout, and when a signal interrupts the wait.
    ///
    /// # Errors
    /// Those of epoll_wait(2), except EINTR.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Event>> {
        match self.poll.poll(&mut self.events, timeout) {
            // The signal is reported by the next wait.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            result => result?,
        }
        let mut reported = Vec::new();
        for event in &self.events {
            match Token::from_mio(event.token()) {
                Token::Listener(index) => reported.push(Event::Listener(index)),
                Token::Connection(key) => reported.push(Event::Connection(key)),
                Token::Signals => {
                    if let Some(signals) = &mut self.signals {
                        // Two signals of one kind before this call are reported as one.
                        reported.extend(signals.pending().map(signal_event));
                    }
                }
            }
        }
        Ok(reported)
    }
}

fn signal_event(signal: i32) -> Event {
    if signal == SIGHUP {
        Event::Reload
    } else {
        Event::Stop
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn wait_reports_signals_and_sockets() {
        let mut poller = Poller::new().unwrap();
        poller.register_signals().unwrap();
        let timeout = Some(Duration::from_secs(5));
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(poller.wait(timeout).unwrap(), [Event::Reload]);
        let (socket, peer) = UnixStream::pair().unwrap();
        poller
            .register(&socket, Token::Connection(7), Interest::Readable)
            .unwrap();
        drop(peer);
        assert_eq!(poller.wait(timeout).unwrap(), [Event::Connection(7)]);
    }
}
