//! The program: sockets, arguments, one `run`, an exit status.

use std::env;
use std::process::ExitCode;

use greeter::cli::Cli;
use greeter::run;
use greeter::sockets;
use greeter::systemd::activation;

fn main() -> ExitCode {
    // First: it changes the environment, which is safe only before threads start.
    let passed = activation::receive();
    // Before anything can be printed: stdout may be the client.
    sockets::detach_client_from_stdio(passed.as_deref().unwrap_or_default());
    match Cli::parse_arguments(env::args_os()) {
        Ok(cli) => run::run(&cli, passed),
        Err(status) => status,
    }
}
