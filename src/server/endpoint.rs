//! The socket that a client connected to, as greetings and log messages name it.

use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use crate::greeting::{Context, Greeting};
use crate::mode::Mode;
use crate::socket::{LocalAddr, Socket};
use crate::sys;
use crate::time_format;

/// Name, mode and address of a listening socket, or of the one that systemd
/// accepted a connection on. All its connections share it.
#[derive(Debug)]
pub struct Endpoint {
    /// The name, which selects the greeting.
    pub name: String,
    /// The mode.
    pub mode: Mode,
    /// The address.
    pub local_addr: LocalAddr,
}

impl fmt::Display for Endpoint {
    /// `127.0.0.1:4000 (greeter)`; the address alone if it is also the name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.local_addr.to_string();
        f.write_str(&address)?;
        if self.name == address {
            return Ok(());
        }
        write!(f, " ({})", self.name)
    }
}

impl Endpoint {
    /// The address that a client connected to. Only the wildcard address is not
    /// that of every connection.
    pub fn local_addr_of(&self, socket: &Socket) -> LocalAddr {
        if self.local_addr.is_wildcard() {
            socket.local_addr()
        } else {
            self.local_addr.clone()
        }
    }

    /// Returns the bytes of the greeting for one connection. `local_addr` is called only if
    /// they depend on it.
    pub fn render(
        &self,
        greeting: &Greeting,
        peer: Option<SocketAddr>,
        local_addr: impl FnOnce() -> LocalAddr,
    ) -> Rc<[u8]> {
        greeting.render(|| Context {
            peer,
            local: local_addr(),
            hostname: sys::hostname(),
            time: time_format::rfc3339(SystemTime::now()),
            socket: &self.name,
            mode: self.mode,
        })
    }
}
