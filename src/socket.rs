//! Stream sockets: bind, accept, send, shut down, discard; wraps socket2.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Type};

use crate::error::os_message;
use crate::sys;
use crate::sys::ffi::{self, errno};

/// `MSG_DONTWAIT` of send(2) and recv(2): connected sockets need no fcntl(2) to be
/// non-blocking. A call that does not block is not interrupted by a signal either
/// (signal(7)).
const MSG_DONTWAIT: i32 = 0x40;
/// `MSG_NOSIGNAL` of send(2).
const MSG_NOSIGNAL: i32 = 0x4000;
/// `MSG_MORE` of send(2): the last bytes wait for the shutdown(2) that follows, so
/// that greeting and FIN are one segment. It halves the TCP work per connection.
const MSG_MORE: i32 = 0x8000;
/// `MSG_TRUNC` of recv(2): TCP discards the bytes without copying them (tcp(7)).
const MSG_TRUNC: i32 = 0x20;

/// The TCP state of a connection that both sides have closed, with all of it acknowledged,
/// or that was reset.
const CLOSED: u8 = 7;
/// The TCP states with a sent, unacknowledged FIN: FIN-WAIT-1, LAST-ACK and CLOSING
/// (RFC 9293, 3.3.2), as numbered in the kernel's `include/net/tcp_states.h`.
const FIN_UNACKED: [u8; 3] = [4, 9, 11];

/// The length of the backlog of `--listen`, as `Backlog=` in the socket units.
const BACKLOG: i32 = 4096;

/// How much input of a client that cannot be served is discarded, in bytes.
const UNSERVED_INPUT: usize = 65536;

/// Why a descriptor cannot be served; displayed, it follows "descriptor N ".
#[derive(Debug)]
pub enum InvalidSocket {
    /// No descriptor of this number is open.
    NotOpen,
    /// A file, a pipe or a terminal.
    NotASocket,
    /// A datagram, sequential-packet or raw socket.
    NotAStream {
        /// The word for its type.
        kind: &'static str,
        /// The setting of the socket unit that creates such sockets.
        setting: &'static str,
    },
    /// A stream of another family than IPv4, IPv6 and Unix.
    UnsupportedFamily,
    /// getsockopt(2) failed for a socket; the option that it was called for.
    Unknown(&'static str, io::Error),
}

impl InvalidSocket {
    fn from_getsockopt(option: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno::EBADF) => Self::NotOpen,
            Some(errno::ENOTSOCK) => Self::NotASocket,
            _ => Self::Unknown(option, error),
        }
    }
}

impl fmt::Display for InvalidSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotOpen => f.write_str("is not open; start greeter from its socket unit"),
            Self::NotASocket => f.write_str(
                "is not a socket; replace ListenFIFO=, ListenMessageQueue= or ListenSpecial= \
                 with ListenStream= in the socket unit",
            ),
            Self::NotAStream { kind, setting } => write!(
                f,
                "is a {kind} socket; replace {setting} with ListenStream= in the socket unit"
            ),
            Self::UnsupportedFamily => f.write_str(
                "has an unsupported address family; \
                 use an IPv4, IPv6 or Unix address in the socket unit",
            ),
            Self::Unknown(option, error) => write!(
                f,
                "cannot be inspected: getsockopt({option}): {}",
                os_message(error)
            ),
        }
    }
}

/// Whether a descriptor is a listening stream socket (`true`) or a connected one.
///
/// `SO_ACCEPTCONN` (socket(7)) decides. A missing peer address is no proof that a
/// socket listens: a client that has reset its connection has none either.
///
/// # Errors
/// Why the descriptor cannot be served.
pub fn is_listening(fd: BorrowedFd<'_>) -> Result<bool, InvalidSocket> {
    let socket = SockRef::from(&fd);
    let socket_type = socket
        .r#type()
        .map_err(|error| InvalidSocket::from_getsockopt("SO_TYPE", error))?;
    let (kind, setting) = match socket_type {
        Type::STREAM => return is_listening_stream(&socket),
        Type::DGRAM => ("datagram", "ListenDatagram="),
        Type::SEQPACKET => ("sequential-packet", "ListenSequentialPacket="),
        _ => ("raw", "ListenNetlink="),
    };
    Err(InvalidSocket::NotAStream { kind, setting })
}

