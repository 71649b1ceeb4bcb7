//! One connection from accept(2) to close(2), as a state machine that never blocks
//! and knows no epoll: the caller decides when to call [`Connection::advance`].
//!
//! close(2) must not destroy the greeting. If input is unread, it makes the kernel
//! send a reset, and the peer's kernel then drops what the client has not read yet.
//! So: send, shutdown(2), discard input until the peer closes, then close.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use crate::error::os_message;
use crate::greeting::{Greeting, Payload, Position};
use crate::proxy_protocol::{Header, HeaderError, HeaderParser};
use crate::settings::{Limits, ProxyProtocol, SocketSettings};
use crate::socket::{DiscardBuffer, Interest, LocalAddr, Socket};
use crate::sys::ffi::errno::{EINTR, ENOBUFS, ENOMEM};

/// How often the kernel is asked whether the greeting of a connection that is to be
/// closed was delivered.
const DELIVERY_CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// The same while the service stops.
const DRAIN_CHECK_INTERVAL: Duration = Duration::from_millis(10);
/// How long a PROXY header may still take when the service stops.
const DRAIN_HEADER_TIMEOUT: Duration = Duration::from_millis(200);
/// Pieces of a greeting that one system call sends.
const MAX_PIECES: usize = 16;
/// Bytes of a PROXY header that one system call receives: more than one that a proxy
/// sends without TLVs of its own choice.
const HEADER_BUFFER_LENGTH: usize = 512;
/// Times that one call of [`Connection::advance`] reads, so that a peer that sends
/// without end does not occupy the loop.
const MAX_READS: usize = 16;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    endpoint: Rc<Endpoint>,
    limits: Rc<Limits>,
    /// The client's address, of the PROXY header if that names one; `None` for a Unix
    /// socket.
    peer: Option<SocketAddr>,
    /// The PROXY header, once it was received. Boxed, as most connections have none.
    header: Option<Box<Header>>,
    accepted_at: Instant,
    /// Bytes of the greeting that the kernel has accepted.
    sent: usize,
    /// Set while the service stops: [`Connection::drain`].
    is_draining: bool,
    state: State,
    /// Set when it is decided that the connection has to be closed.
    close_reason: CloseReason,
}

/// Why a connection was closed, for the debug message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client has closed, and its input was read.
    PeerClosed,
    /// The client has closed, and had not sent a byte of the PROXY header.
    ClosedUnused,
    /// The PROXY header is missing or invalid.
    InvalidHeader(HeaderError),
    /// send(2) failed with this error.
    SendFailed(i32),
    /// The greeting was delivered, and the client has sent `linger_bytes`.
    LingerBytes,
    /// The greeting was delivered, and `linger_timeout` has expired.
    LingerTimeout,
    /// The greeting was delivered, and the service stops.
    Stopping,
    /// `write_timeout`, or `drain_timeout`, has expired before the greeting was sent.
    SendExpired,
    /// Its time has expired before the greeting was delivered.
    DeliveryExpired,
    /// `connections_per_source`.
    Refused,
    /// The service has failed.
    ServiceFailed,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PeerClosed => "the client has closed",
            Self::ClosedUnused => "the client has closed before the PROXY header",
            Self::InvalidHeader(error) => return error.fmt(f),
            Self::SendFailed(errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                return write!(f, "send: {}", os_message(&error));
            }
            Self::LingerBytes => "linger_bytes was reached",
            Self::LingerTimeout => "linger_timeout has expired",
            Self::Stopping => "the service stops",
            Self::SendExpired => "the greeting was not sent in time",
            Self::DeliveryExpired => "the greeting was not delivered in time",
            Self::Refused => "connections_per_source was reached",
            Self::ServiceFailed => "the service has failed",
        })
    }
}

/// Where a connection stands. Each state has its own deadline.
#[derive(Debug)]
enum State {
    /// The PROXY header is not complete yet. Boxed, so that it does not enlarge every
    /// connection.
    ReceivingHeader(Box<HeaderReception>),
    /// The kernel has not accepted all of the greeting yet.
    Sending {
        payload: Payload,
        position: Position,
        /// The end of `write_timeout`, or of `drain_timeout`.
        deadline: Instant,
    },
    /// Input is discarded until the peer closes.
    Closing {
        /// When the kernel accepted the last byte.
        sent_at: Instant,
        /// Bytes of input discarded since then.
        discarded: usize,
        /// When greeter decides to close, or checks for delivery again.
        linger_until: Instant,
        /// When the connection is closed even if the greeting was not delivered.
        hard_deadline: Instant,
    },
}

