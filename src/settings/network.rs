//! Addresses and networks, as `log_exclude` names them; wraps ipnet.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A network, or a single address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether an address is in the network.
    pub fn contains(self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl FromStr for Network {
    type Err = ();

    /// Parses `192.0.2.10`, `192.0.2.0/24` and the same of IPv6. IPv4-mapped addresses
    /// become IPv4, as the addresses of clients do.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = text.parse::<IpAddr>().map(IpNet::from);
        let network = address.or_else(|_| text.parse()).map_err(drop)?;
        let address = network.addr().to_canonical();
        let mapped_bits = network.max_prefix_len() - IpNet::from(address).max_prefix_len();
        match network.prefix_len().checked_sub(mapped_bits) {
            Some(length) => IpNet::new(address, length).map(Self).map_err(drop),
            // It contains all mapped addresses and others.
            None => Ok(Self(network)),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        for (network, address, expected) in [
            ("192.0.2.10", "192.0.2.10", true),
            ("192.0.2.10", "192.0.2.11", false),
            ("192.0.2.0/24", "192.0.2.255", true),
            ("192.0.2.0/24", "192.0.3.0", false),
            ("192.0.2.10/24", "192.0.2.11", true),
            ("2001:db8::/64", "2001:db8::1", true),
            ("2001:db8::/64", "2001:db8:0:1::1", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("::ffff:192.0.2.10", "192.0.2.10", true),
            ("::ffff:192.0.2.10", "192.0.2.11", false),
            ("::ffff:192.0.2.0/120", "192.0.2.255", true),
            ("::ffff:192.0.2.0/120", "192.0.3.0", false),
            ("::ffff:0:0/96", "192.0.2.1", true),
            ("::ffff:0:0/95", "::fffe:0:1", true),
            ("0.0.0.0/0", "::1", false),
        ] {
            let network: Network = network.parse().unwrap();
            let address = address.parse().unwrap();
            assert_eq!(network.contains(address), expected, "{network} {address}");
        }
    }

    #[test]
    fn networks_are_shown_as_they_are_written() {
        for text in ["192.0.2.10", "192.0.2.0/24", "2001:db8::/64", "::1"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        let mapped: Network = "::ffff:192.0.2.0/120".parse().unwrap();
        assert_eq!(mapped.to_string(), "192.0.2.0/24");
        for text in [
            "",
            "192.0.2",
            "192.0.2.0/33",
            "example.org",
            "::/129",
            "1.2.3.4/",
        ] {
            assert_eq!(text.parse::<Network>(), Err(()), "{text}");
        }
    }
}