fn is_listening_stream(socket: &SockRef<'_>) -> Result<bool, InvalidSocket> {
    let family = socket
        .domain()
        .map_err(|error| InvalidSocket::from_getsockopt("SO_DOMAIN", error))?;
    if ![Domain::IPV4, Domain::IPV6, Domain::UNIX].contains(&family) {
        return Err(InvalidSocket::UnsupportedFamily);
    }
    socket
        .is_listener()
        .map_err(|error| InvalidSocket::from_getsockopt("SO_ACCEPTCONN", error))
}

/// Whether a descriptor is a connected socket with a local address.
pub fn is_client(fd: BorrowedFd<'_>) -> bool {
    matches!(is_listening(fd), Ok(false)) && has_address(fd)
}

/// Whether a descriptor is a socket with a local address. The socket pairs that
/// sshd(8) uses for stdin and stdout of its programs have none, and neither has the
/// stream to the journal.
pub fn has_address(fd: BorrowedFd<'_>) -> bool {
    LocalAddr::new(SockRef::from(&fd).local_addr()) != LocalAddr::Unnamed
}

/// Ends a connection that cannot be served, before its descriptor is closed: sends FIN and
/// discards the input that has arrived, so that the client reads the end of the stream and
/// no reset. Waits at most `timeout` for the client to close. How a connection is closed that
/// is served: `server/connection`.
pub fn end_unserved(fd: BorrowedFd<'_>, timeout: Duration) {
    let socket = SockRef::from(&fd);
    // Errors are ignored: the connection is closed in any case.
    let _ = socket.shutdown(Shutdown::Write);
    let deadline = Instant::now() + timeout;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut discarded = 0;
    while discarded < UNSERVED_INPUT {
        match socket.recv_with_flags(&mut buffer, MSG_DONTWAIT) {
            Ok(0) => return,
            Ok(count) => discarded += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let remaining = deadline.saturating_duration_since(Instant::now());
                if remaining.is_zero() || !sys::wait_readable(fd, remaining) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Ends a connection as [`end_unserved`] does, without waiting, if the descriptor is one.
pub fn end_if_connected(fd: BorrowedFd<'_>) {
    if SockRef::from(&fd).peer_addr().is_ok() {
        end_unserved(fd, Duration::ZERO);
    }
}

/// A connected pair of sockets, created non-blocking: std needs an ioctl(2) for
/// that, which the system call filter of the units does not allow.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(UnixStream, UnixStream)> {
    let (one, other) = socket2::Socket::pair(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    Ok((OwnedFd::from(one).into(), OwnedFd::from(other).into()))
}

/// Reads and discards all input of a non-blocking stream socket.
pub fn discard_all(socket: &UnixStream) {
    let mut buffer = [MaybeUninit::uninit(); 64];
    // Any error is the end: EAGAIN if the input is discarded.
    while SockRef::from(socket)
        .recv_with_flags(&mut buffer, MSG_DONTWAIT)
        .is_ok_and(|length| length == buffer.len())
    {}
}

/// Sends as many bytes as the socket accepts without blocking, and returns their number.
///
/// # Errors
/// Those of send(2).
pub fn send_nonblocking(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    SockRef::from(&fd).send_with_flags(bytes, MSG_DONTWAIT | MSG_NOSIGNAL)
}

/// A datagram socket connected to a Unix socket, for notifications. It never blocks.
#[derive(Debug)]
pub struct DatagramSocket(socket2::Socket);

impl DatagramSocket {
    /// Connects to `address`: a path, or an abstract name with `@` in front
    /// (unix(7)).
    ///
    /// # Errors
    /// Those of socket(2) and connect(2); an address that is too long.
    pub fn connect(address: &OsStr) -> io::Result<Self> {
        let bytes = address.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SockAddr::unix(OsStr::from_bytes(&[b"\0", name].concat()))?,
            None => SockAddr::unix(address)?,
        };
        let socket = socket2::Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.connect(&address)?;
        Ok(Self(socket))
    }

    /// Sends one datagram.
    ///
    /// # Errors
    /// Those of send(2); `WouldBlock` if the receiver's queue is full.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.0
            .send_with_flags(datagram, MSG_DONTWAIT | MSG_NOSIGNAL)
            .map(drop)
    }
}

/// An address to listen on without systemd: `IP:PORT` or `/path`.
#[derive(Debug, Clone)]
pub struct ListenAddr {
    text: String,
    address: SockAddr,
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = if let Ok(ip) = text.parse::<SocketAddr>() {
            ip.into()
        } else if text.starts_with('/') {
            SockAddr::unix(text).map_err(|error| error.to_string())?
        } else {
            return Err("expected IP:PORT, [IPV6]:PORT or /path".to_owned());
        };
        Ok(Self {
            text: text.to_owned(),
            address,
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The local address of a socket. IPv4-mapped IPv6 addresses are stored as IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalAddr {
    /// Address and port of a TCP socket.
    Ip(SocketAddr),
    /// Path of a Unix socket.
    Path(String),
    /// Name of an abstract Unix socket (unix(7)), without the null byte in front.
    Abstract(String),
    /// A socket without an address, such as one of a socket pair.
    Unnamed,
}

impl LocalAddr {
    fn new(address: io::Result<SockAddr>) -> Self {
        let Ok(address) = address else {
            return Self::Unnamed;
        };
        if let Some(ip) = ip_addr(&address) {
            Self::Ip(ip)
        } else if let Some(path) = address.as_pathname() {
            Self::Path(path.display().to_string())
        } else if let Some(name) = address.as_abstract_namespace() {
            Self::Abstract(String::from_utf8_lossy(name).into_owned())
        } else {
            Self::Unnamed
        }
    }

    /// Whether the socket listens on all addresses of the host (`0.0.0.0`, `[::]`).
    pub fn is_wildcard(&self) -> bool {
        matches!(self, Self::Ip(address) if address.ip().is_unspecified())
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Path(path) => f.write_str(path),
            Self::Abstract(name) => write!(f, "@{name}"),
            Self::Unnamed => f.write_str("-"),
        }
    }
}

/// Address and port of a TCP socket. An IPv4-mapped IPv6 address becomes IPv4; a
/// link-local one keeps its interface.
fn ip_addr(address: &SockAddr) -> Option<SocketAddr> {
    let address = address.as_socket()?;
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => Some(SocketAddr::from((v4, address.port()))),
        IpAddr::V6(_) => Some(address),
    }
}

/// An IP address without its port: IPv4-mapped addresses as IPv4, link-local ones with
/// the number of their interface, as `fe80::1%2`.
pub fn format_ip(address: SocketAddr) -> String {
    let ip = address.ip().to_canonical();
    match address {
        SocketAddr::V6(v6) if v6.scope_id() != 0 => format!("{ip}%{}", v6.scope_id()),
        _ => ip.to_string(),
    }
}

/// A listening socket with its name. It never blocks: the backlog can be empty
/// although the socket was reported readable.
#[derive(Debug)]
pub struct ListenSocket {
    socket: socket2::Socket,
    name: String,
    /// Unlinked when the socket is dropped.
    _bound_path: Option<BoundPath>,
}

impl ListenSocket {
    /// Takes over a socket that [`is_listening`]. `name` is its `FileDescriptorName=`.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn new(fd: OwnedFd, name: String) -> io::Result<Self> {
        let socket = socket2::Socket::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            name,
            _bound_path: None,
        })
    }

    /// Binds an address and listens on it; the address is the socket's name. An
    /// IPv6 address serves IPv6 only, so that `0.0.0.0` and `[::]` can be used
    /// together. A path must not exist, unless it is a socket on which nobody listens: a
    /// killed process has left it. It is unlinked when the socket is dropped.
    ///
    /// # Errors
    /// Those of socket(2), setsockopt(2), bind(2), listen(2) and fcntl(2).
    pub fn bind(address: &ListenAddr) -> io::Result<Self> {
        let ListenAddr { text, address } = address;
        let socket = socket2::Socket::new(address.domain(), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        match socket.bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(address) => {
                fs::remove_file(text)?;
                socket.bind(address)?;
            }
            result => result?,
        }
        let bound_path = if address.is_unix() {
            Some(BoundPath::new(text.into())?)
        } else {
            None
        };
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            name: text.clone(),
            _bound_path: bound_path,
        })
    }

    /// The name that selects the greeting, and that the journal reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that the socket listens on.
    pub fn local_addr(&self) -> LocalAddr {
        LocalAddr::new(self.socket.local_addr())
    }

    /// Accepts the next connection; returns its socket and, of TCP, the peer's address.
    ///
    /// # Errors
    /// Those of accept(2); `WouldBlock` if the backlog is empty.
    pub fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let (socket, peer) = self.socket.accept()?;
        Ok((Socket(socket), ip_addr(&peer)))
    }
}

