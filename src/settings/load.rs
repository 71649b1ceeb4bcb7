//! Lays the files over each other and checks what comes out. Floor 5.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use log::LevelFilter;

use super::fragment::{self, Found, Fragment, Value};
use super::keys;
use super::source::{self, Choice, Source, socket_unit};
use super::values::{Limits, PeerDetail, Settings, Shown, Wording};
use crate::clock;
use crate::error::{Complaint, Error, Place};
use crate::greeting::{Fault, LineEnding, PLACEHOLDERS, Template};
use crate::mode::Mode;

const MODES: &[(&str, Option<Mode>)] = &[
    ("auto", None),
    ("accept", Some(Mode::Accept)),
    ("accepted", Some(Mode::Accepted)),
    ("inet", Some(Mode::Inet)),
];
const ENDINGS: &[(&str, LineEnding)] = &[
    ("lf", LineEnding::Lf),
    ("crlf", LineEnding::Crlf),
    ("raw", LineEnding::Raw),
];
const LEVELS: &[(&str, LevelFilter)] = &[
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];
const DETAILS: &[(&str, PeerDetail)] = &[
    ("full", PeerDetail::Full),
    ("prefix", PeerDetail::Prefix),
    ("none", PeerDetail::None),
];

/// The longest duration: a year keeps every sum of moments in range.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Reads, merges and checks the settings; the highest of `folders` comes first.
///
/// # Errors
/// [`Error::Settings`]: the first thing that is wrong, with its place and remedy.
pub fn load(choice: &Choice, folders: &[PathBuf]) -> Result<Settings, Error> {
    merge(source::read(choice, folders)?, &socket_unit(choice))
}

/// Merges and checks the settings of files that were read. `unit` is the socket
/// unit that they go with, for messages.
///
/// # Errors
/// As [`load`].
pub fn merge(sources: Vec<Source>, unit: &str) -> Result<Settings, Error> {
    let mut merged = Merged::default();
    let mut files = Vec::new();
    for source in sources {
        files.push(source.path.clone());
        merged.lay(fragment::parse(&Rc::new(source), unit)?)?;
    }
    let ending = merged.choice("", "line_ending", ENDINGS)?;
    let others = merged.wording("", ending, None)?;
    let tables: BTreeSet<String> = merged
        .found
        .keys()
        .map(|(table, _)| table.clone())
        .collect();
    let mut named = BTreeMap::new();
    for table in tables {
        if let Some(name) = table.strip_prefix("greeting.") {
            let ending = match merged.get(&table, "line_ending") {
                Some(_) => merged.choice(&table, "line_ending", ENDINGS)?,
                None => ending,
            };
            named.insert(name.to_owned(), merged.wording(&table, ending, Some(""))?);
        }
    }
    let idle = merged.duration("idle_timeout")?;
    Ok(Settings {
        mode: merged.choice("", "mode", MODES)?,
        mode_origin: merged.get("", "mode").map(|found| {
            let place = place(found);
            format!(
                "{}:{}:{}",
                found.source.path.display(),
                place.line,
                place.column
            )
        }),
        log_level: merged.choice("", "log_level", LEVELS)?,
        log_peer: merged.choice("", "log_peer", DETAILS)?,
        limits: Limits {
            connections: merged.number("connections", 1..=1_000_000)?,
            connections_per_source: merged.number("connections_per_source", 0..=1_000_000)?,
            write_timeout: merged.duration("write_timeout")?,
            linger_timeout: merged.duration("linger_timeout")?,
            linger_bytes: merged.number("linger_bytes", 0..=1 << 30)?,
            drain_timeout: merged.duration("drain_timeout")?,
            idle_timeout: (!idle.is_zero()).then_some(idle),
        },
        files,
        others,
        named,
        shown: merged.show(),
    })
}

/// What is in force where no file says anything.
///
/// # Panics
/// Never: a test of this file reads every default.
#[must_use]
pub fn defaults() -> Settings {
    load(&Choice::Named(String::new()), &[]).expect("the defaults of our own")
}

