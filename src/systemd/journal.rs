//! Where log lines go: the journal when systemd runs us, plain stderr by hand;
//! the door to systemd-journal-logger. Floor 3.
//!
//! A journal that takes no lines must not stop the greetings: once the serving
//! loop runs, a thread of its own writes them, and what does not fit into its
//! queue is counted and dropped.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread;
use std::time::Duration;

use log::kv::{Error as KvError, Key, Source, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::error::one_line;
use crate::event;
use crate::socket;

/// SYSLOG_IDENTIFIER of every line, so that `journalctl -t greeter` finds all.
const IDENTIFIER: &str = "greeter";

/// Lines that may wait for the journal: 20 seconds of the 50 a second that are
/// written at most.
const QUEUE: usize = 1000;

/// Where lines end up.
enum Sink {
    /// The journal's own protocol, with fields.
    Native(JournalLog),
    /// One line of text each, after `<priority>` where the journal reads it
    /// (sd-daemon(3)).
    Stderr { prefixed: bool },
}

/// One line, free of everything borrowed.
struct Line {
    level: Level,
    text: String,
    fields: Fields,
}

struct Logger {
    sink: Mutex<Option<Sink>>,
    queue: Mutex<Option<SyncSender<Line>>>,
    lost: AtomicU64,
}

static LOGGER: Logger = Logger {
    sink: Mutex::new(None),
    queue: Mutex::new(None),
    lost: AtomicU64::new(0),
};

/// Chooses where lines go. `native` allows the journal's own protocol, which is
/// right for a process that lives on: of one that exits at once the journal may
/// find no unit any more, while a line on stderr never loses it.
pub fn start(native: bool, level: LevelFilter) {
    let journal = connected_to_journal();
    let client = if native && journal {
        JournalLog::empty().ok()
    } else {
        None
    };
    let sink = match client {
        Some(client) => Sink::Native(client.with_syslog_identifier(IDENTIFIER.to_owned())),
        None => Sink::Stderr { prefixed: journal },
    };
    *lock(&LOGGER.sink) = Some(sink);
    log::set_max_level(level);
    // The second call of a process finds the logger installed; both mean the same.
    let _ = log::set_logger(&LOGGER);
}

/// Changes how much is logged.
pub fn set_level(level: LevelFilter) {
    log::set_max_level(level);
}

/// Gives the journal a moment before we exit: of a process that is gone it may
/// not find the unit any more, and `journalctl -u` would miss the line.
pub fn settle() {
    if matches!(&*lock(&LOGGER.sink), Some(Sink::Native(_))) {
        thread::sleep(Duration::from_millis(100));
    }
}

/// From here on no log call waits for the journal. The lines that are still
/// queued are written when the guard is dropped, within a second.
///
/// # Errors
/// The kernel gives no thread.
pub fn detach() -> std::io::Result<Detached> {
    let (sender, lines) = mpsc::sync_channel(QUEUE);
    let (done, finished) = mpsc::channel();
    let sink = lock(&LOGGER.sink).take();
    // Without a name: giving one takes prctl(2), which the units do not allow.
    thread::Builder::new()
        .stack_size(128 * 1024)
        .spawn(move || {
            for line in lines {
                if let Some(sink) = &sink {
                    sink.write(&line);
                }
            }
            // Nobody listens any more where the guard's patience is over.
            let _ = done.send(sink);
        })?;
    *lock(&LOGGER.queue) = Some(sender);
    Ok(Detached { finished })
}

/// Ends the thread when dropped.
#[derive(Debug)]
pub struct Detached {
    finished: Receiver<Option<Sink>>,
}

impl Drop for Detached {
    fn drop(&mut self) {
        *lock(&LOGGER.queue) = None;
        if let Ok(sink) = self.finished.recv_timeout(Duration::from_secs(1)) {
            *lock(&LOGGER.sink) = sink;
        }
    }
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Native(_) => "Native",
            Self::Stderr { .. } => "Stderr",
        })
    }
}

impl Log for Logger {
    /// Our own lines only; what the crates below us say is theirs to return.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(env!("CARGO_PKG_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = Line::new(record);
        let queue = lock(&self.queue);
        let Some(sender) = queue.as_ref() else {
            if let Some(sink) = &*lock(&self.sink) {
                sink.write(&line);
            }
            return;
        };
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 && sender.try_send(Line::lost(lost)).is_ok() {
            self.lost.fetch_sub(lost, Ordering::Relaxed);
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = sender.try_send(line) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl Line {
    fn new(record: &Record<'_>) -> Self {
        let mut fields = Fields(Vec::new());
        // `Fields` takes every pair and never fails.
        let _ = record.key_values().visit(&mut fields);
        Self {
            level: record.level(),
            text: one_line(&record.args().to_string()),
            fields,
        }
    }

    fn lost(count: u64) -> Self {
        Self {
            level: Level::Warn,
            text: format!("the journal did not take lines for a while; dropped {count}"),
            fields: Fields(vec![(
                "MESSAGE_ID".to_owned(),
                event::LINES_LOST.to_owned(),
            )]),
        }
    }

    /// The priority of syslog(3) that the journal logger gives the level, too.
    fn priority(&self) -> u8 {
        match self.level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 5,
            Level::Debug => 6,
            Level::Trace => 7,
        }
    }
}

struct Fields(Vec<(String, String)>);

impl<'kvs> VisitSource<'kvs> for Fields {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        self.0.push((key.as_str().to_owned(), value.to_string()));
        Ok(())
    }
}

impl Source for Fields {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), KvError> {
        self.0.iter().try_for_each(|(key, value)| {
            visitor.visit_pair(Key::from_str(key), Value::from(value.as_str()))
        })
    }
}

impl Sink {
    /// A line that cannot be written has nowhere else to go.
    fn write(&self, line: &Line) {
        match self {
            Self::Native(journal) => {
                // The record is built anew without file, line and module: the
                // MESSAGE_ID says more in fewer bytes.
                let _ = journal.journal_send(
                    &Record::builder()
                        .level(line.level)
                        .target(IDENTIFIER)
                        .key_values(&line.fields)
                        .args(format_args!("{}", line.text))
                        .build(),
                );
            }
            Self::Stderr { prefixed: true } => {
                // A journal that takes nothing must not hold up the client's end.
                let line = format!("<{}>{}\n", line.priority(), line.text);
                let stderr = std::io::stderr();
                if socket::send_now(stderr.as_fd(), line.as_bytes()).is_err_and(is_no_socket) {
                    let _ = stderr.lock().write_all(line.as_bytes());
                }
            }
            Self::Stderr { prefixed: false } => {
                let _ = std::io::stderr()
                    .write_all(format!("{IDENTIFIER}: {}\n", line.text).as_bytes());
            }
        }
    }
}

/// ENOTSOCK: $JOURNAL_STREAM names what stderr is, and yet it is no journal.
#[allow(
    clippy::needless_pass_by_value,
    reason = "the form that is_err_and() wants"
)]
fn is_no_socket(error: std::io::Error) -> bool {
    error.raw_os_error() == Some(88)
}

/// A thread that panicked while it held the lock left nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
