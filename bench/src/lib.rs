//! What `greeter-load` and `greeter-bench` share: clients, many at once, that
//! read to the end of the stream and compare every byte; and, for the latter,
//! the servers and what they cost.

pub mod client;
pub mod load;
pub mod peer;
pub mod report;
pub mod target;
pub mod usage;
