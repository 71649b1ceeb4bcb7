//! One connection from accept(2) to close(2), as a state machine that never blocks
//! and knows no epoll: the caller decides when to call [`Connection::advance`].
//!
//! close(2) must not destroy the greeting. If input is unread, it makes the kernel
//! send a reset, and the peer's kernel then drops what the client has not read yet.
//! So: send, shutdown(2), discard input until the peer closes, then close.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::endpoint::Endpoint;
use super::outcome::{CloseReason, Outcome};
use crate::greeting::Greeting;
use crate::proxy_protocol::{Header, HeaderError, HeaderParser};
use crate::settings::{Limits, ProxyProtocol, SocketSettings};
use crate::socket::{self, DiscardBuffer, LocalAddr, Socket};
use crate::sys::ffi::errno::{EINTR, ENOBUFS, ENOMEM};

/// How long a PROXY header may still take when the service stops.
const DRAIN_HEADER_TIMEOUT: Duration = Duration::from_millis(200);
/// Bytes of a PROXY header that one system call receives: more than one that a proxy
/// sends without TLVs of its own choice.
const HEADER_BUFFER_LENGTH: usize = 512;
/// Times that one call of [`Connection::advance`] reads, so that a peer that sends
/// without end does not occupy the loop.
const MAX_READS: usize = 16;

/// The service stops.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Since when. What is delivered is closed as soon as its input is read.
    pub since: Instant,
    /// When every connection is closed.
    pub deadline: Instant,
}

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
    state: State,
    /// When the state is over: the end of `header_timeout`, of `write_timeout`, or of
    /// `write_timeout` and `linger_timeout` together.
    deadline: Instant,
    /// Set when it is decided that the connection must be closed.
    close_reason: CloseReason,
}

/// Where a connection stands.
#[derive(Debug)]
enum State {
    /// The PROXY header is not complete yet. Boxed, so that it does not enlarge every
    /// connection.
    ReceivingHeader(Box<HeaderReception>),
    /// The kernel has not accepted all of the greeting yet.
    Sending {
        greeting: Rc<[u8]>,
        /// When it accepted the last part.
        progress_at: Instant,
    },
    /// Input is discarded until the peer closes.
    Closing {
        /// When the kernel accepted the last byte.
        sent_at: Instant,
        /// Bytes of input discarded since then.
        discarded: u32,
        /// Whether the peer has closed its side as well.
        input: Input,
    },
}

/// A PROXY header that is received.
#[derive(Debug)]
struct HeaderReception {
    parser: HeaderParser,
    /// What is sent next.
    greeting: Greeting,
}

/// What [`Connection::advance`] led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The PROXY header is complete, and the client's address is known; the greeting is
    /// next.
    HeaderReceived,
    /// The kernel has accepted all of the greeting; the FIN follows it.
    GreetingSent,
    /// Nothing can be done before an event, or before [`Connection::next_deadline`].
    Pending,
    /// Nothing can be done now, and no event will tell when: the kernel is short of
    /// memory, or it is the turn of other connections.
    RetryLater,
    /// The connection must be closed.
    Finished(Outcome),
}