/// What the files give together.
#[derive(Default)]
struct Merged {
    found: Fragment,
}

impl Merged {
    /// Lays one file's keys over those of the files before it. A text in either
    /// form takes the place of a text in either form.
    fn lay(&mut self, fragment: Fragment) -> Result<(), Error> {
        for ((table, name), found) in &fragment {
            let other = match *name {
                "message" => "message_file",
                "message_file" => "message",
                _ => continue,
            };
            if *name == "message_file" && fragment.contains_key(&(table.clone(), other)) {
                let what = "both 'message' and 'message_file' are set".to_owned();
                return Err(complain(found, what, "keep one of the two".to_owned()));
            }
            self.found.remove(&(table.clone(), other));
        }
        self.found.extend(fragment);
        Ok(())
    }

    fn get(&self, table: &str, name: &'static str) -> Option<&Found> {
        self.found.get(&(table.to_owned(), name))
    }

    /// The text of a key, or that of its default.
    fn text(&self, table: &str, name: &'static str) -> (String, Option<&Found>) {
        match self.get(table, name) {
            Some(
                found @ Found {
                    value: Value::Text(text),
                    ..
                },
            ) => (text.clone(), Some(found)),
            _ => (default(table, name).trim_matches('"').to_owned(), None),
        }
    }

    fn choice<T: Copy>(
        &self,
        table: &str,
        name: &'static str,
        known: &[(&str, T)],
    ) -> Result<T, Error> {
        let (text, found) = self.text(table, name);
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        let nearest = keys::nearest(&text, known.iter().map(|(word, _)| *word));
        let meant = nearest.map_or(String::new(), |word| format!("did you mean \"{word}\"? "));
        Err(refuse(table, name, found, &format!("\"{text}\""), &meant))
    }

    fn duration(&self, name: &'static str) -> Result<Duration, Error> {
        let (text, found) = self.text("limits", name);
        clock::parse_duration(&text)
            .filter(|duration| *duration <= LONGEST)
            .ok_or_else(|| refuse("limits", name, found, &format!("\"{text}\""), ""))
    }

    fn number<T: TryFrom<i64>>(
        &self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<T, Error> {
        let (number, found) = match self.get("limits", name) {
            Some(
                found @ Found {
                    value: Value::Number(number),
                    ..
                },
            ) => (*number, Some(found)),
            _ => (default("limits", name).parse().unwrap_or_default(), None),
        };
        let fits = Some(number)
            .filter(|number| range.contains(number))
            .and_then(|number| T::try_from(number).ok());
        fits.ok_or_else(|| refuse("limits", name, found, &number.to_string(), ""))
    }

    /// The text of a table with its line ends made; where it has none, that of
    /// the table `fallback`.
    fn wording(
        &self,
        table: &str,
        ending: LineEnding,
        fallback: Option<&str>,
    ) -> Result<Wording, Error> {
        if let Some(
            found @ Found {
                value: Value::Text(message),
                ..
            },
        ) = self.get(table, "message")
        {
            let text = Template::parse(message.as_bytes(), ending).map_err(|fault| {
                let (start, end) = within(found, message, &fault);
                let (what, remedy) = explain(&fault);
                found.source.complain(start, end, what, remedy)
            })?;
            return Ok(Wording {
                text: Some(text),
                ending,
            });
        }
        if let Some(
            found @ Found {
                value: Value::Text(file),
                ..
            },
        ) = self.get(table, "message_file")
        {
            let folder = found.source.path.parent().unwrap_or(&found.source.path);
            let path = folder.join(file);
            let missing = || {
                complain(
                    found,
                    format!("no file '{}'", path.display()),
                    "write it, or name another".to_owned(),
                )
            };
            let bytes = source::read_bytes(&path)?.ok_or_else(missing)?;
            let text = Template::parse(&bytes, ending).map_err(|fault| {
                let place = Some(Place::of(&bytes, fault.start, fault.end));
                let (what, remedy) = explain(&fault);
                Error::Settings(Complaint {
                    file: path.clone(),
                    place,
                    what,
                    remedy,
                })
            })?;
            return Ok(Wording {
                text: Some(text),
                ending,
            });
        }
        match fallback {
            Some(table) => self.wording(table, ending, None),
            None => Ok(Wording { text: None, ending }),
        }
    }

    /// Every key with its value and where it comes from.
    fn show(&self) -> Vec<Shown> {
        let spell = |found: &Found| match &found.value {
            Value::Text(text) => fragment::spell(text),
            Value::Number(number) => number.to_string(),
        };
        let mut shown = Vec::new();
        for key in keys::KEYS.iter().filter(|key| key.table != "greeting.NAME") {
            let found = self.get(key.table, key.name);
            let value = found
                .map(spell)
                .or((!key.default.is_empty()).then(|| key.default.to_owned()));
            shown.push(Shown {
                table: key.table.to_owned(),
                name: key.name,
                value,
                origin: found.map(origin),
            });
        }
        for ((table, name), found) in self
            .found
            .iter()
            .filter(|((table, _), _)| table.starts_with("greeting."))
        {
            let table = format!(
                "greeting.{}",
                fragment::spell_key(&table["greeting.".len()..])
            );
            shown.push(Shown {
                table,
                name,
                value: Some(spell(found)),
                origin: Some(origin(found)),
            });
        }
        shown
    }
}

fn default(table: &str, name: &str) -> &'static str {
    keys::find(table, name).map_or("", |key| key.default)
}

