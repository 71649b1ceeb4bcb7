//! The rate limit of the lines about connections, one for each outcome. Warnings have
//! their own intervals (`server/listener`, `server/mod`), and `systemd/journal` bounds
//! the lines that wait for the journal.

use std::time::{Duration, Instant};

/// Lines per second; further connections are counted and reported in one line.
const LINES_PER_SECOND: u64 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// Counts lines by the second.
#[derive(Debug)]
pub struct LogRateLimiter {
    /// When the current second began.
    second: Instant,
    /// Lines requested since then.
    requested: u64,
}

impl LogRateLimiter {
    /// A limiter whose first second begins now.
    pub fn new(now: Instant) -> Self {
        Self {
            second: now,
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

    /// When suppressed lines have to be reported; `None` if there are none.
    pub fn next_report(&self) -> Option<Instant> {
        (self.suppressed() > 0).then(|| self.second + SECOND)
    }

    /// Begins the next second if the current one is over; returns how many lines were
    /// suppressed in it.
    pub fn roll_over(&mut self, now: Instant) -> u64 {
        if now < self.second + SECOND {
            return 0;
        }
        let suppressed = self.suppressed();
        *self = Self::new(now);
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
