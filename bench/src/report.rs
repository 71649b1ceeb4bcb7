//! Counts and latencies of one load, as text and as JSON.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::client::{Client, Outcome};

/// The outcomes of all clients. Latencies are in microseconds since the client's
/// first connect(2). The names of the fields are those in the JSON output.
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
    /// The first error that is counted in `failed`.
    pub first_failure: Option<String>,
    /// Connections that were held open, with `Plan::hold`.
    pub held: u64,
    /// Connection attempts that were repeated: refused, no free port, or backlog full.
    pub retried: u64,
    pub wall_seconds: f64,
    /// Complete greetings, including those followed by a reset; the latencies have
    /// the same basis.
    pub greetings_per_second: f64,
    /// Until EOF.
    pub end: Latency,
    /// Until the last byte of the greeting.
    pub last_byte: Latency,
    #[serde(skip)]
    end_latencies: Vec<u64>,
    #[serde(skip)]
    last_byte_latencies: Vec<u64>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Latency {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

impl Report {
    pub fn count(&mut self, client: &Client, outcome: Outcome) {
        let is_connected = match outcome {
            Outcome::Refused => false,
            Outcome::Timeout | Outcome::Failed(_) => client.is_connected(),
            _ => true,
        };
        self.connected += u64::from(is_connected);
        if matches!(outcome, Outcome::Greeted | Outcome::ResetAfter) {
            self.end_latencies
                .push(microseconds(client.started_at.elapsed()));
            let last_byte = client.last_byte_at.map(|at| at - client.started_at);
            self.last_byte_latencies
                .push(microseconds(last_byte.unwrap_or_default()));
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

    /// Counts a client that failed with an error that has no count of its own.
    pub fn fail(&mut self, error: &std::io::Error) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| error.to_string());
    }

    /// Computes rate and latencies at the end of the load.
    pub fn finish(&mut self, wall: Duration) {
        self.wall_seconds = wall.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let complete = (self.greeted + self.reset_after) as f64;
        self.greetings_per_second = complete / self.wall_seconds.max(1e-9);
        self.end = Latency::of(&mut self.end_latencies);
        self.last_byte = Latency::of(&mut self.last_byte_latencies);
    }

    /// The number of clients that did not receive the whole greeting.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.started - self.greeted - self.reset_after - self.held
    }
}

impl Latency {
    fn of(values: &mut [u64]) -> Self {
        values.sort_unstable();
        Latency {
            p50: percentile(values, 50),
            p99: percentile(values, 99),
            max: percentile(values, 100),
        }
    }
}

/// A percentile of sorted values; 0 if there are none.
fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or(0)
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
            (self.reset_after, "reset after the greeting"),
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
            "; {:.2} s, {:.0} greetings/s; until EOF p50 {} p99 {} max {} µs, until the last byte p50 {} p99 {} max {} µs",
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

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