/// A PROXY header that is received.
#[derive(Debug)]
struct HeaderReception {
    parser: HeaderParser,
    /// What is sent next.
    greeting: Greeting,
    /// The end of `header_timeout`, or of [`DRAIN_HEADER_TIMEOUT`].
    deadline: Instant,
    /// Set while the service stops: when the connection is closed.
    drain_deadline: Option<Instant>,
}

/// What [`Connection::advance`] led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The PROXY header is complete, and the client's address is known; the greeting is
    /// next.
    HeaderReceived,
    /// The kernel has accepted all of the greeting; the FIN follows it.
    GreetingSent,
    /// Nothing can be done before the socket is ready.
    Pending(Interest),
    /// Nothing can be done now, and no event will tell when: the kernel is short of
    /// memory, or it is the turn of other connections.
    RetryLater,
    /// The connection has to be closed.
    Finished(Outcome),
}

/// How a connection ended: the journal field `GREETER_RESULT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The greeting was sent, and the peer closed or has received it.
    Sent,
    /// The peer disconnected before the kernel had accepted all of the greeting.
    Disconnected,
    /// The kernel could not accept all of the greeting within `write_timeout`.
    TimedOut,
    /// The client's address has `connections_per_source` open connections.
    Refused,
    /// The PROXY header is missing, late or invalid.
    InvalidHeader,
    /// greeter closed the connection before the greeting was delivered: at the end of
    /// `drain_timeout`, of `write_timeout` and `linger_timeout` together, or because
    /// of an error that ended the service.
    CutOff,
}

/// What is known of the input of a connection in [`State::Closing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// The peer has closed, and all that it sent was read.
    Ended,
    /// The peer has not closed, or there is more to read.
    Open,
}

