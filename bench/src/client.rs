//! One client: what it has sent and received, and its outcome.

use std::io::{self, ErrorKind, Read, Write};
use std::time::Instant;

use rustix::io::Errno;
use socket2::Socket;

/// How the connection of a client ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every expected byte, then EOF.
    Greeted,
    /// EOF without a byte.
    Empty,
    /// EOF before the last byte.
    Short,
    /// Other bytes than expected, or more.
    Mismatched,
    /// A reset after the whole greeting was received.
    ResetAfter,
    /// A reset before the whole greeting was received.
    ResetBefore,
    Refused,
    /// No EOF within the client's timeout.
    Timeout,
    /// Any other error.
    Failed(io::Error),
}

/// A client that is connected or connecting.
#[derive(Debug)]
pub struct Client {
    pub socket: Socket,
    /// The index of its target in the plan.
    pub target: usize,
    /// When it called connect(2) first.
    pub started_at: Instant,
    /// When it received the last byte of the greeting.
    pub last_byte_at: Option<Instant>,
    sent: usize,
    received: usize,
    is_mismatched: bool,
    is_reset: bool,
}

impl Client {
    #[must_use]
    pub fn new(socket: Socket, target: usize, started_at: Instant) -> Self {
        Client {
            socket,
            target,
            started_at,
            last_byte_at: None,
            sent: 0,
            received: 0,
            is_mismatched: false,
            is_reset: false,
        }
    }

    /// Sends more of `request`; returns true once all of it is sent, or a reset
    /// makes that impossible.
    pub fn send(&mut self, request: &[u8]) -> bool {
        while self.sent < request.len() && !self.is_reset {
            match (&self.socket).write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The kernel reports this error only once: data that was received
                // before the reset can still be read, and is followed by EOF.
                Err(error) if is_reset(&error) => self.is_reset = true,
                // Not connected yet, or the send buffer is full. The next read
                // reports any other error again.
                Err(_) => return false,
            }
        }
        true
    }

    /// Receives what is available; `None` if the connection is still open.
    pub fn receive(&mut self, buffer: &mut [u8], expected: Option<&[u8]>) -> Option<Outcome> {
        loop {
            match (&self.socket).read(buffer) {
                Ok(0) if self.is_reset => return Some(self.outcome_at_reset(expected)),
                Ok(0) => return Some(self.outcome_at_eof(expected)),
                Ok(count) => self.record(&buffer[..count], expected),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if is_reset(&error) => return Some(self.outcome_at_reset(expected)),
                Err(error) => {
                    return Some(match error.kind() {
                        ErrorKind::ConnectionRefused => Outcome::Refused,
                        ErrorKind::TimedOut => Outcome::Timeout,
                        _ => Outcome::Failed(error),
                    });
                }
            }
        }
    }

    /// Whether the connection is established.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.socket.peer_addr().is_ok()
    }

    fn record(&mut self, bytes: &[u8], expected: Option<&[u8]>) {
        if let Some(expected) = expected {
            let rest = expected.get(self.received..).unwrap_or_default();
            self.is_mismatched |= !rest.starts_with(bytes);
        }
        self.received += bytes.len();
        self.last_byte_at = Some(Instant::now());
    }

    fn is_complete(&self, expected: Option<&[u8]>) -> bool {
        !self.is_mismatched
            && match expected {
                Some(expected) => self.received == expected.len(),
                None => self.received > 0,
            }
    }

    fn outcome_at_eof(&self, expected: Option<&[u8]>) -> Outcome {
        if self.is_complete(expected) {
            Outcome::Greeted
        } else if self.received == 0 {
            Outcome::Empty
        } else if self.is_mismatched {
            Outcome::Mismatched
        } else {
            Outcome::Short
        }
    }

    fn outcome_at_reset(&self, expected: Option<&[u8]>) -> Outcome {
        if self.is_complete(expected) {
            Outcome::ResetAfter
        } else {
            Outcome::ResetBefore
        }
    }
}

/// Linux reports EPIPE instead of ECONNRESET if the peer's FIN came before the reset.
fn is_reset(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    [Errno::CONNRESET, Errno::PIPE]
        .iter()
        .any(|reset| errno == Some(reset.raw_os_error()))
}
