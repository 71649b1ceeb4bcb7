//! Log output: to the journal under systemd, otherwise plain text on stderr; wraps
//! systemd-journal-logger.
//!
//! A journal that accepts no messages must not block the serving loop: a thread
//! writes them, and messages that do not fit into its queue are counted and dropped.

use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::kv::{Error as KvError, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::error::escape_control;
use crate::event;
use crate::socket;
use crate::sys;
use crate::sys::ffi::{self, errno::ENOTSOCK};

/// SYSLOG_IDENTIFIER of every entry, so that `journalctl -t greeter` finds all.
const IDENTIFIER: &str = "greeter";

/// Entries that can wait for the journal: 20 seconds of the at most 50 per second
/// that clients can cause.
const QUEUE_CAPACITY: usize = 1000;

/// The stack of the writing thread, in bytes.
const STACK_SIZE: usize = 128 * 1024;

/// How long [`shutdown`] waits for the queued entries.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long it waits after a failure until the journal has attributed the reason.
const ATTRIBUTION_DELAY: Duration = Duration::from_millis(100);
/// A write of this many bytes to a pipe is atomic (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

/// Where entries are written.
struct Output {
    /// The journal's native protocol, with fields.
    journal: Option<JournalLog>,
    /// Otherwise stderr, with a `<priority>` prefix if the journal reads it (sd-daemon(3)).
    prefixed: bool,
}

/// Who writes entries.
enum Backend {
    /// Nothing is written: before [`init`] and after [`shutdown`].
    Disabled,
    /// The thread that logs.
    Sync(Output),
    /// A thread of its own.
    Thread {
        queue: SyncSender<Entry>,
        /// Disconnected when the thread has ended.
        finished: Receiver<()>,
    },
}

static BACKEND: Mutex<Backend> = Mutex::new(Backend::Disabled);

/// Entries that were not written and are not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// How a process logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The journal's native protocol, written by a thread: a long-running service, even if
    /// it fails to start.
    Native,
    /// Lines on stderr: a short-lived process. The journal may no longer be able to
    /// attribute a native message to the unit once the process has exited, while it
    /// always can for a line on stderr.
    Stderr,
}

/// Begins logging. Where the thread or the journal's socket cannot be had, and by hand,
/// lines go to stderr: nothing but the thread may block.
pub fn init(protocol: Protocol) {
    let thread = match protocol {
        Protocol::Native => spawn(Output::native()).ok(),
        Protocol::Stderr => None,
    };
    *backend() = thread.unwrap_or_else(|| Backend::Sync(Output::stderr()));
    log::set_max_level(LevelFilter::Info);
    // It fails only if a logger is set already, which is then this one.
    let _ = log::set_logger(&Logger);
}

fn spawn(output: Output) -> io::Result<Backend> {
    let (queue, entries) = mpsc::sync_channel(QUEUE_CAPACITY);
    let (running, finished) = mpsc::channel();
    // Without a name: setting one takes prctl(2), which the units do not allow.
    let builder = thread::Builder::new().stack_size(STACK_SIZE);
    builder.spawn(move || {
        // epoll_wait(2) of the main thread is to be interrupted by signals.
        ffi::block_signals();
        for entry in entries {
            output.write(&entry);
        }
        output.report_dropped();
        drop(running);
    })?;
    Ok(Backend::Thread { queue, finished })
}

/// Whether stderr is the journal's stream (systemd.exec(5), `$JOURNAL_STREAM`).
pub fn stderr_is_journal() -> bool {
    connected_to_journal()
}

/// Ends logging: queued entries are written, for at most [`SHUTDOWN_TIMEOUT`]. With
/// `failed` it waits a moment longer, so that the journal can still attribute the
/// reason to the unit, and `journalctl -u` finds it.
pub fn shutdown(failed: bool) {
    let previous = mem::replace(&mut *backend(), Backend::Disabled);
    match previous {
        Backend::Disabled => {}
        Backend::Sync(output) => {
            output.report_dropped();
        }
        Backend::Thread { queue, finished } => {
            drop(queue);
            // Both results mean the end: of the thread, or of the time for it.
            let _ = finished.recv_timeout(SHUTDOWN_TIMEOUT);
            if failed && connected_to_journal() {
                thread::sleep(ATTRIBUTION_DELAY);
            }
        }
    }
}

struct Logger;

impl Log for Logger {
    /// Only greeter's own messages; the crates that it uses return their errors.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(env!("CARGO_PKG_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut entry = Entry::new(record.level(), &record.args().to_string());
            // `visit_pair` of an entry never fails.
            let _ = record.key_values().visit(&mut entry);
            backend().write(entry);
        }
    }

    fn flush(&self) {}
}

