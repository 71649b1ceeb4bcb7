//! Hints for unknown keys and misspelt words; wraps strsim.

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

/// What to do about a key that is unknown at its position. `tables` contains the names of
/// all keys, and `unit` is the socket unit that the settings belong to.
pub(super) fn unknown_key_hint(name: &str, tables: &[(&str, &[&str])], unit: &str) -> String {
    let normalized = name.to_lowercase().replace('-', "_");
    if LISTEN_KEYS.contains(&normalized.as_str()) {
        return format!(
            "addresses are set in the socket unit: run 'systemctl edit {unit}' and, below '[Socket]', \
             write an empty 'ListenStream=' and then 'ListenStream=ADDRESS:PORT'"
        );
    }
    if let Some((table, _)) = tables.iter().find(|(_, keys)| keys.contains(&name)) {
        return match *table {
            "" => format!("'{name}' belongs to the top of the file, before any [table]"),
            table => format!("'{name}' belongs to the table [{table}]"),
        };
    }
    let names = tables.iter().flat_map(|(table, keys)| {
        let table = table.trim_end_matches(".NAME");
        keys.iter().copied().chain([table])
    });
    match nearest(name, names.filter(|name| !name.is_empty())) {
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

    use crate::settings::TABLES;

    fn check(name: &str, part: &str) {
        let hint = unknown_key_hint(name, &TABLES, "greeter.socket");
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
