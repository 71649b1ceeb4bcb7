//! What can be asked without serving: the settings checked, shown, tried out. Floor 6.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use crate::cli::Cli;
use crate::clock;
use crate::error::Error;
use crate::greeting::Facts;
use crate::kernel;
use crate::mode::Mode;
use crate::settings::values::Settings;
use crate::socket::Local;

/// Prints the answer to what the command line asks: what a client would be sent,
/// the settings in force, or what was read.
///
/// # Errors
/// stdout takes nothing.
pub fn answer(cli: &Cli, settings: &Settings) -> Result<(), Error> {
    let answer = match &cli.preview {
        Some(name) => render(settings, name),
        None if cli.show_config => settings.shown.as_bytes().into(),
        None => check(settings).as_bytes().into(),
    };
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&answer).and_then(|()| stdout.flush()) {
        // `greeter --show-config | head` wants no more.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::os("write to stdout", error))
        }
        _ => Ok(()),
    }
}

/// What was read: the files, the mode, the greetings. All of them are rendered once.
fn check(settings: &Settings) -> String {
    let mut out = String::new();
    for file in &settings.files {
        out += &format!("{}: read\n", file.display());
    }
    if settings.files.is_empty() {
        out += "no settings file, every value is a default\n";
    }
    let mode = settings.mode.map_or("auto", Mode::name);
    let length = render(settings, "").len();
    out += &format!("mode: {mode}\ngreeting: {length} bytes\n");
    for name in settings.named.keys() {
        let length = render(settings, name).len();
        out += &format!("greeting of sockets named '{name}': {length} bytes\n");
    }
    out + "the settings are sound\n"
}

/// What a client would be sent. The client is one of the documentation's
/// addresses (RFC 5737).
fn render(settings: &Settings, socket: &str) -> Rc<[u8]> {
    let mode = settings.mode.unwrap_or(Mode::Accept);
    let socket = match socket {
        "" => mode.socket_name(),
        named => named,
    };
    let [peer, ip] = [([192, 0, 2, 1], 49152), ([192, 0, 2, 2], 4000)].map(SocketAddr::from);
    settings.template(socket).render(&Facts {
        peer: Some(peer),
        local: &Local {
            ip: Some(ip),
            text: ip.to_string(),
        },
        hostname: kernel::hostname(),
        time: clock::rfc3339(SystemTime::now()),
        socket,
        mode: mode.name(),
    })
}
