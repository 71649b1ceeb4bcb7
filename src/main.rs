//! The program: arguments, one run, an exit status.

use std::process::ExitCode;

use clap::Parser;
use greeter::cli::Cli;
use greeter::{kernel, run};

fn main() -> ExitCode {
    kernel::hide_stderr_from_client();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Where it cannot be printed the status still tells.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match run::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::report(&error);
            ExitCode::from(error.status())
        }
    }
}
