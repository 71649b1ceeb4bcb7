//! One settings file as it is written; the door to serde and toml. Floor 4.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::Deserializer;
use toml::{Spanned, Value};

use super::keys::{self, KEYS, Key};
use super::source::Source;
use crate::clock;
use crate::error::{self, Error};

/// The longest duration: a year keeps every sum of moments in range.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What files give, by the path of the key: its name, with `limits.` or
/// `greeting.NAME.` before it.
pub type Fragment = BTreeMap<String, Found>;

/// What a file gives to one key.
#[derive(Debug)]
pub struct Found {
    /// The value, which the key takes.
    pub value: Value,
    /// The bytes of the file in which it stands.
    pub span: Range<usize>,
    /// The file.
    pub source: Rc<Source>,
}

impl Found {
    /// The value of a key that takes a string.
    pub fn text(&self) -> &str {
        self.value.as_str().unwrap_or_default()
    }

    /// The value of a key that takes a whole number.
    pub fn number<T: TryFrom<i64> + Default>(&self) -> T {
        let number = self.value.as_integer().unwrap_or_default();
        T::try_from(number).unwrap_or_default()
    }

    /// The value of a key that takes a duration.
    pub fn duration(&self) -> Duration {
        clock::parse_duration(self.text()).unwrap_or_default()
    }

    /// A complaint about the value.
    pub fn complain(&self, what: &str, remedy: &str) -> Error {
        self.source.complain(&self.span, what, remedy)
    }
}

impl Source {
    /// A complaint about some of its bytes.
    pub fn complain(&self, span: &Range<usize>, what: &str, remedy: &str) -> Error {
        let meant = Some((self.text.as_bytes(), span));
        Error::settings(&self.path, meant, what, remedy)
    }
}

/// One table. toml tells where its keys stand if it is asked for them as a map.
type Table = BTreeMap<Spanned<String>, Given>;

/// A value with its place; none for what has no place, as a table made by a
/// dotted key, or is too large a number.
#[derive(Deserialize)]
struct Given(#[serde(deserialize_with = "given")] Option<Spanned<Value>>);

fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Spanned<Value>>, D::Error> {
    Ok(Spanned::deserialize(value).ok())
}

/// The tables of a file.
#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    limits: Table,
    #[serde(default)]
    greeting: BTreeMap<String, Table>,
}

/// Reads one file. `unit` is the socket unit that the settings go with, for
/// those who look for the address here.
/// Fails at what is no TOML, an unknown key or a value that its key does not take;
/// the error says where and what to do.
pub fn parse(source: Source, unit: &str) -> Result<Fragment, Error> {
    let no_toml = |error: toml::de::Error| {
        let (what, remedy) = explain(error.message());
        source.complain(&error.span().unwrap_or(0..0), &what, remedy)
    };
    // Twice, as the keys of the top stand beside the tables, whose keys have places too.
    let mut top: Table = toml::from_str(&source.text).map_err(no_toml)?;
    let Tables { limits, greeting } = toml::from_str(&source.text).map_err(no_toml)?;
    top.retain(|name, _| !keys::TABLES.contains(&name.get_ref().as_str()));
    let mut tables = vec![(String::new(), top), ("limits.".to_owned(), limits)];
    let greeting = greeting.into_iter();
    tables.extend(greeting.map(|(name, table)| (format!("greeting.{name}."), table)));
    let (mut fragment, source) = (Fragment::new(), Rc::new(source));
    for (front, table) in tables {
        for (name, Given(value)) in table {
            let (at, name) = (name.span(), name.into_inner());
            let path = format!("{front}{name}");
            let Some(key) = keys::find(&path).filter(|key| key.place().1 == name) else {
                let what = format!("unknown key '{name}'");
                return Err(source.complain(&at, &what, &keys::remedy(&name, unit)));
            };
            let span = value.as_ref().map_or(at, Spanned::span);
            let written = value
                .as_ref()
                .map_or("this", |_| &source.text[span.clone()]);
            let value = value.map(Spanned::into_inner);
            let Some(value) = value.filter(|value| takes(key, value)) else {
                let (what, remedy) = keys::refuse(key, written);
                return Err(source.complain(&span, &what, &remedy));
            };
            let source = Rc::clone(&source);
            let found = Found {
                value,
                span,
                source,
            };
            fragment.insert(path, found);
        }
    }
    Ok(fragment)
}

/// The defaults, with the greeting of a mode where the settings have none.
pub fn defaults(message: &str) -> Fragment {
    let given = KEYS.iter().filter(|key| !key.default.is_empty());
    let lines = given.map(|key| format!("{} = {}\n", key.path, key.default));
    let text = lines.chain([format!("message = \"{message}\"")]).collect();
    let path = PathBuf::new();
    parse(Source { path, text }, "").expect("the defaults of our own")
}

