//! The settings in force: checked, nothing left open. Floor 4.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::greeting::{LineEnding, Template};
use crate::mode::Mode;
/// How much of a client's address is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerDetail {
    /// All of it, and the port.
    Full,
    /// Its network: /24 of IPv4, /48 of IPv6.
    Prefix,
    /// Nothing.
    None,
}

/// What a stranger may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Clients at once, in mode accept; 1 to 1,000,000.
    pub connections: usize,
    /// Clients at once from one IPv4 address or IPv6 /64; 0 is no limit.
    pub connections_per_source: u32,
    /// How long a client may take to receive its greeting.
    pub write_timeout: Duration,
    /// How long its end is waited for after that.
    pub linger_timeout: Duration,
    /// How many bytes of its own are read and dropped meanwhile.
    pub linger_bytes: usize,
    /// How long clients may take when we are told to stop.
    pub drain_timeout: Duration,
    /// How long nobody may come before we exit; none is for ever.
    pub idle_timeout: Option<Duration>,
}

/// The greeting of the sockets of one name, or of all others.
#[derive(Debug, Clone)]
pub struct Wording {
    /// None: the mode's own text.
    pub text: Option<Template>,
    /// How its lines end.
    pub ending: LineEnding,
}

/// One key as `--show-config` prints it.
#[derive(Debug)]
pub struct Shown {
    /// The table, as it is written in TOML; empty for the top.
    pub table: String,
    /// The key.
    pub name: &'static str,
    /// The value as TOML; none where the key is unset and has no default.
    pub value: Option<String>,
    /// `FILE:LINE`, or none for the default.
    pub origin: Option<String>,
}

/// The settings in force.
#[derive(Debug)]
pub struct Settings {
    /// The mode that is asked for; none is `auto`.
    pub mode: Option<Mode>,
    /// Where it is asked for: `FILE:LINE:COLUMN`.
    pub mode_origin: Option<String>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// How much of a client's address is logged.
    pub log_peer: PeerDetail,
    /// What a stranger may use.
    pub limits: Limits,
    /// The files that were read, lowest first.
    pub files: Vec<PathBuf>,
    /// The greeting of sockets that have none of their own.
    pub others: Wording,
    /// The greetings by socket name.
    pub named: BTreeMap<String, Wording>,
    /// Every key as it is shown.
    pub shown: Vec<Shown>,
}

impl Settings {
    /// The greeting of the sockets named `socket`.
    #[must_use]
    pub fn template(&self, mode: Mode, socket: &str) -> Template {
        let wording = self.named.get(socket).unwrap_or(&self.others);
        wording.text.clone().unwrap_or_else(|| {
            // The modes' own texts hold no brace: a test of this file holds that.
            Template::parse(mode.default_message().as_bytes(), wording.ending)
                .expect("a plain text")
        })
    }

    /// The names that have a greeting of their own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(String::as_str)
    }

    /// The merged settings as TOML, each value with the file that set it. What
    /// is printed can be saved and read again.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for file in &self.files {
            // Writing to a string does not fail.
            let _ = writeln!(out, "# read: {}", file.display());
        }
        if self.files.is_empty() {
            out.push_str("# read: no file, every value is a default\n");
        }
        let mut table = "";
        for shown in &self.shown {
            if shown.table != table {
                table = &shown.table;
                let _ = write!(out, "\n[{table}]\n");
            }
            let origin = shown.origin.as_deref().unwrap_or("default");
            let name = shown.name;
            let _ = match &shown.value {
                Some(value) => writeln!(out, "{name} = {value}  # {origin}"),
                None => writeln!(out, "#{name} =  # not set"),
            };
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_modes_own_texts_are_plain() {
        for mode in [Mode::Accept, Mode::Accepted, Mode::Inet] {
            assert!(Template::parse(mode.default_message().as_bytes(), LineEnding::Lf).is_ok());
        }
    }
}