fn place(found: &Found) -> Place {
    Place::of(
        found.source.text.as_bytes(),
        found.span.start,
        found.span.end,
    )
}

/// `FILE:LINE` of a value.
fn origin(found: &Found) -> String {
    format!("{}:{}", found.source.path.display(), place(found).line)
}

fn complain(found: &Found, what: String, remedy: String) -> Error {
    found
        .source
        .complain(found.span.start, found.span.end, what, remedy)
}

/// A value that its key does not take.
fn refuse(table: &str, name: &str, found: Option<&Found>, given: &str, meant: &str) -> Error {
    let takes = keys::find(table, name).map_or("something else", |key| key.takes);
    let what = format!(
        "{} is no value for '{name}'",
        given.escape_debug().to_string().replace("\\\"", "\"")
    );
    let remedy = format!("{meant}'{name}' takes {takes}");
    match found {
        Some(found) => complain(found, what, remedy),
        // Only a default of our own can be without a place, and a test reads them all.
        None => Error::Settings(Complaint {
            file: "(default)".into(),
            place: None,
            what,
            remedy,
        }),
    }
}

/// Where a fault of a message stands in its file. The text in the file may be
/// written with escapes; then the whole value is meant.
fn within(found: &Found, message: &str, fault: &Fault) -> (usize, usize) {
    let whole = (found.span.start, found.span.end);
    let written = found
        .source
        .text
        .get(found.span.clone())
        .unwrap_or_default();
    match written.find(message) {
        Some(at) => (whole.0 + at + fault.start, whole.0 + at + fault.end),
        None => whole,
    }
}

