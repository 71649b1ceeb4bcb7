//! What strace(1) injects: the system calls of a run without an injection, and the
//! errors that each of them can return.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The thread that a system call is injected into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Thread {
    Main,
    /// The thread that writes to the journal.
    Journal,
}

/// What a system call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Target {
    /// The connection of a client.
    Client,
    /// A socket that listens.
    Listener,
    /// The path of a Unix socket.
    Path,
    /// A datagram socket, for the service manager or the journal.
    Datagram,
    /// The address of the service manager.
    Manager,
    /// `READY=1`.
    Ready,
    /// `RELOADING=1`.
    Reloading,
    /// `STOPPING=1`.
    Stopping,
    /// `STATUS=`.
    Status,
    /// Signal handlers, and the socket pair that they write to.
    Signals,
    /// epoll(7) itself.
    Epoll,
    /// A settings file, a message file, or their directory.
    Settings,
    /// A log line on stderr.
    Log,
    /// An entry for the journal.
    Journal,
    /// The journal's socket, before an entry.
    JournalSetup,
    /// stdin, stdout and stderr before they are used.
    Stdio,
    /// What a query prints on stdout.
    Output,
    /// The process: threads, limits, names.
    Process,
}

/// One system call of a run.
#[derive(Debug, Clone)]
pub struct Call {
    pub thread: Thread,
    pub name: String,
    /// Which call of this name and thread it is, from 1.
    pub occurrence: usize,
    pub target: Target,
    /// As strace(1) writes it.
    pub text: String,
}

/// One error at one system call.
#[derive(Debug, Clone)]
pub struct Injection {
    pub thread: Thread,
    pub call: String,
    pub occurrence: usize,
    pub error: &'static str,
}

impl fmt::Display for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = match self.thread {
            Thread::Main => "main",
            Thread::Journal => "journal",
        };
        let (call, occurrence) = (&self.call, self.occurrence);
        write!(f, "{thread}/{call}#{occurrence}/{}", self.error)
    }
}

/// How strace(1) is used in a run.
pub enum Trace<'a> {
    /// Lists all system calls of all threads.
    List,
    Inject(&'a Injection),
}

impl Trace<'_> {
    /// The arguments up to the program. Without `-f`, only the main thread is traced:
    /// strace(1) counts the calls of each thread apart, and would inject twice.
    pub fn strace_arguments(&self, log: &Path, attach_time: Duration) -> Vec<String> {
        let mut arguments = options(log);
        // The tracer is not the parent, so that greeter is this program's child.
        arguments.push("-D".to_owned());
        match self {
            Self::List => arguments.push("-f".to_owned()),
            Self::Inject(injection) if injection.thread == Thread::Main => {
                arguments.extend(injection.arguments());
            }
            Self::Inject(_) => {
                let delay = attach_time.as_micros();
                let delay = format!("inject=socketpair:delay_enter={delay}:when=1");
                arguments = ["-D", "-qq", "-o", "/dev/null", "-e", &delay]
                    .map(str::to_owned)
                    .to_vec();
            }
        }
        arguments
    }

    /// The arguments that inject into a running thread.
    pub fn attach_arguments(&self, log: &Path, thread: u32) -> Vec<String> {
        let mut arguments = options(log);
        arguments.extend(["-p".to_owned(), thread.to_string()]);
        if let Self::Inject(injection) = self {
            arguments.extend(injection.arguments());
        }
        arguments
    }
}

fn options(log: &Path) -> Vec<String> {
    let log = log.to_str().unwrap();
    ["-qq", "-yy", "-s", "64", "-e", "signal=none", "-o", log]
        .map(str::to_owned)
        .to_vec()
}

impl Injection {
    fn arguments(&self) -> [String; 4] {
        let (call, error, when) = (&self.call, self.error, self.occurrence);
        [
            "-e".to_owned(),
            format!("trace={call}"),
            "-e".to_owned(),
            format!("inject={call}:error={error}:when={when}"),
        ]
    }
}

