//! One connection from accept(2) to close(2), as a state machine that never blocks
//! and knows no epoll: the caller decides when to call [`Connection::advance`].
//!
//! close(2) must not destroy the greeting. If input is unread, it makes the kernel
//! send a reset, and the peer's kernel then drops what the client has not read yet.
//! So: send, shutdown(2), discard input until the peer closes, then close.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use crate::settings::Limits;
use crate::socket::{DiscardBuffer, Interest, LocalAddr, Socket};
use crate::sys::ffi::errno::{ENOBUFS, ENOMEM};

/// How often the kernel is asked whether an expired connection's greeting was delivered.
const DELIVERY_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    endpoint: Rc<Endpoint>,
    limits: Rc<Limits>,
    /// The peer's address; `None` for a Unix socket.
    peer: Option<SocketAddr>,
    accepted_at: Instant,
    /// Bytes of the greeting that the kernel has accepted.
    sent: usize,
    state: State,
}

/// Where a connection stands. Each state has its own deadline.
#[derive(Debug)]
enum State {
    /// The kernel has not accepted all of the greeting yet.
    Sending {
        greeting: Rc<[u8]>,
        /// The end of `write_timeout`.
        deadline: Instant,
    },
    /// Input is discarded until the peer closes.
    Closing {
        /// Bytes that may still be discarded, of `linger_bytes`.
        discard_budget: usize,
        /// The end of `linger_timeout`, or of an extension until delivery.
        linger_until: Instant,
        /// When the connection is closed even if the greeting was not delivered.
        hard_deadline: Instant,
    },
}

/// What [`Connection::advance`] led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The kernel has accepted all of the greeting; the FIN follows it.
    GreetingSent,
    /// Nothing can be done before the socket is ready.
    Pending(Interest),
    /// The peer has disconnected before the greeting was sent.
    Disconnected,
    /// The connection can be closed without losing anything.
    Done,
}

/// How a connection ended for the client: the journal field `GREETER_RESULT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel has accepted all of the greeting.
    Sent,
    /// The peer disconnected before that.
    Disconnected,
    /// The peer did not receive the greeting within `write_timeout`.
    TimedOut,
    /// The peer's address has `connections_per_source` open connections.
    Refused,
}

impl Connection {
    /// A connection that nothing was sent on yet.
    pub fn new(
        socket: Socket,
        peer: Option<SocketAddr>,
        endpoint: Rc<Endpoint>,
        greeting: Rc<[u8]>,
        limits: Rc<Limits>,
        now: Instant,
    ) -> Self {
        let deadline = now + limits.write_timeout;
        Self {
            socket,
            endpoint,
            limits,
            peer,
            accepted_at: now,
            sent: 0,
            state: State::Sending { greeting, deadline },
        }
    }

    /// The socket, to be registered.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The socket that the client connected to.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address that the client connected to.
    pub fn local_addr(&self) -> LocalAddr {
        self.endpoint.local_addr_of(&self.socket)
    }

    /// The peer's address; `None` for a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The limits that the connection was accepted with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// When the connection was accepted.
    pub fn accepted_at(&self) -> Instant {
        self.accepted_at
    }

    /// Bytes of the greeting that the kernel has accepted.
    pub fn bytes_sent(&self) -> usize {
        self.sent
    }

    /// Whether the kernel has not accepted all of the greeting yet.
    pub fn is_sending(&self) -> bool {
        matches!(self.state, State::Sending { .. })
    }

    /// When [`Connection::expire_or_extend`] has to be called next.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::Sending { deadline, .. } => deadline,
            State::Closing { linger_until, .. } => linger_until,
        }
    }

    /// Whether the deadline has passed and the connection must be closed.
    ///
    /// A greeting that was sent but not delivered, because packets were lost, extends
    /// the deadline, for at most `write_timeout` after `linger_timeout`: after
    /// close(2) the kernel would answer the peer's next packet with a reset, and not
    /// send the greeting again.
    pub fn expire_or_extend(&mut self, now: Instant) -> bool {
        if now < self.deadline() {
            return false;
        }
        if let State::Closing {
            linger_until,
            hard_deadline,
            ..
        } = &mut self.state
        {
            if now < *hard_deadline && !self.socket.is_delivered() {
                *linger_until = (*hard_deadline).min(now + DELIVERY_CHECK_INTERVAL);
                return false;
            }
        }
        true
    }

    /// Does what is possible without blocking, up to the next state.
    pub fn advance(&mut self, buffer: &mut DiscardBuffer, now: Instant) -> Progress {
        match &mut self.state {
            State::Sending { greeting, .. } => {
                while self.sent < greeting.len() {
                    match self.socket.send(&greeting[self.sent..]) {
                        Ok(accepted) => self.sent += accepted,
                        Err(error) if is_send_buffer_full(&error) => {
                            return Progress::Pending(Interest::ReadableAndWritable);
                        }
                        Err(_) => return Progress::Disconnected,
                    }
                }
                self.begin_close(now);
                Progress::GreetingSent
            }
            State::Closing { discard_budget, .. } => {
                while *discard_budget > 0 {
                    match self.socket.discard(buffer, *discard_budget) {
                        Ok(0) => break,
                        Ok(discarded) => *discard_budget -= discarded,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Progress::Pending(Interest::Readable);
                        }
                        // A reset is the end of input, too.
                        Err(_) => break,
                    }
                }
                Progress::Done
            }
        }
    }

    /// Shuts the sending side down; the peer's close is waited for from now on.
    fn begin_close(&mut self, now: Instant) {
        self.socket.shutdown_write();
        let Limits {
            write_timeout,
            linger_timeout,
            linger_bytes,
            ..
        } = *self.limits;
        self.state = State::Closing {
            discard_budget: if linger_timeout.is_zero() {
                0
            } else {
                linger_bytes as usize
            },
            linger_until: now + linger_timeout,
            hard_deadline: self.accepted_at + write_timeout + linger_timeout,
        };
    }

    /// Ends a connection that is refused: FIN, without a greeting. The input that has
    /// arrived is discarded, so that it does not turn the FIN into a reset.
    pub fn refuse(&self, buffer: &mut DiscardBuffer) {
        self.socket.shutdown_write();
        // An error is ignored: the connection is closed in any case.
        let _ = self.socket.discard(buffer, usize::MAX);
    }
}

