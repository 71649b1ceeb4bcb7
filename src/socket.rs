//! Sockets as they are handed over, accepted, written and closed; the door to socket2. Floor 2.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::raw;

/// `MSG_DONTWAIT` of send(2): no fcntl(2) per client is needed to be non-blocking.
const DONTWAIT: i32 = 0x40;
/// `MSG_NOSIGNAL` of send(2).
const NOSIGNAL: i32 = 0x4000;
/// `MSG_MORE` of send(2): the last bytes wait for the shutdown that follows, so
/// that greeting and end travel in one segment. It halves what TCP does a client.
const MORE: i32 = 0x8000;
/// `MSG_TRUNC` of recv(2): TCP drops the bytes without copying them (tcp(7)).
const TRUNC: i32 = 0x20;

/// The states in which TCP has sent an end that is not acknowledged yet (RFC 9293,
/// 3.3.2; the numbers are those of the kernel's `include/net/tcp_states.h`).
const FIN_WAIT1: u8 = 4;
/// See [`FIN_WAIT1`].
const LAST_ACK: u8 = 9;
/// See [`FIN_WAIT1`].
const CLOSING: u8 = 11;

/// What a descriptor turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stream socket on which listen(2) was called.
    Listening,
    /// A stream socket on which it was not.
    Connected,
}

/// Asks the kernel what a descriptor is.
///
/// A missing peer address is no proof that a socket listens, as a client that
/// reset its connection has none either: `SO_ACCEPTCONN` (socket(7)) decides.
///
/// # Errors
/// Why it is nothing that can be served, to be put behind "descriptor N ".
pub fn examine(fd: BorrowedFd<'_>) -> Result<Kind, String> {
    let socket = SockRef::from(&fd);
    match socket.r#type() {
        Ok(Type::STREAM) => {}
        Ok(Type::DGRAM) => return Err("is a datagram socket".to_owned()),
        Ok(Type::SEQPACKET) => return Err("is a sequential-packet socket".to_owned()),
        Ok(_) => return Err("is no stream socket".to_owned()),
        Err(error) if error.raw_os_error() == Some(raw::errno::EBADF) => {
            return Err("is not open".to_owned());
        }
        Err(_) => return Err("is no socket".to_owned()),
    }
    match socket.domain() {
        Ok(Domain::IPV4 | Domain::IPV6 | Domain::UNIX) => {}
        _ => return Err("is of no family that is served (IPv4, IPv6, Unix)".to_owned()),
    }
    match socket.is_listener() {
        Ok(true) => Ok(Kind::Listening),
        Ok(false) => Ok(Kind::Connected),
        Err(error) => Err(format!("does not say whether it listens: {error}")),
    }
}

/// Whether a descriptor is a client that came to an address. The socket pairs
/// that sshd(8) gives its programs for stdin and stdout have none.
pub fn is_client(fd: BorrowedFd<'_>) -> bool {
    let local = SockRef::from(&fd).local_addr();
    examine(fd) == Ok(Kind::Connected)
        && local.is_ok_and(|local| Address::new(&local) != Address::Unnamed)
}

/// Two ends of one stream, non-blocking from birth: std's way there takes an
/// ioctl(2), which the sandbox of the units can then do without.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
}

/// Writes what a socket takes without waiting.
///
/// # Errors
/// Those of send(2).
pub fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(&fd).send_with_flags(bytes, DONTWAIT | NOSIGNAL)
}

/// One end of a connection, as far as it has a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// TCP. IPv4-mapped IPv6 addresses are made IPv4.
    Ip(SocketAddr),
    /// A Unix socket bound to a path.
    Path(String),
    /// A Unix socket without one.
    Unnamed,
}

impl Address {
    fn new(address: &SockAddr) -> Self {
        match address.as_socket() {
            Some(ip) => Self::Ip(SocketAddr::new(ip.ip().to_canonical(), ip.port())),
            None => match address.as_pathname() {
                Some(path) => Self::Path(path.to_string_lossy().into_owned()),
                None => Self::Unnamed,
            },
        }
    }

