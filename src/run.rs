//! From the command line and the passed sockets to a server, or to the answer of a
//! query.

use std::env;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use crate::access;
use crate::cli::Cli;
use crate::error::Error;
use crate::event;
use crate::passed_sockets::ServerSockets;
use crate::query;
use crate::server::{LoadSettings, Server};
use crate::settings::Limits;
use crate::settings::layers::Layers;
use crate::settings::load;
use crate::signals::{self, Signals};
use crate::socket::{self, Socket};
use crate::sys;
use crate::systemd::activation::{ListenError, PassedSocket};
use crate::systemd::journal::{self, Protocol};
use crate::systemd::notify::Notifier;
use crate::unit;

/// Executes the command line with the sockets that systemd passed, and logs the
/// error that ends it, if any.
pub fn run(cli: &Cli, passed: Result<Vec<PassedSocket>, ListenError>) -> ExitCode {
    let result = if cli.is_query() {
        journal::init(Protocol::Stderr);
        answer_query(cli).map_err(Failure::from)
    } else {
        // First, so that no signal ends the process before it has served its client.
        let signals = Signals::install();
        let sockets = if cli.listen.is_empty() {
            ServerSockets::classify(passed)
        } else {
            ServerSockets::bind(&cli.listen)
        };
        journal::init(match &sockets {
            Ok(ServerSockets::Connection { .. }) => Protocol::Stderr,
            Ok(ServerSockets::Listening(_)) | Err(_) => Protocol::Native,
        });
        match sockets {
            Ok(sockets) => serve(cli, sockets, signals),
            Err(error) => Err(Failure::from(error)),
        }
    };
    let status = match &result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.conclude(cli),
    };
    journal::shutdown(result.is_err());
    status
}

/// Why greeter ends, and the connection that it could not serve.
struct Failure {
    error: Error,
    unserved: Option<Socket>,
}

impl Failure {
    /// Reports the error, then ends the connection, as the process may wait for its
    /// client; returns the exit status.
    fn conclude(&self, cli: &Cli) -> ExitCode {
        // The reloaded process logs invalid settings itself.
        if cli.reload.is_none() || self.error.status() == 1 || !journal::stderr_is_journal() {
            report(&self.error, cli);
        }
        if !cli.is_query() {
            // systemctl(1) shows it until the service has started.
            Notifier::from_environment().notify_status(&format!("Failed: {}", self.error));
        }
        if let Some(socket) = &self.unserved {
            socket::end_unserved(socket.as_fd(), Limits::default().linger_timeout);
        }
        ExitCode::from(self.error.status())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            unserved: None,
        }
    }
}

/// Reads the settings files that the command line names. systemd sets
/// `$CONFIGURATION_DIRECTORY` for a user unit.
///
/// A removed directory is an error: without its files, the defaults would apply.
fn read_layers(cli: &Cli) -> Result<Layers, Error> {
    let [_, settings, transient] = unit::VISIBLE;
    for directory in [settings, transient].map(Path::new) {
        if access::is_removed(directory) {
            let message = "was removed or replaced since the service started; restart the service";
            return Err(Error::settings(directory, None, message));
        }
    }
    Layers::read(
        &cli.config,
        env::var_os("CONFIGURATION_DIRECTORY").as_deref(),
    )
}

fn answer_query(cli: &Cli) -> Result<(), Error> {
    if let Some(pid) = cli.reload {
        // First, so that the process reports invalid settings, too.
        signals::request_reload(pid)
            .map_err(|error| Error::io(format!("signal process '{pid}'"), error))?;
    }
    query::answer(cli)
}

fn serve(cli: &Cli, sockets: ServerSockets, signals: io::Result<Signals>) -> Result<(), Failure> {
    let mode = sockets.mode();
    let mut load_settings = || load::settings(&read_layers(cli)?, Some(mode));
    match (prepare_server(signals, &mut load_settings), sockets) {
        (Ok(server), sockets) => server.serve(sockets).map_err(Failure::from),
        (Err(error), ServerSockets::Connection { socket, .. }) => Err(Failure {
            error,
            unserved: Some(socket),
        }),
        // The clients stay in the backlog of the listening sockets.
        (Err(error), ServerSockets::Listening(_)) => Err(Failure::from(error)),
    }
}

fn prepare_server<'a>(
    signals: io::Result<Signals>,
    load_settings: &'a mut LoadSettings<'a>,
) -> Result<Server<'a>, Error> {
    let signals = signals.map_err(|error| Error::io("handle signals", error))?;
    let settings = load_settings()?;
    log::set_max_level(settings.log_level);
    Server::new(settings, signals, load_settings)
}

/// Logs the error that ends greeter. A query also prints the invalid line, as
/// compilers do.
fn report(error: &Error, cli: &Cli) {
    let message_id = match error {
        Error::Settings { .. } => event::SETTINGS_INVALID,
        Error::SocketMismatch(_) | Error::Activation(_) => event::SOCKETS_UNFIT,
        Error::Io(..) => event::FAILED,
    };
    log::error!(MESSAGE_ID = message_id; "{error}");
    if let Error::Settings { excerpt, .. } = error {
        if cli.is_query() && sys::is_output_usable() {
            // Not `eprint!`, which panics if stderr cannot be written.
            let _ = io::stderr().write_all(excerpt.as_bytes());
        }
    }
}
