//! Finds out what was handed over, holds it against the settings, and serves. Floor 9.

use std::env;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use log::LevelFilter;

use crate::cli::{Cli, Place};
use crate::error::Error;
use crate::event;
use crate::inspect;
use crate::instance;
use crate::kernel;
use crate::mode::Mode;
use crate::server::Server;
use crate::settings::{self, Settings, source::Choice};
use crate::socket::{self, Kind, Listener, Stream};
use crate::systemd::{activation, journal};

/// What was handed over.
enum Sockets {
    /// Listening sockets, each with its name.
    Listening(Vec<(Listener, String)>),
    /// One client, how it came, and its socket's name.
    Client(Stream, Mode, String),
}

/// Does what the command line says.
///
/// # Errors
/// Whatever ends greeter before its time; [`report`] tells it.
pub fn run(cli: &Cli) -> Result<(), Error> {
    let choice = Choice::new(&cli.config);
    let folders = settings::folders(env::var("CONFIGURATION_DIRECTORY").ok().as_deref());
    let load = || settings::load(&choice, &folders);
    if cli.check || cli.show_config || cli.preview.is_some() {
        journal::start(false, LevelFilter::Info);
        let settings = load().inspect_err(print_excerpt)?;
        return match &cli.preview {
            Some(name) => inspect::preview(&settings, name),
            None if cli.show_config => inspect::show(&settings),
            None => inspect::check(&settings),
        };
    }
    match sockets(&cli.listen)? {
        Sockets::Listening(listeners) => {
            journal::start(true, LevelFilter::Info);
            let result = accept(listeners, &load);
            cli.listen.iter().for_each(remove);
            result
        }
        Sockets::Client(stream, mode, name) => {
            journal::start(false, LevelFilter::Info);
            match load().and_then(|settings| fit(&settings, mode).map(|()| settings)) {
                Ok(settings) => {
                    journal::set_level(settings.log_level);
                    instance::serve(stream, mode, &name, &settings)
                }
                Err(error) => {
                    instance::dismiss(stream, &Settings::default().limits);
                    Err(error)
                }
            }
        }
    }
}

/// Tells why greeter ends before its time, once.
pub fn report(error: &Error) {
    // Before anything was known of the sockets there is no logger yet.
    if log::max_level() == LevelFilter::Off {
        journal::start(false, LevelFilter::Info);
    }
    let event = match error {
        Error::Settings(_) => event::SETTINGS_INVALID,
        Error::Unfit(_) | Error::Handover(_) => event::SOCKETS_UNFIT,
        Error::Os { .. } => event::FAILED,
    };
    log::error!(MESSAGE_ID = event.id; "{error}");
}

fn accept(
    listeners: Vec<(Listener, String)>,
    load: &dyn Fn() -> Result<Settings, Error>,
) -> Result<(), Error> {
    let mut reload = || load().and_then(|settings| fit(&settings, Mode::Accept).map(|()| settings));
    let settings = reload()?;
    journal::set_level(settings.log_level);
    let server = Server::new(listeners, settings, &mut reload)?;
    let _detached =
        journal::detach().map_err(|error| Error::os("start the journal's thread", error))?;
    server.run()
}

fn sockets(listen: &[Place]) -> Result<Sockets, Error> {
    if !listen.is_empty() {
        return listen
            .iter()
            .map(bind)
            .collect::<Result<_, _>>()
            .map(Sockets::Listening);
    }
    let mut handed = activation::take()?;
    let listening = handed
        .iter()
        .filter(|socket| socket.kind == Kind::Listening)
        .count();
    if handed.is_empty() {
        return standard_input();
    }
    if listening == handed.len() {
        let adopt = |socket: activation::Handed| {
            let name = socket.name;
            Listener::new(socket.fd).map(|listener| (listener, name))
        };
        let adopted: io::Result<_> = handed.into_iter().map(adopt).collect();
        return adopted
            .map(Sockets::Listening)
            .map_err(|error| Error::os("make a socket non-blocking", error));
    }
    match handed.pop() {
        Some(only) if handed.is_empty() => Ok(Sockets::Client(
            Stream::new(only.fd),
            Mode::Accepted,
            only.name,
        )),
        _ => Err(Error::Unfit(format!(
            "{} connected sockets were handed over at once, beside {listening} that listen; \
             hand over either listening sockets or one connected socket",
            handed.len() + 1 - listening
        ))),
    }
}

/// The client on stdin and stdout, if there is one.
fn standard_input() -> Result<Sockets, Error> {
    let stdin = io::stdin();
    match socket::examine(stdin.as_fd()) {
        Ok(Kind::Connected) => {
            let failed = |error| Error::os("take the client from stdin", error);
            let stream = Stream::new(stdin.as_fd().try_clone_to_owned().map_err(failed)?);
            // From here on nothing that is printed can reach the client.
            kernel::detach_stdin_and_stdout().map_err(failed)?;
            Ok(Sockets::Client(stream, Mode::Inet, "stdin".to_owned()))
        }
        Ok(Kind::Listening) => Err(Error::Unfit(format!(
            "stdin is a listening socket; set {}, or {}",
            Mode::Inet.unit_setup(),
            "leave StandardInput=socket out and Accept=no"
        ))),
        Err(_) => Err(Error::Handover(
            "no socket was handed over; start greeter by its socket unit ('systemctl start greeter.socket'), \
             or try 'greeter --listen 127.0.0.1:4000'"
                .to_owned(),
        )),
    }
}

/// A mode that the settings name must be the one that the sockets have.
fn fit(settings: &Settings, mode: Mode) -> Result<(), Error> {
    match settings.mode {
        Some(asked) if asked != mode => Err(Error::Unfit(format!(
            "{}: mode = \"{asked}\" does not fit the socket, which was handed over as for \"{mode}\"; \
             set mode = \"{mode}\", or have {}",
            settings.mode_origin.as_deref().unwrap_or_default(),
            asked.unit_setup()
        ))),
        _ => Ok(()),
    }
}

fn bind(place: &Place) -> Result<(Listener, String), Error> {
    let listener = match place {
        Place::Ip(address) => Listener::bind_ip(*address),
        Place::Path(path) => Listener::bind_path(path),
    };
    let name = place.to_string();
    match listener {
        Ok(listener) => Ok((listener, name)),
        Err(error) => Err(Error::os(format!("listen on '{name}'"), error)),
    }
}

/// A path that we bound goes when we go.
fn remove(place: &Place) {
    if let Place::Path(path) = place {
        // Whoever removed it before did our work.
        let _ = fs::remove_file(path);
    }
}

/// By hand, a wrong file is shown as compilers show it.
fn print_excerpt(error: &Error) {
    if let Error::Settings(complaint) = error {
        eprint!("{}", complaint.excerpt());
    }
}