/// The calls of a run that was listed.
pub fn parse_list(log: &str) -> Vec<Call> {
    let mut main = None;
    let mut counts = HashMap::new();
    let mut calls = Vec::new();
    for line in log.lines() {
        let Some((pid, text)) = line.split_once(' ') else {
            continue;
        };
        let thread = if *main.get_or_insert(pid) == pid {
            Thread::Main
        } else {
            Thread::Journal
        };
        let text = text.trim_start();
        // The second part of an interrupted line, the end of a thread, or a call that
        // strace(1) did not see because its thread has ended.
        if text.starts_with(['<', '+', '?']) {
            continue;
        }
        let Some((name, arguments)) = text.split_once('(') else {
            continue;
        };
        let count = counts.entry((thread, name.to_owned())).or_insert(0);
        *count += 1;
        calls.push(Call {
            thread,
            name: name.to_owned(),
            occurrence: *count,
            target: target(name, arguments),
            text: text.to_owned(),
        });
    }
    calls
}

/// The call that was injected, if the run has reached it.
pub fn parse_injected(log: &str, injection: &Injection) -> Option<Call> {
    let text = log.lines().find(|line| line.ends_with("(INJECTED)"))?;
    let arguments = text.split_once('(')?.1;
    Some(Call {
        thread: injection.thread,
        name: injection.call.clone(),
        occurrence: injection.occurrence,
        target: target(&injection.call, arguments),
        text: text.to_owned(),
    })
}

/// The calls of greeter's own: without those of the dynamic linker and of the start
/// of the runtime, which ends with the handler of SIGBUS.
pub fn without_startup(calls: &[Call]) -> &[Call] {
    let is_start = |call: &Call| {
        call.thread == Thread::Main
            && call.name == "rt_sigaction"
            && call.text.contains("(SIGBUS, {")
    };
    match calls.iter().rposition(is_start) {
        Some(end) => &calls[end + 1..],
        None => &[],
    }
}

/// Classifies a system call by its arguments, in which strace(1) describes descriptors.
fn target(name: &str, arguments: &str) -> Target {
    let messages = [
        ("\"READY=1", Target::Ready),
        ("\"RELOADING=1", Target::Reloading),
        ("\"STOPPING=1", Target::Stopping),
        ("\"STATUS=", Target::Status),
    ];
    for (message, target) in messages {
        if arguments.contains(message) {
            return target;
        }
    }
    // The descriptor that matters: the added one, or the first.
    let position = if name == "epoll_ctl" { 2 } else { 0 };
    let descriptor = arguments.split(", ").nth(position).unwrap_or_default();
    match name {
        "rt_sigaction" | "rt_sigprocmask" | "socketpair" => Target::Signals,
        "clone" | "clone3" | "prctl" => Target::Process,
        "epoll_create1" | "epoll_wait" => Target::Epoll,
        "unlink" => Target::Path,
        "statx" if arguments.contains("/socket\", ") => Target::Path,
        "bind" | "listen" | "accept4" | "setsockopt" => Target::Listener,
        "socket" if arguments.contains("SOCK_STREAM") => Target::Listener,
        "connect" if arguments.contains("/notify") => Target::Manager,
        "connect" => Target::JournalSetup,
        "socket" => Target::Datagram,
        "sendto" if arguments.contains("\"\", 0") && arguments.contains("journal/socket") => {
            Target::JournalSetup
        }
        _ if arguments.contains("PRIORITY=") || arguments.contains("journal/socket") => {
            Target::Journal
        }
        "write" if descriptor.starts_with("1<") => Target::Output,
        "sendto" | "write" if descriptor.starts_with("2<") => Target::Log,
        "poll" if arguments.contains("{fd=2<") => Target::Log,
        _ if is_stdio(descriptor) || arguments.contains("\"/dev/null\"") => Target::Stdio,
        _ if arguments.contains(".toml") || arguments.contains("greeting.txt") => Target::Settings,
        _ => socket_target(name, descriptor),
    }
}

