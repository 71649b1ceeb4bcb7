//! The command line; the door to clap. Floor 3.

use clap::Parser;

use crate::socket::Place;

/// Says one greeting to everybody who connects.
///
/// systemd holds the port and starts greeter when somebody connects:
/// 'systemctl enable --now greeter.socket'.
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "See greeter(8), greeter.toml(5) and greeter(7)."
)]
pub struct Cli {
    /// Settings to read: NAME.toml in /etc/greeter and its fellows; with a slash in it, that file alone
    #[arg(long, value_name = "NAME", default_value = "greeter")]
    pub config: String,

    /// Bind IP:PORT or /path without systemd, in the foreground (repeatable)
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Place>,

    /// Read and check the settings, print what was read, bind nothing
    #[arg(long, conflicts_with_all = ["listen", "show_config", "preview"])]
    pub check: bool,

    /// Print the merged settings as TOML, each value with the file that set it
    #[arg(long, conflicts_with_all = ["listen", "preview"])]
    pub show_config: bool,

    /// Print what a client would be sent, of the sockets named NAME if given
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", conflicts_with = "listen")]
    pub preview: Option<String>,
}

impl Cli {
    /// Whether the settings are only asked about and nobody is served.
    pub fn only_asks(&self) -> bool {
        self.check || self.show_config || self.preview.is_some()
    }
}
