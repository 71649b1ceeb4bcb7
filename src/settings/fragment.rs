//! One settings file as it is written; the door to serde and toml. Floor 4.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use serde::Deserialize;
use serde::de::{Deserializer, Unexpected};
use toml::{Spanned, Value};

use super::keys::{self, Key};
use super::source::Source;
use crate::error::{Error, Place};

/// What files give, by table and key. A table in which nothing is set is not in it.
pub type Fragment = BTreeMap<String, BTreeMap<&'static str, Found>>;

/// What a file gives to one key.
#[derive(Debug)]
pub struct Found {
    /// The key.
    pub key: &'static Key,
    /// The value, of the type that the key takes.
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

    /// Where the value stands.
    pub fn place(&self) -> Place {
        Place::of(self.source.text.as_bytes(), &self.span)
    }

    /// `FILE:LINE`, or that it is a default.
    pub fn origin(&self) -> String {
        match self.source.path.as_os_str().is_empty() {
            true => "default".to_owned(),
            false => format!("{}:{}", self.source.path.display(), self.place().line),
        }
    }

    /// A complaint about the value.
    pub fn complain(&self, what: &str, remedy: &str) -> Error {
        Error::settings(&self.source.path, Some(self.place()), what, remedy)
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
/// Fails at what is no TOML, an unknown key or a wrong type; the error says where
/// and what to do.
pub fn parse(source: &Rc<Source>, unit: &str) -> Result<Fragment, Error> {
    let complain = |span: &Range<usize>, what: &str, remedy: &str| {
        let place = Place::of(source.text.as_bytes(), span);
        Error::settings(&source.path, Some(place), what, remedy)
    };
    let no_toml = |error: toml::de::Error| {
        let (what, remedy) = explain(error.message());
        complain(&error.span().unwrap_or(0..0), &what, remedy)
    };
    // Twice, as the keys of the top stand beside the tables, whose keys have places too.
    let mut top: Table = toml::from_str(&source.text).map_err(no_toml)?;
    let Tables { limits, greeting } = toml::from_str(&source.text).map_err(no_toml)?;
    top.retain(|name, _| !keys::TABLES.contains(&name.get_ref().as_str()));
    let mut tables = vec![(String::new(), top), ("limits".to_owned(), limits)];
    let greeting = greeting.into_iter();
    tables.extend(greeting.map(|(name, table)| (format!("greeting.{name}"), table)));
    let mut fragment = Fragment::new();
    for (table, given) in tables {
        for (name, Given(value)) in given {
            let (at, name) = (name.span(), name.into_inner());
            let Some(key) = keys::of(&table).find(|key| key.name == name) else {
                let what = format!("unknown key '{name}'");
                return Err(complain(&at, &what, &keys::remedy(&name, unit)));
            };
            let span = value.as_ref().map_or(at, Spanned::span);
            let value = typed(key, value.map(Spanned::into_inner)).map_err(|wrong| {
                let what = format!("wrong type for '{name}': {wrong}");
                complain(&span, &what, &format!("'{name}' takes {}", key.takes))
            })?;
            let found = Found {
                key,
                value,
                span,
                source: Rc::clone(source),
            };
            let keys = fragment.entry(table.clone()).or_default();
            keys.insert(key.name, found);
        }
    }
    Ok(fragment)
}

/// A value of the type that a key takes, or what it is instead, in serde's words.
fn typed(key: &Key, value: Option<Value>) -> Result<Value, String> {
    let kind = match &value {
        None => Unexpected::Other("a table or too large a number"),
        Some(Value::String(text)) => Unexpected::Str(text),
        Some(Value::Integer(number)) => Unexpected::Signed(*number),
        Some(Value::Float(number)) => Unexpected::Float(*number),
        Some(Value::Boolean(truth)) => Unexpected::Bool(*truth),
        Some(Value::Array(_)) => Unexpected::Seq,
        Some(Value::Datetime(_) | Value::Table(_)) => Unexpected::Map,
    };
    let kind = kind.to_string().replace('`', "'");
    let value = value.filter(|value| match key.is_number() {
        true => value.is_integer(),
        false => value.is_str(),
    });
    value.ok_or(kind)
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

/// A table's name as TOML: the part behind the dot is bare where it may be.
pub fn spell_table(table: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    match table.split_once('.') {
        Some((front, name)) if name.is_empty() || !name.bytes().all(is_bare) => {
            format!("{front}.{}", Value::from(name))
        }
        _ => table.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let source = Rc::new(Source {
            path: "g.toml".into(),
            text: text.to_owned(),
        });
        match parse(&source, "greeter.socket") {
            Ok(_) => assert_eq!(expected, "", "{text}"),
            Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
        }
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
            "g.toml:1:8: wrong type for 'mode': integer '5'; \
             'mode' takes \"auto\", \"accept\", \"accepted\" or \"inet\"",
        );
        check(
            "[limits]\nwrite_timeout = 10\n",
            "g.toml:2:17: wrong type for 'write_timeout': integer '10'; \
             'write_timeout' takes a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"",
        );
        check(
            "limits.connections = 'many'\n",
            "g.toml:1:22: wrong type for 'connections': string \"many\"; \
             'connections' takes a whole number from 1 to 1000000",
        );
    }

    #[test]
    fn what_is_no_toml_is_said_on_one_line_at_the_right_one() {
        for (text, line) in [
            ("mode = accept\n", 1),
            ("\nmode\n", 2),
            ("a = 1\na = 2\n", 2),
        ] {
            let source = Rc::new(Source {
                path: "g.toml".into(),
                text: text.to_owned(),
            });
            let said = parse(&source, "greeter.socket").unwrap_err().to_string();
            assert!(
                said.starts_with(&format!("g.toml:{line}:")) && !said.contains('\n'),
                "{said}"
            );
        }
    }
}
