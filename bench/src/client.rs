//! One client: what it sends, what it read, and how that ended.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use rustix::io::Errno;
use socket2::Socket;

/// How one client's visit ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every byte as expected, then a clean end.
    Greeted,
    /// A clean end without a single byte.
    Empty,
    /// A clean end before the last byte.
    Short,
    /// Other bytes than expected, or more.
    Mismatched,
    /// A reset with the whole greeting already read.
    ResetAfter,
    /// A reset that took the greeting, or part of it, away.
    ResetBefore,
    Refused,
    /// Not at its end when its time was over.
    Timeout,
    /// Anything else that the kernel reported.
    Failed(io::Error),
}

/// A client whose connection exists or is about to.
#[derive(Debug)]
pub struct Client {
    pub socket: Socket,
    pub target: usize,
    pub started: Instant,
    /// When the last byte of the greeting had been read.
    pub last_byte: Option<Instant>,
    said: usize,
    read: usize,
    differs: bool,
    reset: bool,
}

impl Client {
    #[must_use]
    pub fn new(socket: Socket, target: usize, started: Instant) -> Self {
        Client {
            socket,
            target,
            started,
            last_byte: None,
            said: 0,
            read: 0,
            differs: false,
            reset: false,
        }
    }

    /// Sends on; true once all of it is on its way, or never will be.
    pub fn talk(&mut self, speech: &[u8]) -> bool {
        while self.said < speech.len() && !self.reset {
            match (&self.socket).write(&speech[self.said..]) {
                Ok(n) => self.said += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // This error is reported once: what was read before a reset
                // can still be read, and looks like a clean end afterwards.
                Err(e) if is_reset(&e) => self.reset = true,
                // Not connected yet, or no room; any other error comes again
                // with the next read.
                Err(_) => return false,
            }
        }
        true
    }

    /// Reads what there is; `None` as long as more may come.
    pub fn listen(&mut self, buffer: &mut [u8], expected: Option<&[u8]>) -> Option<Outcome> {
        loop {
            match (&self.socket).read(buffer) {
                Ok(0) if self.reset => return Some(self.cut_off(expected)),
                Ok(0) => return Some(self.ended(expected)),
                Ok(n) => self.compare(&buffer[..n], expected),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return None,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if is_reset(&e) => return Some(self.cut_off(expected)),
                Err(e) => {
                    return Some(match e.kind() {
                        ErrorKind::ConnectionRefused => Outcome::Refused,
                        ErrorKind::TimedOut => Outcome::Timeout,
                        _ => Outcome::Failed(e),
                    });
                }
            }
        }
    }

    /// Whether the kernel ever finished connecting.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.socket.peer_addr().is_ok()
    }

    fn compare(&mut self, bytes: &[u8], expected: Option<&[u8]>) {
        if let Some(expected) = expected {
            let rest = expected.get(self.read..).unwrap_or_default();
            self.differs |= !rest.starts_with(bytes);
        }
        self.read += bytes.len();
        self.last_byte = Some(Instant::now());
    }

    fn is_whole(&self, expected: Option<&[u8]>) -> bool {
        !self.differs && expected.map_or(self.read > 0, |e| self.read == e.len())
    }

    fn ended(&self, expected: Option<&[u8]>) -> Outcome {
        if self.is_whole(expected) {
            Outcome::Greeted
        } else if self.read == 0 {
            Outcome::Empty
        } else if self.differs {
            Outcome::Mismatched
        } else {
            Outcome::Short
        }
    }

    fn cut_off(&self, expected: Option<&[u8]>) -> Outcome {
        if self.is_whole(expected) {
            Outcome::ResetAfter
        } else {
            Outcome::ResetBefore
        }
    }
}

/// Linux says EPIPE instead of ECONNRESET where the peer's end came first.
fn is_reset(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [Errno::CONNRESET, Errno::PIPE]
        .iter()
        .any(|e| errno == Some(e.raw_os_error()))
}
