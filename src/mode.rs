//! The three ways in which a client can reach us. Floor 1.

/// How the sockets were handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// We hold listening sockets and accept.
    Accept,
    /// systemd accepted; the connected socket is a descriptor of `LISTEN_FDS`.
    Accepted,
    /// systemd accepted; the connected socket is stdin and stdout.
    Inet,
}

impl Mode {
    /// The mode of a name; none of any other word.
    pub fn named(name: &str) -> Option<Self> {
        let modes = [Self::Accept, Self::Accepted, Self::Inet];
        modes.into_iter().find(|mode| mode.name() == name)
    }

    /// The mode's name in the settings and in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Accepted => "accepted",
            Self::Inet => "inet",
        }
    }

    /// What is said where the settings give no text.
    pub const fn default_message(self) -> &'static str {
        match self {
            Self::Accept => "This is a test",
            Self::Accepted => "This socket was already accepted",
            Self::Inet => "This socket was passed on stdin/stdout",
        }
    }

    /// The name that its sockets have where the units are as they come.
    pub const fn socket_name(self) -> &'static str {
        match self {
            Self::Accept => "greeter",
            Self::Accepted => "greeter-accepted",
            Self::Inet => "stdin",
        }
    }

    /// What brings this mode about, for whoever must change the units.
    pub const fn unit_setup(self) -> &'static str {
        match self {
            Self::Accept => "Accept=no in the socket unit",
            Self::Accepted => {
                "Accept=yes in the socket unit and no StandardInput=socket in the service"
            }
            Self::Inet => "Accept=yes in the socket unit and StandardInput=socket in the service",
        }
    }
}