impl AsFd for ListenSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for ListenSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// Whether the path of a Unix socket was left behind by a process that was killed: it is a
/// socket, not a link to one, and connect(2) is refused. connect(2) is refused for any other
/// kind of file as well (unix(7)).
fn is_stale(address: &SockAddr) -> bool {
    let is_socket = address.as_pathname().is_some_and(|path| {
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
    });
    let Ok(socket) = socket2::Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None) else {
        return false;
    };
    is_socket
        && socket
            .connect(address)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The path of a Unix socket that this process has bound; unlinked on drop, unless
/// another socket has taken its place.
#[derive(Debug)]
struct BoundPath {
    path: PathBuf,
    /// Device and inode of the socket.
    identity: (u64, u64),
}

impl BoundPath {
    fn new(path: PathBuf) -> io::Result<Self> {
        let identity = path_identity(&path)?;
        Ok(Self { path, identity })
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if path_identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // An error is ignored: the path may have been removed meanwhile.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn path_identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A connected stream socket. No operation blocks.
#[derive(Debug)]
pub struct Socket(socket2::Socket);

impl From<OwnedFd> for Socket {
    fn from(fd: OwnedFd) -> Self {
        Self(fd.into())
    }
}

impl Socket {
    /// The peer's address; `None` for a Unix socket, or after a reset.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        ip_addr(&self.0.peer_addr().ok()?)
    }

    /// The address that the client connected to.
    pub fn local_addr(&self) -> LocalAddr {
        LocalAddr::new(self.0.local_addr())
    }

    /// Queues bytes for sending and returns how many the kernel accepted.
    /// [`Socket::shutdown_write`] must follow the last of them: until then the
    /// kernel may hold them back.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE;
        self.0.send_with_flags(bytes, flags)
    }

