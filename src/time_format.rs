//! Parses and formats durations, and formats timestamps; wraps humantime.

use std::time::{Duration, SystemTime};

/// The units of systemd.time(7) with their length in microseconds. The first name is the
/// one that [`format_duration`] writes.
const UNITS: [(&[&str], u64); 9] = [
    (&["y", "year", "years"], 31_557_600_000_000),
    (&["M", "month", "months"], 2_629_800_000_000),
    (&["w", "week", "weeks"], 604_800_000_000),
    (&["d", "day", "days"], 86_400_000_000),
    (&["h", "hr", "hour", "hours"], 3_600_000_000),
    (&["min", "m", "minute", "minutes"], 60_000_000),
    (&["s", "sec", "second", "seconds"], 1_000_000),
    (&["ms", "msec"], 1000),
    (&["us", "usec", "µs", "μs"], 1),
];

/// The first of [`UNITS`] that [`format_duration`] writes: the longer ones are not multiples
/// of each other.
const DAYS: usize = 3;

/// Parses integers with units, such as `500ms`, `10s`, `2min` or `1h 30min`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = None;
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let after = after.trim_start();
        let end = after.find(|c: char| c.is_ascii_digit() || c.is_whitespace());
        let (unit, after) = after.split_at(end.unwrap_or(after.len()));
        let (_, length) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
        let microseconds = number.parse::<u64>().ok()?.checked_mul(*length)?;
        total = Some(u64::checked_add(total.unwrap_or(0), microseconds)?);
        rest = after.trim_start();
    }
    total.map(Duration::from_micros)
}

/// Formats a duration of whole microseconds so that [`parse_duration`] reads it back.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_micros();
    let mut parts = Vec::new();
    for (names, length) in &UNITS[DAYS..] {
        let count = rest / u128::from(*length);
        if count > 0 {
            parts.push(format!("{count}{}", names[0]));
        }
        rest %= u128::from(*length);
    }
    if parts.is_empty() {
        parts.push("0s".to_owned());
    }
    parts.join(" ")
}

/// A timestamp as in RFC 3339: UTC, whole seconds.
pub fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_formatted_with_the_units_of_systemd() {
        for (text, microseconds, formatted) in [
            ("0s", 0, "0s"),
            ("500ms", 500_000, "500ms"),
            ("10 sec", 10_000_000, "10s"),
            ("90min", 5_400_000_000, "1h 30min"),
            ("1h30m", 5_400_000_000, "1h 30min"),
            (" 1h  30minutes ", 5_400_000_000, "1h 30min"),
            ("1s 2s", 3_000_000, "3s"),
            ("7µs", 7, "7us"),
            ("52weeks", 31_449_600_000_000, "364d"),
            ("1month", 2_629_800_000_000, "30d 10h 30min"),
            ("31536000001ms", 31_536_000_001_000, "365d 1ms"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_micros(microseconds), "{text}");
            assert_eq!(format_duration(duration), formatted);
            assert_eq!(parse_duration(formatted), Some(duration));
        }
    }

    #[test]
    fn other_texts_are_not_durations() {
        for text in [
            "",
            " ",
            "0",
            "10",
            "s",
            "1.5s",
            "-1s",
            "+1s",
            "1s,",
            "1S",
            "soon",
            "1h30",
            "1 0",
            "99999999999999999999s",
            "18446744073709551615s",
            "18446744073709551615us 1us",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
