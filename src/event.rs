//! The kinds of event that are logged, each with its fixed MESSAGE_ID.
//!
//! The identifiers are interface: `journalctl MESSAGE_ID=…` finds them and the
//! message catalogue explains them (systemd.journal-fields(7), journalctl(1) `-x`).

/// The sockets are valid and the settings are loaded: clients are greeted from now on.
pub const READY: &str = "78123bc6e25c4591854950941b92ae57";
/// A connection was closed: it was greeted, or why it was not.
pub const CONNECTION_CLOSED: &str = "b3dee68698274abda6d4503f22a2407f";
/// A connection that has to begin with a PROXY header did not.
pub const INVALID_HEADER: &str = "fea101ac814246988acfed8c474b6028";
/// Number of connections that were not logged individually in the last second.
pub const SUPPRESSED: &str = "c8ad6f26ac8349c990d1103fd739c9ea";
/// New settings are in force.
pub const RELOADED: &str = "d199e71bb35344f7afb51cad54551f7e";
/// The new settings are invalid; the current ones are kept.
pub const RELOAD_FAILED: &str = "48b5678f1a3b4f7d9c085d591f46dbd7";
/// The service exits after SIGTERM or SIGINT.
pub const STOPPED: &str = "f32ef43ac0c64c10b35eb3f981dbf207";
/// The service exits because there were no connections for `idle_timeout`.
pub const IDLE: &str = "e980b9712d9e4a96915da969057a041e";
/// Out of descriptors or memory: clients wait in the backlog.
pub const RESOURCES: &str = "523dbde4cfd44f7e919ff3c5502f8ea1";
/// The settings are invalid and the service cannot start.
pub const SETTINGS_INVALID: &str = "a28c67bde15d4b39ab1731b5e4210850";
/// The sockets are missing, invalid or do not match the settings.
pub const SOCKETS_UNFIT: &str = "127cbd8e7fa84d0ab75adac96d5a5241";
/// A system call failed and the service exits.
pub const FAILED: &str = "080d16834d624c8eab5fdd4230a243a4";
/// sd_notify(3) failed.
pub const NOTIFY_FAILED: &str = "74383caa08ae46deb1f82efa628fe9f9";
/// Connections were closed before their greeting was sent, at the end of `drain_timeout`.
pub const DRAIN_EXPIRED: &str = "fcc04ed99db043cb99ae89ba01562b6c";
/// The journal did not accept messages for a while.
pub const LINES_LOST: &str = "6a6e70d6d5f2456dae75524c4f7482d5";
/// A socket has no greeting of its own, but a similar name has one.
pub const NAME_MISSPELT: &str = "92e9270e2bc74a25a479e5cf2093d0df";
/// accept(2) fails on a listening socket.
pub const LISTENER_FAILED: &str = "068ff9f183044b94adffd36aa536c3fb";
