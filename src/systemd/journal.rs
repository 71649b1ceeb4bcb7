//! Where log lines go: the journal when systemd runs us, plain stderr by hand;
//! the door to systemd-journal-logger. Floor 3.
//!
//! A journal that takes no lines must not stop the greetings: once the serving
//! loop runs, a thread of its own writes them, and what does not fit into its
//! queue is counted and dropped.

use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::kv::{Error as KvError, Key, Source, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

use crate::error::one_line;
use crate::event;
use crate::raw::errno::ENOTSOCK;
use crate::socket;

/// SYSLOG_IDENTIFIER of every line, so that `journalctl -t greeter` finds all.
const IDENTIFIER: &str = "greeter";

/// Lines that may wait for the journal: 20 seconds of the 50 a second that are
/// written at most.
const QUEUE: usize = 1000;

/// Where lines end up.
enum Sink {
    /// Nowhere, before the start and where the journal did not take the last ones.
    Nothing,
    /// The journal's own protocol, with fields.
    Native(JournalLog),
    /// One line of text each, after `<priority>` where the journal reads it
    /// (sd-daemon(3)).
    Stderr { prefixed: bool },
    /// A thread that writes them, and how many were dropped since it was told.
    Thread { queue: SyncSender<Line>, lost: u64 },
}

static SINK: Mutex<Sink> = Mutex::new(Sink::Nothing);

/// Chooses where lines go. `native` allows the journal's own protocol, which is
/// right for a process that lives on: of one that exits at once the journal may
/// find no unit any more, while a line on stderr never loses it.
pub fn start(native: bool) {
    let prefixed = connected_to_journal();
    *sink() = match (native && prefixed).then(JournalLog::empty) {
        Some(Ok(journal)) => Sink::Native(journal.with_syslog_identifier(IDENTIFIER.to_owned())),
        _ => Sink::Stderr { prefixed },
    };
    log::set_max_level(LevelFilter::Info);
    // The second call of a process finds the logger installed; both mean the same.
    let _ = log::set_logger(&Logger);
}

/// Gives the journal a moment before we exit: of a process that is gone it may
/// not find the unit any more, and `journalctl -u` would miss the line.
pub fn settle() {
    if matches!(*sink(), Sink::Native(_)) {
        thread::sleep(Duration::from_millis(100));
    }
}

/// From here on no log call waits for the journal. The lines that are still
/// queued are written when the guard is dropped, within a second.
///
/// # Errors
/// The kernel gives no thread.
pub fn detach() -> io::Result<Detached> {
    let (queue, lines) = mpsc::sync_channel(QUEUE);
    let (done, finished) = mpsc::channel();
    let mut direct = mem::replace(&mut *sink(), Sink::Thread { queue, lost: 0 });
    // Without a name: giving one takes prctl(2), which the units do not allow.
    let thread = thread::Builder::new().stack_size(128 * 1024);
    thread.spawn(move || {
        lines.iter().for_each(|line| direct.write(line));
        // Nobody listens any more where the guard's patience is over.
        let _ = done.send(direct);
    })?;
    Ok(Detached(finished))
}

/// Ends the thread when dropped.
pub struct Detached(Receiver<Sink>);

impl Drop for Detached {
    fn drop(&mut self) {
        *sink() = Sink::Nothing;
        if let Ok(direct) = self.0.recv_timeout(Duration::from_secs(1)) {
            *sink() = direct;
        }
    }
}

struct Logger;

impl Log for Logger {
    /// Our own lines only; what the crates below us say is theirs to return.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(env!("CARGO_PKG_NAME"))
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = Line::new(record);
            sink().write(line);
        }
    }

    fn flush(&self) {}
}

/// One line, free of everything borrowed.
struct Line {
    level: Level,
    text: String,
    fields: Vec<(String, String)>,
}

impl Line {
    fn new(record: &Record<'_>) -> Self {
        let mut line = Self {
            level: record.level(),
            text: one_line(&record.args().to_string()),
            fields: Vec::new(),
        };
        // A line takes every pair and never fails.
        let _ = record.key_values().visit(&mut line);
        line
    }
}

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let key = key.as_str().to_owned();
        self.fields.push((key, value.to_string()));
        Ok(())
    }
}

impl Source for Line {
    fn visit<'kvs>(&'kvs self, visitor: &mut dyn VisitSource<'kvs>) -> Result<(), KvError> {
        let mut fields = self.fields.iter();
        fields.try_for_each(|(key, value)| {
            visitor.visit_pair(Key::from_str(key), Value::from(value.as_str()))
        })
    }
}

impl Sink {
    /// A line that cannot be written has nowhere else to go.
    fn write(&mut self, line: Line) {
        match self {
            Self::Nothing => {}
            // The record is built anew without file, line and module: the
            // MESSAGE_ID says more in fewer bytes.
            Self::Native(journal) => journal.log(
                &Record::builder()
                    .level(line.level)
                    .target(IDENTIFIER)
                    .key_values(&line)
                    .args(format_args!("{}", line.text))
                    .build(),
            ),
            Self::Stderr { prefixed: true } => {
                // The levels of log from 1 on are those of syslog(3) from 3 on, as
                // the journal logger has them, too.
                let line = format!("<{}>{}\n", line.level as usize + 2, line.text);
                let stderr = io::stderr();
                // A journal that takes nothing must not hold up the client's end.
                let sent = socket::send_now(stderr.as_fd(), line.as_bytes());
                // $JOURNAL_STREAM names what stderr is, and yet it is no journal.
                if sent.is_err_and(|error| error.raw_os_error() == Some(ENOTSOCK)) {
                    let _ = stderr.lock().write_all(line.as_bytes());
                }
            }
            Self::Stderr { prefixed: false } => {
                let line = format!("{IDENTIFIER}: {}\n", line.text);
                let _ = io::stderr().write_all(line.as_bytes());
            }
            Self::Thread { queue, lost } => {
                if *lost > 0 {
                    let gap = Line {
                        level: Level::Warn,
                        text: format!("the journal did not take lines for a while; dropped {lost}"),
                        fields: vec![("MESSAGE_ID".to_owned(), event::LINES_LOST.to_owned())],
                    };
                    if queue.try_send(gap).is_ok() {
                        *lost = 0;
                    }
                }
                *lost += u64::from(queue.try_send(line).is_err());
            }
        }
    }
}

/// A thread that panicked while it held the lock left nothing half done here.
fn sink() -> MutexGuard<'static, Sink> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}
