//! Sockets as they are handed over, accepted, written and closed; the door to socket2. Floor 2.

use std::fmt;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::str::FromStr;

use socket2::{Domain, SockAddr, SockRef, Type};

use crate::raw;

/// `MSG_DONTWAIT` of send(2): no fcntl(2) per client is needed to be non-blocking.
/// What does not wait is not interrupted by a signal either (signal(7)).
const DONTWAIT: i32 = 0x40;
/// `MSG_NOSIGNAL` of send(2).
const NOSIGNAL: i32 = 0x4000;
/// `MSG_MORE` of send(2): the last bytes wait for the shutdown that follows, so
/// that greeting and end travel in one segment. It halves what TCP does a client.
const MORE: i32 = 0x8000;
/// `MSG_TRUNC` of recv(2): TCP drops the bytes without copying them (tcp(7)).
const TRUNC: i32 = 0x20;

/// The states in which TCP has sent an end that is not acknowledged yet: FIN-WAIT-1,
/// LAST-ACK and CLOSING (RFC 9293, 3.3.2), as numbered in the kernel's
/// `include/net/tcp_states.h`.
const END_ON_ITS_WAY: [u8; 3] = [4, 9, 11];

/// What is said of an end without a name, as that of a Unix socket's client.
const NOWHERE: &str = "-";

/// Asks the kernel what a descriptor is: whether the stream socket listens.
///
/// A missing peer address is no proof that a socket listens, as a client that
/// reset its connection has none either: `SO_ACCEPTCONN` (socket(7)) decides.
///
/// # Errors
/// Why it is nothing that can be served, to be put behind "descriptor N ".
pub fn listens(fd: BorrowedFd<'_>) -> Result<bool, String> {
    let socket = SockRef::from(&fd);
    let why = match (socket.r#type(), socket.domain()) {
        (Ok(Type::STREAM), Ok(Domain::IPV4 | Domain::IPV6 | Domain::UNIX)) => {
            let failed = |error| format!("does not say whether it listens: {error}");
            return socket.is_listener().map_err(failed);
        }
        (Ok(Type::STREAM), _) => "is of no family that is served (IPv4, IPv6, Unix)",
        (Ok(Type::DGRAM), _) => "is a datagram socket",
        (Ok(Type::SEQPACKET), _) => "is a sequential-packet socket",
        (Ok(_), _) => "is no stream socket",
        (Err(error), _) if error.raw_os_error() == Some(raw::errno::EBADF) => "is not open",
        (Err(_), _) => "is no socket",
    };
    Err(why.to_owned())
}

/// Whether a descriptor is a client that came to an address. The socket pairs
/// that sshd(8) gives its programs for stdin and stdout have none.
pub fn is_client(fd: BorrowedFd<'_>) -> bool {
    let local = Local::new(SockRef::from(&fd).local_addr());
    listens(fd) == Ok(false) && local.text != NOWHERE
}

/// Two ends of one stream, non-blocking from birth: std's way there takes an
/// ioctl(2), which the sandbox of the units can then do without.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = socket2::Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
}

/// Writes what a socket takes without waiting.
///
/// # Errors
/// Those of send(2).
pub fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(&fd).send_with_flags(bytes, DONTWAIT | NOSIGNAL)
}

/// Where to listen without systemd, as the command line names it: `IP:PORT` or `/path`.
#[derive(Debug, Clone)]
pub struct Place {
    text: String,
    address: SockAddr,
}