/// One log message with its fields, owned.
struct Entry {
    level: Level,
    message: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    fn new(level: Level, message: &str) -> Self {
        Self {
            level,
            message: escape_control(message),
            fields: Vec::new(),
        }
    }
}

impl<'kvs> VisitSource<'kvs> for Entry {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let key = key.as_str().to_owned();
        self.fields.push((key, value.to_string()));
        Ok(())
    }
}

impl Output {
    /// Lines on stderr.
    fn stderr() -> Self {
        Self {
            journal: None,
            prefixed: connected_to_journal(),
        }
    }

    /// Native journal messages, or lines on stderr if that is not the journal.
    fn native() -> Self {
        let output = Self::stderr();
        if !output.prefixed {
            return output;
        }
        let journal = JournalLog::empty().ok();
        let journal = journal.map(|journal| journal.with_syslog_identifier(IDENTIFIER.to_owned()));
        Self { journal, ..output }
    }

    /// Writes an entry, or counts it as dropped.
    fn write(&self, entry: &Entry) {
        self.report_dropped();
        if self.try_write(entry).is_err() {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes how many entries were dropped, if any were.
    fn report_dropped(&self) {
        let dropped = DROPPED.swap(0, Ordering::Relaxed);
        if dropped > 0 && self.try_write(&dropped_entry(dropped)).is_err() {
            DROPPED.fetch_add(dropped, Ordering::Relaxed);
        }
    }

    fn try_write(&self, entry: &Entry) -> io::Result<()> {
        match &self.journal {
            Some(journal) => write_native(journal, entry),
            None => self.write_stderr(entry),
        }
    }

    fn write_stderr(&self, entry: &Entry) -> io::Result<()> {
        if !sys::is_output_usable() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let line = if self.prefixed {
            format!("<{}>{}\n", priority(entry.level), entry.message)
        } else {
            format!("{IDENTIFIER}: {}\n", entry.message)
        };
        let stderr = io::stderr();
        // A reader that has stopped must not delay the close of a connection.
        match socket::send_nonblocking(stderr.as_fd(), line.as_bytes()) {
            Err(error) if error.raw_os_error() == Some(ENOTSOCK) => {}
            result => return result.map(drop),
        }
        for part in line.as_bytes().chunks(PIPE_BUF) {
            if !ffi::is_writable(stderr.as_fd()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            stderr.lock().write_all(part)?;
        }
        Ok(())
    }
}

/// Sends an entry with its fields, and without file, line and module: the
/// MESSAGE_ID says more in fewer bytes.
fn write_native(journal: &JournalLog, entry: &Entry) -> io::Result<()> {
    let fields: Vec<(&str, &str)> = entry
        .fields
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    let fields = fields.as_slice();
    journal.journal_send(
        &Record::builder()
            .level(entry.level)
            .target(IDENTIFIER)
            .key_values(&fields)
            .args(format_args!("{}", entry.message))
            .build(),
    )
}

/// The syslog(3) priority of a level, as systemd-journal-logger maps them: error
/// is 3, warn 4, info 5 (notice), debug 6, trace 7.
fn priority(level: Level) -> usize {
    level as usize + 2
}

impl Backend {
    fn write(&self, entry: Entry) {
        match self {
            Self::Disabled => {}
            Self::Sync(output) => output.write(&entry),
            Self::Thread { queue, .. } => {
                if queue.try_send(entry).is_err() {
                    DROPPED.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }
}

/// The entry that reports dropped entries.
fn dropped_entry(dropped: u64) -> Entry {
    let message = format!("journal unavailable: {dropped} messages dropped");
    let mut entry = Entry::new(Level::Warn, &message);
    let message_id = event::LINES_LOST.to_owned();
    entry.fields.push(("MESSAGE_ID".to_owned(), message_id));
    entry
}

/// A poisoned lock is as good as any: no thread can panic while it holds it.
fn backend() -> MutexGuard<'static, Backend> {
    BACKEND.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_has_the_fields_of_the_record_on_one_line() {
        let mut entry = Entry::new(Level::Info, "two\nlines");
        let fields = [("MESSAGE_ID", "1"), ("GREETER_MODE", "accept")];
        let fields = fields.as_slice();
        let record = Record::builder().key_values(&fields).build();
        record.key_values().visit(&mut entry).unwrap();
        assert_eq!(entry.message, "two\\nlines");
        let owned = fields
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        assert_eq!(entry.fields, owned.collect::<Vec<_>>());
    }
}
