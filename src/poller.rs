//! Waits for sockets and signals; the door to mio and signal-hook. Floor 3.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::socket;

/// What woke us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Told to read the settings again: SIGHUP.
    Reload,
    /// Told to stop: SIGTERM or SIGINT.
    Stop,
    /// A socket that was registered under this number.
    Socket(usize),
}

/// The number of the socket into which the signal handlers write.
const SIGNALS: usize = usize::MAX - 1;

/// An epoll(7) instance. Sockets are reported once a change, so whoever is told
/// of one must use it until it would block.
pub struct Poller {
    poll: Poll,
    events: Events,
    signals: Option<SignalDelivery<UnixStream, SignalOnly>>,
}

impl Poller {
    /// An instance without signals.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(256),
            signals: None,
        })
    }

    /// From here on signals are reported instead of ending the process. Their
    /// handlers write a byte into a socket: all that one may do in a handler
    /// (signal-safety(7)).
    ///
    /// # Errors
    /// The kernel gives no descriptors.
    pub fn watch_signals(&mut self) -> io::Result<()> {
        let (ours, theirs) = socket::pair()?;
        self.watch(&ours, SIGNALS, false)?;
        let signals = [SIGHUP, SIGTERM, SIGINT];
        let delivery = SignalDelivery::with_pipe(ours, theirs, SignalOnly, signals)?;
        self.signals = Some(delivery);
        Ok(())
    }

    /// Reports `socket` under `number` whenever it can be read from, and where
    /// `output` is set, whenever it can be written to.
    ///
    /// # Errors
    /// The kernel's, of epoll_ctl(2).
    pub fn watch(&self, socket: &impl AsRawFd, number: usize, output: bool) -> io::Result<()> {
        let interest = match output {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let (registry, fd) = (self.poll.registry(), socket.as_raw_fd());
        registry.register(&mut SourceFd(&fd), Token(number), interest)
    }

    /// Waits until something happens or `timeout` is over (none: for ever), and
    /// says what happened.
    ///
    /// # Errors
    /// The kernel's, of epoll_wait(2).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<Vec<Wake>> {
        match self.poll.poll(&mut self.events, timeout) {
            // The socket tells of the signal in the next turn.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            polled => polled?,
        }
        let mut wakes = Vec::new();
        let told = |signal| {
            if signal == SIGHUP {
                Wake::Reload
            } else {
                Wake::Stop
            }
        };
        for event in &self.events {
            match (event.token().0, &mut self.signals) {
                // Two signals of a kind before we look are one.
                (SIGNALS, Some(signals)) => wakes.extend(signals.pending().map(told)),
                (number, _) => wakes.push(Wake::Socket(number)),
            }
        }
        Ok(wakes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_and_a_socket_wake_and_silence_does_not() {
        let mut poller = Poller::new().unwrap();
        poller.watch_signals().unwrap();
        let patience = Some(Duration::from_secs(5));
        assert_eq!(poller.wait(Some(Duration::ZERO)).unwrap(), []);
        signal_hook::low_level::raise(SIGHUP).unwrap();
        assert_eq!(poller.wait(patience).unwrap(), [Wake::Reload]);
        let (ours, theirs) = UnixStream::pair().unwrap();
        poller.watch(&ours, 7, false).unwrap();
        drop(theirs);
        assert_eq!(poller.wait(patience).unwrap(), [Wake::Socket(7)]);
    }
}