impl Place {
    /// Removes the path that was bound. Whoever removed it before did our work.
    pub fn leave(&self) {
        if self.text.starts_with('/') {
            let _ = fs::remove_file(&self.text);
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = match text.parse::<SocketAddr>() {
            Ok(ip) => ip.into(),
            Err(_) if text.starts_with('/') => SockAddr::unix(text).map_err(|e| e.to_string())?,
            Err(_) => return Err("write IP:PORT, [IPV6]:PORT or /path".to_owned()),
        };
        let text = text.to_owned();
        Ok(Self { text, address })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Our end of a connection, or where a socket listens.
#[derive(Debug, Clone)]
pub struct Local {
    /// The address and port, of TCP.
    pub ip: Option<SocketAddr>,
    /// The same in words, or a Unix socket's path; `-` where there is neither.
    pub text: String,
}

impl Local {
    fn new(address: io::Result<SockAddr>) -> Self {
        let address = address.ok();
        let ip = address.as_ref().and_then(ip);
        let path = || Some(address.as_ref()?.as_pathname()?.display().to_string());
        let text = ip.map(|ip| ip.to_string()).or_else(path);
        let text = text.unwrap_or_else(|| NOWHERE.to_owned());
        Self { ip, text }
    }
}

/// The address and port, of TCP. An IPv4-mapped IPv6 address is made IPv4.
fn ip(address: &SockAddr) -> Option<SocketAddr> {
    let ip = address.as_socket()?;
    Some(SocketAddr::new(ip.ip().to_canonical(), ip.port()))
}

/// A stream socket, listening or connected. What is done to it does not wait.
#[derive(Debug)]
pub struct Socket(socket2::Socket);

impl Socket {
    /// Takes a socket of which [`listens`] told. One that listens is made
    /// non-blocking, and must be, as its queue can be empty all the same.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(fd: OwnedFd, listens: bool) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        if listens {
            socket.set_nonblocking(true)?;
        }
        Ok(Self(socket))
    }

    /// Binds and listens. An IPv6 address serves IPv6 alone, so that `0.0.0.0` and
    /// `[::]` go together; a path must not exist.
    ///
    /// # Errors
    /// The kernel's.
    pub fn listen(Place { address, .. }: &Place) -> io::Result<Self> {
        let socket = socket2::Socket::new(address.domain(), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(address)?;
        socket.listen(4096)?;
        Self::new(socket.into(), true)
    }

    /// The next client and, of TCP, its address; `WouldBlock` where nobody waits.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn accept(&self) -> io::Result<(Self, Option<SocketAddr>)> {
        let (socket, address) = self.0.accept()?;
        Ok((Self(socket), ip(&address)))
    }

    /// The other end's address, of TCP and while there is one.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.0.peer_addr().ok().as_ref().and_then(ip)
    }

    /// Where it listens, or what its client reached.
    pub fn local(&self) -> Local {
        Local::new(self.0.local_addr())
    }

    /// Hands bytes to the kernel and says how many it took. [`Socket::finish`]
    /// must follow the last of them: until then they may be held back.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send_with_flags(bytes, DONTWAIT | NOSIGNAL | MORE)
    }

    /// Tells the client that nothing more comes.
    pub fn finish(&self) {
        // It fails only where the client is gone already, which the next read tells.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Whether the other end's kernel has all that was sent, and the end of it,
    /// which [`Socket::finish`] sent: a close loses nothing any more. On a Unix
    /// socket that is so at once.
    pub fn is_delivered(&self) -> bool {
        let state = raw::tcp_state(self.0.as_fd());
        state.is_none_or(|state| !END_ON_ITS_WAY.contains(&state))
    }

    /// Reads at most `most` bytes, and at most `scratch` holds, only to drop
    /// them; 0 is the client's end.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn drop_input(&self, scratch: &mut Scratch, most: usize) -> io::Result<usize> {
        let most = most.min(scratch.0.len());
        let room = &mut scratch.0[..most];
        self.0.recv_with_flags(room, DONTWAIT | TRUNC)
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Where dropped bytes go on the families whose kernel code copies them all the same.
#[derive(Debug)]
pub struct Scratch(Box<[MaybeUninit<u8>]>);

impl Default for Scratch {
    fn default() -> Self {
        // Never touched for TCP, so it costs address space only.
        Self(vec![MaybeUninit::uninit(); 65536].into_boxed_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn the_kernel_says_what_a_descriptor_is() {
        let no = |why: &str| Err(why.to_owned());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(listens(listener.as_fd()), Ok(true));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert_eq!(listens(stream.as_fd()), Ok(false));
        let datagram = UnixDatagram::unbound().unwrap();
        assert_eq!(listens(datagram.as_fd()), no("is a datagram socket"));
        let file = fs::File::open("/dev/null").unwrap();
        assert_eq!(listens(file.as_fd()), no("is no socket"));
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(Local::new(Ok(mapped.into())).text, "192.0.2.1:80");
    }

    #[test]
    fn a_client_of_both_families_socket_is_ipv4_from_either_end() {
        let both = socket2::Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        both.set_only_v6(false).unwrap();
        both.bind(&SocketAddr::from(([0; 16], 0)).into()).unwrap();
        both.listen(1).unwrap();
        let listener = Socket::new(both.into(), false).unwrap();
        let port = listener.local().ip.unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().ok());
        assert_eq!(accepted.peer(), peer);
        assert_eq!(accepted.local().text, format!("127.0.0.1:{port}"));
    }

    #[test]
    fn input_is_dropped_and_counted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let [ours, theirs] = [ours, theirs].map(|end| Socket::new(end.into(), false).unwrap());
        let mut scratch = Scratch::default();
        let empty = ours.drop_input(&mut scratch, 10).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        theirs.send(b"hello").unwrap();
        theirs.finish();
        assert_eq!(ours.drop_input(&mut scratch, 3).unwrap(), 3);
        assert_eq!(ours.drop_input(&mut scratch, 10).unwrap(), 2);
        assert_eq!(ours.drop_input(&mut scratch, 10).unwrap(), 0);
    }
}
