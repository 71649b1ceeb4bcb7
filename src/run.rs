//! Holds what was handed over against the settings, and serves. Floor 10.

use std::env;

use log::LevelFilter;

use crate::cli::Cli;
use crate::client;
use crate::error::Error;
use crate::event;
use crate::handover::{self, Handover};
use crate::inspect;
use crate::mode::Mode;
use crate::server::Server;
use crate::settings::load;
use crate::settings::values::Settings;
use crate::systemd::activation::Handed;
use crate::systemd::journal;

/// Does what the command line says, with the sockets that were handed over.
///
/// # Errors
/// Whatever ends greeter before its time; [`report`] tells it.
pub fn run(cli: &Cli, handed: Result<Vec<Handed>, Error>) -> Result<(), Error> {
    let directories = env::var("CONFIGURATION_DIRECTORY").ok();
    let read = |mode| load::load(&cli.config, directories.as_deref(), mode);
    if cli.only_asks() {
        journal::start(false);
        return inspect::answer(cli, &read(None)?);
    }
    let handover = match cli.listen.as_slice() {
        [] => handover::sort(handed?)?,
        places => handover::bind(places)?,
    };
    let mode = handover.mode;
    journal::start(mode == Mode::Accept);
    let outcome = serve(handover, &mut || read(Some(mode)));
    for place in &cli.listen {
        place.leave();
    }
    outcome
}

fn serve(
    handover: Handover,
    read: &mut dyn FnMut() -> Result<Settings, Error>,
) -> Result<(), Error> {
    let lives_on = handover.mode == Mode::Accept;
    let settings = match read() {
        Ok(settings) => settings,
        Err(error) => {
            for (socket, _) in handover.sockets.into_iter().filter(|_| !lives_on) {
                // Whatever fails here, the error that brought us here is the one to tell.
                let _ = client::dismiss(socket, &load::defaults().limits);
            }
            return Err(error);
        }
    };
    log::set_max_level(settings.log_level);
    Server::new(handover, settings, read)?.run()
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
}