    /// Sends FIN (shutdown(2), `SHUT_WR`): the client reads EOF after the greeting.
    pub fn shutdown_write(&self) {
        // An error is ignored: it means that the connection is gone, which the
        // next recv(2) reports.
        let _ = self.0.shutdown(Shutdown::Write);
    }

    /// Makes close(2) send a reset and drop what is unsent, so that the peer of a
    /// greeting that was cut does not take it for whole (SO_LINGER with 0 s, which has
    /// nothing to do with `linger_timeout`). A Unix socket has no reset.
    pub fn reset_on_close(&self) {
        // An error is ignored: the connection is gone already.
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }

    /// Whether the peer's kernel has acknowledged all bytes and the FIN of
    /// [`Socket::shutdown_write`], so that close(2) loses nothing. On a Unix
    /// socket this is always so.
    pub fn is_delivered(&self) -> bool {
        match ffi::tcp_state(self.0.as_fd()) {
            Some(state) => !FIN_UNACKED.contains(&state),
            None => true,
        }
    }

    /// Whether both sides have closed and the peer's kernel has acknowledged everything, or
    /// the connection was reset: close(2) then sends nothing, even if input was not read.
    /// Never so on a Unix socket.
    pub fn is_closed(&self) -> bool {
        ffi::tcp_state(self.0.as_fd()) == Some(CLOSED)
    }

