//! One client from its first byte to its end, without waiting anywhere: who
//! calls decides when to go on. Floor 5.
//!
//! The close never destroys the greeting: a close with unread input would make
//! the kernel send a reset, which throws away what the client has not read yet.
//! So write, shut down our side, then read and drop until the client's end.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::raw::errno::{ENOBUFS, ENOMEM};
use crate::settings::values::Limits;
use crate::socket::{Scratch, Stream};

/// Whom `connections_per_source` counts as one: an IPv4 address or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin(IpAddr);

impl Origin {
    /// The origin of a client's address.
    pub fn new(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        })
    }
}

/// A client that is being greeted or waited for.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub stream: Stream,
    /// Whom it counts for, where sources are counted.
    pub origin: Option<Origin>,
    /// When its patience with us, or ours with it, ends.
    pub deadline: Instant,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Writing {
        greeting: Rc<[u8]>,
        sent: usize,
    },
    Lingering {
        sent: usize,
        /// How much of what it says is still read.
        left: usize,
        /// When even a greeting that did not arrive is given up.
        given_up: Instant,
    },
}

/// How often the kernel is asked whether a late greeting has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What came of going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The greeting is out, all of it; from now on its end is waited for.
    Sent,
    /// The client takes no more for now.
    Blocked,
    /// The client said something, which was dropped; it may say more.
    Spoke,
    /// Nothing to read for now.
    Silent,
    /// The client left before the greeting was out.
    Gone,
    /// The client is done: it may be closed without losing anything.
    Over,
}

impl Client {
    /// A client that has not been sent anything.
    pub fn new(stream: Stream, greeting: Rc<[u8]>, now: Instant, limits: &Limits) -> Self {
        let deadline = now + limits.write_timeout;
        Self {
            stream,
            origin: None,
            deadline,
            stage: Stage::Writing { greeting, sent: 0 },
        }
    }

    /// A client that gets no greeting, only a clean end.
    pub fn dismissed(stream: Stream, now: Instant, limits: &Limits) -> Self {
        Self::new(stream, Rc::new([]), now, limits)
    }

    /// Whether the greeting is not out yet, or not all of it.
    pub fn is_writing(&self) -> bool {
        matches!(self.stage, Stage::Writing { .. })
    }

    /// How many bytes of the greeting the kernel took.
    pub fn bytes_sent(&self) -> usize {
        match self.stage {
            Stage::Writing { sent, .. } | Stage::Lingering { sent, .. } => sent,
        }
    }

    /// Whether its time is over. A greeting that has left us and not arrived, as
    /// where packets are lost, may use up what is left of `write_timeout` after
    /// `linger_timeout`: if the socket were closed, the kernel would answer the
    /// client's next word with a reset, and not send the greeting again.
    pub fn is_late(&mut self, now: Instant) -> bool {
        if now < self.deadline {
            return false;
        }
        match self.stage {
            Stage::Lingering { given_up, .. } if now < given_up && !self.stream.is_delivered() => {
                self.deadline = given_up.min(now + LOOK_AGAIN);
                false
            }
            _ => true,
        }
    }

    /// Does the next thing that can be done without waiting.
    pub fn advance(&mut self, scratch: &mut Scratch, now: Instant, limits: &Limits) -> Step {
        match &mut self.stage {
            Stage::Writing { greeting, sent } => {
                while *sent < greeting.len() {
                    match self.stream.send(&greeting[*sent..]) {
                        Ok(taken) => *sent += taken,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            return Step::Blocked;
                        }
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        // The kernel's buffers are full machine-wide: as good as a full socket.
                        Err(error) if matches!(error.raw_os_error(), Some(ENOBUFS | ENOMEM)) => {
                            return Step::Blocked;
                        }
                        Err(_) => return Step::Gone,
                    }
                }
                self.stream.finish();
                let left = if limits.linger_timeout.is_zero() {
                    0
                } else {
                    limits.linger_bytes
                };
                self.stage = Stage::Lingering {
                    sent: *sent,
                    left,
                    given_up: self.deadline + limits.linger_timeout,
                };
                self.deadline = now + limits.linger_timeout;
                Step::Sent
            }
            Stage::Lingering { left: 0, .. } => Step::Over,
            Stage::Lingering { left, .. } => match self.stream.drop_input(scratch, *left) {
                Ok(0) => Step::Over,
                Ok(taken) => {
                    *left -= taken;
                    Step::Spoke
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => Step::Silent,
                    io::ErrorKind::Interrupted => Step::Spoke,
                    // A reset is an end, too.
                    _ => Step::Over,
                },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Socket, Type};

    const LIMITS: Limits = Limits {
        connections: 1,
        connections_per_source: 0,
        write_timeout: Duration::from_secs(1),
        linger_timeout: Duration::from_secs(1),
        linger_bytes: 8,
        drain_timeout: Duration::from_secs(1),
        idle_timeout: None,
    };

    fn client(greeting: &[u8]) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (
            Client::new(
                Stream::new(ours.into()),
                greeting.into(),
                Instant::now(),
                &LIMITS,
            ),
            theirs,
        )
    }

