//! The sockets of a test case, and their peers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::TempDir;

/// What the shell inherits as descriptor 0 and, if there are two, as 0 and 1. A
/// connection is the server's end; the test is the client.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Inherited {
    Nothing,
    Listener,
    UnixListener,
    Connection,
    UnixConnection,
    /// A connection to an abstract Unix socket (unix(7)).
    AbstractConnection,
    /// 20,000 bytes from the client are in the receive buffer.
    ConnectionWithInput,
    /// The client has reset the connection.
    ResetConnection,
    ListenerAndConnection,
    TwoConnections,
    /// A connection, and a stream like that of the journal for stderr.
    ConnectionAndJournal,
    /// The same; the stream is full and is not read.
    ConnectionAndFullJournal,
    /// A TCP socket that is bound, but neither listening nor connected.
    BoundSocket,
    Udp,
    UnixDatagram,
    Netlink,
    SeqPacket,
    SeqPacketListener,
    Pipe,
}

/// The sockets of a test case.
pub struct Sockets {
    /// Descriptor 0 of the shell, until it is started.
    pub stdin: Option<Stdio>,
    /// Descriptor 1 of the shell, until it is started.
    pub stdout: Option<Stdio>,
    /// The listening socket, if the case has only that; more clients can connect.
    pub listener: Option<Socket>,
    /// The clients: the peers of all connections, and one in the backlog of `listener`.
    pub clients: Vec<Socket>,
    /// The journal's end of its stream.
    journal: Option<UnixStream>,
}

impl Sockets {
    /// `path` is for Unix sockets that are bound.
    pub fn new(inherited: Inherited, path: &Path) -> Self {
        let mut clients = Vec::new();
        let mut stdout = Stdio::null();
        let mut listener = None;
        let mut journal = None;
        let stdin: Stdio = match inherited {
            Inherited::Nothing => Stdio::null(),
            Inherited::Pipe => Stdio::piped(),
            Inherited::Listener => stdio(listener.insert(tcp_listener())),
            Inherited::UnixListener => {
                stdio(listener.insert(UnixListener::bind(path).unwrap().into()))
            }
            Inherited::Connection => tcp_connection(&mut clients),
            Inherited::ListenerAndConnection => {
                stdout = tcp_connection(&mut clients);
                stdio(&tcp_listener())
            }
            Inherited::TwoConnections => {
                stdout = tcp_connection(&mut clients);
                tcp_connection(&mut clients)
            }
            Inherited::ConnectionAndJournal => {
                let (log, receiver) = UnixStream::pair().unwrap();
                journal = Some(receiver);
                stdout = stdio(&log.into());
                tcp_connection(&mut clients)
            }
            Inherited::ConnectionAndFullJournal => {
                let (mut log, receiver) = UnixStream::pair().unwrap();
                fill(&mut log);
                journal = Some(receiver);
                stdout = stdio(&log.into());
                tcp_connection(&mut clients)
            }
            Inherited::UnixConnection => {
                let (connection, client) = UnixStream::pair().unwrap();
                clients.push(client.into());
                stdio(&connection.into())
            }
            Inherited::AbstractConnection => {
                let listener = abstract_listener();
                let client = connect(&listener);
                clients.push(client);
                stdio(&listener.accept().unwrap().0)
            }
            Inherited::ConnectionWithInput => {
                let (connection, mut client) = tcp_pair();
                client.write_all(&INPUT.repeat(1000)).unwrap();
                clients.push(client);
                stdio(&connection)
            }
            Inherited::ResetConnection => {
                let (connection, client) = tcp_pair();
                // With SO_LINGER at zero close(2) sends a reset.
                client.set_linger(Some(Duration::ZERO)).unwrap();
                stdio(&connection)
            }
            Inherited::BoundSocket => {
                let socket = new_socket(Domain::IPV4, Type::STREAM);
                let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
                socket.bind(&address.into()).unwrap();
                stdio(&socket)
            }
            Inherited::Udp => stdio(&new_socket(Domain::IPV4, Type::DGRAM)),
            Inherited::UnixDatagram => stdio(&new_socket(Domain::UNIX, Type::DGRAM)),
            // AF_NETLINK, netlink(7).
            Inherited::Netlink => stdio(&new_socket(Domain::from(16), Type::RAW)),
            Inherited::SeqPacket => {
                let (connection, client) =
                    Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
                clients.push(client);
                stdio(&connection)
            }
            Inherited::SeqPacketListener => {
                let socket = new_socket(Domain::UNIX, Type::SEQPACKET);
                socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
                socket.listen(1).unwrap();
                stdio(&socket)
            }
        };
        clients.extend(listener.as_ref().map(connect));
        Self {
            stdin: Some(stdin),
            stdout: Some(stdout),
            listener,
            clients,
            journal,
        }
    }

    /// What the journal's stream contains at EOF, without the bytes of [`fill`].
    pub fn read_journal(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut journal) = self.journal.take() {
            journal.read_to_string(&mut text).unwrap();
        }
        text.trim_start_matches(char::from(FILL_BYTE)).to_owned()
    }
}

/// 20 bytes of client input. The word "secret" must not be logged.
const INPUT: &[u8] = b"\r\n<0>secret {mode} %n";

/// What [`fill`] writes.
const FILL_BYTE: u8 = b'x';

pub fn connect(listener: &Socket) -> Socket {
    let address = listener.local_addr().unwrap();
    let socket = new_socket(address.domain(), Type::STREAM);
    socket.connect(&address).unwrap();
    socket
}

/// Unix sockets in `directory` that cannot be notified: `closed`, which nothing is
/// bound to, and `stream`, which has the wrong type.
pub fn unusable_notify_sockets(directory: &TempDir) -> UnixListener {
    drop(UnixDatagram::bind(directory.path("closed")).unwrap());
    UnixListener::bind(directory.path("stream")).unwrap()
}

fn new_socket(domain: Domain, kind: Type) -> Socket {
    Socket::new(domain, kind, None).unwrap()
}

fn tcp_listener() -> Socket {
    TcpListener::bind("127.0.0.1:0").unwrap().into()
}

/// A socket with a name that the kernel chooses (unix(7), "Autobind feature").
fn abstract_listener() -> Socket {
    let socket = new_socket(Domain::UNIX, Type::STREAM);
    let unnamed = SockAddr::unix("").unwrap();
    socket.bind(&unnamed).unwrap();
    socket.listen(1).unwrap();
    socket
}

/// A connection: the server's end and the client's.
fn tcp_pair() -> (Socket, Socket) {
    let listener = tcp_listener();
    let client = connect(&listener);
    (listener.accept().unwrap().0, client)
}

/// The server's end of a new connection; the client's is added to `clients`.
fn tcp_connection(clients: &mut Vec<Socket>) -> Stdio {
    let (connection, client) = tcp_pair();
    clients.push(client);
    stdio(&connection)
}

/// Writes until the socket accepts no more.
fn fill(stream: &mut UnixStream) {
    stream.set_nonblocking(true).unwrap();
    while stream.write(&[FILL_BYTE; 4096]).is_ok() {}
    stream.set_nonblocking(false).unwrap();
}

fn stdio(socket: &Socket) -> Stdio {
    OwnedFd::from(socket.try_clone().unwrap()).into()
}