/// Whether a key takes a value.
fn takes(key: &Key, value: &Value) -> bool {
    let mut numbers = key.takes.split(' ').filter_map(|word| word.parse().ok());
    match value {
        Value::String(text) => match key.takes.split(' ').nth(1) {
            Some("string:") => true,
            Some("duration") => clock::parse_duration(text).is_some_and(|time| time <= LONGEST),
            _ => key.words().any(|word| word == text),
        },
        // Of a key that takes no number there is no least one.
        Value::Integer(number) => {
            let is_least = numbers.next().is_some_and(|least| least <= *number);
            is_least && numbers.next().is_some_and(|most| *number <= most)
        }
        _ => false,
    }
}

/// Says in our words what serde and toml say in theirs, and what to do.
fn explain(said: &str) -> (String, &'static str) {
    if let Some(wrong) = said.strip_prefix("invalid type: ") {
        let found = wrong.split(", expected").next().unwrap_or_default();
        let what = format!("wrong type: {}", found.replace('`', "'"));
        return (what, "see greeter.toml(5) for what stands here");
    }
    if said.starts_with("duplicate key") {
        let what = "a key that stands here twice".to_owned();
        return (what, "remove one of the two");
    }
    let said = said.trim_end_matches('.').replace('\n', ", ");
    let what = format!("no TOML: {said}");
    (what, "mend the line; strings stand in quotes")
}

/// The settings as TOML, every key with its value and where it comes from.
pub fn show(merged: &Fragment) -> String {
    let mut out = String::new();
    for (
        path,
        Found {
            value,
            span,
            source,
        },
    ) in merged
    {
        // A socket's name may hold what a bare key of TOML may not.
        let path = match socket(path) {
            Some((name, key)) => format!("greeting.{}.{key}", Value::from(name)),
            None => path.clone(),
        };
        let line = error::line(source.text.as_bytes(), span);
        let origin = match source.path.display().to_string() {
            none if none.is_empty() => "default".to_owned(),
            file => format!("{file}:{line}"),
        };
        out += &format!("{path} = {value}  # {origin}\n");
    }
    out
}

/// The socket's name and the key's of a path that has both.
pub fn socket(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("greeting.")?.rsplit_once('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a file; nothing where it is sound.
    fn said(text: &str) -> String {
        let (path, text) = ("g.toml".into(), text.to_owned());
        let parsed = parse(Source { path, text }, "greeter.socket");
        parsed
            .err()
            .map_or(String::new(), |error| error.to_string())
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(said(text), expected, "{text}");
    }

    #[test]
    fn sound_files_are_read() {
        check("", "");
        check(
            "mode = \"auto\"\n[limits]\nconnections = 5\n[greeting.smtp]\nmessage = 'x'\n",
            "",
        );
        check("limits.connections = 5\n", "");
    }

    #[test]
    fn faults_are_named_with_place_and_remedy() {
        check(
            "mesage = 'x'\n",
            "g.toml:1:1: unknown key 'mesage'; did you mean 'message'?",
        );
        check(
            "\n[limits]\n  conections = 5\n",
            "g.toml:3:3: unknown key 'conections'; did you mean 'connections'?",
        );
        check(
            "mode = 5\n",
            "g.toml:1:8: 5 is no value for 'mode'; \
             'mode' takes \"auto\", \"accept\", \"accepted\" or \"inet\"",
        );
        check(
            "[limits]\nwrite_timeout = 10\n",
            "g.toml:2:17: 10 is no value for 'write_timeout'; \
             'write_timeout' takes a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"",
        );
        check(
            "limits.connections = 'many'\n",
            "g.toml:1:22: 'many' is no value for 'connections'; \
             'connections' takes a whole number from 1 to 1000000",
        );
    }

    #[test]
    fn a_key_takes_what_its_words_say() {
        let taken = |path: &str, value: &str| {
            let text = format!("{path} = {value}\n");
            let said = said(&text);
            assert!(said.is_empty() || said.contains(" takes "), "{said}");
            said.is_empty()
        };
        for (path, good, bad) in [
            ("limits.connections", ["1", "1000000"], ["0", "1000001"]),
            (
                "limits.connections_per_source",
                ["0", "1000000"],
                ["-1", "1000001"],
            ),
            (
                "limits.linger_bytes",
                ["0", "1073741824"],
                ["-1", "1073741825"],
            ),
            (
                "limits.write_timeout",
                ["'0s'", "'365days'"],
                ["'366days'", "10"],
            ),
            ("limits.connections", ["2", "3"], ["'2'", "2.0"]),
            ("message", ["''", "'from 1 to 5'"], ["1", "true"]),
            ("log_level", ["'error'", "'trace'"], ["'off'", "1"]),
        ] {
            assert_eq!(good.map(|value| taken(path, value)), [true; 2], "{path}");
            assert_eq!(bad.map(|value| taken(path, value)), [false; 2], "{path}");
        }
        // What looks like the path of a key is not always one.
        assert!(said("\"limits.connections\" = 5\n").contains("unknown key"));
    }

    #[test]
    fn what_is_no_toml_is_said_on_one_line_at_the_right_one() {
        for (text, line) in [
            ("mode = accept\n", 1),
            ("\nmode\n", 2),
            ("a = 1\na = 2\n", 2),
        ] {
            let said = said(text);
            assert!(
                said.starts_with(&format!("g.toml:{line}:")) && !said.contains('\n'),
                "{said}"
            );
        }
    }
}