    /// The address and port, of TCP.
    pub fn ip(&self) -> Option<(IpAddr, u16)> {
        match self {
            Self::Ip(ip) => Some((ip.ip(), ip.port())),
            _ => None,
        }
    }

    /// The path, of a Unix socket.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Path(path) => Some(path),
            _ => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Path(path) => f.write_str(path),
            Self::Unnamed => f.write_str("-"),
        }
    }
}

/// A listening socket, non-blocking.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    local: Address,
}

impl Listener {
    /// Takes a socket that [`examine`] found listening.
    ///
    /// # Errors
    /// The kernel refuses to make it non-blocking.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        let local = socket
            .local_addr()
            .map_or(Address::Unnamed, |address| Address::new(&address));
        Ok(Self { socket, local })
    }

    /// Binds and listens on an IP address and port. An IPv6 address serves IPv6
    /// alone, so that `0.0.0.0` and `[::]` go together.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind_ip(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Self::new(socket.into())
    }

    /// Binds and listens on a path, which must not exist.
    ///
    /// # Errors
    /// The kernel's.
    pub fn bind_path(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(4096)?;
        Self::new(socket.into())
    }

    /// The next client and its address; `WouldBlock` where nobody waits.
    ///
    /// # Errors
    /// Those of accept(2).
    pub fn accept(&self) -> io::Result<(Stream, Address)> {
        let (socket, address) = self.socket.accept()?;
        Ok((Stream(socket), Address::new(&address)))
    }

    /// Where it listens.
    pub fn local(&self) -> &Address {
        &self.local
    }

    /// Whether a client's own socket must be asked which address it reached.
    pub fn is_wildcard(&self) -> bool {
        self.local.ip().is_some_and(|(ip, _)| ip.is_unspecified())
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A connected socket. No call on it blocks.
#[derive(Debug)]
pub struct Stream(Socket);

impl Stream {
    /// Takes a socket that [`examine`] found connected.
    pub fn new(fd: OwnedFd) -> Self {
        Self(Socket::from(fd))
    }

    /// The other end's address, while there is one.
    pub fn peer(&self) -> Address {
        self.0
            .peer_addr()
            .map_or(Address::Unnamed, |address| Address::new(&address))
    }

    /// The address that the client reached.
    pub fn local(&self) -> Address {
        self.0
            .local_addr()
            .map_or(Address::Unnamed, |address| Address::new(&address))
    }

    /// Hands bytes to the kernel and says how many it took. [`Stream::finish`]
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
    /// which [`Stream::finish`] sent: a close loses nothing any more. On a Unix
    /// socket that is so at once.
    pub fn is_delivered(&self) -> bool {
        let waits_for_the_ends_receipt = [FIN_WAIT1, LAST_ACK, CLOSING];
        raw::tcp_state(self.0.as_fd())
            .is_none_or(|state| !waits_for_the_ends_receipt.contains(&state))
    }

    /// Reads at most `most` bytes, and at most `scratch` holds, only to drop
    /// them; 0 is the client's end.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn drop_input(&self, scratch: &mut Scratch, most: usize) -> io::Result<usize> {
        let most = most.min(scratch.0.len());
        self.0
            .recv_with_flags(&mut scratch.0[..most], DONTWAIT | TRUNC)
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(examine(listener.as_fd()), Ok(Kind::Listening));
        let (stream, _other) = UnixStream::pair().unwrap();
        assert_eq!(examine(stream.as_fd()), Ok(Kind::Connected));
        let datagram = UnixDatagram::unbound().unwrap();
        assert_eq!(
            examine(datagram.as_fd()),
            Err("is a datagram socket".to_owned())
        );
        let file = std::fs::File::open("/dev/null").unwrap();
        assert_eq!(examine(file.as_fd()), Err("is no socket".to_owned()));
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(Address::new(&mapped.into()).to_string(), "192.0.2.1:80");
    }

    #[test]
    fn input_is_dropped_and_counted() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (ours, theirs) = (Stream::new(ours.into()), Stream::new(theirs.into()));
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
