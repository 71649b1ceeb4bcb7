//! Compares what a run has led to with what greeter promises.

use std::collections::HashMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::client::{Client, End};
use crate::scenario::{Observation, Scenario};

/// The exit status of a panic in a debug build; a release build aborts.
const PANIC_STATUS: i32 = 101;
/// The most processor time of a run.
const MAX_CPU: Duration = Duration::from_millis(500);

// MESSAGE_IDs (greeter(8)).
const CONNECTION_CLOSED: &str = "b3dee68698274abda6d4503f22a2407f";
const RELOADED: &str = "d199e71bb35344f7afb51cad54551f7e";
const RELOAD_FAILED: &str = "48b5678f1a3b4f7d9c085d591f46dbd7";
const LINES_LOST: &str = "6a6e70d6d5f2456dae75524c4f7482d5";
const STOPPED: &str = "f32ef43ac0c64c10b35eb3f981dbf207";

/// What differs from a run without an injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It ends with this status and a line before it has served a client. Clients stay
    /// in the backlog, or read the end of file.
    FailsToStart { status: i32 },
    /// It ends with another status than without an injection, and a line.
    Ends { status: i32 },
    /// It panics.
    Panics,
    /// It ends by a signal.
    Killed { signal: i32 },
    /// It does not end, or a client gets no end of file.
    Hangs,
    /// It uses more processor time than [`MAX_CPU`].
    Spins,
    /// A client gets a reset, or the end of file before the first byte.
    ClientGone,
    /// A client gets a part of the greeting, then the end of file.
    Truncated,
    /// A client stays in the backlog of a service that has run.
    ClientWaits,
    /// A client gets bytes that are not the greeting.
    OtherBytes,
    /// A valid reload is not applied.
    KeepsSettings,
    /// A line is missing, and no other line reports it.
    NoLine,
    /// A line is missing, and another line reports it.
    LineLost,
    /// A line is written to stderr, without fields, instead of to the journal.
    LineOnStderr,
    /// The result of a connection in the journal is not what the client has seen, or
    /// the totals do not add up.
    WrongResult,
    /// The service manager does not get `READY=1`.
    NoReady,
    /// It gets no `STATUS=` before the end.
    NoStatus,
    /// It does not get `RELOADING=1`, its time, or the `READY=1` that ends it.
    NoReloading,
    /// It does not get `STOPPING=1`.
    NoStopping,
    /// It gets no `STATUS=` after `STOPPING=1`.
    NoLastStatus,
    /// A query prints something else.
    OtherOutput,
    /// The path of `--listen` is not unlinked.
    PathLeft,
}

/// An outcome that differs, with details for the reader.
#[derive(Debug)]
pub struct Deviation {
    pub outcome: Outcome,
    pub details: String,
}

impl fmt::Display for Deviation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} ({})", self.outcome, self.details)
    }
}

/// What a run without an injection has led to, as far as no promise says it.
pub struct Baseline {
    stdout: String,
    /// Lines of stderr that name no client.
    other_lines: usize,
    /// Entries of the journal by MESSAGE_ID.
    entries: HashMap<String, usize>,
}

impl Baseline {
    pub fn new(observation: &Observation) -> Self {
        Self {
            stdout: observation.stdout.clone(),
            other_lines: other_lines(observation).count(),
            entries: entries_by_id(observation),
        }
    }
}

/// What differs from the promises and, as far as they do not say it, from the baseline.
pub fn deviations(scenario: Scenario, run: &Observation, baseline: &Baseline) -> Vec<Deviation> {
    let mut check = Check {
        scenario,
        run,
        baseline,
        deviations: Vec::new(),
    };
    check.all();
    check.deviations
}

struct Check<'a> {
    scenario: Scenario,
    run: &'a Observation,
    baseline: &'a Baseline,
    deviations: Vec<Deviation>,
}

