//! Holds what was handed over against the settings, and serves. Floor 10.

use std::env;
use std::fs;

use log::LevelFilter;

use crate::cli::{Cli, Place};
use crate::error::Error;
use crate::event;
use crate::handover::{self, Handover};
use crate::inspect;
use crate::instance;
use crate::mode::Mode;
use crate::server::Server;
use crate::settings::load;
use crate::settings::source::{self, Choice};
use crate::settings::values::Settings;
use crate::socket::Listener;
use crate::systemd::activation::Socket;
use crate::systemd::journal;

/// Does what the command line says, with the sockets that were handed over.
///
/// # Errors
/// Whatever ends greeter before its time; [`report`] tells it.
pub fn run(cli: &Cli, sockets: Result<Vec<Socket>, Error>) -> Result<(), Error> {
    let choice = Choice::new(&cli.config);
    let folders = source::folders(env::var("CONFIGURATION_DIRECTORY").ok().as_deref());
    let read = || load::load(&choice, &folders);
    if cli.only_asks() {
        journal::start(false);
        return inspect::answer(cli, &read()?);
    }
    let handover = match cli.listen.as_slice() {
        [] => handover::sort(sockets?)?,
        places => handover::bind(places)?,
    };
    journal::start(matches!(handover, Handover::Listening(_)));
    match handover {
        Handover::Listening(listeners) => {
            let outcome = accept(listeners, &mut || fit(read()?, Mode::Accept));
            for place in &cli.listen {
                // A path that we bound goes when we go; whoever removed it before
                // did our work.
                if let Place::Path(path) = place {
                    let _ = fs::remove_file(path);
                }
            }
            outcome
        }
        Handover::Client(stream, mode, name) => match read().and_then(|read| fit(read, mode)) {
            Ok(settings) => {
                log::set_max_level(settings.log_level);
                instance::serve(stream, mode, &name, &settings)
            }
            Err(error) => {
                instance::dismiss(stream, &load::defaults().limits);
                Err(error)
            }
        },
    }
}

/// Tells why greeter ends before its time, once; in answer to a question, as
/// compilers do, with the line that is wrong.
pub fn report(error: &Error, cli: &Cli) {
    // Before anything was known of the sockets there is no logger yet.
    if log::max_level() == LevelFilter::Off {
        journal::start(false);
    }
    let event = match error {
        Error::Settings { .. } => event::SETTINGS_INVALID,
        Error::Unfit(_) | Error::Handover(_) => event::SOCKETS_UNFIT,
        Error::Os(..) => event::FAILED,
    };
    log::error!(MESSAGE_ID = event; "{error}");
    if let (Error::Settings { excerpt, .. }, true) = (error, cli.only_asks()) {
        eprint!("{excerpt}");
    }
    journal::settle();
}

fn accept(
    listeners: Vec<(Listener, String)>,
    read: &mut dyn FnMut() -> Result<Settings, Error>,
) -> Result<(), Error> {
    let settings = read()?;
    log::set_max_level(settings.log_level);
    let server = Server::new(listeners, settings, read)?;
    let _detached =
        journal::detach().map_err(|error| Error::os("start the journal's thread", error))?;
    server.run()
}

/// A mode that the settings name must be the one that the sockets have.
fn fit(settings: Settings, mode: Mode) -> Result<Settings, Error> {
    let asked = settings.mode.unwrap_or(mode);
    if asked == mode {
        return Ok(settings);
    }
    let origin = settings.mode_origin;
    let (asked, mode, setup) = (asked.name(), mode.name(), asked.unit_setup());
    Err(Error::Unfit(format!(
        "{origin}: mode = \"{asked}\" does not fit the socket, which was handed over as for \"{mode}\"; \
         set mode = \"{mode}\", or have {setup}"
    )))
}