    /// Reads what has arrived, at most the size of the buffer; returns how many bytes. 0
    /// is the peer's EOF.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        ffi::receive(self.0.as_fd(), buffer)
    }

    /// Reads and discards input, at most the size of the buffer; returns how many bytes. 0
    /// is the peer's EOF.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn discard(&self, buffer: &mut DiscardBuffer) -> io::Result<usize> {
        self.0
            .recv_with_flags(&mut buffer.0, MSG_DONTWAIT | MSG_TRUNC)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Receives discarded bytes on the address families whose kernel code copies them
/// in spite of `MSG_TRUNC`.
#[derive(Debug)]
pub struct DiscardBuffer(Box<[MaybeUninit<u8>]>);

impl Default for DiscardBuffer {
    fn default() -> Self {
        // Not touched by TCP, so it costs only address space there.
        Self(vec![MaybeUninit::uninit(); 65536].into_boxed_slice())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn descriptors_are_classified() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(is_listening(listener.as_fd()).unwrap());
        let (stream, _other) = UnixStream::pair().unwrap();
        assert!(!is_listening(stream.as_fd()).unwrap());
        let datagram = UnixDatagram::unbound().unwrap();
        assert!(matches!(
            is_listening(datagram.as_fd()),
            Err(InvalidSocket::NotAStream {
                kind: "datagram",
                ..
            })
        ));
        let file = fs::File::open("/dev/null").unwrap();
        assert!(matches!(
            is_listening(file.as_fd()),
            Err(InvalidSocket::NotASocket)
        ));
    }

    /// A TCP connection: the server's end, and the client's.
    fn tcp_pair() -> (std::net::TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    /// A TCP connection whose client has no room for 100,000 bytes, which the server's end
    /// can send.
    pub fn pair_with_small_window() -> (socket2::Socket, std::net::TcpStream) {
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
        (server, client.into())
    }

    #[test]
    fn client_is_a_connected_socket_with_an_address() {
        let (server, _client) = tcp_pair();
        assert!(is_client(server.as_fd()));
        let (unnamed, _other) = UnixStream::pair().unwrap();
        assert!(!is_client(unnamed.as_fd()));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_client(listener.as_fd()));
        let file = fs::File::open("/dev/null").unwrap();
        assert!(!is_client(file.as_fd()));
    }

    #[test]
    fn connection_that_is_not_served_ends_without_a_reset() {
        use std::io::{Read, Write};
        let (server, mut client) = tcp_pair();
        client.write_all(&[b'x'; 20_000]).unwrap();
        // All of it has arrived: loopback delivers at once.
        end_if_connected(server.as_fd());
        drop(server);
        assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
        // A reset after the FIN.
        assert!(client.take_error().unwrap().is_none());
    }

