//! What `greeter-load` and `greeter-bench` share: clients, many at once, that
//! read to the end of the stream and compare every byte.

pub mod client;
pub mod load;
pub mod report;
pub mod target;