/// Whether strace(1) describes stdin, stdout or stderr, or a copy of it.
fn is_stdio(descriptor: &str) -> bool {
    ["0<", "1<", "2<"]
        .iter()
        .any(|number| descriptor.starts_with(number))
        || ["/stdout>", "/stderr>", "</dev/null<"]
            .iter()
            .any(|path| descriptor.contains(path))
}

fn socket_target(name: &str, descriptor: &str) -> Target {
    let is_connected = descriptor.contains("->");
    let has_path = descriptor.contains("/socket\"");
    if descriptor.contains("<TCP") || has_path {
        if is_connected {
            Target::Client
        } else {
            Target::Listener
        }
    } else if descriptor.contains("eventpoll") {
        Target::Epoll
    } else if descriptor.contains("<UNIX-STREAM") && name != "statx" {
        Target::Signals
    } else if descriptor.contains("<UNIX:") {
        Target::Manager
    } else {
        Target::Stdio
    }
}

/// Calls without an injection: they concern memory, which Rust ends the process
/// for by design, or the clock or the scheduler, or they cannot fail.
const NOT_INJECTED: [&str; 28] = [
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "madvise",
    "mprotect",
    "futex",
    "getrandom",
    "geteuid",
    "getpid",
    "getppid",
    "gettid",
    "sched_getaffinity",
    "sched_yield",
    "sigaltstack",
    "rseq",
    "set_robust_list",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "clock_gettime",
    "clock_nanosleep",
    "restart_syscall",
    "execve",
    "arch_prctl",
    "set_tid_address",
    "uname",
    "prlimit64",
];

/// The errors that a call can return, according to its manual page; `None` if the
/// call is not known.
fn errors(call: &Call) -> Option<&'static [&'static str]> {
    let errors: &[&str] = match call.name.as_str() {
        name if NOT_INJECTED.contains(&name) => &[],
        "accept4" => &[
            "ECONNABORTED",
            "EMFILE",
            "ENFILE",
            "ENOBUFS",
            "ENOMEM",
            "EPERM",
            "EPROTO",
            "EINTR",
            "EINVAL",
            "EBADF",
        ],
        "bind" => &["EADDRINUSE", "EACCES", "EADDRNOTAVAIL", "ENOMEM"],
        "clone" | "clone3" => &["EAGAIN", "ENOMEM", "EPERM", "ENOSYS"],
        // EIO is for data that was not written back; no file is open for writing.
        "close" => &["EINTR"],
        "connect" => &[
            "ECONNREFUSED",
            "ENOENT",
            "EACCES",
            "EAGAIN",
            "EINTR",
            "ENOBUFS",
        ],
        "dup2" | "dup3" => &["EMFILE", "EBUSY", "EINTR"],
        "epoll_create1" => &["EMFILE", "ENFILE", "ENOMEM"],
        "epoll_ctl" => &["ENOMEM", "ENOSPC", "EPERM"],
        "epoll_wait" => &["EINTR", "ENOMEM"],
        "fcntl" if call.text.contains("F_DUPFD") => &["EMFILE", "ENOMEM"],
        // The standard library checks so that a descriptor is open, in debug builds.
        "fcntl" if call.text.contains("F_GETFD") => &[],
        "fcntl" => &["EPERM", "EINVAL"],
        "fstat" | "newfstatat" | "lstat" => &["EACCES", "EIO", "ENOMEM"],
        "getdents64" => &["EIO", "ENOENT", "ENOMEM"],
        "getpeername" => &["ENOTCONN", "ENOBUFS"],
        "getsockname" => &["ENOBUFS"],
        "getsockopt" => &["ENOPROTOOPT", "ENOBUFS", "EPERM"],
        "listen" => &["EADDRINUSE", "EOPNOTSUPP"],
        "openat" => &[
            "EMFILE", "ENFILE", "ENOMEM", "EACCES", "ENOENT", "EIO", "EINTR", "ELOOP",
        ],
        "poll" => &["EINTR", "ENOMEM"],
        "prctl" => &["EINVAL", "EPERM"],
        "read" => &["EIO", "EINTR", "ENOMEM"],
        "recvfrom" => match call.target {
            Target::Client => &["ENOMEM", "EINTR", "ECONNRESET", "ETIMEDOUT"],
            _ => &["ENOMEM", "EINTR"],
        },
        "rt_sigaction" | "rt_sigprocmask" => &["EINVAL"],
        "sendmsg" | "sendto" => send_errors(call),
        "setsockopt" => &["ENOPROTOOPT", "ENOMEM", "EPERM"],
        "shutdown" => &["ENOTCONN", "ENOBUFS"],
        "socket" => &["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES"],
        "socketpair" => &["EMFILE", "ENFILE", "ENOMEM"],
        "statx" => &["EACCES", "EIO", "ENOMEM", "ENOSYS"],
        "unlink" => &["EACCES", "EBUSY", "ENOENT", "EROFS"],
        "write" | "writev" => &["EAGAIN", "EINTR", "EIO", "ENOSPC", "EPIPE"],
        _ => return None,
    };
    Some(errors)
}