/// Whether send(2) failed because the send buffer is full, or, with ENOBUFS and
/// ENOMEM, the buffers of the whole system.
fn is_send_buffer_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || matches!(error.raw_os_error(), Some(ENOBUFS | ENOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Type};

    use crate::mode::Mode;

    const LIMITS: Limits = Limits {
        connections: 1,
        connections_per_source: 0,
        write_timeout: Duration::from_secs(1),
        linger_timeout: Duration::from_secs(1),
        linger_bytes: 8,
        drain_timeout: Duration::from_secs(1),
        idle_timeout: None,
    };

    fn connection(socket: OwnedFd, greeting: &[u8]) -> Connection {
        let endpoint = Endpoint {
            name: "test".to_owned(),
            mode: Mode::Accept,
            local_addr: LocalAddr::Unnamed,
        };
        Connection::new(
            Socket::from(socket),
            None,
            Rc::new(endpoint),
            greeting.into(),
            Rc::new(LIMITS),
            Instant::now(),
        )
    }

    fn unix_connection(greeting: &[u8]) -> (Connection, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        (connection(server.into(), greeting), client)
    }

    fn advance(connection: &mut Connection) -> Progress {
        connection.advance(&mut DiscardBuffer::default(), Instant::now())
    }

    #[test]
    fn input_sent_before_the_greeting_is_discarded() {
        let (mut connection, mut client) = unix_connection(b"hello\n");
        client.write_all(b"GET /").unwrap();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        assert_eq!(
            advance(&mut connection),
            Progress::Pending(Interest::Readable)
        );
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "hello\n");
        drop(client);
        assert_eq!(advance(&mut connection), Progress::Done);
    }

    #[test]
    fn discarded_input_is_limited_by_linger_bytes() {
        let (mut connection, mut client) = unix_connection(b"");
        client.write_all(b"0123456789").unwrap();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        assert_eq!(advance(&mut connection), Progress::Done);
    }

    #[test]
    fn large_greeting_is_sent_in_parts() {
        let greeting = vec![b'x'; 4 << 20];
        let (mut connection, mut client) = unix_connection(&greeting);
        // Before the reader starts: the send buffer is certain to fill up.
        assert_eq!(
            advance(&mut connection),
            Progress::Pending(Interest::ReadableAndWritable)
        );
        let reader = std::thread::spawn(move || {
            let mut received = Vec::new();
            client.read_to_end(&mut received).map(|_| received)
        });
        while advance(&mut connection) != Progress::GreetingSent {
            std::thread::yield_now();
        }
        assert_eq!(reader.join().unwrap().unwrap(), greeting);
    }

    #[test]
    fn closed_peer_is_disconnected() {
        let (mut connection, client) = unix_connection(b"hello\n");
        drop(client);
        assert_eq!(advance(&mut connection), Progress::Disconnected);
    }

    /// A TCP connection whose peer has no room for the whole greeting.
    fn connection_with_small_window() -> (Connection, TcpStream) {
        let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Inherited by accepted sockets (tcp(7)).
        listener.set_send_buffer_size(1 << 20).unwrap();
        let any_port: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any_port.into()).unwrap();
        listener.listen(1).unwrap();
        let client = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_recv_buffer_size(4096).unwrap();
        client.connect(&listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let connection = connection(server.into(), &[b'x'; 100_000]);
        (connection, client.into())
    }

    #[test]
    fn undelivered_greeting_extends_the_linger_deadline() {
        let (mut connection, mut client) = connection_with_small_window();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        let sent_at = Instant::now();
        assert!(!connection.expire_or_extend(sent_at));
        let late = sent_at + LIMITS.linger_timeout;
        assert!(
            !connection.expire_or_extend(late),
            "the greeting is not delivered"
        );
        assert!(
            connection.deadline() > late && connection.deadline() <= late + DELIVERY_CHECK_INTERVAL
        );
        let mut received = vec![0; 100_000];
        client.read_exact(&mut received).unwrap();
        assert_eq!(client.read(&mut received).unwrap(), 0);
        // The acknowledgement of the FIN may take the kernel a moment.
        let delivered = (0..5000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            if let State::Closing { linger_until, .. } = &mut connection.state {
                *linger_until = late;
            }
            connection.expire_or_extend(late)
        });
        assert!(delivered);
    }

    #[test]
    fn undelivered_greeting_expires_at_the_hard_deadline() {
        let (mut connection, _client) = connection_with_small_window();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        let mut extensions = 0;
        while !connection.expire_or_extend(connection.deadline()) {
            extensions += 1;
            assert!(extensions < 10, "no connection may stay open for ever");
        }
        let limit = LIMITS.linger_timeout + LIMITS.write_timeout;
        assert!(connection.deadline() <= Instant::now() + limit);
    }
}
