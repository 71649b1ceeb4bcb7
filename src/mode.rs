//! Socket modes: who accepts a connection, and where its socket is.

/// How greeter gets its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// greeter receives listening sockets and accepts.
    Accept,
    /// systemd accepts; the connected socket is a descriptor of `LISTEN_FDS`.
    Accepted,
    /// systemd accepts; the connected socket is stdin and stdout.
    Inet,
}

impl Mode {
    /// The mode's name in the settings and in the journal.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Accepted => "accepted",
            Self::Inet => "inet",
        }
    }

    /// The greeting if the settings contain none.
    pub const fn default_message(self) -> &'static str {
        match self {
            Self::Accept => "This is a test",
            Self::Accepted => "This socket was already accepted",
            Self::Inet => "This socket was passed on stdin/stdout",
        }
    }

    /// The name that the sockets of the shipped units have.
    pub const fn socket_name(self) -> &'static str {
        match self {
            Self::Accept => "greeter",
            Self::Accepted => "greeter-accepted",
            Self::Inet => "stdin",
        }
    }

    /// The unit directives that result in this mode, for error messages.
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
