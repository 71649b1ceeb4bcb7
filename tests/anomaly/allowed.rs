//! What an error may lead to beside what every run must lead to.

use crate::inject::{Call, Target};
use crate::outcome::Outcome;
use crate::outcome::Outcome::{
    ClientGone, Ends, FailsToStart, KeepsSettings, Killed, LineLost, LineOnStderr, NoLastStatus,
    NoLine, NoReady, NoStatus, NoStopping, OtherOutput, PathLeft, Truncated,
};
use crate::scenario::Scenario;
use crate::scenario::Scenario::{
    Accept, AcceptInvalid, AcceptJournal, AcceptLarge, AcceptProxied, Accepted, AcceptedInvalid,
    AcceptedStop, CheckValid, Inet, Listen,
};

/// One row of the table.
pub struct Row {
    /// The scenarios that it applies to.
    pub scenarios: &'static [Scenario],
    pub call: &'static str,
    pub target: Target,
    pub errors: &'static [&'static str],
    pub outcomes: &'static [Outcome],
    /// The promise that it rests on.
    pub promise: &'static str,
}

impl Row {
    /// Whether the row is about an error of a call.
    pub fn matches(&self, scenario: Scenario, call: &Call, error: &str) -> bool {
        self.scenarios.contains(&scenario)
            && self.call == call.name
            && self.target == call.target
            && self.errors.contains(&error)
    }
}

const TERMINATED: Outcome = Killed { signal: 15 };
const NO_START: Outcome = FailsToStart { status: 1 };
const INVALID: Outcome = FailsToStart { status: 78 };

const LISTENING: &[Scenario] = &[Accept, AcceptJournal, AcceptLarge, AcceptProxied, Listen];
const PASSED_LISTENER: &[Scenario] = &[
    Accept,
    AcceptJournal,
    AcceptLarge,
    AcceptProxied,
    AcceptInvalid,
];
const INSTANCES: &[Scenario] = &[Accepted, AcceptedStop, Inet];
const SERVING: &[Scenario] = &[
    Accept,
    AcceptJournal,
    AcceptLarge,
    AcceptProxied,
    Listen,
    Accepted,
    AcceptedStop,
    Inet,
];
const STARTING: &[Scenario] = &[
    Accept,
    AcceptJournal,
    AcceptLarge,
    AcceptProxied,
    AcceptInvalid,
    Listen,
    Accepted,
    AcceptedStop,
    AcceptedInvalid,
    Inet,
];

