//! The address that a client connects to, and its source address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use rustix::io::Errno;
use socket2::{SockAddr, Socket, Type};

/// An address of the server: `IP:PORT`, `[IPV6]:PORT` or `/path`.
#[derive(Clone, Debug)]
pub struct Target {
    address: SockAddr,
    ip: Option<SocketAddr>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            let address = SockAddr::unix(Path::new(text)).map_err(|error| error.to_string())?;
            return Ok(Target { address, ip: None });
        }
        let ip: SocketAddr = text
            .parse()
            .map_err(|_| "expected IP:PORT, [IPV6]:PORT or /path".to_owned())?;
        Ok(Target {
            address: ip.into(),
            ip: Some(ip),
        })
    }
}

impl Target {
    /// Starts a connection without blocking. A refused TCP connection is reported by
    /// the first read.
    ///
    /// # Errors
    ///
    /// What the kernel reports at once: no socket listens on the path, no free port at
    /// the source, no free descriptor.
    pub fn connect(&self, source: Option<IpAddr>) -> io::Result<Socket> {
        let socket = Socket::new(
            self.address.domain(),
            Type::STREAM.nonblocking().cloexec(),
            None,
        )?;
        if let Some(source) = source.filter(|source| self.is_same_family(*source)) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.address) {
            Err(error) if error.raw_os_error() != Some(Errno::INPROGRESS.raw_os_error()) => {
                Err(error)
            }
            _ => Ok(socket),
        }
    }

    /// The source address to use after `index` others have no free port left. Only the
    /// IPv4 loopback network has several.
    #[must_use]
    pub fn spare_source(&self, index: u16) -> Option<IpAddr> {
        let [high, low] = index.to_be_bytes();
        match self.ip {
            Some(SocketAddr::V4(address)) if address.ip().is_loopback() => {
                Some(Ipv4Addr::new(127, 1, high, low.max(1)).into())
            }
            _ => None,
        }
    }

    fn is_same_family(&self, source: IpAddr) -> bool {
        self.ip.is_some_and(|ip| ip.is_ipv4() == source.is_ipv4())
    }
}
