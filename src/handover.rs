//! What was handed over: listening sockets, or one client, on a descriptor or on
//! stdin. Floor 4.

use std::io;
use std::os::fd::AsFd;

use crate::cli::Place;
use crate::error::Error;
use crate::kernel;
use crate::mode::Mode;
use crate::socket::{self, Kind, Listener, Stream};
use crate::systemd::activation::Socket;

/// What there is to serve.
#[derive(Debug)]
pub enum Handover {
    /// Listening sockets, each with its name.
    Listening(Vec<(Listener, String)>),
    /// One client, how it came, and its socket's name.
    Client(Stream, Mode, String),
}

/// Whatever is printed from here on reaches no client: not on stdin and stdout,
/// and not on a stderr that is its socket, too.
pub fn hide_output(sockets: &[Socket]) {
    let stdin = io::stdin();
    if socket::is_client(stdin.as_fd()) {
        kernel::hide_output_from(stdin.as_fd());
    }
    for socket in sockets {
        kernel::hide_output_from(socket.fd.as_fd());
    }
}

/// Sorts the sockets of `LISTEN_FDS`; where there are none, looks at stdin.
///
/// # Errors
/// Nothing there, or a mixture that fits no mode.
pub fn sort(mut sockets: Vec<Socket>) -> Result<Handover, Error> {
    let connected = |socket: &&Socket| socket.kind == Kind::Connected;
    match (sockets.iter().filter(connected).count(), sockets.len()) {
        (_, 0) => standard_input(),
        (0, _) => {
            let adopt = |socket: Socket| Ok((Listener::new(socket.fd)?, socket.name));
            let listeners: io::Result<_> = sockets.into_iter().map(adopt).collect();
            let failed = |error| Error::os("make a socket non-blocking", error);
            listeners.map(Handover::Listening).map_err(failed)
        }
        (1, 1) => {
            let Socket { fd, name, .. } = sockets.remove(0);
            Ok(Handover::Client(Stream::new(fd), Mode::Accepted, name))
        }
        (connected, all) => Err(Error::Unfit(format!(
            "{connected} of {all} sockets are connected; hand over one client, or sockets that listen"
        ))),
    }
}

/// Binds the sockets that the command line names.
///
/// # Errors
/// The kernel's, for the first that cannot be had.
pub fn bind(places: &[Place]) -> Result<Handover, Error> {
    let mut listeners = Vec::new();
    for place in places {
        let bound = match place {
            Place::Ip(address) => Listener::bind_ip(*address),
            Place::Path(path) => Listener::bind_path(path),
        };
        let name = place.to_string();
        let listener = bound.map_err(|error| Error::os(format!("listen on '{name}'"), error))?;
        listeners.push((listener, name));
    }
    Ok(Handover::Listening(listeners))
}

fn standard_input() -> Result<Handover, Error> {
    let stdin = io::stdin();
    match socket::examine(stdin.as_fd()) {
        Ok(Kind::Connected) => {
            let failed = |error| Error::os("take the client from stdin", error);
            let stream = Stream::new(stdin.as_fd().try_clone_to_owned().map_err(failed)?);
            // Even a socket without an address is a client once we serve it.
            kernel::hide_output_from(stdin.as_fd());
            let name = Mode::Inet.socket_name().to_owned();
            Ok(Handover::Client(stream, Mode::Inet, name))
        }
        Ok(Kind::Listening) => Err(Error::Unfit(format!(
            "stdin is a listening socket; set {}, or leave StandardInput=socket out of the service",
            Mode::Inet.unit_setup()
        ))),
        Err(_) => Err(Error::Handover(
            "no socket was handed over; run 'systemctl start greeter.socket', or try \
             'greeter --listen 127.0.0.1:4000'"
                .to_owned(),
        )),
    }
}
