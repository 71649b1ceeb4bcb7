//! The sockets to serve: passed by systemd, on stdin, or bound for `--listen`.

use std::io;
use std::os::fd::AsFd;

use crate::error::Error;
use crate::mode::Mode;
use crate::socket::{self, InvalidSocket, ListenAddr, ListenSocket, Socket};
use crate::sys;
use crate::systemd::activation::{ListenError, PassedSocket};

/// The sockets that the server gets.
#[derive(Debug)]
pub enum ServerSockets {
    /// Mode accept: at least one listening socket.
    Listening(Vec<ListenSocket>),
    /// The modes accepted and inet: the one connection of this process.
    Connection {
        /// The connected socket.
        socket: Socket,
        /// Its name, which selects the greeting.
        name: String,
        /// Whether it was passed as a descriptor or as stdin.
        mode: Mode,
    },
}

impl ServerSockets {
    /// The mode that the sockets were passed in.
    pub fn mode(&self) -> Mode {
        match self {
            Self::Listening(_) => Mode::Accept,
            Self::Connection { mode, .. } => *mode,
        }
    }

    /// Classifies the sockets of `LISTEN_FDS`; without any, or if they are for another
    /// process, takes the one on stdin.
    ///
    /// # Errors
    /// [`Error::Activation`] if there is none, [`Error::SocketMismatch`] if the
    /// combination matches no mode.
    pub fn classify(passed: Result<Vec<PassedSocket>, ListenError>) -> Result<Self, Error> {
        let fds = match passed {
            Ok(fds) => fds,
            Err(ListenError::ForAnotherProcess(_)) if socket::is_client(io::stdin().as_fd()) => {
                Vec::new()
            }
            Err(error) => {
                error.end_connections();
                return Err(error.into());
            }
        };
        let total = fds.len();
        let connected = fds.iter().filter(|passed| !passed.is_listening).count();
        match (connected, total) {
            (_, 0) => Self::from_stdin(),
            (0, _) => {
                let sockets = fds
                    .into_iter()
                    .map(|passed| ListenSocket::new(passed.fd, passed.name))
                    .collect::<io::Result<_>>()
                    .map_err(|error| Error::io("make a socket non-blocking", error))?;
                Ok(Self::Listening(sockets))
            }
            (1, 1) => {
                let mut fds = fds;
                let passed = fds.remove(0);
                Ok(Self::Connection {
                    socket: Socket::from(passed.fd),
                    name: passed.name,
                    mode: Mode::Accepted,
                })
            }
            _ => Err(Error::SocketMismatch(format!(
                "{connected} of {total} sockets are connected; \
                 pass one connected socket, or only listening sockets"
            ))),
        }
    }

    /// Binds the addresses of `--listen`. If one fails, those before it are released.
    ///
    /// # Errors
    /// [`Error::Io`] for the first address that cannot be bound.
    pub fn bind(addresses: &[ListenAddr]) -> Result<Self, Error> {
        let bind = |address: &ListenAddr| {
            ListenSocket::bind(address)
                .map_err(|error| Error::io(format!("listen on '{address}'"), error))
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self::Listening(sockets))
    }

    fn from_stdin() -> Result<Self, Error> {
        Self::take_stdin().inspect_err(|_| socket::end_if_connected(io::stdin().as_fd()))
    }

    fn take_stdin() -> Result<Self, Error> {
        let stdin = io::stdin();
        match socket::is_listening(stdin.as_fd()) {
            Ok(false) => {
                let fd = stdin
                    .as_fd()
                    .try_clone_to_owned()
                    .map_err(|error| Error::io("use the socket on stdin", error))?;
                // `keep_output_from_clients` passed over a socket without an address, as
                // it may be sshd's. Now that it is served, it is a client.
                sys::detach_output_from(stdin.as_fd());
                Ok(Self::Connection {
                    socket: Socket::from(fd),
                    name: Mode::Inet.socket_name().to_owned(),
                    mode: Mode::Inet,
                })
            }
            Ok(true) => Err(Error::SocketMismatch(format!(
                "stdin is a listening socket; set {}, or remove StandardInput=socket from the service",
                Mode::Inet.unit_setup()
            ))),
            Err(InvalidSocket::NotOpen | InvalidSocket::NotASocket) => Err(Error::Activation(
                "no sockets passed by systemd; run 'systemctl restart greeter.socket' (of an \
                 instance, greeter@PORT.socket), or try 'greeter --listen 127.0.0.1:4000'"
                    .to_owned(),
            )),
            Err(reason) => Err(Error::Activation(format!("stdin {reason}"))),
        }
    }
}

/// Redirects stdout and stderr to /dev/null if they are a client's socket, so that
/// nothing that is printed from now on, not even a panic message, reaches a client:
/// neither the one on stdin (mode inet) nor one that was passed (`StandardError=socket`).
/// A socket with an address is taken for a client's, whatever the environment says; the
/// stream to the journal and the socket pairs of sshd(8) have none.
pub fn keep_output_from_clients(passed: &[PassedSocket]) {
    for socket in passed {
        sys::detach_output_from(socket.fd.as_fd());
    }
    let stdout = io::stdout();
    if socket::has_address(stdout.as_fd()) {
        sys::detach_output_from(stdout.as_fd());
    }
    let stderr = io::stderr();
    if socket::has_address(stderr.as_fd()) {
        sys::detach_output_from(stderr.as_fd());
    }
}
