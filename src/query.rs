//! The queries of the command line: `--check`, `--show-config`, `--preview`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::SystemTime;

use crate::cli::Cli;
use crate::error::Error;
use crate::greeting::Context;
use crate::mode::Mode;
use crate::settings::Settings;
use crate::settings::layers::Layers;
use crate::settings::show;
use crate::socket::LocalAddr;
use crate::sys;
use crate::time_format;

/// Prints what the command line asks for.
///
/// # Errors
/// [`Error::Io`] if stdout cannot be written.
pub fn answer(cli: &Cli, layers: &Layers, settings: &Settings) -> Result<(), Error> {
    let mode = settings.mode.unwrap_or(Mode::Accept);
    if cli.quiet || cli.reload.is_some() {
        check(layers, settings, mode);
        return Ok(());
    }
    let answer: Vec<u8> = if let Some(name) = &cli.preview {
        let socket = if name.is_empty() {
            mode.socket_name()
        } else {
            name
        };
        render(settings, mode, socket)
    } else if cli.show_config {
        show::show(layers, mode).into_bytes()
    } else {
        check(layers, settings, mode).into_bytes()
    };
    if !sys::is_output_usable() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&answer).and_then(|()| stdout.flush()) {
        // `greeter --show-config | head` reads only the beginning.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to stdout", error))
        }
        _ => Ok(()),
    }
}

/// Lists the files, the mode and the length of every greeting; all of them are rendered.
fn check(layers: &Layers, settings: &Settings, mode: Mode) -> String {
    let mut out = String::new();
    for path in layers.paths() {
        out += &format!("{}: read\n", path.display());
    }
    if out.is_empty() {
        out += "no settings file found, using defaults\n";
    }
    let mode_setting = settings.mode.map_or("auto", Mode::name);
    let length = render(settings, mode, mode.socket_name()).len();
    out += &format!("mode: {mode_setting}\ngreeting: {length} bytes\n");
    for name in settings.greetings.names() {
        let length = render(settings, mode, name).len();
        out += &format!("greeting of sockets named '{name}': {length} bytes\n");
    }
    out + "settings are valid\n"
}

/// The greeting of the sockets named `socket`, as a client at one of the addresses
/// for documentation (RFC 5737) would receive it.
fn render(settings: &Settings, mode: Mode, socket: &str) -> Vec<u8> {
    let payload = settings.greetings.for_socket(socket).render(&Context {
        peer: Some(SocketAddr::from(([192, 0, 2, 1], 49152))),
        local: &LocalAddr::Ip(SocketAddr::from(([192, 0, 2, 2], 4000))),
        hostname: sys::hostname(),
        time: time_format::rfc3339(SystemTime::now()),
        socket,
        mode,
    });
    payload.to_vec()
}