impl Check<'_> {
    fn all(&mut self) {
        if self.run.cpu > MAX_CPU {
            self.add(Outcome::Spins, format!("{:?}", self.run.cpu));
        }
        if self.run.is_path_left {
            self.add(Outcome::PathLeft, "it exists".to_owned());
        }
        let promised = if self.scenario.is_invalid() { 78 } else { 0 };
        let status = self.exit_status();
        if status.is_some_and(|status| status != 0) && self.is_unserved() {
            self.failed_start(status != Some(promised), status.unwrap_or_default());
            return;
        }
        if status.is_some_and(|status| status != promised) {
            let status = status.unwrap_or_default();
            self.add(Outcome::Ends { status }, self.all_lines());
        } else if status.is_some() {
            self.output();
        }
        self.clients();
        self.notifications();
        self.lines();
    }

    fn all_lines(&self) -> String {
        self.run.lines.join("; ")
    }

    fn add(&mut self, outcome: Outcome, details: String) {
        self.deviations.push(Deviation { outcome, details });
    }

    /// The exit status, if it ended by itself.
    fn exit_status(&mut self) -> Option<i32> {
        let Some(status) = self.run.status else {
            self.add(Outcome::Hangs, "killed at the deadline".to_owned());
            return None;
        };
        if let Some(signal) = status.signal() {
            self.add(Outcome::Killed { signal }, self.all_lines());
        }
        if status.code() == Some(PANIC_STATUS) {
            self.add(Outcome::Panics, self.all_lines());
        }
        status.code()
    }

    /// Whether no client was served, where clients are to be served.
    fn is_unserved(&self) -> bool {
        let is_query = matches!(
            self.scenario,
            Scenario::CheckValid | Scenario::CheckInvalid | Scenario::Version
        );
        let is_ready = self.run.notifications.iter().any(|line| line == "READY=1");
        let is_silent = self
            .run
            .clients
            .iter()
            .all(|client| client.received.is_empty());
        !is_query && !is_ready && is_silent
    }

    fn failed_start(&mut self, is_deviation: bool, status: i32) {
        if is_deviation {
            self.add(Outcome::FailsToStart { status }, self.all_lines());
        }
        self.any_line();
        for client in &self.run.clients {
            match client.end {
                Some(End::Waiting) if !self.scenario.is_instance() => {}
                Some(End::Eof) if self.scenario.is_instance() => {}
                end => self.deviations.push(Deviation {
                    outcome: Outcome::ClientGone,
                    details: format!("{end:?} at a failed start"),
                }),
            }
        }
    }

    /// A process that ends with an error logs the reason.
    fn any_line(&mut self) {
        if self.run.lines.is_empty() && self.run.entries.is_empty() {
            self.add(Outcome::NoLine, "no reason was logged".to_owned());
        }
    }

    fn clients(&mut self) {
        for (number, client) in self.run.clients.iter().enumerate() {
            let expected = client.expected.as_deref().unwrap_or_default();
            let received = client.received.as_slice();
            let outcome = match client.end {
                Some(End::Eof) if received == expected => continue,
                Some(End::Waiting) if client.expected.is_none() => continue,
                _ if client.outdated.as_deref() == Some(received) => Outcome::KeepsSettings,
                _ if !expected.starts_with(received) => Outcome::OtherBytes,
                Some(End::Reset) => Outcome::ClientGone,
                Some(End::Eof) if received.is_empty() => Outcome::ClientGone,
                Some(End::Eof) => Outcome::Truncated,
                Some(End::Waiting) => Outcome::ClientWaits,
                Some(End::Hang) | None => Outcome::Hangs,
            };
            let details = format!(
                "client {} read {} of {} bytes, then {:?}",
                number + 1,
                received.len(),
                expected.len(),
                client.end
            );
            self.add(outcome, details);
        }
    }

    fn notifications(&mut self) {
        if !self.scenario.notifies() {
            return;
        }
        let lines = &self.run.notifications;
        let is_status = |line: &String| line.starts_with("STATUS=");
        let all = lines.join(" | ");
        let stopping = lines.iter().position(|line| line == "STOPPING=1");
        let (before, after) = lines.split_at(stopping.unwrap_or(lines.len()));
        if !before.iter().any(|line| line == "READY=1") {
            self.add(Outcome::NoReady, all.clone());
        }
        if !before.iter().any(is_status) {
            self.add(Outcome::NoStatus, all.clone());
        }
        if complete_reloads(before) < self.scenario.reloads() {
            self.add(Outcome::NoReloading, all.clone());
        }
        if self.scenario.is_stopped() {
            if stopping.is_none() {
                self.add(Outcome::NoStopping, all);
            } else if !after.iter().any(is_status) {
                self.add(Outcome::NoLastStatus, all);
            }
        }
    }

    fn lines(&mut self) {
        if self.run.status.and_then(|status| status.code()) != Some(0) {
            self.any_line();
        } else if self.scenario == Scenario::AcceptJournal {
            self.entries();
        } else {
            self.stderr_lines();
        }
    }

    /// On stderr: a line for each TCP client, which has its port, and the others in
    /// the same number as without an injection. A line more takes the place of one
    /// that is missing.
    fn stderr_lines(&mut self) {
        let clients = self.served_clients();
        let missing = clients
            .filter(|client| !self.run.lines.iter().any(|line| names(line, client)))
            .count();
        let other = other_lines(self.run).count();
        let expected = self.baseline.other_lines;
        let details =
            format!("{missing} clients without a line, {other} other lines, {expected} expected");
        if other < expected + missing {
            self.add(Outcome::NoLine, details);
        } else if missing > 0 {
            self.add(Outcome::LineLost, details);
        }
    }

    /// The clients that were accepted, and that a line can name.
    fn served_clients(&self) -> impl Iterator<Item = &Client> {
        self.run
            .clients
            .iter()
            .filter(|client| client.port.is_some())
            .filter(|client| client.end != Some(End::Waiting) && client.expected.is_some())
    }

    /// In the journal: for each client one entry with its result, and the other entries
    /// as often as without an injection.
    fn entries(&mut self) {
        let by_id = entries_by_id(self.run);
        let is_reported = by_id.contains_key(LINES_LOST);
        let mut missing = Vec::new();
        for client in self.run.clients.iter() {
            if client.end == Some(End::Waiting) {
                continue;
            }
            let port = client.port.unwrap_or_default().to_string();
            let entries = self.run.entries.iter().filter(|entry| {
                field(entry, "MESSAGE_ID") == CONNECTION_CLOSED
                    && field(entry, "GREETER_PEER_PORT") == port
            });
            let results: Vec<&str> = entries
                .map(|entry| field(entry, "GREETER_RESULT"))
                .collect();
            let is_greeted = client.end == Some(End::Eof) && !client.received.is_empty();
            match results.as_slice() {
                ["sent"] if is_greeted => {}
                ["gone" | "timeout" | "refused" | "invalid_header" | "cut_off"] if !is_greeted => {}
                [] if self.run.lines.iter().any(|line| names(line, client)) => {
                    self.add(Outcome::LineOnStderr, format!("port {port}"));
                }
                [] => missing.push(format!("the client with port {port}")),
                results => {
                    let end = client.end;
                    self.add(Outcome::WrongResult, format!("{results:?}, but {end:?}"));
                }
            }
        }
        let on_stderr = self.run.lines.len();
        for (id, expected) in &self.baseline.entries {
            let seen = by_id.get(id).copied().unwrap_or(0);
            if seen < *expected && id != CONNECTION_CLOSED && on_stderr == 0 {
                missing.push(format!("{seen} of {expected} entries {id}"));
            }
        }
        if !missing.is_empty() {
            let outcome = if is_reported {
                Outcome::LineLost
            } else {
                Outcome::NoLine
            };
            self.add(outcome, missing.join(", "));
        }
        self.totals();
    }

    /// The totals in the last entry add up, if there are any.
    fn totals(&mut self) {
        let stopped = self
            .run
            .entries
            .iter()
            .find(|entry| field(entry, "MESSAGE_ID") == STOPPED);
        let Some(accepted) = stopped.and_then(|entry| entry.get("GREETER_TOTAL_ACCEPTED")) else {
            return;
        };
        let total: u64 = [
            "SENT",
            "GONE",
            "TIMEOUT",
            "REFUSED",
            "INVALID_HEADER",
            "CUT_OFF",
        ]
        .iter()
        .filter_map(|name| stopped?.get(&format!("GREETER_TOTAL_{name}")))
        .filter_map(|value| value.parse::<u64>().ok())
        .sum();
        if total.to_string() != *accepted {
            self.add(
                Outcome::WrongResult,
                format!("{total} results, but {accepted} accepted"),
            );
        }
    }

    fn output(&mut self) {
        if self.run.stdout != self.baseline.stdout {
            let text = self.run.stdout.escape_debug().to_string();
            self.add(Outcome::OtherOutput, text);
        }
    }
}

