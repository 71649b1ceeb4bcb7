//! The sockets of a row, and who is at their other ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::support::Folder;

/// What the shell has as its descriptor 0, and of two as 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Handed {
    Nothing,
    Listener,
    UnixListener,
    Client,
    UnixClient,
    /// A client that has said 20,000 bytes before we start.
    Talker,
    /// A client that has reset its connection before we start.
    Gone,
    ListenerAndClient,
    TwoClients,
    /// A client, and a stream as that of the journal for stderr.
    ClientAndJournal,
    /// The same, and the stream is full and stays so.
    ClientAndFullJournal,
    /// TCP, bound, neither listening nor connected.
    Bound,
    Udp,
    UnixDatagram,
    Netlink,
    SeqPacket,
    SeqPacketListener,
    Pipe,
}

/// The sockets of a row.
pub struct Sockets {
    /// What the shell is started with, until it is.
    pub stdin: Option<Stdio>,
    pub stdout: Option<Stdio>,
    /// The listening socket of a row that has just that, to connect to again.
    pub listener: Option<Socket>,
    /// The other ends of all that is connected, and whoever waits at `listener`.
    pub clients: Vec<Socket>,
    /// The journal's end of its stream.
    journal: Option<UnixStream>,
}

impl Sockets {
    pub fn new(handed: Handed, path: &Path) -> Self {
        let mut clients = Vec::new();
        let mut stdout = Stdio::null();
        let mut listener = None;
        let mut journal = None;
        let mut accepted = || {
            let (ours, theirs) = tcp_pair();
            clients.push(theirs);
            ours
        };
        let stdin: Stdio = match handed {
            Handed::Nothing => Stdio::null(),
            Handed::Pipe => Stdio::piped(),
            Handed::Listener => give(listener.insert(tcp_listener())),
            Handed::UnixListener => give(listener.insert(UnixListener::bind(path).unwrap().into())),
            Handed::ListenerAndClient => {
                stdout = give(&accepted());
                give(&tcp_listener())
            }
            Handed::TwoClients => {
                stdout = give(&accepted());
                give(&accepted())
            }
            Handed::ClientAndJournal | Handed::ClientAndFullJournal => {
                let (mut ours, theirs) = UnixStream::pair().unwrap();
                if handed == Handed::ClientAndFullJournal {
                    ours.set_nonblocking(true).unwrap();
                    while ours.write(&[b'x'; 4096]).is_ok() {}
                    ours.set_nonblocking(false).unwrap();
                }
                journal = Some(theirs);
                stdout = give(&ours.into());
                give(&accepted())
            }
            Handed::Client => give(&accepted()),
            Handed::UnixClient => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                clients.push(theirs.into());
                give(&ours.into())
            }
            Handed::Talker => {
                let (ours, mut theirs) = tcp_pair();
                theirs.write_all(&WORDS.repeat(1000)).unwrap();
                clients.push(theirs);
                give(&ours)
            }
            Handed::Gone => {
                let (ours, theirs) = tcp_pair();
                theirs.set_linger(Some(Duration::ZERO)).unwrap();
                give(&ours)
            }
            Handed::Bound => {
                let socket = new(Domain::IPV4, Type::STREAM);
                let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
                socket.bind(&any.into()).unwrap();
                give(&socket)
            }
            Handed::Udp => give(&new(Domain::IPV4, Type::DGRAM)),
            Handed::UnixDatagram => give(&new(Domain::UNIX, Type::DGRAM)),
            // AF_NETLINK, netlink(7).
            Handed::Netlink => give(&new(Domain::from(16), Type::RAW)),
            Handed::SeqPacket => {
                let (ours, theirs) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None).unwrap();
                clients.push(theirs);
                give(&ours)
            }
            Handed::SeqPacketListener => {
                let socket = new(Domain::UNIX, Type::SEQPACKET);
                socket.bind(&SockAddr::unix(path).unwrap()).unwrap();
                socket.listen(1).unwrap();
                give(&socket)
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

    /// What the journal was told, once nobody can tell it more, without that of
    /// which it was full.
    pub fn told(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut journal) = self.journal.take() {
            journal.read_to_string(&mut text).unwrap();
        }
        text.trim_start_matches('x').to_owned()
    }
}

/// 20 bytes of which none may turn up anywhere.
const WORDS: &[u8] = b"\r\n<0>secret {mode} %n";

pub fn connect(listener: &Socket) -> Socket {
    let address = listener.local_addr().unwrap();
    let socket = new(address.domain(), Type::STREAM);
    socket.connect(&address).unwrap();
    socket
}

/// Sockets at which no service manager is: `gone` with nobody behind it, and
/// `stream` of the wrong type.
pub fn managers(folder: &Folder) -> UnixListener {
    drop(UnixDatagram::bind(folder.path("gone")).unwrap());
    UnixListener::bind(folder.path("stream")).unwrap()
}

fn new(domain: Domain, kind: Type) -> Socket {
    Socket::new(domain, kind, None).unwrap()
}

fn tcp_listener() -> Socket {
    TcpListener::bind("127.0.0.1:0").unwrap().into()
}

/// A connection: the end that is handed over, and the client's.
fn tcp_pair() -> (Socket, Socket) {
    let listener = tcp_listener();
    let client = connect(&listener);
    (listener.accept().unwrap().0, client)
}

fn give(socket: &Socket) -> Stdio {
    OwnedFd::from(socket.try_clone().unwrap()).into()
}