/// What is allowed. There is no wildcard for a call or an error, and each row has its
/// reason.
pub const ALLOWED: &[Row] = &[
    // The start: exit status 1, a line with the reason, clients keep waiting.
    Row {
        scenarios: PASSED_LISTENER,
        call: "getsockopt",
        target: Target::Listener,
        errors: &["ENOPROTOOPT", "ENOBUFS", "EPERM"],
        outcomes: &[NO_START],
        promise: "a passed descriptor is served only if the kernel says that it is a stream socket",
    },
    Row {
        scenarios: &[
            Accept,
            AcceptJournal,
            AcceptLarge,
            AcceptProxied,
            AcceptInvalid,
            Listen,
        ],
        call: "fcntl",
        target: Target::Listener,
        errors: &["EPERM", "EINVAL"],
        outcomes: &[NO_START],
        promise: "the loop blocks only in epoll_wait(2): no service with a blocking listener",
    },
    Row {
        scenarios: STARTING,
        call: "socketpair",
        target: Target::Signals,
        errors: &["EMFILE", "ENFILE", "ENOMEM"],
        outcomes: &[NO_START],
        promise: "no signal is lost: no service without signal handlers",
    },
    Row {
        scenarios: STARTING,
        call: "fcntl",
        target: Target::Signals,
        errors: &["EMFILE", "ENOMEM", "EPERM", "EINVAL"],
        outcomes: &[NO_START],
        promise: "no signal is lost: no service without signal handlers",
    },
    Row {
        scenarios: STARTING,
        call: "rt_sigaction",
        target: Target::Signals,
        errors: &["EINVAL"],
        outcomes: &[NO_START],
        promise: "no signal is lost: no service without signal handlers",
    },
    Row {
        scenarios: &[AcceptedStop],
        call: "rt_sigaction",
        target: Target::Signals,
        errors: &["EINVAL"],
        outcomes: &[TERMINATED, ClientGone, NoReady, NoStatus, NoStopping],
        promise: "without a signal handler, SIGTERM ends the process while it waits for the client",
    },
    Row {
        scenarios: LISTENING,
        call: "rt_sigprocmask",
        target: Target::Signals,
        errors: &["EINVAL"],
        outcomes: &[NO_START],
        promise: "no signal is lost: no service that signals do not reach",
    },
    Row {
        scenarios: &[Accepted, AcceptedStop, AcceptedInvalid],
        call: "getsockopt",
        target: Target::Client,
        errors: &["ENOPROTOOPT", "ENOBUFS", "EPERM"],
        outcomes: &[NO_START],
        promise: "a passed descriptor is served only if the kernel says that it is a stream socket",
    },
    Row {
        scenarios: &[Accepted, AcceptedStop, AcceptedInvalid],
        call: "fcntl",
        target: Target::Client,
        errors: &["EPERM", "EINVAL"],
        outcomes: &[NO_START],
        promise: "a passed descriptor is never inherited by another program: FD_CLOEXEC, or no service",
    },
    Row {
        scenarios: &[Inet],
        call: "getsockopt",
        target: Target::Stdio,
        errors: &["ENOPROTOOPT", "ENOBUFS", "EPERM"],
        outcomes: &[NO_START],
        promise: "a passed descriptor is served only if the kernel says that it is a stream socket",
    },
    Row {
        scenarios: &[Inet],
        call: "fcntl",
        target: Target::Stdio,
        errors: &["EMFILE", "ENOMEM"],
        outcomes: &[NO_START],
        promise: "a socket on stdin is duplicated before it is served, as stdin stays open",
    },
    Row {
        scenarios: SERVING,
        call: "epoll_create1",
        target: Target::Epoll,
        errors: &["EMFILE", "ENFILE", "ENOMEM"],
        outcomes: &[NO_START],
        promise: "the loop blocks only in epoll_wait(2): no service without epoll(7)",
    },
    Row {
        scenarios: SERVING,
        call: "epoll_ctl",
        target: Target::Signals,
        errors: &["ENOMEM", "ENOSPC", "EPERM"],
        outcomes: &[NO_START],
        promise: "no signal is lost: no service that signals do not wake",
    },
    Row {
        scenarios: LISTENING,
        call: "epoll_ctl",
        target: Target::Listener,
        errors: &["ENOMEM", "ENOSPC", "EPERM"],
        outcomes: &[NO_START],
        promise: "a service that is ready serves every listener",
    },
    Row {
        scenarios: &[Listen],
        call: "socket",
        target: Target::Listener,
        errors: &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"],
        outcomes: &[NO_START],
        promise: "--listen binds every address, or none",
    },
    Row {
        scenarios: &[Listen],
        call: "setsockopt",
        target: Target::Listener,
        errors: &["ENOPROTOOPT", "ENOMEM", "EPERM"],
        outcomes: &[NO_START],
        promise: "--listen binds every address, or none",
    },
    Row {
        scenarios: &[Listen],
        call: "bind",
        target: Target::Listener,
        errors: &["EADDRINUSE", "EACCES", "EADDRNOTAVAIL", "ENOMEM"],
        outcomes: &[NO_START],
        promise: "--listen binds every address, or none",
    },
    Row {
        scenarios: &[Listen],
        call: "listen",
        target: Target::Listener,
        errors: &["EADDRINUSE", "EOPNOTSUPP"],
        outcomes: &[NO_START],
        promise: "--listen binds every address, or none",
    },
    // Paths: only the socket that greeter has bound is unlinked.
    Row {
        scenarios: &[Listen],
        call: "statx",
        target: Target::Path,
        errors: &["EACCES", "EIO", "ENOMEM"],
        outcomes: &[NO_START, PathLeft],
        promise: "a path is unlinked only if it is known to be the bound socket; the next start \
                  replaces a socket that was left behind",
    },
    Row {
        scenarios: &[Listen],
        call: "unlink",
        target: Target::Path,
        errors: &["EACCES", "EBUSY", "ENOENT", "EROFS"],
        outcomes: &[PathLeft],
        promise: "the next start replaces a socket that was left behind",
    },
    // Settings: status 78 at the start, the current settings at a reload.
    Row {
        scenarios: SERVING,
        call: "openat",
        target: Target::Settings,
        errors: &[
            "EMFILE", "ENFILE", "ENOMEM", "EACCES", "ENOENT", "EIO", "ELOOP",
        ],
        outcomes: &[INVALID, KeepsSettings],
        promise: "settings that cannot be read never replace those in force",
    },
    Row {
        scenarios: SERVING,
        call: "statx",
        target: Target::Settings,
        errors: &["EACCES", "EIO", "ENOMEM"],
        outcomes: &[INVALID, KeepsSettings],
        promise: "settings that cannot be read never replace those in force",
    },
    Row {
        scenarios: SERVING,
        call: "read",
        target: Target::Settings,
        errors: &["EIO", "ENOMEM"],
        outcomes: &[INVALID, KeepsSettings],
        promise: "settings that cannot be read never replace those in force",
    },
    Row {
        scenarios: &[Accept, AcceptJournal],
        call: "newfstatat",
        target: Target::Settings,
        errors: &["EACCES", "EIO", "ENOMEM"],
        outcomes: &[INVALID, KeepsSettings],
        promise: "settings that cannot be read never replace those in force",
    },
    Row {
        scenarios: &[Accept, AcceptJournal],
        call: "getdents64",
        target: Target::Settings,
        errors: &["EIO", "ENOMEM"],
        outcomes: &[INVALID, KeepsSettings],
        promise: "settings that cannot be read never replace those in force",
    },
    Row {
        scenarios: &[CheckValid],
        call: "openat",
        target: Target::Settings,
        errors: &[
            "EMFILE", "ENFILE", "ENOMEM", "EACCES", "ENOENT", "EIO", "ELOOP",
        ],
        outcomes: &[Ends { status: 78 }],
        promise: "--check reports settings that cannot be read",
    },
    Row {
        scenarios: &[CheckValid],
        call: "openat",
        target: Target::Settings,
        errors: &["ENOENT"],
        outcomes: &[OtherOutput],
        promise: "--check lists the files that were read; drop-ins may be absent",
    },
    Row {
        scenarios: &[CheckValid],
        call: "statx",
        target: Target::Settings,
        errors: &["EACCES", "EIO", "ENOMEM"],
        outcomes: &[Ends { status: 78 }],
        promise: "--check reports settings that cannot be read",
    },
    Row {
        scenarios: &[CheckValid],
        call: "read",
        target: Target::Settings,
        errors: &["EIO", "ENOMEM"],
        outcomes: &[Ends { status: 78 }],
        promise: "--check reports settings that cannot be read",
    },
    Row {
        scenarios: &[CheckValid],
        call: "newfstatat",
        target: Target::Settings,
        errors: &["EACCES", "EIO", "ENOMEM"],
        outcomes: &[Ends { status: 78 }],
        promise: "--check reports settings that cannot be read",
    },
    Row {
        scenarios: &[CheckValid],
        call: "getdents64",
        target: Target::Settings,
        errors: &["EIO", "ENOMEM"],
        outcomes: &[Ends { status: 78 }],
        promise: "--check reports settings that cannot be read",
    },
    Row {
        scenarios: &[CheckValid],
        call: "getdents64",
        target: Target::Settings,
        errors: &["ENOENT"],
        outcomes: &[OtherOutput],
        promise: "--check lists the files that were read; drop-ins may be absent",
    },
    Row {
        scenarios: &[CheckValid],
        call: "write",
        target: Target::Output,
        errors: &["EAGAIN", "EIO", "ENOSPC"],
        outcomes: &[Ends { status: 1 }],
        promise: "output that cannot be written is an error",
    },
    Row {
        scenarios: &[CheckValid],
        call: "write",
        target: Target::Output,
        errors: &["EPIPE"],
        outcomes: &[OtherOutput],
        promise: "a reader that reads only the beginning is no error",
    },
    Row {
        scenarios: &[Scenario::Version],
        call: "write",
        target: Target::Output,
        errors: &["EAGAIN", "EIO", "ENOSPC", "EPIPE"],
        outcomes: &[Ends { status: 1 }],
        promise: "--version and --help exit with 1 if they cannot be printed",
    },
    // Connections that the kernel has ended, as these errors say: no byte arrives any more.
    Row {
        scenarios: LISTENING,
        call: "sendto",
        target: Target::Client,
        errors: &["ECONNRESET", "EPIPE", "ETIMEDOUT"],
        outcomes: &[ClientGone, Truncated],
        promise: "a connection that has ended is closed and counted as gone",
    },
    Row {
        scenarios: &[AcceptProxied],
        call: "recvfrom",
        target: Target::Client,
        errors: &["ECONNRESET", "ETIMEDOUT"],
        outcomes: &[ClientGone],
        promise: "a connection that ends before its PROXY header is complete is closed and counted",
    },
    Row {
        scenarios: INSTANCES,
        call: "sendto",
        target: Target::Client,
        errors: &["ECONNRESET", "EPIPE", "ETIMEDOUT"],
        outcomes: &[ClientGone],
        promise: "a connection that has ended is closed and counted as gone",
    },
    Row {
        scenarios: &[AcceptedStop],
        call: "sendto",
        target: Target::Client,
        errors: &["ECONNRESET", "EPIPE", "ETIMEDOUT"],
        outcomes: &[Truncated, NoStopping],
        promise: "a per-connection service ends with its connection, before SIGTERM in this case",
    },
    Row {
        scenarios: INSTANCES,
        call: "getpeername",
        target: Target::Client,
        errors: &["ENOTCONN", "ENOBUFS"],
        outcomes: &[LineLost],
        promise: "a client whose address is unknown has a line without it",
    },
    // Lines: one that cannot be written is counted, and the number is logged.
    Row {
        scenarios: &[Accept, AcceptLarge, AcceptProxied, Listen, Inet],
        call: "poll",
        target: Target::Log,
        errors: &["EINTR", "ENOMEM"],
        outcomes: &[LineLost],
        promise: "a line that stderr does not accept at once is counted",
    },
    Row {
        scenarios: &[Accept, AcceptLarge, AcceptProxied, Listen, Inet],
        call: "write",
        target: Target::Log,
        errors: &["EAGAIN", "EIO", "ENOSPC", "EPIPE"],
        outcomes: &[LineLost],
        promise: "a line that stderr does not accept at once is counted",
    },
    Row {
        scenarios: &[Accepted, AcceptedStop],
        call: "sendto",
        target: Target::Log,
        errors: &["EAGAIN", "ENOBUFS", "ENOMEM", "EINTR", "EPIPE"],
        outcomes: &[LineLost],
        promise: "a line that stderr does not accept at once is counted",
    },
    Row {
        scenarios: &[AcceptJournal],
        call: "sendto",
        target: Target::Journal,
        errors: &["ECONNREFUSED", "ENOENT", "ENOBUFS", "ENOMEM", "EINTR"],
        outcomes: &[LineLost],
        promise: "an entry that the journal does not accept is counted",
    },
    Row {
        scenarios: &[AcceptJournal],
        call: "sendto",
        target: Target::JournalSetup,
        errors: &["ECONNREFUSED", "ENOENT", "ENOBUFS", "ENOMEM", "EINTR"],
        outcomes: &[LineOnStderr],
        promise: "without the journal's socket, lines go to the journal's stream",
    },
    Row {
        scenarios: &[AcceptJournal],
        call: "socket",
        target: Target::Datagram,
        errors: &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"],
        outcomes: &[LineOnStderr],
        promise: "without the journal's socket, lines go to the journal's stream",
    },
    Row {
        scenarios: &[AcceptJournal],
        call: "clone3",
        target: Target::Process,
        errors: &["EAGAIN", "ENOMEM", "EPERM"],
        outcomes: &[LineOnStderr],
        promise: "only the thread may block: without it, lines go to the journal's stream",
    },
    Row {
        scenarios: &[AcceptJournal],
        call: "fstat",
        target: Target::Stdio,
        errors: &["EACCES", "EIO", "ENOMEM"],
        outcomes: &[LineOnStderr],
        promise: "if stderr is not known to be the journal's stream, lines go there as plain text",
    },
    // Nothing but the greeting reaches a client.
    Row {
        scenarios: &[Inet],
        call: "openat",
        target: Target::Stdio,
        errors: &[
            "EMFILE", "ENFILE", "ENOMEM", "EACCES", "ENOENT", "EIO", "ELOOP",
        ],
        outcomes: &[NoLine],
        promise: "if output cannot be redirected away from the client, nothing is printed",
    },
    Row {
        scenarios: &[Inet],
        call: "dup2",
        target: Target::Stdio,
        errors: &["EMFILE", "EBUSY", "EINTR"],
        outcomes: &[NoLine],
        promise: "if output cannot be redirected away from the client, nothing is printed",
    },
    // Notifications: states are repeated until the exit; of STATUS= only the newest
    // is, and the exit does not wait for it.
    Row {
        scenarios: SERVING,
        call: "sendto",
        target: Target::Status,
        errors: &[
            "EAGAIN",
            "ECONNREFUSED",
            "ECONNRESET",
            "ENOBUFS",
            "ENOMEM",
            "EINTR",
        ],
        outcomes: &[NoStatus, NoLastStatus],
        promise: "of STATUS= only the newest is sent again, and the exit does not wait for it",
    },
    Row {
        scenarios: &[AcceptedStop],
        call: "connect",
        target: Target::Manager,
        errors: &[
            "ECONNREFUSED",
            "ENOENT",
            "EACCES",
            "EAGAIN",
            "EINTR",
            "ENOBUFS",
        ],
        outcomes: &[NoStatus],
        promise: "of STATUS= only the newest is sent again, after READY=1",
    },
    Row {
        scenarios: &[AcceptedStop],
        call: "socket",
        target: Target::Datagram,
        errors: &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"],
        outcomes: &[NoStatus],
        promise: "of STATUS= only the newest is sent again, after READY=1",
    },
];