fn explain(fault: &Fault) -> (String, String) {
    match &fault.name {
        Some(name) => {
            let known = || PLACEHOLDERS.iter().copied();
            let remedy = match keys::nearest(name, known()) {
                Some(near) => {
                    format!("did you mean '{{{near}}}'? (braces of your own are '{{{{' and '}}}}')")
                }
                None => format!(
                    "there are {{{}}}; braces of your own are '{{{{' and '}}}}'",
                    known().collect::<Vec<_>>().join("} {")
                ),
            };
            (
                format!("unknown placeholder '{{{}}}'", name.escape_debug()),
                remedy,
            )
        }
        None => (
            "a brace without its partner".to_owned(),
            "write '{{' or '}}' for a brace, or set line_ending = \"raw\"".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn loaded(name: &str, files: &[(&str, &str)]) -> Result<Settings, Error> {
        let folder =
            std::env::temp_dir().join(format!("greeter-merge-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let settings = load(
            &Choice::Named("greeter".into()),
            std::slice::from_ref(&folder),
        );
        let _ = fs::remove_dir_all(folder);
        settings
    }

    fn check(name: &str, text: &str, expected: &str) {
        let said = loaded(name, &[("greeter.toml", text)])
            .unwrap_err()
            .to_string();
        let said = said
            .split_once("greeter.toml:")
            .map_or(said.as_str(), |(_, rest)| rest);
        assert_eq!(said, expected, "{text}");
    }

    #[test]
    fn no_file_at_all_is_every_default() {
        let settings = load(&Choice::Named("greeter".into()), &[]).unwrap();
        assert_eq!(settings.mode, None);
        assert_eq!(settings.limits.connections, 1024);
        assert_eq!(settings.limits.write_timeout, Duration::from_secs(10));
        assert_eq!(settings.limits.linger_timeout, Duration::from_secs(2));
        assert_eq!(settings.limits.linger_bytes, 65536);
        assert_eq!(settings.limits.drain_timeout, Duration::from_secs(5));
        assert_eq!(settings.limits.idle_timeout, None);
        assert_eq!(settings.log_level, LevelFilter::Info);
        let greeting = settings.template(Mode::Inet, "stdin").settle("", "", "");
        assert_eq!(
            &*greeting.render(&crate::greeting::Facts::default()),
            b"This socket was passed on stdin/stdout\n"
        );
    }

    #[test]
    fn later_files_win_key_by_key() {
        let settings = loaded(
            "layers",
            &[
                (
                    "greeter.toml",
                    "message = 'a'\nlog_level = 'debug'\n[limits]\nconnections = 5\n",
                ),
                (
                    "greeter.toml.d/1.toml",
                    "[limits]\nlinger_bytes = 7\n[greeting.x]\nline_ending = 'crlf'\n",
                ),
                ("greeter.toml.d/2.toml", "message_file = '1.txt'\n"),
                ("greeter.toml.d/1.txt", "from a file"),
            ],
        )
        .unwrap();
        assert_eq!(
            (settings.limits.connections, settings.limits.linger_bytes),
            (5, 7)
        );
        let say = |socket: &str| {
            let greeting = settings.template(Mode::Accept, socket).settle("", "", "");
            String::from_utf8_lossy(&greeting.render(&crate::greeting::Facts::default()))
                .into_owned()
        };
        assert_eq!(say("other"), "from a file\n");
        assert_eq!(say("x"), "from a file\r\n");
    }

    #[test]
    fn wrong_values_are_named_with_place_and_remedy() {
        check(
            "mode",
            "mode = 'acept'\n",
            "1:8: \"acept\" is no value for 'mode'; did you mean \"accept\"? 'mode' takes \"auto\", \"accept\", \"accepted\" or \"inet\"",
        );
        check(
            "zero",
            "[limits]\nconnections = 0\n",
            "2:15: 0 is no value for 'connections'; 'connections' takes a whole number from 1 to 1000000",
        );
        check(
            "duration",
            "[limits]\nidle_timeout = 'soon'\n",
            "2:16: \"soon\" is no value for 'idle_timeout'; 'idle_timeout' takes a duration in quotes, such as \"10min\", or \"0s\" for never",
        );
        check(
            "both",
            "message_file = 'x'\nmessage = 'y'\n",
            "1:16: both 'message' and 'message_file' are set; keep one of the two",
        );
        check(
            "placeholder",
            "message = \"hi {peer_adr}\"\n",
            "1:15: unknown placeholder '{peer_adr}'; did you mean '{peer_addr}'? (braces of your own are '{{' and '}}')",
        );
        check(
            "brace",
            "message = '''\na {\n'''\n",
            "2:3: a brace without its partner; write '{{' or '}}' for a brace, or set line_ending = \"raw\"",
        );
        check(
            "named",
            "[greeting.smtp]\nmessage = 'a }'\n",
            "2:14: a brace without its partner; write '{{' or '}}' for a brace, or set line_ending = \"raw\"",
        );
    }
}
