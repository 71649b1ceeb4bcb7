//! What systemd and greeter exchange: sockets, notifications, log messages.

pub mod activation;
pub mod journal;
pub(crate) mod notify;
