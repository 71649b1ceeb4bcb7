//! Parses and formats durations and timestamps; wraps humantime.

use std::time::{Duration, SystemTime};

/// Parses `500ms`, `10s`, `2min`, `1h 30min`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Formats a duration so that [`parse_duration`] reads it back.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A timestamp as in RFC 3339: UTC, whole seconds.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
