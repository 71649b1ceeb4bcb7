//! greeter says one thing to everybody who connects, and nothing of it runs
//! until somebody does. ARCHITECTURE.md draws the floors; a file imports only
//! from lower ones, and they are listed here in the order in which a newcomer
//! should read them.

pub mod cli;
pub mod run;

pub mod server;

pub mod handover;
pub mod inspect;
pub mod instance;

pub mod client;
pub mod poller;
pub mod tally;

pub mod settings;
pub mod systemd;

pub mod greeting;
pub mod socket;

pub mod clock;
pub mod error;
pub mod event;
pub mod kernel;
pub mod mode;
pub mod raw;
