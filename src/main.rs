//! The program: arguments, one run, an exit status. Floor 11.

use std::process::ExitCode;

use clap::Parser;
use greeter::cli::Cli;
use greeter::handover;
use greeter::run;
use greeter::systemd::{activation, journal};

fn main() -> ExitCode {
    // First: it changes the environment, and no thread runs yet.
    let handed = activation::take();
    handover::hide_output(handed.as_deref().unwrap_or_default());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where it cannot be printed the status still tells.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let outcome = run::run(&cli, handed);
    if let Err(error) = &outcome {
        run::report(error, &cli);
    }
    journal::finish(outcome.is_err());
    outcome.map_or_else(
        |error| ExitCode::from(error.status()),
        |()| ExitCode::SUCCESS,
    )
}
