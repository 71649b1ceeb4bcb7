//! Every key of the settings, and what is meant by a word that is none; the door
//! to strsim. Floor 2.

/// One key.
#[derive(Debug)]
pub struct Key {
    /// Its name with its table's before it: `limits.` or `greeting.NAME.`, nothing at the top.
    pub path: &'static str,
    /// Its default as TOML; empty where it has none.
    pub default: &'static str,
    /// What it takes, in words. Quoted words at its beginning, or the numbers in a
    /// range, are meant as they stand.
    pub takes: &'static str,
}

const TEXT: &str = "a string: the greeting";
const TEXT_FILE: &str = "a string: the path of a file that holds the greeting";
const ENDING: &str = "\"lf\", \"crlf\" or \"raw\"";
const DURATION: &str = "a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"";

macro_rules! keys {
    ($($path:literal = $default:literal, $takes:expr;)*) => {
        /// Every key, in the order of greeter.toml(5).
        pub const KEYS: &[Key] = &[$(Key { path: $path, default: $default, takes: $takes }),*];
    };
}

keys! {
    "mode" = "\"auto\"", "\"auto\", \"accept\", \"accepted\" or \"inet\"";
    "message" = "", TEXT;
    "message_file" = "", TEXT_FILE;
    "line_ending" = "\"lf\"", ENDING;
    "log_level" = "\"info\"", "\"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
    "log_peer" = "\"full\"", "\"full\", \"prefix\" or \"none\"";
    "limits.connections" = "1024", "a whole number from 1 to 1000000";
    "limits.connections_per_source" = "0", "a whole number from 0 (off) to 1000000";
    "limits.write_timeout" = "\"10s\"", DURATION;
    "limits.linger_timeout" = "\"2s\"", DURATION;
    "limits.linger_bytes" = "65536", "a whole number of bytes from 0 to 1073741824";
    "limits.drain_timeout" = "\"5s\"", DURATION;
    "limits.idle_timeout" = "\"0s\"", "a duration in quotes, such as \"10min\", or \"0s\" for never";
    "greeting.NAME.line_ending" = "", ENDING;
    "greeting.NAME.message" = "", TEXT;
    "greeting.NAME.message_file" = "", TEXT_FILE;
}

/// The tables: users write their names where a key's could stand.
pub(super) const TABLES: [&str; 2] = ["limits", "greeting"];

/// Words with which users try to say in the settings where to listen.
const ADDRESS_WORDS: &str = "listen listen_stream listenstream listen_address address addresses \
    addr bind bind_address port ports host interface ip socket sockets socket_path";

impl Key {
    /// Its table, empty for the top, and its name.
    pub fn place(&self) -> (&'static str, &'static str) {
        self.path.rsplit_once('.').unwrap_or(("", self.path))
    }

    /// The words that it takes, if it takes only some.
    pub(super) fn words(&self) -> impl Iterator<Item = &'static str> {
        let lists_them = self.takes.starts_with('"');
        let listed = if lists_them { self.takes } else { "" };
        listed.split('"').skip(1).step_by(2)
    }
}

/// The key of a path, in which the socket's own name stands for `NAME`.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    let path = match path.rsplit_once('.') {
        Some((table, name)) if table.starts_with("greeting.") => &format!("greeting.NAME.{name}"),
        _ => path,
    };
    KEYS.iter().find(|key| key.path == path)
}

/// What is wrong with a value that a key does not take, and what to do.
pub(super) fn refuse(key: &Key, written: &str) -> (String, String) {
    let (_, name) = key.place();
    let nearest = nearest(written.trim_matches(['"', '\'']), key.words());
    let meant = nearest.map(|word| format!("did you mean \"{word}\"? "));
    let takes = format!("'{name}' takes {}", key.takes);
    let what = format!("{written} is no value for '{name}'");
    (what, meant.unwrap_or_default() + &takes)
}

/// What to do about a key that is unknown where it stands. `unit` is the socket
/// unit that the settings go with.
pub(super) fn remedy(name: &str, unit: &str) -> String {
    let plain = name.to_lowercase().replace('-', "_");
    if ADDRESS_WORDS.split(' ').any(|word| word == plain) {
        return format!(
            "addresses belong to the socket unit: run 'systemctl edit {unit}' and, below '[Socket]', \
             write an empty 'ListenStream=' and then 'ListenStream=ADDRESS:PORT'"
        );
    }
    let places = KEYS.iter().map(Key::place);
    if let Some((table, _)) = places.clone().find(|(_, known)| *known == name) {
        return match table {
            "" => format!("'{name}' belongs to the top of the file, before any [table]"),
            table => format!("'{name}' belongs to the table [{table}]"),
        };
    }
    match nearest(name, places.map(|(_, known)| known).chain(TABLES)) {
        Some(known) => format!("did you mean '{known}'?"),
        None => "remove it, or see greeter.toml(5) for the keys that there are".to_owned(),
    }
}

/// The word that was probably meant.
pub(super) fn nearest<'a>(given: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let given = given.to_lowercase();
    let likeness = |word: &&str| strsim::jaro_winkler(&given, word);
    let likely = known.filter(|word| likeness(word) > 0.8);
    likely.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
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
        assert!(find("mode").is_some());
        assert!(find("limits.mode").is_none());
        assert!(find("greeting.smtp.message").is_some());
        assert!(find("greeting.a.b.message").is_some());
    }

    #[test]
    fn words_are_those_in_quotes_of_a_key_that_takes_no_others() {
        let words = |path| find(path).unwrap().words().collect::<Vec<_>>();
        assert_eq!(words("mode"), ["auto", "accept", "accepted", "inet"]);
        assert_eq!(words("greeting.smtp.line_ending"), ["lf", "crlf", "raw"]);
        assert!(words("limits.write_timeout").is_empty());
        assert!(words("message").is_empty());
    }
}
