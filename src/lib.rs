//! A socket-activated service that sends a fixed text to every client that
//! connects, then closes the connection. ARCHITECTURE.md describes the layers; a
//! file imports only from lower ones. The modules are listed in the order in
//! which to read them.

pub mod cli;
pub mod run;

mod access;
pub mod passed_sockets;
mod query;
mod server;

pub mod settings;
pub mod systemd;

pub mod greeting;
mod poller;
pub mod proxy_protocol;
mod signals;
pub mod socket;

pub mod error;
mod event;
pub mod mode;
mod sys;
mod time_format;
mod unit;
