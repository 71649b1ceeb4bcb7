//! A listening socket with its greeting, and how it can fail to bring a client. Floor 6.

use std::io;
use std::rc::Rc;
use std::time::SystemTime;

use crate::clock;
use crate::greeting::{Facts, Greeting};
use crate::mode::Mode;
use crate::raw::errno::*;
use crate::settings::values::Settings;
use crate::socket::{Address, Listener, Stream};

/// A listening socket with its greeting.
#[derive(Debug)]
pub struct Port {
    /// The socket's name.
    pub name: String,
    /// Somebody may be waiting: accept until it would block.
    pub ready: bool,
    listener: Listener,
    greeting: Greeting,
}

/// What came of asking for the next client.
#[derive(Debug)]
pub enum Arrival {
    /// A client and its address.
    Client(Stream, Address),
    /// Nobody waits.
    Nobody,
    /// This client is gone already; the next may not be.
    Gone,
    /// Out of descriptors or memory.
    Shortage(io::Error),
    /// The socket is broken.
    Broken(io::Error),
}

impl Port {
    /// A socket that may have clients in its queue and says nothing yet:
    /// [`Port::settle`] tells it what.
    pub fn new(listener: Listener, name: String) -> Self {
        Self {
            name,
            ready: true,
            listener,
            greeting: Greeting::Same(Rc::new([])),
        }
    }

    /// The socket itself.
    pub fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Takes its greeting from the settings.
    pub fn settle(&mut self, settings: &Settings, hostname: &str) {
        self.greeting = settings.template(Mode::Accept, &self.name).settle(
            hostname,
            &self.name,
            Mode::Accept.name(),
        );
    }

    /// The next client.
    pub fn accept(&mut self) -> Arrival {
        match self.listener.accept() {
            Ok((stream, peer)) => Arrival::Client(stream, peer),
            Err(error) => {
                let arrival = sort(error);
                self.ready = !matches!(arrival, Arrival::Nobody);
                arrival
            }
        }
    }

    /// The bytes for one client.
    pub fn greeting(&self, stream: &Stream, peer: &Address) -> Rc<[u8]> {
        if let Greeting::Same(bytes) = &self.greeting {
            return Rc::clone(bytes);
        }
        let local = self.local(stream);
        let time = clock::rfc3339(SystemTime::now());
        self.greeting.render(&Facts {
            peer: peer.ip(),
            local: local.ip(),
            path: local.path(),
            time: &time,
        })
    }

    /// The address that a client reached: only a wildcard socket's must be asked for.
    pub fn local(&self, stream: &Stream) -> Address {
        if self.listener.is_wildcard() {
            stream.local()
        } else {
            self.listener.local().clone()
        }
    }
}

/// Sorts the errors of accept(2). The manual page says which are the network's, to
/// be taken as if nobody had been there; EPERM is a firewall's.
fn sort(error: io::Error) -> Arrival {
    match (error.kind(), error.raw_os_error()) {
        (io::ErrorKind::WouldBlock, _) => Arrival::Nobody,
        (_, Some(ENOMEM | ENFILE | EMFILE | ENOBUFS)) => Arrival::Shortage(error),
        (
            _,
            Some(
                EPERM | EINTR | ENONET | EPROTO | ENOPROTOOPT | EOPNOTSUPP | ENETDOWN | ENETUNREACH
                | ECONNABORTED | ECONNRESET | ETIMEDOUT | EHOSTDOWN | EHOSTUNREACH,
            ),
        ) => Arrival::Gone,
        _ => Arrival::Broken(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_are_of_three_kinds() {
        let sorted = |errno| sort(io::Error::from_raw_os_error(errno));
        assert!(matches!(sorted(11), Arrival::Nobody));
        for errno in [103, 4, 71, 113, 1] {
            assert!(matches!(sorted(errno), Arrival::Gone), "{errno}");
        }
        for errno in [12, 23, 24, 105] {
            assert!(matches!(sorted(errno), Arrival::Shortage(_)), "{errno}");
        }
        for errno in [9, 22, 88] {
            assert!(matches!(sorted(errno), Arrival::Broken(_)), "{errno}");
        }
    }
}
