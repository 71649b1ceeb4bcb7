//! Client addresses as far as `log_peer` allows them in the journal and in STATUS.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::settings::PeerDetail;
use crate::socket;

/// The network part of IPv4 addresses with `log_peer = "prefix"`: /24.
const V4_PREFIX: Ipv4Addr = Ipv4Addr::new(255, 255, 255, 0);
/// The network part of IPv6 addresses with `log_peer = "prefix"`: /48.
const V6_PREFIX: Ipv6Addr = Ipv6Addr::new(0xffff, 0xffff, 0xffff, 0, 0, 0, 0, 0);

/// A client's address and port as they may be logged; `-` if they may not, or if
/// there are none.
pub struct RedactedAddr {
    /// The journal field `GREETER_PEER`.
    pub address: String,
    /// The journal field `GREETER_PEER_PORT`.
    pub port: String,
}

impl RedactedAddr {
    /// Shortens an address to what `detail` allows.
    pub fn new(peer: Option<SocketAddr>, detail: PeerDetail) -> Self {
        let hidden = || "-".to_owned();
        match (peer, detail) {
            (None, _) | (_, PeerDetail::None) => Self {
                address: hidden(),
                port: hidden(),
            },
            (Some(peer), PeerDetail::Full) => Self {
                address: socket::format_ip(peer),
                port: peer.port().to_string(),
            },
            (Some(peer), PeerDetail::Prefix) => Self {
                address: match peer.ip() {
                    IpAddr::V4(ip) => format!("{}/24", ip & V4_PREFIX),
                    IpAddr::V6(ip) => format!("{}/48", ip & V6_PREFIX),
                },
                port: hidden(),
            },
        }
    }
}

impl fmt::Display for RedactedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.address.as_str(), self.port.as_str()) {
            ("-", _) => f.write_str("a client"),
            (address, "-") => f.write_str(address),
            (address, port) => write!(f, "{address} port {port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_address_is_redacted_by_log_peer() {
        let check = |peer: Option<&str>, detail, expected: &str| {
            let peer = peer.map(|peer| peer.parse().unwrap());
            assert_eq!(RedactedAddr::new(peer, detail).to_string(), expected);
        };
        let ipv4 = Some("203.0.113.9:4711");
        check(ipv4, PeerDetail::Full, "203.0.113.9 port 4711");
        check(ipv4, PeerDetail::Prefix, "203.0.113.0/24");
        let ipv6 = Some("[2001:db8:1:2::3]:1");
        check(ipv6, PeerDetail::Prefix, "2001:db8:1::/48");
        check(ipv4, PeerDetail::None, "a client");
        check(None, PeerDetail::Full, "a client");
    }
}
