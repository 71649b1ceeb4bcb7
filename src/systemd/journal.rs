//! Where log lines go: the journal when systemd runs us, plain stderr by hand;
//! the door to systemd-journal-logger. Floor 3.
//!
//! A journal that takes no lines must not stop the greetings: a thread of its own
//! writes them, and what does not fit into its queue is counted and dropped.

use std::io::{self, Write};
use std::mem;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::kv::{Error as KvError, Key, Value, VisitSource};
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

/// What lines are written to.
struct Way {
    /// The journal's own protocol, with fields.
    journal: Option<JournalLog>,
    /// Otherwise stderr, after `<priority>` where the journal reads it (sd-daemon(3)).
    prefixed: bool,
}

/// Who writes them.
enum Sink {
    /// Nobody, before the start and after the end.
    Nobody,
    /// Whoever logs.
    Caller(Way),
    /// A thread.
    Thread {
        queue: SyncSender<Line>,
        /// How many were dropped since that was told.
        lost: u64,
        /// Disconnected when the thread has ended.
        ended: Receiver<()>,
    },
}

static SINK: Mutex<Sink> = Mutex::new(Sink::Nobody);

/// Chooses where lines go. `lives_on` allows the journal's own protocol, as of a
/// process that exits at once the journal may find no unit any more, while a line
/// on stderr never loses it; and it makes the thread.
pub fn start(lives_on: bool) {
    let prefixed = connected_to_journal();
    let native = |journal: JournalLog| journal.with_syslog_identifier(IDENTIFIER.to_owned());
    let way = || {
        let journal = (lives_on && prefixed).then(JournalLog::empty);
        let journal = journal.and_then(Result::ok).map(native);
        Way { journal, prefixed }
    };
    let thread = lives_on.then(|| spawn(way()).ok()).flatten();
    *sink() = thread.unwrap_or_else(|| Sink::Caller(way()));
    log::set_max_level(LevelFilter::Info);
    // The second call of a process finds the logger installed; both mean the same.
    let _ = log::set_logger(&Logger);
}

fn spawn(way: Way) -> io::Result<Sink> {
    let (queue, lines) = mpsc::sync_channel(QUEUE);
    let (alive, ended) = mpsc::channel();
    // Without a name: giving one takes prctl(2), which the units do not allow.
    let thread = thread::Builder::new().stack_size(128 * 1024);
    thread.spawn(move || {
        lines.iter().for_each(|line| way.write(&line));
        drop(alive);
    })?;
    let lost = 0;
    Ok(Sink::Thread { queue, lost, ended })
}

/// Ends the logging: what is queued is written, within a second. `failed` stays
/// for a moment longer, as of a process that is gone the journal may not find the
/// unit any more, and `journalctl -u` would miss the reason.
pub fn finish(failed: bool) {
    let last = mem::replace(&mut *sink(), Sink::Nobody);
    if let Sink::Thread { queue, ended, .. } = last {
        drop(queue);
        // It says nothing, and ends or does not.
        let _ = ended.recv_timeout(Duration::from_secs(1));
        if failed && connected_to_journal() {
            thread::sleep(Duration::from_millis(100));
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
            let mut line = Line::new(record.level(), &record.args().to_string());
            // A line takes every pair and never fails.
            let _ = record.key_values().visit(&mut line);
            sink().take(line);
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
    fn new(level: Level, text: &str) -> Self {
        let (text, fields) = (one_line(text), Vec::new());
        Self {
            level,
            text,
            fields,
        }
    }
}

impl<'kvs> VisitSource<'kvs> for Line {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), KvError> {
        let key = key.as_str().to_owned();
        self.fields.push((key, value.to_string()));
        Ok(())
    }
}

impl Way {
    /// A line that cannot be written has nowhere else to go.
    fn write(&self, line: &Line) {
        if let Some(journal) = &self.journal {
            // Built anew without file, line and module: the MESSAGE_ID says more in
            // fewer bytes.
            let fields = line.fields.iter();
            let fields: Vec<_> = fields.map(|(key, value)| (&**key, &**value)).collect();
            let (mut record, fields) = (Record::builder(), &fields[..]);
            record
                .level(line.level)
                .target(IDENTIFIER)
                .key_values(&fields);
            journal.log(&record.args(format_args!("{}", line.text)).build());
            return;
        }
        // The levels of log from 1 on are those of syslog(3) from 3 on, as the
        // journal logger has them, too.
        let text = match self.prefixed {
            true => format!("<{}>{}\n", line.level as usize + 2, line.text),
            false => format!("{IDENTIFIER}: {}\n", line.text),
        };
        let (stderr, bytes) = (io::stderr(), text.as_bytes());
        // A journal that takes nothing must not hold up the client's end.
        let sent = socket::send_now(stderr.as_fd(), bytes);
        // By hand it is a terminal or a file.
        if sent.is_err_and(|error| error.raw_os_error() == Some(ENOTSOCK)) {
            let _ = stderr.lock().write_all(bytes);
        }
    }
}

impl Sink {
    fn take(&mut self, line: Line) {
        match self {
            Self::Nobody => {}
            Self::Caller(way) => way.write(&line),
            Self::Thread { queue, lost, .. } => {
                if *lost > 0 {
                    let text =
                        format!("the journal did not take lines for a while; dropped {lost}");
                    let mut gap = Line::new(Level::Warn, &text);
                    let id = event::LINES_LOST.to_owned();
                    gap.fields.push(("MESSAGE_ID".to_owned(), id));
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
