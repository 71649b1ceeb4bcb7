//! A client, and what it receives.

use std::io::{self, ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::program::Program;

/// How long a read waits before the client checks whether greeter has ended.
const READ_TIMEOUT: Duration = Duration::from_millis(10);

/// How the connection ended from the client's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The end of file.
    Eof,
    /// A reset, or the connection was refused.
    Reset,
    /// None: greeter has ended, and the connection is in the backlog.
    Waiting,
    /// None within the deadline.
    Hang,
}

/// A connection to greeter.
pub struct Client {
    /// `None` after the client has closed.
    socket: Option<Socket>,
    /// The client's own port, if it uses TCP.
    pub port: Option<u16>,
    pub received: Vec<u8>,
    pub end: Option<End>,
    /// What it must receive; `None`: nothing, and it stays in the backlog.
    pub expected: Option<Vec<u8>>,
    /// The greeting before the reload that preceded this client.
    pub outdated: Option<Vec<u8>>,
}

impl Client {
    /// Connects. `receive_buffer` is the size of the receive buffer, if not the default.
    pub fn connect(address: &SockAddr, receive_buffer: Option<usize>) -> Self {
        let socket = Socket::new(address.domain(), Type::STREAM, None).unwrap();
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size).unwrap();
        }
        let is_connected = socket.connect(address).is_ok();
        socket.set_read_timeout(Some(READ_TIMEOUT)).unwrap();
        let port = match socket.local_addr() {
            Ok(address) if address.domain() != Domain::UNIX => {
                address.as_socket().map(|address| address.port())
            }
            _ => None,
        };
        Self {
            socket: Some(socket),
            port,
            received: Vec::new(),
            end: (!is_connected).then_some(End::Reset),
            expected: None,
            outdated: None,
        }
    }

    pub fn expect(mut self, greeting: &[u8]) -> Self {
        self.expected = Some(greeting.to_owned());
        self
    }

    /// The greeting that a client would have received before a reload.
    pub fn instead_of(mut self, outdated: &[u8]) -> Self {
        self.outdated = Some(outdated.to_owned());
        self
    }

    pub fn send(&mut self, bytes: &[u8]) {
        if let Some(socket) = &mut self.socket {
            // An error is seen by the next read.
            let _ = socket.write_all(bytes);
        }
    }

    pub fn close(&mut self) {
        self.socket = None;
    }

    /// Reads until at least `length` bytes were received, or until the end.
    pub fn read_at_least(&mut self, length: usize, program: &mut Program) {
        while self.end.is_none() && self.received.len() < length {
            self.read(8192, program);
        }
    }

    /// Reads until the end.
    pub fn read_to_end(&mut self, program: &mut Program) {
        self.read_at_least(usize::MAX, program);
    }

    /// Reads until the end, `size` bytes after each `pause`.
    pub fn read_slowly(&mut self, size: usize, pause: Duration, program: &mut Program) {
        let begun = Instant::now();
        let mut reads = 0;
        while self.end.is_none() {
            self.read(size, program);
            reads += 1;
            let next = begun + pause * reads;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    fn read(&mut self, size: usize, program: &mut Program) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        let was_running = program.is_running();
        let mut buffer = vec![0; size];
        match socket.read(&mut buffer) {
            Ok(0) => self.end = Some(End::Eof),
            Ok(length) => self.received.extend_from_slice(&buffer[..length]),
            Err(error) if is_timeout(&error) && !was_running => self.end = Some(End::Waiting),
            Err(error) if is_timeout(&error) && program.is_late() => self.end = Some(End::Hang),
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.end = Some(End::Reset),
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
