//! The program: sockets, arguments, one `run`, an exit status.

use std::env;
use std::process::ExitCode;

use greeter::cli::Cli;
use greeter::passed_sockets;
use greeter::run;
use greeter::systemd::activation;

fn main() -> ExitCode {
    // First: it changes the environment, which is safe only before threads start.
    let passed = activation::receive();
    // Before anything can be printed: stdout may be the client.
    passed_sockets::keep_output_from_clients(passed.as_deref().unwrap_or_default());
    match Cli::parse_arguments(env::args_os()) {
        Ok(cli) => run::run(&cli, passed),
        Err(status) => status,
    }
}
