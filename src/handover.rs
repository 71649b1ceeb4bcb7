//! What was handed over: listening sockets, or one client, on a descriptor or on
//! stdin. Floor 4.

use std::io;
use std::os::fd::AsFd;

use crate::error::Error;
use crate::kernel;
use crate::mode::Mode;
use crate::socket::{self, Place, Socket};
use crate::systemd::activation::Handed;

/// What there is to serve.
#[derive(Debug)]
pub struct Handover {
    /// How the clients come.
    pub mode: Mode,
    /// In mode accept the sockets that listen, each with its name; in the others
    /// the one client, with its socket's name.
    pub sockets: Vec<(Socket, String)>,
}

/// Whatever is printed from here on reaches no client: not on stdin and stdout,
/// and not on a stderr that is its socket, too.
pub fn hide_output(handed: &[Handed]) {
    let stdin = io::stdin();
    if socket::is_client(stdin.as_fd()) {
        kernel::hide_output_from(stdin.as_fd());
    }
    for handed in handed {
        kernel::hide_output_from(handed.fd.as_fd());
    }
}

/// Sorts the sockets of `LISTEN_FDS`; where there are none, looks at stdin.
///
/// # Errors
/// Nothing there, or a mixture that fits no mode.
pub fn sort(handed: Vec<Handed>) -> Result<Handover, Error> {
    let connected = handed.iter().filter(|handed| !handed.listens).count();
    let mode = match (connected, handed.len()) {
        (_, 0) => return standard_input(),
        (0, _) => Mode::Accept,
        (1, 1) => Mode::Accepted,
        (_, all) => {
            let what = format!("{connected} of {all} sockets are connected");
            let remedy = "hand over one client, or sockets that listen";
            return Err(Error::Unfit(format!("{what}; {remedy}")));
        }
    };
    let take = |handed: Handed| Ok((Socket::new(handed.fd, handed.listens)?, handed.name));
    let sockets: io::Result<_> = handed.into_iter().map(take).collect();
    let sockets = sockets.map_err(|error| Error::os("make a socket non-blocking", error))?;
    Ok(Handover { mode, sockets })
}

/// Binds the sockets that the command line names.
///
/// # Errors
/// The kernel's, for the first that cannot be had.
pub fn bind(places: &[Place]) -> Result<Handover, Error> {
    let (mode, mut sockets) = (Mode::Accept, Vec::new());
    for (number, place) in places.iter().enumerate() {
        let socket = Socket::listen(place).map_err(|error| {
            places[..number].iter().for_each(Place::leave);
            Error::os(format!("listen on '{place}'"), error)
        })?;
        sockets.push((socket, place.to_string()));
    }
    Ok(Handover { mode, sockets })
}

fn standard_input() -> Result<Handover, Error> {
    let (stdin, mode) = (io::stdin(), Mode::Inet);
    match socket::listens(stdin.as_fd()) {
        Ok(false) => {
            let fd = stdin.as_fd().try_clone_to_owned();
            let socket = fd.and_then(|fd| Socket::new(fd, false));
            let socket = socket.map_err(|error| Error::os("take the client from stdin", error))?;
            // Even a socket without an address is a client once we serve it.
            kernel::hide_output_from(stdin.as_fd());
            let sockets = vec![(socket, mode.socket_name().to_owned())];
            Ok(Handover { mode, sockets })
        }
        Ok(true) => Err(Error::Unfit(format!(
            "stdin is a listening socket; set {}, or leave StandardInput=socket out of the service",
            mode.unit_setup()
        ))),
        Err(_) => Err(Error::Handover(
            "no socket was handed over; run 'systemctl start greeter.socket', or try \
             'greeter --listen 127.0.0.1:4000'"
                .to_owned(),
        )),
    }
}