    /// A client that stays open; what it sends reaches the limit.
    #[test]
    fn graceful_close_ends_with_the_last_byte_to_discard() {
        use std::io::Write;
        let (server, mut client) = UnixStream::pair().unwrap();
        client.write_all(&[b'x'; UNSERVED_INPUT]).unwrap();
        let begun = Instant::now();
        end_unserved(server.as_fd(), Duration::from_secs(5));
        assert!(begun.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn client_that_is_not_served_has_time_to_close() {
        let (server, client) = UnixStream::pair().unwrap();
        let timeout = Duration::from_millis(50);
        let begun = Instant::now();
        end_unserved(server.as_fd(), timeout);
        assert!(begun.elapsed() >= timeout);
        let closed_after = Duration::from_millis(20);
        let closing = std::thread::spawn(move || {
            std::thread::sleep(closed_after);
            drop(client);
        });
        let begun = Instant::now();
        end_unserved(server.as_fd(), Duration::from_secs(60));
        assert!((closed_after..Duration::from_secs(30)).contains(&begun.elapsed()));
        closing.join().unwrap();
    }

    #[test]
    fn all_input_of_a_wake_socket_is_discarded() {
        for length in [1, 64, 65, 200] {
            let (read, write) = pair().unwrap();
            send_nonblocking(write.as_fd(), &vec![b'x'; length]).unwrap();
            discard_all(&read);
            let mut buffer = [MaybeUninit::uninit(); 1];
            let rest = SockRef::from(&read).recv_with_flags(&mut buffer, MSG_DONTWAIT);
            assert_eq!(rest.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn send_to_a_full_socket_does_not_block() {
        let (server, _client) = UnixStream::pair().unwrap();
        let bytes = vec![0; 1 << 20];
        let sent = send_nonblocking(server.as_fd(), &bytes).unwrap();
        assert!(sent > 1 && sent < bytes.len());
        let server = Socket::from(OwnedFd::from(server));
        let error = server.send(&bytes).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn wildcard_is_the_unspecified_address() {
        for (address, expected) in [
            ("0.0.0.0:1", true),
            ("[::]:1", true),
            ("127.0.0.1:1", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(LocalAddr::Ip(address).is_wildcard(), expected, "{address}");
        }
        assert!(!LocalAddr::Unnamed.is_wildcard());
    }

    #[test]
    fn mapped_addresses_are_shown_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:80".parse().unwrap();
        assert_eq!(
            LocalAddr::new(Ok(mapped.into())).to_string(),
            "192.0.2.1:80"
        );
    }

    #[test]
    fn link_local_addresses_have_their_interface() {
        for (address, expected) in [
            ("[fe80::1%3]:25", "fe80::1%3"),
            ("[2001:db8::1]:25", "2001:db8::1"),
            ("[::ffff:192.0.2.1]:25", "192.0.2.1"),
        ] {
            assert_eq!(format_ip(address.parse().unwrap()), expected);
        }
        let link_local: SocketAddr = "[fe80::1%3]:25".parse().unwrap();
        assert_eq!(
            LocalAddr::new(Ok(link_local.into())).to_string(),
            "[fe80::1%3]:25"
        );
    }

    #[test]
    fn dual_stack_socket_reports_ipv4_clients_as_ipv4() {
        let dual_stack = socket2::Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
        dual_stack.set_only_v6(false).unwrap();
        dual_stack
            .bind(&SocketAddr::from(([0; 16], 0)).into())
            .unwrap();
        dual_stack.listen(1).unwrap();
        let port = dual_stack.local_addr().unwrap().as_socket().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let listener = ListenSocket::new(dual_stack.into(), "test".to_owned()).unwrap();
        let (accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer, client.local_addr().ok());
        assert_eq!(accepted.peer_addr(), peer);
        assert_eq!(
            accepted.local_addr().to_string(),
            format!("127.0.0.1:{port}")
        );
    }

    #[test]
    fn input_is_discarded_and_counted() {
        let (server, client) = UnixStream::pair().unwrap();
        let server = Socket::from(OwnedFd::from(server));
        let client = Socket::from(OwnedFd::from(client));
        let mut buffer = DiscardBuffer::default();
        let empty = server.discard(&mut buffer).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        client.send(b"hello").unwrap();
        client.shutdown_write();
        assert_eq!(server.discard(&mut buffer).unwrap(), 5);
        assert_eq!(server.discard(&mut buffer).unwrap(), 0);
    }
}
