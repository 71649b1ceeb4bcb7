//! The settings in force: checked, nothing left open. Floor 4.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use crate::greeting::Template;
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

/// The settings in force.
#[derive(Debug)]
pub struct Settings {
    /// The mode that is asked for; none is `auto`.
    pub mode: Option<Mode>,
    /// How much is logged.
    pub log_level: LevelFilter,
    /// How much of a client's address is logged.
    pub log_peer: PeerDetail,
    /// What a stranger may use.
    pub limits: Limits,
    /// The files that were read, lowest first.
    pub files: Vec<PathBuf>,
    /// The greeting of sockets that have none of their own.
    pub others: Template,
    /// The greetings by socket name.
    pub named: BTreeMap<String, Template>,
    /// All of them as TOML, each value with the file that set it. It can be saved
    /// and read again.
    pub shown: String,
}

impl Settings {
    /// The greeting of the sockets named `socket`.
    pub fn template(&self, socket: &str) -> &Template {
        self.named.get(socket).unwrap_or(&self.others)
    }
}
