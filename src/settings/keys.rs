//! Every key of the settings, and what is meant by a word that is none; the door
//! to strsim. Floor 2.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// The table that it stands in: empty for the top, `limits`, or `greeting.NAME`.
    pub table: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it takes, in words.
    pub takes: &'static str,
    /// Its default as TOML; empty where it has none.
    pub default: &'static str,
}

const TEXT: &str = "a string: the greeting";
const TEXT_FILE: &str = "a string: the path of a file that holds the greeting";
const ENDING: &str = "\"lf\", \"crlf\" or \"raw\"";
const DURATION: &str = "a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"";

macro_rules! keys {
    ($($table:literal $name:literal = $default:literal, $takes:expr;)*) => {
        /// Every key, in the order of greeter.toml(5).
        pub const KEYS: &[Key] = &[$(Key { table: $table, name: $name, takes: $takes, default: $default }),*];
    };
}

keys! {
    "" "mode" = "\"auto\"", "\"auto\", \"accept\", \"accepted\" or \"inet\"";
    "" "message" = "", TEXT;
    "" "message_file" = "", TEXT_FILE;
    "" "line_ending" = "\"lf\"", ENDING;
    "" "log_level" = "\"info\"", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    "" "log_peer" = "\"full\"", "\"full\", \"prefix\" or \"none\"";
    "limits" "connections" = "1024", "a whole number from 1 to 1000000";
    "limits" "connections_per_source" = "0", "a whole number from 0 (off) to 1000000";
    "limits" "write_timeout" = "\"10s\"", DURATION;
    "limits" "linger_timeout" = "\"2s\"", DURATION;
    "limits" "linger_bytes" = "65536", "a whole number of bytes from 0 to 1073741824";
    "limits" "drain_timeout" = "\"5s\"", DURATION;
    "limits" "idle_timeout" = "\"0s\"", "a duration in quotes, such as \"10min\", or \"0s\" for never";
    "greeting.NAME" "message" = "", TEXT;
    "greeting.NAME" "message_file" = "", TEXT_FILE;
    "greeting.NAME" "line_ending" = "", ENDING;
}

/// The tables: users write their names where a key's could stand.
const TABLES: &[&str] = &["limits", "greeting"];

/// Words with which users try to say in the settings where to listen.
const ADDRESS_WORDS: &[&str] = &[
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

/// The key that stands in `table`.
#[must_use]
pub fn find(table: &str, name: &str) -> Option<&'static Key> {
    let table = if table.starts_with("greeting.") {
        "greeting.NAME"
    } else {
        table
    };
    KEYS.iter()
        .find(|key| key.table == table && key.name == name)
}

/// What to do about a key that is unknown where it stands. `unit` is the socket
/// unit that the settings go with.
#[must_use]
pub fn remedy(name: &str, unit: &str) -> String {
    if ADDRESS_WORDS.contains(&name.to_lowercase().replace('-', "_").as_str()) {
        return format!(
            "addresses belong to the socket unit: run 'systemctl edit {unit}' and, below '[Socket]', \
             write an empty 'ListenStream=' and then 'ListenStream=ADDRESS:PORT'"
        );
    }
    let homes: Vec<&str> = KEYS
        .iter()
        .filter(|key| key.name == name)
        .map(|key| key.table)
        .collect();
    if let Some(home) = homes.first() {
        return match *home {
            "" => format!("'{name}' belongs to the top of the file, before any [table]"),
            home => format!("'{name}' belongs to the table [{home}]"),
        };
    }
    let words = KEYS
        .iter()
        .map(|key| key.name)
        .chain(TABLES.iter().copied());
    match nearest(name, words) {
        Some(known) => format!("did you mean '{known}'?"),
        None => "remove it, or see greeter.toml(5) for the keys that there are".to_owned(),
    }
}

/// The word that was probably meant.
pub fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|word| (word, strsim::jaro_winkler(&given.to_lowercase(), word)))
        .filter(|(_, likeness)| *likeness > 0.8)
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, part: &str) {
        let remedy = remedy(name, "greeter.socket");
        assert!(remedy.contains(part), "{name}: {remedy}");
    }

    #[test]
    fn a_word_that_is_no_key_is_met_with_what_to_do() {
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

    #[test]
    fn keys_are_found_where_they_stand() {
        assert!(find("", "mode").is_some());
        assert!(find("limits", "mode").is_none());
        assert!(find("greeting.smtp", "message").is_some());
    }
}
