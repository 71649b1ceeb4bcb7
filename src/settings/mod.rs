//! The settings: every key with its format and default, and the settings in force, which
//! are valid by construction.
//!
//! Files are found and read by [`files`], parsed one by one by [`fragment`], merged by
//! [`layers`] and converted by [`load`]. [`show`] prints them. The macros that declare the
//! keys are in `table`, and the formats of their values in `formats`.

pub mod files;
mod formats;
pub mod fragment;
pub mod hints;
pub mod layers;
pub mod load;
pub mod network;
pub mod show;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use log::LevelFilter;

use self::files::SettingsFile;
use self::formats::{
    Bounded, BoundedOrOff, Bytes, Format, Keyword, Networks, Text, TextFile, Timeout,
    TimeoutOrNever, Word,
};
use self::network::Network;
use self::table::{Line, Located, Setting, Table, keys, limits};
use crate::greeting::{Greeting, LineEnding};
use crate::mode::Mode;

// The tables of a settings file. The order of the keys is the order of --show-config and of
// greeter.toml(5). What else a new key needs: ARCHITECTURE.md, "How to add".

keys! {
    file Fragment {
        limits: Table<LimitsFragment>,
        greeting: Table<BTreeMap<String, Table<GreetingFragment>>>,
    }

    /// The keys at the top of a file, before any table.
    merged General {
        /// The mode that the sockets must have; `None` is `auto`.
        mode: Word<Option<Mode>> = None,
        /// The greeting. Without it and `message_file`, it is the mode's default message.
        message: Option<Text> = None,
        /// A file that contains the greeting.
        message_file: Option<TextFile> = None,
        /// How lines of the greeting end.
        line_ending: Word<LineEnding> = LineEnding::Lf,
        /// Whether connections begin with a header of the PROXY protocol.
        proxy_protocol: Word<ProxyProtocol> = ProxyProtocol::Off,
        /// The minimum level of messages that are logged.
        log_level: Word<LevelFilter> = LevelFilter::Info,
        /// How much of a client's address is logged.
        log_peer: Word<PeerDetail> = PeerDetail::Full,
        /// The clients whose connections are counted and not logged.
        log_exclude: Networks = Vec::new(),
    }
}

limits! {
    /// Maximum number of open connections in accept mode.
    connections: Bounded<1, 1_000_000> = 1024,
    /// Maximum number of open connections from one IPv4 address or IPv6 /64; 0 is
    /// unlimited.
    connections_per_source: BoundedOrOff<1_000_000> = 0,
    /// How long a client may take to send the PROXY header.
    header_timeout: Timeout = Duration::from_secs(3),
    /// How long a client may take to receive the greeting.
    write_timeout: Timeout = Duration::from_secs(10),
    /// How long to wait for the peer to close after that.
    linger_timeout: Timeout = Duration::from_secs(2),
    /// How many bytes of input are discarded meanwhile.
    linger_bytes: Bytes<{ 1 << 30 }> = 65536,
    /// How long open connections may take when the service stops.
    drain_timeout: Timeout = Duration::from_secs(5),
    /// How long there may be no connections before greeter exits; `None` is unlimited.
    idle_timeout: TimeoutOrNever = None,
}

keys! {
    file GreetingFragment {}

    /// The table `[greeting.NAME]`. A key that is not set has its value in [`General`]. The
    /// rows are repeated because serde's `flatten` loses the positions of values.
    merged MergedGreeting {
        /// The greeting.
        message: Option<Text> = None,
        /// A file that contains the greeting.
        message_file: Option<TextFile> = None,
        /// How lines of the greeting end.
        line_ending: Option<Word<LineEnding>> = None,
        /// Whether connections begin with a header of the PROXY protocol.
        proxy_protocol: Option<Word<ProxyProtocol>> = None,
    }
}

/// The tables, each with the names of its keys; the first is the top of a file.
pub const TABLES: [(&str, &[&str]); 3] = [
    ("", General::NAMES),
    ("limits", MergedLimits::NAMES),
    ("greeting.NAME", MergedGreeting::NAMES),
];

impl Keyword for Option<Mode> {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", None),
        (Mode::Accept.name(), Some(Mode::Accept)),
        (Mode::Accepted.name(), Some(Mode::Accepted)),
        (Mode::Inet.name(), Some(Mode::Inet)),
    ];
}

impl Keyword for LineEnding {
    const WORDS: &'static [(&'static str, Self)] =
        &[("lf", Self::Lf), ("crlf", Self::Crlf), ("raw", Self::Raw)];
}

impl Keyword for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];
}

/// How much of a client's address is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerDetail {
    /// Address and port.
    Full,
    /// The network: /24 of IPv4, /48 of IPv6.
    Prefix,
    /// Nothing.
    None,
}

impl Keyword for PeerDetail {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("full", Self::Full),
        ("prefix", Self::Prefix),
        ("none", Self::None),
    ];
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The greeting is sent at once.
    Off,
    /// The greeting is sent after a valid header.
    Required,
}

impl Keyword for ProxyProtocol {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("required", Self::Required)];
}

/// The merged settings.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    /// The mode that the sockets must have; `None` is `auto`.
    pub mode: Option<Mode>,
    /// The minimum level of messages that are logged.
    pub log_level: LevelFilter,
    /// How much of a client's address is logged.
    pub log_peer: PeerDetail,
    /// The clients whose connections are counted and not logged.
    pub log_exclude: Vec<Network>,
    /// Resource limits. A connection keeps those that it was accepted with.
    pub limits: Rc<Limits>,
    /// The greetings by socket name.
    pub greetings: Greetings,
}

/// What the clients of a socket get, and what they have to send before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketSettings {
    /// The greeting.
    pub greeting: Greeting,
    /// The header before it.
    pub proxy_protocol: ProxyProtocol,
}

/// The greetings by socket name. Those with the same text share it.
#[derive(Debug, PartialEq, Eq)]
pub struct Greetings {
    default: SocketSettings,
    by_name: BTreeMap<String, SocketSettings>,
}

impl Greetings {
    /// `default` is for the sockets that `by_name` does not contain.
    pub fn new(default: SocketSettings, by_name: BTreeMap<String, SocketSettings>) -> Self {
        Self { default, by_name }
    }

    /// The greeting of the sockets named `name`.
    pub fn for_socket(&self, name: &str) -> &SocketSettings {
        self.by_name.get(name).unwrap_or(&self.default)
    }

    /// Each of the sockets that has no greeting of its own although there is one for a
    /// similar name, which no socket has; with that name.
    pub fn misspelt<'a>(&'a self, sockets: &BTreeSet<&'a str>) -> Vec<(&'a str, &'a str)> {
        let mut misspelt = Vec::new();
        for socket in sockets {
            let mut unused = self.names().filter(|name| !sockets.contains(name));
            if !self.by_name.contains_key(*socket) {
                if let Some(name) = unused.find(|name| hints::is_misspelt(socket, name)) {
                    misspelt.push((*socket, name));
                }
            }
        }
        misspelt
    }

    /// The names of sockets that have a greeting of their own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }
}
