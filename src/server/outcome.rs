//! How a connection ended, and why it was closed.

use std::fmt;
use std::io;

use crate::error::os_message;
use crate::proxy_protocol::HeaderError;

/// How a connection ended: the journal field `GREETER_RESULT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The greeting was sent, and the peer closed or has received it.
    Sent,
    /// The peer disconnected before the kernel had accepted all of the greeting.
    Gone,
    /// The kernel could not accept all of the greeting within `write_timeout`.
    Timeout,
    /// The client's address has `connections_per_source` open connections.
    Refused,
    /// The PROXY header is missing, late or invalid.
    InvalidHeader,
    /// greeter closed the connection before the greeting was delivered: at the end of
    /// `drain_timeout`, of `write_timeout` and `linger_timeout` together, or of
    /// `linger_timeout` if the peer had closed; because other clients waited for its place;
    /// or because of an error that ended the service.
    CutOff,
}

/// Why a connection was closed, for the debug message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// The client has closed, and its input was read.
    PeerClosed,
    /// The client has closed, and had not sent a byte of the PROXY header.
    ClosedUnused,
    /// The PROXY header is missing or invalid.
    InvalidHeader(HeaderError),
    /// send(2) failed with this error.
    SendFailed(i32),
    /// The greeting was delivered, and the client has sent `linger_bytes`.
    LingerBytes,
    /// The greeting was delivered, and `linger_timeout` has expired.
    LingerTimeout,
    /// The greeting was delivered, and the service stops.
    Stopping,
    /// `write_timeout`, or `drain_timeout`, has expired before the greeting was sent.
    SendExpired,
    /// Its time has expired before the greeting was delivered.
    DeliveryExpired,
    /// It made no progress, and other clients waited for its place.
    PlaceNeeded,
    /// `connections_per_source`.
    Refused,
    /// The service has failed.
    ServiceFailed,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PeerClosed => "the client has closed",
            Self::ClosedUnused => "the client has closed before the PROXY header",
            Self::InvalidHeader(error) => return error.fmt(f),
            Self::SendFailed(errno) => {
                let error = io::Error::from_raw_os_error(*errno);
                return write!(f, "send: {}", os_message(&error));
            }
            Self::LingerBytes => "linger_bytes was reached",
            Self::LingerTimeout => "linger_timeout has expired",
            Self::Stopping => "the service stops",
            Self::SendExpired => "the greeting was not sent in time",
            Self::DeliveryExpired => "the greeting was not delivered in time",
            Self::PlaceNeeded => "it made no progress, and other clients waited",
            Self::Refused => "connections_per_source was reached",
            Self::ServiceFailed => "the service has failed",
        })
    }
}
