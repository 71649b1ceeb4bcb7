//! The kinds of event that reach the journal, each with its fixed MESSAGE_ID. Floor 1.
//!
//! The identifiers are interface: `journalctl MESSAGE_ID=…` finds them and the
//! message catalogue explains them (systemd.journal-fields(7), journalctl(1) `-x`).

/// One kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Its name in greeter(8).
    pub name: &'static str,
    /// Its MESSAGE_ID: 128 bits in hexadecimal, as sd_journal_print(3) wants it.
    pub id: &'static str,
}

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$doc])* pub const $name: Event = Event { name: stringify!($name), id: $id };)*
        /// Every kind of event.
        pub const ALL: &[Event] = &[$($name),*];
    };
}

events! {
    /// The sockets are sound and the settings read: clients are greeted from here on.
    READY = "78123bc6e25c4591854950941b92ae57";
    /// A client was greeted, or why it was not.
    GREETED = "b3dee68698274abda6d4503f22a2407f";
    /// How many clients had no line of their own in the last second.
    SUPPRESSED = "c8ad6f26ac8349c990d1103fd739c9ea";
    /// New settings are in force.
    RELOADED = "d199e71bb35344f7afb51cad54551f7e";
    /// New settings are wrong and the old ones stay.
    RELOAD_FAILED = "48b5678f1a3b4f7d9c085d591f46dbd7";
    /// The service ends because it was told to.
    STOPPED = "f32ef43ac0c64c10b35eb3f981dbf207";
    /// The service ends because nobody came.
    IDLE = "e980b9712d9e4a96915da969057a041e";
    /// Out of descriptors or memory: clients wait in the kernel's queue.
    RESOURCES = "523dbde4cfd44f7e919ff3c5502f8ea1";
    /// The settings are wrong and the service cannot start.
    SETTINGS_INVALID = "a28c67bde15d4b39ab1731b5e4210850";
    /// What was handed over does not fit.
    SOCKETS_UNFIT = "127cbd8e7fa84d0ab75adac96d5a5241";
    /// The service cannot go on.
    FAILED = "080d16834d624c8eab5fdd4230a243a4";
    /// The service manager could not be told.
    NOTIFY_FAILED = "74383caa08ae46deb1f82efa628fe9f9";
    /// Clients were cut off at the end of `drain_timeout`.
    DRAIN_EXPIRED = "fcc04ed99db043cb99ae89ba01562b6c";
    /// The journal did not take lines for a while.
    LINES_LOST = "6a6e70d6d5f2456dae75524c4f7482d5";
}

/// The journal fields of our own, beside those that every service has.
pub const FIELDS: &[&str] = &[
    MODE,
    SOCKET,
    PEER,
    PEER_PORT,
    LOCAL,
    BYTES,
    DURATION_USEC,
    RESULT,
];

/// `accept`, `accepted` or `inet`.
pub const MODE: &str = "GREETER_MODE";
/// The socket's name: its `FileDescriptorName=`.
pub const SOCKET: &str = "GREETER_SOCKET";
/// The client's address, as far as `log_peer` lets it be known.
pub const PEER: &str = "GREETER_PEER";
/// The client's port.
pub const PEER_PORT: &str = "GREETER_PEER_PORT";
/// Our address and port, or the path of a Unix socket.
pub const LOCAL: &str = "GREETER_LOCAL";
/// How many bytes of the greeting the kernel took.
pub const BYTES: &str = "GREETER_BYTES";
/// Microseconds from the accept to the greeting's last byte.
pub const DURATION_USEC: &str = "GREETER_DURATION_USEC";
/// `sent`, `gone`, `timeout` or `refused`.
pub const RESULT: &str = "GREETER_RESULT";
/// The field in which the journal looks for the kind of event.
pub const MESSAGE_ID: &str = "MESSAGE_ID";

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_identifier_is_128_bits_and_used_once() {
        let ids: BTreeSet<_> = ALL.iter().map(|event| event.id).collect();
        assert_eq!(ids.len(), ALL.len());
        for id in ids {
            assert!(
                id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')),
                "{id}"
            );
        }
    }
}
