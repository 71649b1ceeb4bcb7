//! Waits for sockets and signals; the door to mio and signal-hook. Floor 3.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

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

const RELOAD: Token = Token(usize::MAX - 1);
const STOP: Token = Token(usize::MAX - 2);

/// An epoll(7) instance. Sockets are reported once a change, so whoever is told
/// of one must use it until it would block.
#[derive(Debug)]
pub struct Poller {
    poll: Poll,
    events: Events,
    reload: Option<UnixStream>,
    stop: Option<UnixStream>,
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
            reload: None,
            stop: None,
        })
    }

    /// From here on signals are reported instead of ending the process.
    ///
    /// # Errors
    /// The kernel gives no descriptor.
    pub fn watch_signals(&mut self) -> io::Result<()> {
        self.reload = Some(self.signal_pipe(&[SIGHUP], RELOAD)?);
        self.stop = Some(self.signal_pipe(&[SIGTERM, SIGINT], STOP)?);
        Ok(())
    }

    /// Reports `socket` under `number` whenever it can be read from.
    ///
    /// # Errors
    /// The kernel's, of epoll_ctl(2).
    pub fn watch_input(&self, socket: &impl AsRawFd, number: usize) -> io::Result<()> {
        self.watch(socket.as_raw_fd(), Token(number), Interest::READABLE)
    }

    /// Reports `socket` under `number` whenever it can be read from or written to.
    ///
    /// # Errors
    /// The kernel's, of epoll_ctl(2).
    pub fn watch_both(&self, socket: &impl AsRawFd, number: usize) -> io::Result<()> {
        self.watch(
            socket.as_raw_fd(),
            Token(number),
            Interest::READABLE | Interest::WRITABLE,
        )
    }

    /// Waits until something happens or `timeout` is over (none: for ever) and
    /// appends what happened to `wakes`.
    ///
    /// # Errors
    /// The kernel's, of epoll_wait(2).
    pub fn wait(&mut self, timeout: Option<Duration>, wakes: &mut Vec<Wake>) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            // The pipes tell of the signal in the next turn.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        for event in &self.events {
            wakes.push(match event.token() {
                RELOAD => {
                    empty(self.reload.as_mut());
                    Wake::Reload
                }
                STOP => {
                    empty(self.stop.as_mut());
                    Wake::Stop
                }
                Token(number) => Wake::Socket(number),
            });
        }
        Ok(())
    }

    /// Waits for the one socket that is registered, at most until `deadline`.
    ///
    /// # Errors
    /// The kernel's, of epoll_wait(2).
    pub fn wait_until(&mut self, deadline: Instant) -> io::Result<()> {
        self.wait(
            Some(deadline.saturating_duration_since(Instant::now())),
            &mut Vec::new(),
        )
    }

    fn watch(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        self.poll
            .registry()
            .register(&mut SourceFd(&fd), token, interest)
    }

    /// A socket pair into which a signal handler writes a byte: all that one may
    /// do in a handler (signal-safety(7)).
    fn signal_pipe(&self, signals: &[i32], token: Token) -> io::Result<UnixStream> {
        let (ours, theirs) = socket::pair()?;
        self.watch(ours.as_raw_fd(), token, Interest::READABLE)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, theirs.try_clone()?)?;
        }
        Ok(ours)
    }
}

/// Two signals before we look are one.
fn empty(pipe: Option<&mut UnixStream>) {
    let mut bytes = [0; 64];
    if let Some(pipe) = pipe {
        while pipe.read(&mut bytes).is_ok_and(|count| count > 0) {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_and_a_socket_wake_and_silence_does_not() {
        let mut poller = Poller::new().unwrap();
        poller.watch_signals().unwrap();
        let mut wakes = Vec::new();
        poller.wait(Some(Duration::ZERO), &mut wakes).unwrap();
        assert_eq!(wakes, []);
        signal_hook::low_level::raise(SIGHUP).unwrap();
        poller
            .wait(Some(Duration::from_secs(5)), &mut wakes)
            .unwrap();
        assert_eq!(wakes, [Wake::Reload]);
        let (ours, theirs) = UnixStream::pair().unwrap();
        poller.watch_input(&ours, 7).unwrap();
        drop(theirs);
        wakes.clear();
        poller
            .wait(Some(Duration::from_secs(5)), &mut wakes)
            .unwrap();
        assert_eq!(wakes, [Wake::Socket(7)]);
    }
}
