//! What every part of the serving loop looks up or writes down: the sockets, the
//! settings, the counts. Floor 7.

use std::time::Instant;

use super::port::Port;
use crate::client::Client;
use crate::kernel;
use crate::mode::Mode;
use crate::settings::values::Settings;
use crate::socket::Address;
use crate::tally::{Outcome, Peer, Report, Tally};

/// The sockets, the settings and the counts.
#[derive(Debug)]
pub struct Desk {
    /// The listening sockets.
    pub ports: Vec<Port>,
    /// The settings in force.
    pub settings: Settings,
    /// The counts.
    pub tally: Tally,
}

/// A client with what its line in the journal needs.
#[derive(Debug)]
pub struct Guest {
    /// The client.
    pub client: Client,
    /// Which of the ports it came to.
    pub port: usize,
    /// Who it is.
    pub peer: Address,
    /// When it was accepted.
    pub begun: Instant,
}

impl Desk {
    /// A desk with every socket's greeting settled.
    pub fn new(ports: Vec<Port>, settings: Settings, now: Instant) -> Self {
        let mut desk = Self {
            ports,
            settings,
            tally: Tally::new(now),
        };
        desk.settle();
        desk
    }

    /// Puts new settings in force, for new clients.
    pub fn replace(&mut self, settings: Settings) {
        self.settings = settings;
        self.settle();
    }

    /// Counts a client, and writes its line if it may have one.
    pub fn report(&mut self, guest: &Guest, outcome: Outcome) {
        if outcome == Outcome::Sent {
            self.tally.count(&guest.peer);
        }
        if !self.tally.may_log() {
            return;
        }
        let port = &self.ports[guest.port];
        Report {
            mode: Mode::Accept,
            socket: &port.name,
            peer: &Peer::new(&guest.peer, self.settings.log_peer),
            local: &port.local(&guest.client.stream),
            bytes: guest.client.bytes_sent(),
            duration: guest.begun.elapsed(),
            outcome,
        }
        .log();
    }

    fn settle(&mut self) {
        let hostname = kernel::hostname();
        for port in &mut self.ports {
            port.settle(&self.settings, &hostname);
        }
    }
}