/// What is known of the input of a connection in [`State::Closing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    /// The peer has closed, and all that it has sent was read.
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
        let (state, timeout) = match settings.proxy_protocol {
            ProxyProtocol::Off => {
                let local_addr = || endpoint.local_addr_of(&socket);
                let greeting = endpoint.render(&settings.greeting, peer, local_addr);
                let progress_at = now;
                let state = State::Sending {
                    greeting,
                    progress_at,
                };
                (state, limits.write_timeout)
            }
            ProxyProtocol::Required => {
                let reception = HeaderReception {
                    parser: HeaderParser::default(),
                    greeting: settings.greeting.clone(),
                };
                let state = State::ReceivingHeader(Box::new(reception));
                (state, limits.header_timeout)
            }
        };
        Self {
            socket,
            endpoint,
            limits,
            peer,
            header: None,
            accepted_at: now,
            sent: 0,
            state,
            deadline: now + timeout,
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
    pub fn lingered(&self) -> (u32, Duration) {
        match self.state {
            State::ReceivingHeader(_) | State::Sending { .. } => (0, Duration::ZERO),
            State::Closing {
                sent_at, discarded, ..
            } => (discarded, sent_at.elapsed()),
        }
    }

    /// Returns when [`Connection::advance`] must be called if there is no event before.
    pub fn next_deadline(&self, now: Instant, drain: Option<Drain>) -> Instant {
        let deadline = self.deadline(drain);
        match self.linger_end() {
            Some(end) if drain.is_none() && now < end => end.min(deadline),
            _ => deadline,
        }
    }

    /// The end of `linger_timeout`, once the greeting was sent.
    fn linger_end(&self) -> Option<Instant> {
        match self.state {
            State::Closing { sent_at, .. } => Some(sent_at + self.limits.linger_timeout),
            State::ReceivingHeader(_) | State::Sending { .. } => None,
        }
    }

    /// When the state is over, whatever the client does. One that has closed and does not
    /// acknowledge the greeting has only `linger_timeout`: it costs as much as any other
    /// connection, and is not going to read.
    fn deadline(&self, drain: Option<Drain>) -> Instant {
        match (drain, &self.state) {
            (
                None,
                State::Closing {
                    input: Input::Ended,
                    ..
                },
            ) => self
                .linger_end()
                .map_or(self.deadline, |end| end.min(self.deadline)),
            (None, _) => self.deadline,
            (Some(drain), State::ReceivingHeader(_)) => {
                self.deadline.min(drain.since + DRAIN_HEADER_TIMEOUT)
            }
            (Some(drain), _) => self.deadline.min(drain.deadline),
        }
    }

    /// Does what is possible without blocking, up to the next state. If that is nothing
    /// and a deadline has passed, ends the connection: what has arrived in time counts,
    /// even if the loop was late.
    pub fn advance(
        &mut self,
        buffer: &mut DiscardBuffer,
        now: Instant,
        drain: Option<Drain>,
    ) -> Progress {
        let progress = match &self.state {
            State::ReceivingHeader(_) => self.receive_header(now),
            State::Sending { .. } => self.send(buffer, now),
            State::Closing { .. } => self.discard(buffer, now, drain),
        };
        match progress {
            Progress::Pending | Progress::RetryLater if now >= self.deadline(drain) => {
                Progress::Finished(self.expire(drain))
            }
            progress => progress,
        }
    }

    /// The deadline has passed.
    fn expire(&mut self, drain: Option<Drain>) -> Outcome {
        match self.state {
            State::ReceivingHeader(_) => {
                self.end_unserved(CloseReason::InvalidHeader(HeaderError::Late));
                Outcome::InvalidHeader
            }
            State::Sending { .. } => {
                self.socket.reset_on_close();
                self.close_reason = CloseReason::SendExpired;
                match drain {
                    Some(_) => Outcome::CutOff,
                    None => Outcome::Timeout,
                }
            }
            State::Closing { .. } => {
                // Otherwise the kernel would keep what it has not delivered, uncounted, and
                // for minutes. When the service stops, no more connections follow.
                if drain.is_none() {
                    self.socket.reset_on_close();
                }
                self.close_reason = CloseReason::DeliveryExpired;
                Outcome::CutOff
            }
        }
    }

    fn receive_header(&mut self, now: Instant) -> Progress {
        let State::ReceivingHeader(reception) = &mut self.state else {
            return Progress::HeaderReceived;
        };
        let mut buffer = [0; HEADER_BUFFER_LENGTH];
        for _ in 0..MAX_READS {
            let parsed = match self.socket.receive(&mut buffer) {
                Ok(count) if count > 0 => reception.parser.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Progress::Pending;
                }
                Err(error) if is_kernel_shortage(&error) => return Progress::RetryLater,
                // The end of input, or a reset.
                _ if reception.parser.is_empty() => {
                    self.close_reason = CloseReason::ClosedUnused;
                    return Progress::Finished(Outcome::Gone);
                }
                _ => Err(HeaderError::Incomplete),
            };
            match parsed {
                Ok(None) => {}
                Ok(Some(header)) => {
                    let greeting = reception.greeting.clone();
                    self.begin_sending(header, &greeting, now);
                    return Progress::HeaderReceived;
                }
                Err(error) => {
                    self.end_unserved(CloseReason::InvalidHeader(error));
                    return Progress::Finished(Outcome::InvalidHeader);
                }
            }
        }
        Progress::RetryLater
    }

    fn begin_sending(&mut self, header: Header, greeting: &Greeting, now: Instant) {
        let header = match header {
            // HAProxy's checks of version 1 name the proxy itself.
            Header::Proxied { source, .. } if self.peer == Some(source) => Header::Own,
            header => header,
        };
        if let Header::Proxied { source, .. } = header {
            self.peer = Some(source);
        }
        self.header = Some(Box::new(header));
        let local_addr = || self.local_addr();
        self.state = State::Sending {
            greeting: self.endpoint.render(greeting, self.peer, local_addr),
            progress_at: now,
        };
        self.deadline = now + self.limits.write_timeout;
    }

    fn send(&mut self, buffer: &mut DiscardBuffer, now: Instant) -> Progress {
        let State::Sending {
            greeting,
            progress_at,
        } = &mut self.state
        else {
            return Progress::GreetingSent;
        };
        while self.sent < greeting.len() {
            match self.socket.send(&greeting[self.sent..]) {
                Ok(accepted) => {
                    self.sent += accepted;
                    *progress_at = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return self.discard_meanwhile(buffer);
                }
                // epoll(7) is edge-triggered and reports no end of such a shortage.
                Err(error) if is_kernel_shortage(&error) => return Progress::RetryLater,
                Err(error) => {
                    let errno = error.raw_os_error().unwrap_or_default();
                    self.close_reason = CloseReason::SendFailed(errno);
                    return Progress::Finished(Outcome::Gone);
                }
            }
        }
        self.begin_close(now);
        Progress::GreetingSent
    }

    /// Discards input while the greeting cannot be sent, so that the kernel need not keep it.
    fn discard_meanwhile(&self, buffer: &mut DiscardBuffer) -> Progress {
        for _ in 0..MAX_READS {
            // If the connection is gone, the next send(2) reports it.
            if !self.socket.discard(buffer).is_ok_and(|count| count > 0) {
                return Progress::Pending;
            }
        }
        Progress::RetryLater
    }

    /// Shuts the sending side down; the peer's close is waited for from now on.
    fn begin_close(&mut self, now: Instant) {
        self.socket.shutdown_write();
        self.state = State::Closing {
            sent_at: now,
            discarded: 0,
            input: Input::Open,
        };
        self.deadline += self.limits.linger_timeout;
    }

    fn discard(
        &mut self,
        buffer: &mut DiscardBuffer,
        now: Instant,
        drain: Option<Drain>,
    ) -> Progress {
        // Almost always, and then the input need not be read.
        if self.socket.is_closed() {
            return self.finish(CloseReason::PeerClosed);
        }
        for _ in 0..MAX_READS {
            let input = match self.socket.discard(buffer) {
                Ok(0) => Input::Ended,
                Ok(count) => {
                    if let State::Closing { discarded, .. } = &mut self.state {
                        let count = u32::try_from(count).unwrap_or(u32::MAX);
                        *discarded = discarded.saturating_add(count);
                    }
                    if self.is_over_budget() {
                        if let Some(reason) = self.may_close(Input::Open, now, drain) {
                            return self.finish(reason);
                        }
                    }
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Input::Open,
                Err(error) if is_kernel_shortage(&error) => return Progress::RetryLater,
                // A reset is the end of input as well.
                Err(_) => Input::Ended,
            };
            if let State::Closing { input: known, .. } = &mut self.state {
                *known = input;
            }
            return match self.may_close(input, now, drain) {
                Some(reason) => self.finish(reason),
                None => Progress::Pending,
            };
        }
        match self.may_close(Input::Open, now, drain) {
            Some(reason) => self.finish(reason),
            None => Progress::RetryLater,
        }
    }

    fn finish(&mut self, reason: CloseReason) -> Progress {
        self.close_reason = reason;
        Progress::Finished(Outcome::Sent)
    }

    fn is_over_budget(&self) -> bool {
        matches!(self.state, State::Closing { discarded, .. }
            if discarded >= self.limits.linger_bytes)
    }

    /// The one rule that decides when a connection may be closed. The greeting must have
    /// been delivered: otherwise the kernel would answer the peer's next packet with a
    /// reset and not send a lost one again, or, if the peer has closed, keep the
    /// connection for minutes after nobody counts it any more. And the peer has closed, or
    /// closing is greeter's decision (`linger_bytes`, `linger_timeout`, or the service
    /// stops). Returns why the connection may be closed, or `None`.
    fn may_close(&self, input: Input, now: Instant, drain: Option<Drain>) -> Option<CloseReason> {
        let linger_end = self.linger_end()?;
        let decision = if input == Input::Ended {
            CloseReason::PeerClosed
        } else if drain.is_some() {
            CloseReason::Stopping
        } else if self.is_over_budget() {
            CloseReason::LingerBytes
        } else if now >= linger_end {
            CloseReason::LingerTimeout
        } else {
            return None;
        };
        self.socket.is_delivered().then_some(decision)
    }

    /// Whether the client has taken nothing for `linger_timeout` and owes an
    /// acknowledgement: if other clients wait, it need not have the rest of its time.
    pub fn makes_no_progress(&self, now: Instant) -> bool {
        match self.state {
            State::ReceivingHeader(_) => false,
            State::Sending { progress_at, .. } => now >= progress_at + self.limits.linger_timeout,
            State::Closing { .. } => self.linger_end().is_some_and(|end| now >= end),
        }
    }

    /// Ends a connection that makes no progress with a reset, as other clients wait for its
    /// place.
    pub fn cut_off(&mut self) -> Outcome {
        self.close_reason = CloseReason::PlaceNeeded;
        self.socket.reset_on_close();
        Outcome::CutOff
    }

    /// Ends a connection that is refused.
    pub fn refuse(&mut self) {
        self.end_unserved(CloseReason::Refused);
    }

    fn end_unserved(&mut self, reason: CloseReason) {
        self.close_reason = reason;
        socket::end_unserved(self.socket.as_fd(), Duration::ZERO);
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
}

/// Whether send(2) or recv(2) failed for a temporary reason that has nothing to do
/// with the peer: the system's memory for sockets is used up, or a signal arrived.
fn is_kernel_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(ENOBUFS | ENOMEM | EINTR))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use crate::mode::Mode;
    use crate::socket::tests::pair_with_small_window;
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
            greeting: Greeting::Fixed(greeting.into()),
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
        connection.advance(&mut DiscardBuffer::default(), Instant::now(), None)
    }

    #[test]
    fn input_sent_before_the_greeting_is_discarded() {
        let (mut connection, mut client) = unix_connection(b"hello\n");
        client.write_all(b"GET /").unwrap();
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
        assert_eq!(advance(&mut connection), Progress::Pending);
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
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
        assert_eq!(advance(&mut connection), Progress::Pending);
        client.write_all(b"789").unwrap();
        assert_eq!(advance(&mut connection), Progress::Finished(Outcome::Sent));
        assert_eq!(connection.close_reason(), CloseReason::LingerBytes);
        assert_eq!(connection.lingered().0, 10);
    }

    #[test]
    fn bytes_and_duration_end_with_the_last_byte() {
        let (mut connection, _client) = unix_connection(b"hello\n");
        let sent_at = connection.accepted_at + Duration::from_millis(1500);
        let progress = connection.advance(&mut DiscardBuffer::default(), sent_at, None);
        assert_eq!(progress, Progress::GreetingSent);
        assert_eq!(connection.bytes_sent(), 6);
        assert_eq!(connection.duration(), Duration::from_millis(1500));
    }

    pub fn connection_with_header() -> (Connection, UnixStream) {
        let (server, client) = UnixStream::pair().unwrap();
        let connection = connection(server.into(), b"hello\n", ProxyProtocol::Required);
        (connection, client)
    }

    #[test]
    fn greeting_follows_the_header() {
        let (mut connection, mut client) = connection_with_header();
        let pending = Progress::Pending;
        assert_eq!(advance(&mut connection), pending);
        client.write_all(b"PROXY TCP6 2001:db8::1 ").unwrap();
        assert_eq!(advance(&mut connection), pending);
        assert_eq!((connection.peer(), connection.bytes_sent()), (None, 0));
        client.write_all(b"2001:db8::2 1 2\r\nEHLO\r\n").unwrap();
        assert!(connection.is_receiving_header());
        let received_at = connection.accepted_at + Duration::from_millis(900);
        let progress = connection.advance(&mut DiscardBuffer::default(), received_at, None);
        assert_eq!(progress, Progress::HeaderReceived);
        assert!(!connection.is_receiving_header());
        assert_eq!(connection.peer(), Some("[2001:db8::1]:1".parse().unwrap()));
        let local = "[2001:db8::2]:2".parse().unwrap();
        assert_eq!(connection.local_addr(), LocalAddr::Ip(local));
        // The time for the greeting begins with the end of the header.
        let deadline = connection.next_deadline(received_at, None);
        assert_eq!(deadline, received_at + limits().write_timeout);
        assert_eq!(advance(&mut connection), Progress::GreetingSent);
    }

    #[test]
    fn header_has_its_own_timeout() {
        let (mut connection, mut client) = connection_with_header();
        client.write_all(b"PROXY").unwrap();
        assert_eq!(advance(&mut connection), Progress::Pending);
        let timeout = connection.accepted_at + limits().header_timeout;
        let early = timeout - Duration::from_millis(1);
        assert_eq!(connection.next_deadline(early, None), timeout);
        let mut advance_at = |now| connection.advance(&mut DiscardBuffer::default(), now, None);
        assert_eq!(advance_at(early), Progress::Pending);
        let expired = Progress::Finished(Outcome::InvalidHeader);
        assert_eq!(advance_at(timeout), expired);
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
        let drain = |since| {
            Some(Drain {
                since,
                deadline: since + Duration::from_secs(5),
            })
        };
        let end = connection.next_deadline(now, drain(now));
        assert_eq!(end, now + Duration::from_millis(200));
        let progress = connection.advance(&mut DiscardBuffer::default(), end, drain(now));
        assert_eq!(progress, Progress::Finished(Outcome::InvalidHeader));
        // The end of header_timeout is nearer.
        let (connection, _client) = connection_with_header();
        let late = connection.accepted_at + limits().header_timeout - Duration::from_millis(50);
        let end = connection.next_deadline(late, drain(late));
        assert_eq!(end, late + Duration::from_millis(50));
    }

    #[test]
    fn closed_without_a_byte_is_gone_and_within_the_header_invalid() {
        for (bytes, outcome, reason) in [
            (&b""[..], Outcome::Gone, CloseReason::ClosedUnused),
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
        assert_eq!(advance(&mut connection), Progress::Finished(Outcome::Gone));
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
        connection.refuse();
        assert_eq!(connection.close_reason(), CloseReason::Refused);
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // The connection is still open: this is the FIN.
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        drop(connection);
        // No reset follows it.
        assert!(client.take_error().unwrap().is_none());
    }

    #[test]
    fn temporary_errors_have_nothing_to_do_with_the_peer() {
        let check = |errno| is_kernel_shortage(&io::Error::from_raw_os_error(errno));
        assert!(check(ENOBUFS) && check(ENOMEM) && check(EINTR));
        assert!(!check(ECONNRESET) && !check(ENOTSOCK));
    }

    #[test]
    fn large_greeting_is_sent_in_parts() {
        let greeting = vec![b'x'; 4 << 20];
        let (mut connection, mut client) = unix_connection(&greeting);
        // Before the reader starts: the send buffer is certain to fill up.
        assert_eq!(advance(&mut connection), Progress::Pending);
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
    fn input_is_discarded_while_the_greeting_is_sent() {
        let (mut connection, mut client) = unix_connection(&vec![b'x'; 4 << 20]);
        assert_eq!(advance(&mut connection), Progress::Pending);
        client.set_nonblocking(true).unwrap();
        for _ in 0..10 {
            let mut sent = 0;
            while let Ok(count) = client.write(&[b'y'; 4096]) {
                sent += count;
            }
            assert!(sent > 0);
            assert_eq!(advance(&mut connection), Progress::Pending);
        }
    }

    #[test]
    fn closed_peer_is_disconnected() {
        let (mut connection, client) = unix_connection(b"hello\n");
        drop(client);
        assert_eq!(advance(&mut connection), Progress::Finished(Outcome::Gone));
        assert!(matches!(
            connection.close_reason(),
            CloseReason::SendFailed(_)
        ));
    }

    /// A TCP connection whose peer has no room for the whole greeting.
    pub fn connection_with_small_window() -> (Connection, TcpStream) {
        let (server, client) = pair_with_small_window();
        let connection = connection(server.into(), &[b'x'; 100_000], ProxyProtocol::Off);
        (connection, client)
    }

    #[test]
    fn undelivered_greeting_extends_the_linger_deadline() {
        let (mut connection, mut client) = connection_with_small_window();
        let mut buffer = DiscardBuffer::default();
        let sent_at = connection.accepted_at;
        let progress = connection.advance(&mut buffer, sent_at, None);
        assert_eq!(progress, Progress::GreetingSent);
        let late = sent_at + limits().linger_timeout;
        assert_eq!(connection.next_deadline(sent_at, None), late);
        let progress = connection.advance(&mut buffer, late, None);
        assert_eq!(progress, Progress::Pending, "the greeting is not delivered");
        let hard_deadline = late + limits().write_timeout;
        assert_eq!(connection.next_deadline(late, None), hard_deadline);
        let mut received = vec![0; 100_000];
        client.read_exact(&mut received).unwrap();
        assert_eq!(client.read(&mut received).unwrap(), 0);
        // The acknowledgement of the FIN may take the kernel a moment.
        let delivered = (0..5000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            connection.advance(&mut buffer, late, None) == Progress::Finished(Outcome::Sent)
        });
        assert!(delivered);
        assert_eq!(connection.close_reason(), CloseReason::LingerTimeout);
    }

    #[test]
    fn undelivered_greeting_expires_at_the_hard_deadline() {
        let (mut connection, _client) = connection_with_small_window();
        let mut buffer = DiscardBuffer::default();
        let sent_at = connection.accepted_at;
        let progress = connection.advance(&mut buffer, sent_at, None);
        assert_eq!(progress, Progress::GreetingSent);
        let hard_deadline = sent_at + limits().linger_timeout + limits().write_timeout;
        let early = hard_deadline - Duration::from_millis(1);
        assert_eq!(
            connection.advance(&mut buffer, early, None),
            Progress::Pending
        );
        let progress = connection.advance(&mut buffer, hard_deadline, None);
        assert_eq!(progress, Progress::Finished(Outcome::CutOff));
        assert_eq!(connection.close_reason(), CloseReason::DeliveryExpired);
    }

    /// Its window is full, so it cannot acknowledge the greeting. close(2) would leave that
    /// to the kernel, which tries for minutes.
    #[test]
    fn client_that_closes_and_does_not_acknowledge_has_linger_timeout() {
        let (mut connection, mut client) = connection_with_small_window();
        let mut buffer = DiscardBuffer::default();
        let sent_at = connection.accepted_at;
        let progress = connection.advance(&mut buffer, sent_at, None);
        assert_eq!(progress, Progress::GreetingSent);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            connection.advance(&mut buffer, sent_at, None),
            Progress::Pending
        );
        let linger_end = sent_at + limits().linger_timeout;
        assert_eq!(connection.next_deadline(sent_at, None), linger_end);
        let early = linger_end - Duration::from_millis(1);
        assert_eq!(
            connection.advance(&mut buffer, early, None),
            Progress::Pending
        );
        let progress = connection.advance(&mut buffer, linger_end, None);
        assert_eq!(progress, Progress::Finished(Outcome::CutOff));
        assert_eq!(connection.close_reason(), CloseReason::DeliveryExpired);
        drop(connection);
        let error = client.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn client_that_closes_and_acknowledges_later_has_its_greeting() {
        let (mut connection, mut client) = connection_with_small_window();
        let mut buffer = DiscardBuffer::default();
        let now = connection.accepted_at;
        let progress = connection.advance(&mut buffer, now, None);
        assert_eq!(progress, Progress::GreetingSent);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(
            connection.advance(&mut buffer, now, None),
            Progress::Pending
        );
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received.len(), 100_000);
        // The last acknowledgement may take the kernel a moment.
        let closed = (0..5000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            connection.advance(&mut buffer, now, None) == Progress::Finished(Outcome::Sent)
        });
        assert!(closed);
        assert_eq!(connection.close_reason(), CloseReason::PeerClosed);
    }

    #[test]
    fn greeting_that_is_not_sent_in_time_ends_in_a_reset() {
        for (drain, outcome) in [
            (None, Outcome::Timeout),
            (
                Some(Drain {
                    since: Instant::now(),
                    deadline: Instant::now(),
                }),
                Outcome::CutOff,
            ),
        ] {
            let (mut connection, _client) = unix_connection(&vec![b'x'; 4 << 20]);
            let mut buffer = DiscardBuffer::default();
            let accepted_at = connection.accepted_at;
            let deadline = connection.next_deadline(accepted_at, drain);
            let write_deadline = accepted_at + limits().write_timeout;
            assert_eq!(deadline == write_deadline, drain.is_none());
            let early = deadline - Duration::from_millis(1);
            assert_eq!(
                connection.advance(&mut buffer, early, drain),
                Progress::Pending
            );
            let progress = connection.advance(&mut buffer, deadline, drain);
            assert_eq!(progress, Progress::Finished(outcome));
            assert_eq!(connection.close_reason(), CloseReason::SendExpired);
        }
    }

    /// What is sent to a client that is not served must not be a reset, which could reach
    /// it before the end: FIN first, as for any other client.
    #[test]
    fn client_whose_header_is_late_reads_the_end() {
        let (mut connection, client) = tcp_connection(ProxyProtocol::Required);
        (&client).write_all(b"PROXY TCP4").unwrap();
        let late = connection.accepted_at + limits().header_timeout;
        let progress = connection.advance(&mut DiscardBuffer::default(), late, None);
        assert_eq!(progress, Progress::Finished(Outcome::InvalidHeader));
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        // The connection is still open: this is the FIN.
        assert_eq!((&client).read(&mut [0]).unwrap(), 0);
        drop(connection);
        assert!(client.take_error().unwrap().is_none());
    }
}
