//! Shared by `greeter-load` and `greeter-bench`: many concurrent clients that read
//! until EOF and compare every byte; and for the latter the servers and their CPU and
//! memory use.

pub mod client;
pub mod load;
pub mod report;
pub mod server;
pub mod target;
pub mod usage;
