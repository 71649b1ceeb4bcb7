//! greeter says one thing to everybody who connects, and nothing of it runs
//! until somebody does. ARCHITECTURE.md draws the floors; a file imports only
//! from lower ones, and they are listed here in the order in which a newcomer
//! should read them.

pub mod cli;
pub mod run;

mod server;

pub mod handover;
mod inspect;

mod client;
mod poller;
mod tally;

pub mod settings;
pub mod systemd;

pub mod greeting;
pub mod socket;

mod clock;
pub mod error;
mod event;
mod kernel;
pub mod mode;
mod raw;
