//! A socket with its greeting, and how it can fail to bring a client. Floor 6.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::SystemTime;

use crate::clock;
use crate::greeting::{Facts, Template};
use crate::kernel;
use crate::mode::Mode;
use crate::raw::errno::*;
use crate::settings::values::Settings;
use crate::socket::{Local, Socket};

/// A socket that brings clients, or is the only one.
#[derive(Debug)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// How its clients come.
    pub mode: Mode,
    /// Where it listens, or what the only client reached.
    pub local: Local,
    /// Somebody may be waiting: accept until nobody is.
    pub ready: bool,
    /// In mode accept it listens; in the others it is the client, until that is taken.
    pub socket: Option<Socket>,
    template: Template,
    /// The greeting, where all clients are sent the same.
    same: Option<Rc<[u8]>>,
}

impl Port {
    /// A socket that says nothing yet: [`Port::agree`] tells it what.
    pub fn new(socket: Socket, name: String, mode: Mode) -> Self {
        Self {
            name,
            mode,
            local: socket.local(),
            ready: true,
            socket: Some(socket),
            template: Template::default(),
            same: None,
        }
    }

    /// Takes its greeting from the settings.
    pub fn agree(&mut self, settings: &Settings) {
        self.template = settings.template(&self.name).clone();
        let is_same = self.template.is_same();
        self.same = is_same.then(|| self.render(None, &self.local));
    }

    /// The next client and, of TCP, its address, if there is one.
    ///
    /// # Errors
    /// The kernel is short of something ([`is_shortage`]), or the socket is broken.
    pub fn accept(&mut self) -> io::Result<Option<(Socket, Option<SocketAddr>)>> {
        let none_left = || io::ErrorKind::WouldBlock.into();
        let accepted = match &self.socket {
            Some(listener) if self.mode == Mode::Accept => listener.accept(),
            _ => self.only_client().ok_or_else(none_left),
        };
        match accepted {
            Ok(client) => Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.ready = false;
                Ok(None)
            }
            Err(error) if is_the_clients(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The client that systemd accepted, once.
    fn only_client(&mut self) -> Option<(Socket, Option<SocketAddr>)> {
        let client = self.socket.take()?;
        let peer = client.peer();
        Some((client, peer))
    }

    /// The bytes for one client.
    pub fn greeting(&self, socket: &Socket, peer: Option<SocketAddr>) -> Rc<[u8]> {
        match &self.same {
            Some(bytes) => Rc::clone(bytes),
            None => self.render(peer, &self.reached(socket)),
        }
    }

    /// The address that a client reached: only a wildcard socket's must be asked for.
    pub fn reached(&self, client: &Socket) -> Local {
        match self.local.ip {
            Some(ip) if ip.ip().is_unspecified() => client.local(),
            _ => self.local.clone(),
        }
    }

    fn render(&self, peer: Option<SocketAddr>, local: &Local) -> Rc<[u8]> {
        self.template.render(&Facts {
            peer,
            local,
            hostname: kernel::hostname(),
            time: clock::rfc3339(SystemTime::now()),
            socket: &self.name,
            mode: self.mode.name(),
        })
    }
}

/// Whether an error of accept(2) is that of one client that is gone already. The
/// manual page says which are the network's, to be taken as if nobody had been
/// there; EPERM is a firewall's.
fn is_the_clients(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or_default();
    matches!(
        errno,
        EPERM | EINTR | ENONET | EPROTO | ENOPROTOOPT | EOPNOTSUPP
    ) || matches!(errno, ENETDOWN | ENETUNREACH | EHOSTDOWN | EHOSTUNREACH)
        || matches!(errno, ECONNABORTED | ECONNRESET | ETIMEDOUT)
}

/// Whether the kernel is out of descriptors, memory or room in epoll.
pub fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or_default();
    matches!(errno, ENOMEM | ENFILE | EMFILE | ENOBUFS | ENOSPC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_are_of_three_kinds() {
        let check = |errnos: &[i32], the_clients, shortage| {
            for errno in errnos {
                let error = io::Error::from_raw_os_error(*errno);
                let sorted = (is_the_clients(&error), is_shortage(&error));
                assert_eq!(sorted, (the_clients, shortage), "{error}");
            }
        };
        check(&[103, 4, 71, 113, 1], true, false);
        check(&[12, 23, 24, 105], false, true);
        check(&[9, 22, 88], false, false);
    }
}
