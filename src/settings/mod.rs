//! The settings: merged from their files, checked, nothing left open. Floor 4.

pub mod fragment;
pub mod keys;
mod merge;
mod show;
pub mod source;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use crate::greeting::{LineEnding, Template};
use crate::mode::Mode;
use source::Choice;

pub use merge::load;

/// Where system settings are looked for, the highest folder first.
pub const SYSTEM_FOLDERS: &[&str] = &["/etc/greeter", "/run/greeter", "/usr/lib/greeter"];

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
struct Wording {
    /// None: the mode's own text.
    text: Option<Template>,
    ending: LineEnding,
}

/// One key as `--show-config` prints it.
#[derive(Debug)]
struct Shown {
    table: String,
    name: &'static str,
    /// The value as TOML; none where the key is unset and has no default.
    value: Option<String>,
    /// `FILE:LINE`, or none for the default.
    origin: Option<String>,
}

/// The settings in force.
#[derive(Debug)]
pub struct Settings {
    /// The mode that is asked for; none is `auto`.
    pub mode: Option<Mode>,
    /// Where it is asked for: `FILE:LINE`.
    pub mode_origin: Option<String>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// How much of a client's address is logged.
    pub log_peer: PeerDetail,
    /// What a stranger may use.
    pub limits: Limits,
    /// The files that were read, lowest first.
    pub files: Vec<PathBuf>,
    others: Wording,
    named: BTreeMap<String, Wording>,
    shown: Vec<Shown>,
}

impl Default for Settings {
    /// What is in force where no file says anything.
    fn default() -> Self {
        // A test of `merge` reads every default.
        load(&Choice::Named(String::new()), &[]).expect("the defaults of our own")
    }
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
}

/// The folders of the settings: `directories` (the service manager's
/// `$CONFIGURATION_DIRECTORY`, see systemd.exec(5), which is how a user unit's
/// folder becomes known), then the system's.
#[must_use]
pub fn folders(directories: Option<&str>) -> Vec<PathBuf> {
    let own = directories
        .unwrap_or_default()
        .split(':')
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from);
    let mut folders: Vec<PathBuf> = own.collect();
    for folder in SYSTEM_FOLDERS.iter().map(Path::new) {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders
}

/// The socket unit that goes with a choice of settings, for messages.
fn socket_unit(choice: &Choice) -> String {
    match choice {
        Choice::Named(name) => format!("{name}.socket"),
        Choice::File(file) => {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let known = matches!(&*name, "greeter-accepted" | "greeter-inet");
            format!("{}.socket", if known { &*name } else { "greeter" })
        }
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

    #[test]
    fn the_managers_folder_stands_above_the_systems() {
        let check = |given: Option<&str>, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(folders(given), expected);
        };
        check(None, SYSTEM_FOLDERS);
        check(Some("/etc/greeter"), SYSTEM_FOLDERS);
        check(
            Some("/home/u/.config/greeter:relative"),
            &[
                "/home/u/.config/greeter",
                "/etc/greeter",
                "/run/greeter",
                "/usr/lib/greeter",
            ],
        );
    }
}