    fn step(client: &mut Client) -> Step {
        client.advance(&mut Scratch::default(), Instant::now(), &LIMITS)
    }

    #[test]
    fn a_client_that_speaks_first_is_heard_out() {
        let (mut client, mut theirs) = client(b"hello\n");
        theirs.write_all(b"GET /").unwrap();
        assert_eq!(step(&mut client), Step::Sent);
        assert_eq!(step(&mut client), Step::Spoke);
        assert_eq!(step(&mut client), Step::Silent);
        let mut read = String::new();
        theirs.read_to_string(&mut read).unwrap();
        assert_eq!(read, "hello\n");
        drop(theirs);
        assert_eq!(step(&mut client), Step::Over);
    }

    #[test]
    fn what_a_client_may_say_is_bounded() {
        let (mut client, mut theirs) = client(b"");
        theirs.write_all(b"0123456789").unwrap();
        assert_eq!(step(&mut client), Step::Sent);
        assert_eq!(step(&mut client), Step::Spoke);
        assert_eq!(step(&mut client), Step::Over);
    }

    #[test]
    fn a_greeting_larger_than_the_sockets_buffer_goes_out_in_parts() {
        let greeting = vec![b'x'; 4 << 20];
        let (mut client, mut theirs) = client(&greeting);
        let reader = std::thread::spawn(move || {
            let mut read = Vec::new();
            theirs.read_to_end(&mut read).map(|_| read)
        });
        let mut blocked = 0_u32;
        while step(&mut client) == Step::Blocked {
            blocked += 1;
            std::thread::yield_now();
        }
        assert!(blocked > 0);
        assert_eq!(reader.join().unwrap().unwrap(), greeting);
    }

    #[test]
    fn a_client_that_left_is_gone() {
        let (mut client, theirs) = client(b"hello\n");
        drop(theirs);
        assert_eq!(step(&mut client), Step::Gone);
    }

    #[test]
    fn an_ipv6_network_and_an_ipv4_address_are_one_origin_each() {
        let origin = |text: &str| Origin::new(text.parse().unwrap());
        assert_eq!(origin("2001:db8:1:2::3"), origin("2001:db8:1:2:ffff::"));
        assert_ne!(origin("2001:db8:1:2::3"), origin("2001:db8:1:3::3"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.2"), origin("192.0.2.1"));
    }

    /// A client of TCP that has no room for the whole of its greeting.
    fn full_client() -> (Client, TcpStream) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Taken over by the sockets that are accepted (tcp(7)).
        listener.set_send_buffer_size(1 << 20).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(1).unwrap();
        let theirs = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        theirs.set_recv_buffer_size(4096).unwrap();
        theirs.connect(&listener.local_addr().unwrap()).unwrap();
        let ours = Stream::new(listener.accept().unwrap().0.into());
        let greeting = Rc::from(vec![b'x'; 100_000]);
        let client = Client::new(ours, greeting, Instant::now(), &LIMITS);
        (client, theirs.into())
    }

    #[test]
    fn a_greeting_on_its_way_keeps_the_connection_open() {
        let (mut client, mut theirs) = full_client();
        assert_eq!(step(&mut client), Step::Sent);
        let greeted = Instant::now();
        assert!(!client.is_late(greeted));
        let late = greeted + LIMITS.linger_timeout;
        assert!(!client.is_late(late), "the greeting has not arrived");
        assert!(client.deadline > late && client.deadline <= late + LOOK_AGAIN);
        let mut read = vec![0; 100_000];
        theirs.read_exact(&mut read).unwrap();
        assert_eq!(theirs.read(&mut read).unwrap(), 0);
        // The receipt of the end may take the kernel a moment.
        let arrived = (0..5000).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            client.deadline = late;
            client.is_late(late)
        });
        assert!(arrived);
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up() {
        let (mut client, _theirs) = full_client();
        assert_eq!(step(&mut client), Step::Sent);
        let mut looks = 0;
        while !client.is_late(client.deadline) {
            looks += 1;
            assert!(looks < 10, "nobody may hold a place for ever");
        }
        let most = LIMITS.linger_timeout + LIMITS.write_timeout;
        assert!(client.deadline <= Instant::now() + most);
    }
}
