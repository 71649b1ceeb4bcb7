//! Limits how often something happens, such as a warning or a status text.

use std::time::{Duration, Instant};

/// Allows something once per interval.
#[derive(Debug)]
pub struct Every {
    interval: Duration,
    /// When it is allowed next; `None` if it never happened.
    next: Option<Instant>,
}

impl Every {
    /// Allows the first time immediately.
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            next: None,
        }
    }

    /// Returns whether it may happen now, and if so, begins an interval.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next.is_none_or(|next| now >= next);
        if is_due {
            self.begin(now);
        }
        is_due
    }

    /// Begins an interval, whether or not the last one is over.
    pub fn begin(&mut self, now: Instant) {
        self.next = Some(now + self.interval);
    }

    /// Returns when it may happen next; `None` if it never happened.
    pub fn next(&self) -> Option<Instant> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_once_per_interval() {
        let start = Instant::now();
        let mut every = Every::new(Duration::from_secs(60));
        assert_eq!(every.next(), None);
        let due: Vec<bool> = [0, 1, 59, 60, 61, 119, 120]
            .map(|seconds| every.is_due(start + Duration::from_secs(seconds)))
            .to_vec();
        assert_eq!(due, [true, false, false, true, false, false, true]);
        every.begin(start + Duration::from_secs(150));
        assert!(!every.is_due(start + Duration::from_secs(209)));
        assert!(every.is_due(start + Duration::from_secs(210)));
    }
}
