//! One client from its first byte to its end, without waiting anywhere: who
//! calls decides when to go on. Floor 5.
//!
//! The close never destroys the greeting: a close with unread input would make
//! the kernel send a reset, which throws away what the client has not read yet.
//! So write, shut down our side, then read and drop until the client's end.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::poller::Poller;
use crate::raw::errno::{ENOBUFS, ENOMEM};
use crate::settings::values::Limits;
use crate::socket::{Scratch, Socket};

/// How often the kernel is asked whether a late greeting has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// A client that is being greeted or waited for.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub socket: Socket,
    /// How many bytes of the greeting the kernel took.
    pub sent: usize,
    /// None once it is out.
    greeting: Option<Rc<[u8]>>,
    /// When its patience with us, or ours with it, ends.
    pub deadline: Instant,
    /// How long its end is waited for after the greeting.
    linger: Duration,
    /// How many bytes of its own are still read after the greeting.
    left: usize,
    /// When even a greeting that did not arrive is given up.
    given_up: Instant,
}

/// What came of going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The greeting is out, all of it; from now on its end is waited for.
    Sent,
    /// Nothing can be done before something changes at its socket.
    Wait,
    /// The client left before the greeting was out.
    Gone,
    /// The client is done: it may be closed without losing anything.
    Over,
}

impl Client {
    /// A client that has not been sent anything.
    pub fn new(socket: Socket, greeting: Rc<[u8]>, now: Instant, limits: &Limits) -> Self {
        let deadline = now + limits.write_timeout;
        let listens = !limits.linger_timeout.is_zero();
        Self {
            socket,
            sent: 0,
            greeting: Some(greeting),
            deadline,
            linger: limits.linger_timeout,
            left: if listens { limits.linger_bytes } else { 0 },
            given_up: deadline + limits.linger_timeout,
        }
    }

    /// Whether the greeting is not out yet, or not all of it.
    pub fn is_writing(&self) -> bool {
        self.greeting.is_some()
    }

    /// Whether its time is over. A greeting that has left us and not arrived, as
    /// where packets are lost, may use up what is left of `write_timeout` after
    /// `linger_timeout`: if the socket were closed, the kernel would answer the
    /// client's next word with a reset, and not send the greeting again.
    pub fn is_late(&mut self, now: Instant) -> bool {
        let late = now >= self.deadline;
        if late && !self.is_writing() && now < self.given_up && !self.socket.is_delivered() {
            self.deadline = self.given_up.min(now + LOOK_AGAIN);
            return false;
        }
        late
    }

    /// Does what can be done without waiting, up to the next step.
    pub fn advance(&mut self, scratch: &mut Scratch, now: Instant) -> Step {
        let Some(greeting) = &self.greeting else {
            return self.hear_out(scratch);
        };
        while self.sent < greeting.len() {
            match self.socket.send(&greeting[self.sent..]) {
                Ok(taken) => self.sent += taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
                Err(error) => match error.raw_os_error() {
                    // The kernel's buffers are full machine-wide: as good as a full socket.
                    Some(ENOBUFS | ENOMEM) => return Step::Wait,
                    _ => return Step::Gone,
                },
            }
        }
        self.socket.finish();
        self.greeting = None;
        self.deadline = now + self.linger;
        Step::Sent
    }

    /// Drops what a greeted client says.
    fn hear_out(&mut self, scratch: &mut Scratch) -> Step {
        while self.left > 0 {
            match self.socket.drop_input(scratch, self.left) {
                Ok(0) => break,
                Ok(taken) => self.left -= taken,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Step::Wait,
                // A reset is an end, too.
                Err(_) => break,
            }
        }
        Step::Over
    }
}

/// Gives a client a clean end without a greeting, and waits for its own: what it
/// gets where the settings are wrong.
///
/// # Errors
/// The kernel's, where there is nothing to wait with.
pub fn dismiss(socket: Socket, limits: &Limits) -> io::Result<()> {
    let mut poller = Poller::new()?;
    poller.watch(&socket, 0, false)?;
    let mut client = Client::new(socket, Rc::new([]), Instant::now(), limits);
    let mut scratch = Scratch::default();
    while client.advance(&mut scratch, Instant::now()) != Step::Over {
        let now = Instant::now();
        if client.is_late(now) {
            break;
        }
        poller.wait(Some(client.deadline.saturating_duration_since(now)))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::os::unix::net::UnixStream;

    use socket2::{Domain, Type};

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
                Socket::new(ours.into(), false).unwrap(),
                greeting.into(),
                Instant::now(),
                &LIMITS,
            ),
            theirs,
        )
    }

    fn step(client: &mut Client) -> Step {
        client.advance(&mut Scratch::default(), Instant::now())
    }

    #[test]
    fn a_client_that_speaks_first_is_heard_out() {
        let (mut client, mut theirs) = client(b"hello\n");
        theirs.write_all(b"GET /").unwrap();
        assert_eq!(step(&mut client), Step::Sent);
        assert_eq!(step(&mut client), Step::Wait);
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
        while step(&mut client) == Step::Wait {
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

    /// A client of TCP that has no room for the whole of its greeting.
    fn full_client() -> (Client, TcpStream) {
        let listener = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        // Taken over by the sockets that are accepted (tcp(7)).
        listener.set_send_buffer_size(1 << 20).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        listener.bind(&any.into()).unwrap();
        listener.listen(1).unwrap();
        let theirs = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        theirs.set_recv_buffer_size(4096).unwrap();
        theirs.connect(&listener.local_addr().unwrap()).unwrap();
        let ours = Socket::new(listener.accept().unwrap().0.into(), false).unwrap();
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
