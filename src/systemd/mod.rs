//! What passes between systemd and us: the sockets, the notifications, the journal. Floor 2.

pub mod activation;
pub mod journal;
pub(crate) mod notify;
