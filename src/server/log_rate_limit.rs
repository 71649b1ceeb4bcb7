//! The rate limit of the log lines about connections: one line for each connection, up to
//! a limit per second. Warnings have intervals (`server/every`), and `systemd/journal`
//! bounds the lines that wait for the journal.

use std::time::{Duration, Instant};

use super::every::Every;

/// Lines per second. The connections beyond that are counted and reported in one line.
const LINES_PER_SECOND: u64 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// Counts lines by the second.
#[derive(Debug)]
pub struct LogRateLimiter {
    /// Due when the current second is over.
    second: Every,
    /// Lines requested since then.
    requested: u64,
}

impl LogRateLimiter {
    /// A limiter whose first second begins now.
    pub fn new(now: Instant) -> Self {
        let mut second = Every::new(SECOND);
        second.begin(now);
        Self {
            second,
            requested: 0,
        }
    }

    /// Whether the rate limit allows one more line. If not, the line is counted.
    pub fn allow(&mut self) -> bool {
        self.requested += 1;
        self.requested <= LINES_PER_SECOND
    }

    /// Whether the rate limit allows one more line about something that has a line
    /// already. If not, nothing is counted.
    pub fn allow_detail(&mut self) -> bool {
        let is_allowed = self.requested < LINES_PER_SECOND;
        self.requested += u64::from(is_allowed);
        is_allowed
    }

    /// Returns when suppressed lines must be reported; `None` if there are none.
    pub fn next_report(&self) -> Option<Instant> {
        self.second.next().filter(|_| self.suppressed() > 0)
    }

    /// Begins the next second if the current one is over; returns how many lines were
    /// suppressed in it.
    pub fn roll_over(&mut self, now: Instant) -> u64 {
        if !self.second.is_due(now) {
            return 0;
        }
        let suppressed = self.suppressed();
        self.requested = 0;
        suppressed
    }

    /// Lines suppressed since the current second began.
    pub fn suppressed(&self) -> u64 {
        self.requested.saturating_sub(LINES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_lines_are_limited_per_second() {
        let start = Instant::now();
        let mut limiter = LogRateLimiter::new(start);
        let allowed = (0..60).filter(|_| limiter.allow()).count();
        assert_eq!(allowed, 50);
        assert_eq!(limiter.next_report(), Some(start + SECOND));
        assert_eq!(limiter.roll_over(start + Duration::from_millis(999)), 0);
        assert!(!limiter.allow());
        assert_eq!(limiter.roll_over(start + SECOND), 11);
        assert!(limiter.allow() && limiter.next_report().is_none());
    }

    #[test]
    fn details_take_what_is_left_and_are_not_counted() {
        let mut limiter = LogRateLimiter::new(Instant::now());
        assert!((0..49).all(|_| limiter.allow()));
        assert!(limiter.allow_detail());
        assert!(!limiter.allow_detail());
        assert_eq!(limiter.suppressed(), 0);
    }
}
