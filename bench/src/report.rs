//! Counts and latencies of one load, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::{Client, Outcome};

/// What became of all clients. The latencies are in microseconds, from the
/// call of connect(2).
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Report {
    pub started: u64,
    pub connected: u64,
    pub greeted: u64,
    pub empty: u64,
    pub short: u64,
    pub mismatched: u64,
    pub reset_before: u64,
    pub reset_after: u64,
    pub refused: u64,
    pub timeout: u64,
    pub failed: u64,
    /// Of `failed`, the first.
    pub first_failure: Option<String>,
    /// Connections that were open and not read when a holding load ended.
    pub held: u64,
    /// Attempts that were made again: refused, or no room in the queue.
    pub retried: u64,
    pub wall_seconds: f64,
    /// Whole ones, a reset after it or not; so are the latencies.
    pub greetings_per_second: f64,
    /// To the end of the stream.
    pub end: Latency,
    /// To the last byte of the greeting.
    pub last_byte: Latency,
    #[serde(skip)]
    ends: Vec<u64>,
    #[serde(skip)]
    last_bytes: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Report {
    pub fn count(&mut self, client: &Client, outcome: Outcome) {
        let connected = match outcome {
            Outcome::Refused => false,
            Outcome::Timeout | Outcome::Failed(_) => client.is_connected(),
            _ => true,
        };
        self.connected += u64::from(connected);
        if matches!(outcome, Outcome::Greeted | Outcome::ResetAfter) {
            self.ends.push(micros(client.started.elapsed()));
            let last = client.last_byte.map(|last| last - client.started);
            self.last_bytes.push(micros(last.unwrap_or_default()));
        }
        match outcome {
            Outcome::Greeted => self.greeted += 1,
            Outcome::Empty => self.empty += 1,
            Outcome::Short => self.short += 1,
            Outcome::Mismatched => self.mismatched += 1,
            Outcome::ResetAfter => self.reset_after += 1,
            Outcome::ResetBefore => self.reset_before += 1,
            Outcome::Refused => self.refused += 1,
            Outcome::Timeout => self.timeout += 1,
            Outcome::Failed(error) => self.fail(&error),
        }
    }

    /// Counts a client that got no connection at all.
    pub fn fail(&mut self, error: &std::io::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| error.to_string());
    }

    pub fn finish(&mut self, wall: Duration) {
        self.wall_seconds = wall.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let whole = (self.greeted + self.reset_after) as f64;
        self.greetings_per_second = whole / self.wall_seconds.max(1e-9);
        self.end = Latency::of(&mut self.ends);
        self.last_byte = Latency::of(&mut self.last_bytes);
    }

    /// Greetings that did not arrive whole, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.started - self.greeted - self.reset_after - self.held
    }
}

impl Latency {
    fn of(values: &mut [u64]) -> Self {
        values.sort_unstable();
        let at = |percent: usize| {
            let last = values.len().saturating_sub(1);
            values.get(last * percent / 100).copied().unwrap_or(0)
        };
        Latency {
            p50: at(50),
            p99: at(99),
            max: at(100),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} clients: {} connected, {} greeted",
            self.started, self.connected, self.greeted
        )?;
        for (count, what) in [
            (self.held, "held"),
            (self.empty, "empty"),
            (self.short, "short"),
            (self.mismatched, "mismatched"),
            (self.reset_before, "reset before the end of the greeting"),
            (self.reset_after, "reset after it"),
            (self.refused, "refused"),
            (self.timeout, "timed out"),
            (self.failed, "failed"),
            (self.retried, "retried"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if let Some(failure) = &self.first_failure {
            write!(f, " ({failure})")?;
        }
        write!(
            f,
            "; {:.2} s, {:.0} greetings/s; to the end p50 {} p99 {} max {} µs, to the last byte p50 {} p99 {} max {} µs",
            self.wall_seconds,
            self.greetings_per_second,
            self.end.p50,
            self.end.p99,
            self.end.max,
            self.last_byte.p50,
            self.last_byte.p99,
            self.last_byte.max,
        )
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
