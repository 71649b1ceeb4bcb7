//! Durations as users spell them and moments as they read them; the door to humantime. Floor 1.

use std::time::{Duration, SystemTime};

/// Reads `500ms`, `10s`, `2min`, `1h 30min`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// Writes a duration so that [`parse_duration`] reads it back.
pub fn spell_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The moment in RFC 3339: UTC, whole seconds.
pub fn rfc3339(moment: SystemTime) -> String {
    humantime::format_rfc3339_seconds(moment).to_string()
}
