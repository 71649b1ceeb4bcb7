//! Where a client connects to, and from which address.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use socket2::{SockAddr, Socket, Type};

/// One address of the server: `IP:PORT`, `[v6]:PORT` or `/unix/path`.
#[derive(Clone, Debug)]
pub struct Target {
    address: SockAddr,
    ip: Option<SocketAddr>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            let address = SockAddr::unix(Path::new(text)).map_err(|e| e.to_string())?;
            return Ok(Target { address, ip: None });
        }
        let ip: SocketAddr = text
            .parse()
            .map_err(|_| "neither IP:PORT, [v6]:PORT nor /unix/path".to_owned())?;
        Ok(Target {
            address: ip.into(),
            ip: Some(ip),
        })
    }
}

impl Target {
    /// Starts to connect and does not wait for it.
    ///
    /// A TCP connection is on its way when this returns; whether it was
    /// refused shows on the first read.
    ///
    /// # Errors
    ///
    /// What the kernel finds wrong at once: a Unix socket that nobody listens
    /// on, no port of our own left, no descriptor.
    pub fn connect(&self, source: Option<IpAddr>) -> io::Result<Socket> {
        let socket = Socket::new(
            self.address.domain(),
            Type::STREAM.nonblocking().cloexec(),
            None,
        )?;
        if let Some(source) = source.filter(|s| self.fits(*s)) {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&self.address) {
            Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(e)
            }
            _ => Ok(socket),
        }
    }

    /// A further address to come from once the ports of one are used up, which
    /// only the IPv4 loopback network has plenty of.
    #[must_use]
    pub fn spare_source(&self, n: u16) -> Option<IpAddr> {
        let [high, low] = n.to_be_bytes();
        match self.ip {
            Some(SocketAddr::V4(v4)) if v4.ip().is_loopback() => {
                Some(Ipv4Addr::new(127, 1, high, low.max(1)).into())
            }
            _ => None,
        }
    }

    fn fits(&self, source: IpAddr) -> bool {
        self.ip.is_some_and(|ip| ip.is_ipv4() == source.is_ipv4())
    }
}
