//! A client with what its line in the journal needs. Floor 7.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::port::Port;
use crate::client::Client;
use crate::event;
use crate::settings::values::PeerDetail;
use crate::tally::Peer;

/// A client with what its line in the journal needs.
#[derive(Debug)]
pub struct Guest {
    /// The client.
    pub client: Client,
    /// Which of the ports it came to.
    pub port: usize,
    /// Its address, of TCP.
    pub peer: Option<SocketAddr>,
    /// Whom it counts for, where sources are counted.
    pub origin: Option<IpAddr>,
    /// When it was accepted.
    pub begun: Instant,
    /// Whether it is registered with epoll.
    pub watched: bool,
}

/// How it ended for a client: GREETER_RESULT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel took all of the greeting.
    Sent,
    /// The client left before that.
    Gone,
    /// The client did not take it within `write_timeout`.
    Timeout,
    /// The client's source holds all the connections that it may.
    Refused,
}

impl Guest {
    /// Writes the client's line. It came to `port`.
    pub fn log(&self, port: &Port, outcome: Outcome, detail: PeerDetail) {
        let (socket, bytes) = (port.name.as_str(), self.client.sent);
        let (peer, local) = (
            Peer::new(self.peer, detail),
            port.reached(&self.client.socket),
        );
        let (result, text) = match outcome {
            Outcome::Sent => (
                "sent",
                format!("greeted {peer} on '{socket}', {bytes} bytes"),
            ),
            Outcome::Gone => (
                "gone",
                format!("{peer} left '{socket}' before it was greeted"),
            ),
            Outcome::Timeout => {
                let text = format!("{peer} on '{socket}' did not take its greeting in time");
                ("timeout", text)
            }
            Outcome::Refused => {
                let why = "too many connections of this source";
                ("refused", format!("refused {peer} on '{socket}': {why}"))
            }
        };
        log::info!(
            MESSAGE_ID = event::GREETED,
            GREETER_MODE = port.mode.name(),
            GREETER_SOCKET = socket,
            GREETER_PEER = peer.address.as_str(),
            GREETER_PEER_PORT = peer.port.as_str(),
            GREETER_LOCAL = local.text.as_str(),
            GREETER_BYTES = bytes,
            GREETER_DURATION_USEC = self.begun.elapsed().as_micros(),
            GREETER_RESULT = result;
            "{text}"
        );
    }
}

/// Whom `connections_per_source` counts as one: an IPv4 address or an IPv6 /64.
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv6_network_and_an_ipv4_address_are_one_origin_each() {
        let origin = |text: &str| origin(text.parse().unwrap());
        assert_eq!(origin("2001:db8:1:2::3"), origin("2001:db8:1:2:ffff::"));
        assert_ne!(origin("2001:db8:1:2::3"), origin("2001:db8:1:3::3"));
        assert_eq!(origin("::ffff:192.0.2.1"), origin("192.0.2.1"));
        assert_ne!(origin("192.0.2.2"), origin("192.0.2.1"));
    }
}