/// How many reloads the service manager saw begin, with the time, and end.
fn complete_reloads(lines: &[String]) -> usize {
    let mut complete = 0;
    let mut lines = lines.iter();
    while lines.any(|line| line == "RELOADING=1") {
        let has_time = lines
            .next()
            .is_some_and(|line| line.starts_with("MONOTONIC_USEC="));
        if has_time && lines.any(|line| line == "READY=1") {
            complete += 1;
        }
    }
    complete
}

/// The lines that name no client.
fn other_lines(run: &Observation) -> impl Iterator<Item = &String> {
    run.lines
        .iter()
        .filter(|line| !run.clients.iter().any(|client| names(line, client)))
}

/// Whether a line contains the client's port as a word.
fn names(line: &str, client: &Client) -> bool {
    let Some(port) = client.port else {
        return false;
    };
    let port = port.to_string();
    line.split(|c: char| !c.is_ascii_digit())
        .any(|word| word == port)
}

/// The number of entries by MESSAGE_ID. A reload counts as one, whether it failed or not.
fn entries_by_id(run: &Observation) -> HashMap<String, usize> {
    let mut count = HashMap::new();
    for entry in &run.entries {
        let id = match field(entry, "MESSAGE_ID") {
            RELOAD_FAILED => RELOADED,
            id => id,
        };
        *count.entry(id.to_owned()).or_insert(0) += 1;
    }
    count
}

fn field<'a>(entry: &'a HashMap<String, String>, name: &str) -> &'a str {
    entry.get(name).map_or("", String::as_str)
}
