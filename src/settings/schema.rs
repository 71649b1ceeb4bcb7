//! The keys of the settings, and hints for unknown words; wraps strsim.

/// One key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its table: `limits` or `greeting.NAME`; empty for the top of the file.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Its default as TOML; empty if it has none.
    pub default: &'static str,
}

const fn key(table: &'static str, name: &'static str, default: &'static str) -> Key {
    Key {
        table,
        name,
        default,
    }
}

/// Every key, in the order of greeter.toml(5).
pub const KEYS: &[Key] = &[
    key("", "mode", "\"auto\""),
    key("", "message", ""),
    key("", "message_file", ""),
    key("", "line_ending", "\"lf\""),
    key("", "proxy_protocol", "\"off\""),
    key("", "log_level", "\"info\""),
    key("", "log_peer", "\"full\""),
    key("", "log_exclude", "[]"),
    key("limits", "connections", "1024"),
    key("limits", "connections_per_source", "0"),
    key("limits", "header_timeout", "\"3s\""),
    key("limits", "write_timeout", "\"10s\""),
    key("limits", "linger_timeout", "\"2s\""),
    key("limits", "linger_bytes", "65536"),
    key("limits", "drain_timeout", "\"5s\""),
    key("limits", "idle_timeout", "\"0s\""),
    key("greeting.NAME", "message", ""),
    key("greeting.NAME", "message_file", ""),
    key("greeting.NAME", "line_ending", ""),
    key("greeting.NAME", "proxy_protocol", ""),
];

/// The tables; a hint can suggest their names, too.
pub(super) const TABLES: [&str; 2] = ["limits", "greeting"];

/// Whether a table `[greeting.NAME]` can have this key.
pub(super) fn is_key_of_greeting(name: &str) -> bool {
    KEYS.iter()
        .any(|key| key.table == "greeting.NAME" && key.name == name)
}

/// Common wrong keys for a listen address.
const LISTEN_KEYS: &[&str] = &[
    "listen",
    "listen_stream",
    "listenstream",
    "listen_address",
    "address",
    "addresses",
    "addr",
    "bind",
    "bind_address",
    "port",
    "ports",
    "host",
    "interface",
    "ip",
    "socket",
    "sockets",
    "socket_path",
];

/// What to do about a key that is unknown at its position. `unit` is the socket
/// unit that the settings belong to.
pub(super) fn unknown_key_hint(name: &str, unit: &str) -> String {
    let normalized = name.to_lowercase().replace('-', "_");
    if LISTEN_KEYS.contains(&normalized.as_str()) {
        return format!(
            "addresses are set in the socket unit: run 'systemctl edit {unit}' and, below '[Socket]', \
             write an empty 'ListenStream=' and then 'ListenStream=ADDRESS:PORT'"
        );
    }
    if let Some(known) = KEYS.iter().find(|key| key.name == name) {
        return match known.table {
            "" => format!("'{name}' belongs to the top of the file, before any [table]"),
            table => format!("'{name}' belongs to the table [{table}]"),
        };
    }
    let names = KEYS.iter().map(|key| key.name).chain(TABLES);
    match nearest(name, names) {
        Some(known) => format!("did you mean '{known}'?"),
        None => "remove it, or see greeter.toml(5) for the valid keys".to_owned(),
    }
}

/// The most similar word, if one is similar enough (Jaro-Winkler above 0.8).
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    known
        .map(|candidate| (strsim::jaro_winkler(&word, candidate), candidate))
        .filter(|(similarity, _)| *similarity > 0.8)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

/// Whether one word may be the other, misspelt: they differ by at most two letters that
/// are wrong, missing or swapped, and agree in more than they differ. Numbers are never
/// misspelt.
pub(super) fn is_misspelt(word: &str, other: &str) -> bool {
    let is_number = |word: &str| word.bytes().all(|byte| byte.is_ascii_digit());
    let distance = strsim::osa_distance(word, other);
    let length = word.chars().count().min(other.chars().count());
    !is_number(word) && !is_number(other) && (1..=2).contains(&distance) && distance * 2 < length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, part: &str) {
        let hint = unknown_key_hint(name, "greeter.socket");
        assert!(hint.contains(part), "{name}: {hint}");
    }

    #[test]
    fn similar_names_are_misspelt_but_numbers_are_not() {
        for (one, other, expected) in [
            ("smtp", "smpt", true),
            ("smtp", "smt", true),
            ("greeter", "greter", true),
            ("smtp", "smtp", false),
            ("smtp", "imap", false),
            ("greeter", "greeter-smtp", false),
            ("143", "144", false),
            ("2525", "25255", false),
            ("a", "b", false),
        ] {
            assert_eq!(is_misspelt(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn nearest_word_is_similar_enough() {
        // Exactly 0.8.
        assert_eq!(nearest("ab", ["abcdefgh"].into_iter()), None);
        let known = ["smtp", "smtps", "imap"].into_iter();
        assert_eq!(nearest("SMPT", known), Some("smtp"));
    }

    #[test]
    fn unknown_key_has_a_hint() {
        check("mesage", "did you mean 'message'?");
        check("Mode", "did you mean 'mode'?");
        check("limit", "did you mean 'limits'?");
        check("conections", "did you mean 'connections'?");
        check("linger_timeout", "belongs to the table [limits]");
        check("mode", "belongs to the top of the file");
        check("port", "systemctl edit greeter.socket");
        check("ListenStream", "an empty 'ListenStream='");
        check("zzz", "see greeter.toml(5)");
    }
}