impl Connection {
    /// A connection that nothing was sent or received on yet.
    pub fn new(
        socket: Socket,
        peer: Option<SocketAddr>,
        endpoint: Rc<Endpoint>,
        settings: &SocketSettings,
        limits: Rc<Limits>,
        now: Instant,
    ) -> Self {
        let state = match settings.proxy_protocol {
            ProxyProtocol::Off => State::Sending {
                payload: endpoint
                    .render(&settings.greeting, peer, || endpoint.local_addr_of(&socket)),
                position: Position::default(),
                deadline: now + limits.write_timeout,
            },
            ProxyProtocol::Required => State::ReceivingHeader(Box::new(HeaderReception {
                parser: HeaderParser::default(),
                greeting: settings.greeting.clone(),
                deadline: now + limits.header_timeout,
                drain_deadline: None,
            })),
        };
        Self {
            socket,
            endpoint,
            limits,
            peer,
            header: None,
            accepted_at: now,
            sent: 0,
            is_draining: false,
            state,
            close_reason: CloseReason::PeerClosed,
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
        match self.header.as_deref() {
            Some(Header::Proxied { destination, .. }) => LocalAddr::Ip(*destination),
            Some(Header::Own) | None => self.endpoint.local_addr_of(&self.socket),
        }
    }

    /// Whether the peer may be a proxy that checks the port: it has closed without a byte
    /// of the PROXY header, or has sent one with no address but its own.
    pub fn is_check(&self) -> bool {
        self.close_reason == CloseReason::ClosedUnused
            || self.header.as_deref() == Some(&Header::Own)
    }

    /// Whether the client's address is not known yet, as the PROXY header may name it.
    pub fn is_receiving_header(&self) -> bool {
        matches!(self.state, State::ReceivingHeader(_))
    }

    /// The client's address; `None` for a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The limits that the connection was accepted with.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Bytes of the greeting that the kernel has accepted.
    pub fn bytes_sent(&self) -> usize {
        self.sent
    }

    /// From accept(2) until the kernel accepted the last byte, or until now.
    pub fn duration(&self) -> Duration {
        let end = match self.state {
            State::ReceivingHeader(_) | State::Sending { .. } => Instant::now(),
            State::Closing { sent_at, .. } => sent_at,
        };
        end.duration_since(self.accepted_at)
    }

    /// Why the connection was closed.
    pub fn close_reason(&self) -> CloseReason {
        self.close_reason
    }

    /// Bytes of input that were discarded, and the time since the kernel accepted the
    /// last byte of the greeting; zero if it has not.
    pub fn lingered(&self) -> (usize, Duration) {
        match self.state {
            State::ReceivingHeader(_) | State::Sending { .. } => (0, Duration::ZERO),
            State::Closing {
                sent_at, discarded, ..
            } => (discarded, sent_at.elapsed()),
        }
    }

    /// When [`Connection::expire_or_extend`] has to be called next.
    pub fn deadline(&self) -> Instant {
        match self.state {
            State::ReceivingHeader(ref reception) => reception.deadline,
            State::Sending { deadline, .. } => deadline,
            State::Closing { linger_until, .. } => linger_until,
        }
    }

    /// The service stops: what is delivered is closed as soon as its input is read,
    /// the rest has until `deadline`. [`Connection::advance`] must be called next.
    pub fn drain(&mut self, now: Instant, deadline: Instant) {
        self.is_draining = true;
        match &mut self.state {
            State::ReceivingHeader(reception) => {
                reception.deadline = (now + DRAIN_HEADER_TIMEOUT).min(reception.deadline);
                reception.drain_deadline = Some(deadline);
            }
            State::Sending { deadline: end, .. } => *end = deadline.min(*end),
            State::Closing {
                linger_until,
                hard_deadline,
                ..
            } => {
                *linger_until = now;
                *hard_deadline = deadline.min(*hard_deadline);
            }
        }
    }

    /// The outcome if the deadline has passed and the connection must be closed;
    /// otherwise the deadline is extended if it has passed.
    ///
    /// A greeting that was sent but not delivered, because packets were lost, extends
    /// the deadline, for at most `write_timeout` after `linger_timeout`: after
    /// close(2) the kernel would answer the peer's next packet with a reset, and not
    /// send the greeting again.
    pub fn expire_or_extend(&mut self, now: Instant) -> Option<Outcome> {
        if now < self.deadline() {
            return None;
        }
        if let Some(reason) = self.may_close(Input::Open, now) {
            self.close_reason = reason;
            return Some(Outcome::Sent);
        }
        let check_interval = self.delivery_check_interval();
        match &mut self.state {
            State::ReceivingHeader(_) => {
                self.socket.shutdown_write();
                self.close_reason = CloseReason::InvalidHeader(HeaderError::Late);
                Some(Outcome::InvalidHeader)
            }
            State::Sending { .. } => {
                self.socket.reset_on_close();
                self.close_reason = CloseReason::SendExpired;
                Some(if self.is_draining {
                    Outcome::CutOff
                } else {
                    Outcome::TimedOut
                })
            }
            State::Closing { hard_deadline, .. } if now >= *hard_deadline => {
                self.close_reason = CloseReason::DeliveryExpired;
                Some(Outcome::CutOff)
            }
            State::Closing {
                linger_until,
                hard_deadline,
                ..
            } => {
                *linger_until = (*hard_deadline).min(now + check_interval);
                None
            }
        }
    }

    /// Does what is possible without blocking, up to the next state.
    pub fn advance(&mut self, buffer: &mut DiscardBuffer, now: Instant) -> Progress {
        match self.state {
            State::ReceivingHeader(_) => self.receive_header(buffer, now),
            State::Sending { .. } => self.send(now),
            State::Closing { .. } => self.discard(buffer, now),
        }
    }

    fn receive_header(&mut self, discarded: &mut DiscardBuffer, now: Instant) -> Progress {
        let State::ReceivingHeader(reception) = &mut self.state else {
            return Progress::HeaderReceived;
        };
        let mut buffer = [0; HEADER_BUFFER_LENGTH];
        for _ in 0..MAX_READS {
            let parsed = match self.socket.receive(&mut buffer) {
                Ok(count) if count > 0 => reception.parser.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Pending(Interest::Readable);
                }
                Err(error) if is_transient(&error) => return Progress::RetryLater,
                // The end of input, or a reset.
                _ if reception.parser.is_empty() => {
                    self.close_reason = CloseReason::ClosedUnused;
                    return Progress::Finished(Outcome::Disconnected);
                }
                _ => Err(HeaderError::Incomplete),
            };
            match parsed {
                Ok(None) => {}
                Ok(Some(header)) => {
                    let greeting = reception.greeting.clone();
                    let deadline = now + self.limits.write_timeout;
                    let deadline = reception
                        .drain_deadline
                        .map_or(deadline, |end| end.min(deadline));
                    self.begin_sending(header, &greeting, deadline);
                    return Progress::HeaderReceived;
                }
                Err(error) => {
                    self.end_without_greeting(CloseReason::InvalidHeader(error), discarded);
                    return Progress::Finished(Outcome::InvalidHeader);
                }
            }
        }
        Progress::RetryLater
    }