/// Whether the call can return the error: the same number may be another call than
/// in the run that was listed.
pub fn is_plausible(call: &Call, error: &str) -> bool {
    errors(call).is_some_and(|errors| errors.contains(&error))
}

fn send_errors(call: &Call) -> &'static [&'static str] {
    match call.target {
        // EAGAIN only if the buffer is full, after which the kernel reports room.
        Target::Client => &[
            "ENOBUFS",
            "ENOMEM",
            "EINTR",
            "ECONNRESET",
            "EPIPE",
            "ETIMEDOUT",
        ],
        Target::Journal | Target::JournalSetup => {
            &["ECONNREFUSED", "ENOENT", "ENOBUFS", "ENOMEM", "EINTR"]
        }
        // stderr is a file.
        Target::Log if call.text.contains("ENOTSOCK") || call.text.contains("/stderr>") => &[],
        Target::Log | Target::Signals => &["EAGAIN", "ENOBUFS", "ENOMEM", "EINTR", "EPIPE"],
        _ => &[
            "EAGAIN",
            "ECONNREFUSED",
            "ECONNRESET",
            "ENOBUFS",
            "ENOMEM",
            "EINTR",
        ],
    }
}

/// How many calls of each kind are injected into: the first ones, and the last ones.
const FIRST_CALLS: usize = 10;
const LAST_CALLS: usize = 6;

/// All injections into the listed calls.
///
/// # Errors
/// The name of a call whose errors are not known.
pub fn injections(calls: &[Call]) -> Result<Vec<Injection>, String> {
    let mut totals: HashMap<_, usize> = HashMap::new();
    for call in calls {
        let errors = errors(call).ok_or_else(|| call.name.clone())?;
        if !errors.is_empty() {
            *totals.entry((call.thread, &call.name)).or_default() += 1;
        }
    }
    let mut numbers: HashMap<_, usize> = HashMap::new();
    let mut injections = Vec::new();
    for call in calls {
        let errors = errors(call).unwrap_or_default();
        if errors.is_empty() {
            continue;
        }
        let kind = (call.thread, &call.name);
        let number = numbers.entry(kind).or_default();
        *number += 1;
        if *number <= FIRST_CALLS || *number + LAST_CALLS > totals[&kind] {
            injections.extend(errors.iter().map(|error| Injection {
                thread: call.thread,
                call: call.name.clone(),
                occurrence: call.occurrence,
                error,
            }));
        }
    }
    Ok(injections)
}
