//! The settings in force: valid by construction.
//!
//! Files are found and read by [`files`], parsed one by one by [`fragment`], stacked
//! by [`layers`], and converted by [`load`]. [`schema`] lists the keys, and [`show`]
//! prints them.

pub mod files;
pub mod fragment;
pub mod layers;
pub mod load;
pub mod network;
pub mod schema;
pub mod show;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use log::LevelFilter;

use self::network::Network;
use crate::greeting::Greeting;
use crate::mode::Mode;

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

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// The greeting is sent at once.
    Off,
    /// The greeting is sent after a valid header.
    Required,
}

/// Resource limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Maximum number of open connections (mode accept); 1 to 1,000,000.
    pub connections: u32,
    /// Maximum number of open connections from one IPv4 address or IPv6 /64; 0 is
    /// unlimited.
    pub connections_per_source: u32,
    /// How long a client may take to send the PROXY header.
    pub header_timeout: Duration,
    /// How long a client may take to receive the greeting.
    pub write_timeout: Duration,
    /// How long to wait for the peer to close after that.
    pub linger_timeout: Duration,
    /// How many bytes of input are discarded meanwhile.
    pub linger_bytes: u32,
    /// How long open connections may take when the service stops.
    pub drain_timeout: Duration,
    /// How long there may be no connections before greeter exits; `None` is
    /// unlimited.
    pub idle_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_source: 0,
            header_timeout: Duration::from_secs(3),
            write_timeout: Duration::from_secs(10),
            linger_timeout: Duration::from_secs(2),
            linger_bytes: 65536,
            drain_timeout: Duration::from_secs(5),
            idle_timeout: None,
        }
    }
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
                if let Some(name) = unused.find(|name| schema::is_misspelt(socket, name)) {
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
