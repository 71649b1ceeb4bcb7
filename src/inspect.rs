//! What can be asked without serving: the settings checked, shown, tried out. Floor 6.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use crate::clock;
use crate::error::Error;
use crate::greeting::Facts;
use crate::kernel;
use crate::mode::Mode;
use crate::settings::values::Settings;

/// Prints what was read: the files, the mode, the greetings. All of them are
/// rendered once.
///
/// # Errors
/// stdout takes nothing.
pub fn check(settings: &Settings) -> Result<(), Error> {
    let mut out = String::new();
    for file in &settings.files {
        // Writing to a string does not fail.
        let _ = writeln!(out, "{}: read", file.display());
    }
    if settings.files.is_empty() {
        out.push_str("no settings file, every value is a default\n");
    }
    let mode = settings.mode.map_or("auto", Mode::name);
    let _ = writeln!(out, "mode: {mode}");
    let _ = writeln!(out, "greeting: {} bytes", render(settings, "").len());
    for name in settings.names() {
        let _ = writeln!(
            out,
            "greeting of sockets named '{name}': {} bytes",
            render(settings, name).len()
        );
    }
    out.push_str("the settings are sound\n");
    print(out.as_bytes())
}

/// Prints the merged settings as TOML.
///
/// # Errors
/// stdout takes nothing.
pub fn show(settings: &Settings) -> Result<(), Error> {
    print(settings.to_toml().as_bytes())
}

/// Prints what a client would be sent. The client is one of the documentation's
/// addresses (RFC 5737).
///
/// # Errors
/// stdout takes nothing.
pub fn preview(settings: &Settings, socket: &str) -> Result<(), Error> {
    print(&render(settings, socket))
}

fn render(settings: &Settings, socket: &str) -> std::rc::Rc<[u8]> {
    let mode = settings.mode.unwrap_or(Mode::Accept);
    let socket = if socket.is_empty() {
        mode.socket_name()
    } else {
        socket
    };
    let time = clock::rfc3339(SystemTime::now());
    let peer = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 49152);
    let local = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 4000);
    let facts = Facts {
        peer: Some(peer),
        local: Some(local),
        path: None,
        time: &time,
    };
    settings
        .template(mode, socket)
        .settle(&kernel::hostname(), socket, mode.name())
        .render(&facts)
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        // `greeter --show-config | head` wants no more.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::os("write to stdout", error))
        }
        _ => Ok(()),
    }
}
