//! Passes sockets to a program as systemd does, for machines without systemd-socket-activate(1).

use std::error::Error;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;

use clap::Parser;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use socket2::{SockAddr, Socket, Type};

/// Waits for a client on a socket, then runs a program that gets the socket.
#[derive(Parser)]
struct Options {
    /// Accept the connections, and run the program for each
    #[arg(short, long)]
    accept: bool,
    /// Pass the connection as stdin and stdout instead of descriptor 3
    #[arg(long)]
    inetd: bool,
    /// Listen for datagrams
    #[arg(short, long)]
    datagram: bool,
    /// The name of the socket
    #[arg(long)]
    fdname: Option<String>,
    /// A port, an address with a port, or the path of a Unix socket
    #[arg(short, long)]
    listen: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

impl Options {
    /// A shell that gives the socket, its stdin, the right number and becomes the program.
    /// Only that process knows its LISTEN_PID.
    fn program_with(&self, socket: Socket) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(if self.inetd {
            r#"exec "$@" >&0"#
        } else {
            r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@" 3<&0 </dev/null"#
        });
        command.envs(self.fdname.iter().map(|name| ("LISTEN_FDNAMES", name)));
        command
            .arg("sh")
            .args(&self.program)
            .stdin(OwnedFd::from(socket));
        command
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let port = options
        .listen
        .parse()
        .map(|port: u16| ([0, 0, 0, 0], port).into());
    let address = match port.or_else(|_| options.listen.parse::<SocketAddr>()) {
        Ok(address) => SockAddr::from(address),
        Err(_) => SockAddr::unix(&options.listen)?,
    };
    let kind = if options.datagram {
        Type::DGRAM
    } else {
        Type::STREAM
    };
    let socket = Socket::new(address.domain(), kind, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address)?;
    if !options.datagram {
        socket.listen(128)?;
    }
    eprintln!("Listening on {} as 3.", options.listen);
    if !options.accept {
        let mut poll = Poll::new()?;
        let mut source = SourceFd(&socket.as_raw_fd());
        poll.registry()
            .register(&mut source, Token(0), Interest::READABLE)?;
        poll.poll(&mut Events::with_capacity(1), None)?;
        return Err(options.program_with(socket).exec().into());
    }
    loop {
        let mut child = options.program_with(socket.accept()?.0).spawn()?;
        thread::spawn(move || {
            let code = child.wait().ok().and_then(|status| status.code());
            eprintln!("Child {} died with code {}", child.id(), code.unwrap_or(-1));
        });
    }
}