    fn begin_sending(&mut self, header: Header, greeting: &Greeting, deadline: Instant) {
        let header = match header {
            // HAProxy's checks of version 1 name the proxy itself.
            Header::Proxied { source, .. } if self.peer == Some(source) => Header::Own,
            header => header,
        };
        if let Header::Proxied { source, .. } = header {
            self.peer = Some(source);
        }
        self.header = Some(Box::new(header));
        let payload = self
            .endpoint
            .render(greeting, self.peer, || self.local_addr());
        self.state = State::Sending {
            payload,
            position: Position::default(),
            deadline,
        };
    }

    fn send(&mut self, now: Instant) -> Progress {
        let State::Sending {
            payload,
            position,
            deadline,
        } = &mut self.state
        else {
            return Progress::GreetingSent;
        };
        loop {
            let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
            let mut count = 0;
            for (slot, piece) in pieces.iter_mut().zip(payload.pieces_from(*position)) {
                *slot = IoSlice::new(piece);
                count += 1;
            }
            if count == 0 {
                break;
            }
            match self.socket.send(&pieces[..count]) {
                Ok(accepted) => {
                    self.sent += accepted;
                    *position = payload.advance(*position, accepted);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Pending(Interest::ReadableAndWritable);
                }
                // epoll(7) is edge-triggered and reports no end of such a shortage.
                Err(error) if is_transient(&error) => return Progress::RetryLater,
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or_default();
                    self.close_reason = CloseReason::SendFailed(errno);
                    return Progress::Finished(Outcome::Disconnected);
                }
            }
        }
        let deadline = *deadline;
        self.begin_close(deadline, now);
        Progress::GreetingSent
    }

    /// Shuts the sending side down; the peer's close is waited for from now on.
    /// `send_deadline` is when sending would have had to end.
    fn begin_close(&mut self, send_deadline: Instant, now: Instant) {
        self.socket.shutdown_write();
        let linger_timeout = if self.is_draining {
            Duration::ZERO
        } else {
            self.limits.linger_timeout
        };
        let linger_until = now + linger_timeout;
        let hard_deadline = send_deadline + linger_timeout;
        self.state = State::Closing {
            sent_at: now,
            discarded: 0,
            linger_until,
            hard_deadline,
        };
    }

    fn discard(&mut self, buffer: &mut DiscardBuffer, now: Instant) -> Progress {
        for _ in 0..MAX_READS {
            let input = match self.socket.discard(buffer, usize::MAX) {
                Ok(0) => Input::Ended,
                Ok(count) => {
                    self.count_discarded(count, now);
                    if self.is_over_budget() {
                        if let Some(reason) = self.may_close(Input::Open, now) {
                            return self.finish(reason);
                        }
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Input::Open,
                Err(error) if is_transient(&error) => return Progress::RetryLater,
                // A reset is the end of input, too.
                Err(_) => Input::Ended,
            };
            return match self.may_close(input, now) {
                Some(reason) => self.finish(reason),
                None => Progress::Pending(Interest::Readable),
            };
        }
        Progress::RetryLater
    }

    fn finish(&mut self, reason: CloseReason) -> Progress {
        self.close_reason = reason;
        Progress::Finished(Outcome::Sent)
    }

    fn count_discarded(&mut self, count: usize, now: Instant) {
        let limit = self.limits.linger_bytes as usize;
        if let State::Closing {
            discarded,
            linger_until,
            ..
        } = &mut self.state
        {
            *discarded += count;
            if *discarded >= limit {
                *linger_until = now.min(*linger_until);
            }
        }
    }

    fn is_over_budget(&self) -> bool {
        matches!(self.state, State::Closing { discarded, .. }
            if discarded >= self.limits.linger_bytes as usize)
    }

    /// The one rule that decides when a connection may be closed. If the peer has
    /// closed and all of its input was read, close(2) sends no reset, and the kernel
    /// goes on delivering the greeting. Before that, closing is greeter's decision
    /// (`linger_bytes`, `linger_timeout`, or the service stops), and the greeting
    /// must have been delivered. Returns why it may be closed, or `None`.
    fn may_close(&self, input: Input, now: Instant) -> Option<CloseReason> {
        let State::Closing { linger_until, .. } = self.state else {
            return None;
        };
        let decision = if input == Input::Ended {
            return Some(CloseReason::PeerClosed);
        } else if self.is_draining {
            CloseReason::Stopping
        } else if self.is_over_budget() {
            CloseReason::LingerBytes
        } else if now >= linger_until {
            CloseReason::LingerTimeout
        } else {
            return None;
        };
        self.socket.is_delivered().then_some(decision)
    }

    /// Ends a connection that is refused.
    pub fn refuse(&mut self, buffer: &mut DiscardBuffer) {
        self.end_without_greeting(CloseReason::Refused, buffer);
    }

    /// FIN, without a greeting. The input that has arrived is discarded, so that it does
    /// not turn the FIN into a reset.
    fn end_without_greeting(&mut self, reason: CloseReason, buffer: &mut DiscardBuffer) {
        self.close_reason = reason;
        self.socket.shutdown_write();
        // An error is ignored: the connection is closed in any case.
        let _ = self.socket.discard(buffer, usize::MAX);
    }

    /// Ends a connection because the service fails. A greeting that was cut ends in a
    /// reset.
    pub fn abort(&mut self) -> Outcome {
        self.close_reason = CloseReason::ServiceFailed;
        match self.state {
            State::ReceivingHeader(_) => Outcome::CutOff,
            State::Sending { .. } => {
                self.socket.reset_on_close();
                Outcome::CutOff
            }
            State::Closing { .. } if self.socket.is_delivered() => Outcome::Sent,
            State::Closing { .. } => Outcome::CutOff,
        }
    }

    fn delivery_check_interval(&self) -> Duration {
        if self.is_draining {
            DRAIN_CHECK_INTERVAL
        } else {
            DELIVERY_CHECK_INTERVAL
        }
    }
}

/// Whether send(2) or recv(2) failed for a temporary reason that has nothing to do
/// with the peer: the system's memory for sockets is used up, or a signal arrived.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOBUFS | ENOMEM | EINTR))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Type};

    use crate::mode::Mode;
    use crate::sys::ffi::errno::{ECONNRESET, ENOTSOCK};

    pub fn limits() -> Limits {
        Limits {
            write_timeout: Duration::from_secs(1),
            linger_timeout: Duration::from_secs(1),
            linger_bytes: 8,
            ..Limits::default()
        }
    }

    fn connection(socket: OwnedFd, greeting: &[u8], proxy_protocol: ProxyProtocol) -> Connection {
        let endpoint = Endpoint {
            name: "test".to_owned(),
            mode: Mode::Accept,
            local_addr: LocalAddr::Unnamed,
        };
        let settings = SocketSettings {
            greeting: Greeting::Fixed(Payload::Text(greeting.into())),
            proxy_protocol,
        };
        Connection::new(
            Socket::from(socket),
            None,
            Rc::new(endpoint),
            &settings,
            Rc::new(limits()),
            Instant::now(),
        )
    }

    pub fn unix_connection(greeting: &[u8]) -> (Connection, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        (
            connection(server.into(), greeting, ProxyProtocol::Off),
            client,
        )
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
        assert_eq!(advance(&mut connection), Progress::Finished(Outcome::Sent));
    }

    #[test]
    fn discarded_input_is_limited_by_linger_bytes() {
        let (mut connection, mut client) = unix_connection(b"");
        client.write_all(b"0123456").unwrap();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        assert_eq!(
            advance(&mut connection),
            Progress::Pending(Interest::Readable)
        );
        client.write_all(b"789").unwrap();
        assert_eq!(advance(&mut connection), Progress::Finished(Outcome::Sent));
        assert_eq!(connection.close_reason(), CloseReason::LingerBytes);
        assert_eq!(connection.lingered().0, 10);
    }

    #[test]
    fn bytes_and_duration_end_with_the_last_byte() {
        let (mut connection, _client) = unix_connection(b"hello\n");
        let sent_at = connection.accepted_at + Duration::from_millis(1500);
        let progress = connection.advance(&mut DiscardBuffer::default(), sent_at);
        assert_eq!(progress, Progress::GreetingSent);
        assert_eq!(connection.bytes_sent(), 6);
        assert_eq!(connection.duration(), Duration::from_millis(1500));
    }

    fn connection_with_header() -> (Connection, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        let connection = connection(server.into(), b"hello\n", ProxyProtocol::Required);
        (connection, client)
    }

    #[test]
    fn greeting_follows_the_header() {
        let (mut connection, mut client) = connection_with_header();
        let pending = Progress::Pending(Interest::Readable);
        assert_eq!(advance(&mut connection), pending);
        client.write_all(b"PROXY TCP6 2001:db8::1 ").unwrap();
        assert_eq!(advance(&mut connection), pending);
        assert_eq!((connection.peer(), connection.bytes_sent()), (None, 0));
        client.write_all(b"2001:db8::2 1 2\r\nEHLO\r\n").unwrap();
        assert!(connection.is_receiving_header());
        let received_at = connection.accepted_at + Duration::from_millis(900);
        let progress = connection.advance(&mut DiscardBuffer::default(), received_at);
        assert_eq!(progress, Progress::HeaderReceived);
        assert!(!connection.is_receiving_header());
        assert_eq!(connection.peer(), Some("[2001:db8::1]:1".parse().unwrap()));
        let local = "[2001:db8::2]:2".parse().unwrap();
        assert_eq!(connection.local_addr(), LocalAddr::Ip(local));
        // The time for the greeting begins with the end of the header.
        assert_eq!(connection.deadline(), received_at + limits().write_timeout);
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
    }

    #[test]
    fn header_has_its_own_timeout() {
        let (mut connection, mut client) = connection_with_header();
        client.write_all(b"PROXY").unwrap();
        assert_eq!(
            advance(&mut connection),
            Progress::Pending(Interest::Readable)
        );
        let timeout = connection.accepted_at + limits().header_timeout;
        assert_eq!(connection.deadline(), timeout);
        let early = timeout - Duration::from_millis(1);
        assert_eq!(connection.expire_or_extend(early), None);
        assert_eq!(
            connection.expire_or_extend(timeout),
            Some(Outcome::InvalidHeader)
        );
        assert_eq!(
            connection.close_reason(),
            CloseReason::InvalidHeader(HeaderError::Late)
        );
        assert_eq!(connection.abort(), Outcome::CutOff);
    }

    #[test]
    fn header_has_200_ms_when_the_service_stops() {
        let (mut connection, _client) = connection_with_header();
        let now = connection.accepted_at;
        connection.drain(now, now + Duration::from_secs(5));
        assert_eq!(connection.deadline(), now + Duration::from_millis(200));
        // The end of header_timeout is nearer.
        let (mut connection, _client) = connection_with_header();
        let late = connection.accepted_at + limits().header_timeout - Duration::from_millis(50);
        connection.drain(late, late + Duration::from_secs(5));
        assert_eq!(connection.deadline(), late + Duration::from_millis(50));
    }

    #[test]
    fn closed_without_a_byte_is_gone_and_within_the_header_invalid() {
        for (bytes, outcome, reason) in [
            (&b""[..], Outcome::Disconnected, CloseReason::ClosedUnused),
            (
                b"PROXY",
                Outcome::InvalidHeader,
                CloseReason::InvalidHeader(HeaderError::Incomplete),
            ),
            (
                b"EHLO",
                Outcome::InvalidHeader,
                CloseReason::InvalidHeader(HeaderError::Absent),
            ),
        ] {
            let (mut connection, mut client) = connection_with_header();
            client.write_all(bytes).unwrap();
            drop(client);
            assert_eq!(advance(&mut connection), Progress::Finished(outcome));
            assert_eq!(connection.close_reason(), reason);
        }
    }

    /// A TCP connection, and its client.
    fn tcp_connection(proxy_protocol: ProxyProtocol) -> (Connection, socket2::Socket) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, _) = listener.accept().unwrap();
        let connection = connection(server.into(), b"hello\n", proxy_protocol);
        (connection, client.into())
    }

    /// Closes a socket with a reset.
    fn reset(client: socket2::Socket) {
        client.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
    }

    #[test]
    fn reset_ends_a_connection_at_once() {
        let (mut connection, client) = tcp_connection(ProxyProtocol::Required);
        reset(client);
        assert_eq!(
            advance(&mut connection),
            Progress::Finished(Outcome::Disconnected)
        );
        let (mut connection, client) = tcp_connection(ProxyProtocol::Off);
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        reset(client);
        assert_eq!(advance(&mut connection), Progress::Finished(Outcome::Sent));
    }

    #[test]
    fn check_of_a_proxy_names_no_other_address() {
        let check = |header: &str| {
            let (mut connection, client) = tcp_connection(ProxyProtocol::Required);
            let own = client.local_addr().unwrap().as_socket();
            connection.peer = own;
            let port = own.unwrap().port();
            let header = header.replace("PORT", &port.to_string());
            (&client).write_all(header.as_bytes()).unwrap();
            assert_eq!(advance(&mut connection), Progress::HeaderReceived);
            connection.is_check()
        };
        assert!(check("PROXY UNKNOWN\r\n"));
        assert!(check("PROXY TCP4 127.0.0.1 127.0.0.1 PORT 25\r\n"));
        assert!(!check("PROXY TCP4 127.0.0.2 127.0.0.1 PORT 25\r\n"));
        let (connection, _client) = tcp_connection(ProxyProtocol::Off);
        assert!(!connection.is_check());
    }

    #[test]
    fn failed_service_cuts_off_what_is_not_sent() {
        let (mut unsent, _client) = unix_connection(b"hello\n");
        assert_eq!(unsent.abort(), Outcome::CutOff);
        let (mut sent, _client) = unix_connection(b"hello\n");
        assert_eq!(advance(&mut sent), Progress::GreetingSent);
        assert_eq!(sent.abort(), Outcome::Sent);
        assert_eq!(sent.close_reason(), CloseReason::ServiceFailed);
        let (mut undelivered, _client) = connection_with_small_window();
        assert_eq!(advance(&mut undelivered), Progress::GreetingSent);
        assert_eq!(undelivered.abort(), Outcome::CutOff);
    }

    #[test]
    fn refused_client_reads_the_end() {
        let (mut connection, client) = tcp_connection(ProxyProtocol::Off);
        (&client).write_all(b"EHLO\r\n").unwrap();
        connection.refuse(&mut DiscardBuffer::default());
        assert_eq!(connection.close_reason(), CloseReason::Refused);
        drop(connection);
        // Not a reset.
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn temporary_errors_have_nothing_to_do_with_the_peer() {
        let check = |errno| is_transient(&io::Error::from_raw_os_error(errno));
        assert!(check(ENOBUFS) && check(ENOMEM) && check(EINTR));
        assert!(!check(ECONNRESET) && !check(ENOTSOCK));
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
        assert_eq!(
            advance(&mut connection),
            Progress::Finished(Outcome::Disconnected)
        );
        assert!(matches!(
            connection.close_reason(),
            CloseReason::SendFailed(_)
        ));
    }

    /// A TCP connection whose peer has no room for the whole greeting.
    pub fn connection_with_small_window() -> (Connection, TcpStream) {
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
        let connection = connection(server.into(), &[b'x'; 100_000], ProxyProtocol::Off);
        (connection, client.into())
    }

    #[test]
    fn undelivered_greeting_extends_the_linger_deadline() {
        let (mut connection, mut client) = connection_with_small_window();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        let sent_at = Instant::now();
        assert_eq!(connection.expire_or_extend(sent_at), None);
        let late = sent_at + limits().linger_timeout;
        assert_eq!(
            connection.expire_or_extend(late),
            None,
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
            connection.expire_or_extend(late) == Some(Outcome::Sent)
        });
        assert!(delivered);
    }

    #[test]
    fn undelivered_greeting_expires_at_the_hard_deadline() {
        let (mut connection, _client) = connection_with_small_window();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        let mut extensions = 0;
        while connection.expire_or_extend(connection.deadline()).is_none() {
            extensions += 1;
            assert!(extensions < 10, "no connection may stay open for ever");
        }
        let limit = limits().linger_timeout + limits().write_timeout;
        assert!(connection.deadline() <= Instant::now() + limit);
    }
}
