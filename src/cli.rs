//! The command line; wraps clap.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use crate::socket::ListenAddr;
use crate::sys;

/// Sends a fixed text to every client that connects to a socket, then closes the connection.
///
/// systemd listens on the port and starts greeter on the first connection:
/// 'systemctl enable --now greeter.socket'.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "See greeter(8), greeter.toml(5) and greeter(7)."
)]
pub struct Cli {
    /// Settings to read: NAME.toml from /etc/greeter, /run/greeter or /usr/lib/greeter, or the path of a file (with its FILE.d/*.toml)
    #[arg(long, value_name = "NAME", default_value = "greeter")]
    pub config: String,

    /// Listen on IP:PORT or /path without systemd, in the foreground (repeatable)
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<ListenAddr>,

    /// Read and validate the settings, print what was read, bind nothing
    #[arg(long, conflicts_with_all = ["listen", "show_config", "preview", "reload"])]
    pub check: bool,

    /// With --check: print only errors
    #[arg(long, requires = "check")]
    pub quiet: bool,

    /// Make the process PID reload its settings, then validate them as --check does; for ExecReload=
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..),
          conflicts_with_all = ["listen", "show_config", "preview"])]
    pub reload: Option<i32>,

    /// Print the merged settings as TOML, each value with the file that set it
    #[arg(long, conflicts_with_all = ["listen", "preview"])]
    pub show_config: bool,

    /// Print the greeting as a client would receive it [of the sockets named NAME]
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with = "listen")]
    pub preview: Option<String>,
}

impl Cli {
    /// Parses the arguments of the process, the program's name first.
    ///
    /// # Errors
    /// The exit status, after the error, the help or the version was printed.
    pub fn parse_arguments(arguments: impl Iterator<Item = OsString>) -> Result<Self, ExitCode> {
        let error = match Self::try_parse_from(arguments) {
            Ok(cli) => return Ok(cli),
            Err(error) => error,
        };
        let is_printed = sys::is_output_usable() && error.print().is_ok();
        if !is_printed && sys::is_output_usable() {
            // Ignored: if stderr cannot be written either, the exit status reports it.
            let _ = writeln!(io::stderr(), "greeter: cannot write the output");
        }
        Err(match u8::try_from(error.exit_code()) {
            // The help or the version was asked for, and could not be printed.
            Ok(0) if !is_printed => ExitCode::FAILURE,
            Ok(status) => ExitCode::from(status),
            Err(_) => ExitCode::from(2),
        })
    }

    /// Whether the command line only queries the settings and serves no client.
    pub fn is_query(&self) -> bool {
        self.check || self.show_config || self.preview.is_some() || self.reload.is_some()
    }
}
