//! One settings file as it is written, every key optional; the door to serde and
//! toml. Floor 4.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use serde::Deserialize;
use toml::Spanned;

use super::keys;
use super::source::Source;
use crate::error::Error;

/// What a file gives to one key.
#[derive(Debug, Clone)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// The bytes of the file in which it stands.
    pub span: Range<usize>,
    /// The file.
    pub source: Rc<Source>,
}

/// A value of one of the two types that keys take.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Value {
    Text(String),
    Number(i64),
}

/// What one file gives, by table and key.
pub type Fragment = BTreeMap<(String, &'static str), Found>;

/// Reads one file. `unit` is the socket unit that the settings go with, for
/// those who look for the address here.
///
/// # Errors
/// No TOML, an unknown key or a wrong type; the error says where and what to do.
pub fn parse(source: &Rc<Source>, unit: &str) -> Result<Fragment, Error> {
    let file: File = toml::from_str(&source.text).map_err(|error| {
        let span = error.span().unwrap_or(0..0);
        let said = error.message().lines().collect::<Vec<_>>().join(", ");
        let (what, remedy) = explain(&source.text, &span, &said, unit);
        source.complain(span.start, span.end, what, remedy)
    })?;
    let mut fragment = Fragment::new();
    let mut put = |table: &str, name: &'static str, value: Option<(Range<usize>, Value)>| {
        if let Some((span, value)) = value {
            let found = Found {
                value,
                span,
                source: Rc::clone(source),
            };
            fragment.insert((table.to_owned(), name), found);
        }
    };
    put("", "mode", text(file.mode));
    put("", "message", text(file.message));
    put("", "message_file", text(file.message_file));
    put("", "line_ending", text(file.line_ending));
    put("", "log_level", text(file.log_level));
    put("", "log_peer", text(file.log_peer));
    put("limits", "connections", number(file.limits.connections));
    put(
        "limits",
        "connections_per_source",
        number(file.limits.connections_per_source),
    );
    put("limits", "write_timeout", text(file.limits.write_timeout));
    put("limits", "linger_timeout", text(file.limits.linger_timeout));
    put("limits", "linger_bytes", number(file.limits.linger_bytes));
    put("limits", "drain_timeout", text(file.limits.drain_timeout));
    put("limits", "idle_timeout", text(file.limits.idle_timeout));
    for (name, greeting) in file.greeting {
        let table = format!("greeting.{name}");
        put(&table, "message", text(greeting.message));
        put(&table, "message_file", text(greeting.message_file));
        put(&table, "line_ending", text(greeting.line_ending));
    }
    Ok(fragment)
}

/// The file as serde reads it; the fields are the keys of greeter.toml(5).
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mode: Option<Spanned<String>>,
    message: Option<Spanned<String>>,
    message_file: Option<Spanned<String>>,
    line_ending: Option<Spanned<String>>,
    log_level: Option<Spanned<String>>,
    log_peer: Option<Spanned<String>>,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    greeting: BTreeMap<String, GreetingTable>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsTable {
    connections: Option<Spanned<i64>>,
    connections_per_source: Option<Spanned<i64>>,
    write_timeout: Option<Spanned<String>>,
    linger_timeout: Option<Spanned<String>>,
    linger_bytes: Option<Spanned<i64>>,
    drain_timeout: Option<Spanned<String>>,
    idle_timeout: Option<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GreetingTable {
    message: Option<Spanned<String>>,
    message_file: Option<Spanned<String>>,
    line_ending: Option<Spanned<String>>,
}

fn text(value: Option<Spanned<String>>) -> Option<(Range<usize>, Value)> {
    value.map(|value| (value.span(), Value::Text(value.into_inner())))
}

fn number(value: Option<Spanned<i64>>) -> Option<(Range<usize>, Value)> {
    value.map(|value| (value.span(), Value::Number(value.into_inner())))
}

/// Writes a string as TOML.
#[must_use]
pub fn spell(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Writes the last part of a table's name as TOML: bare where it may be.
#[must_use]
pub fn spell_key(name: &str) -> String {
    let bare = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if bare { name.to_owned() } else { spell(name) }
}

/// Says in our words what serde and toml say in theirs.
fn explain(text: &str, span: &Range<usize>, said: &str, unit: &str) -> (String, String) {
    let (table, key) = place(text, span.start);
    let meant = text.get(span.clone()).unwrap_or_default().trim();
    if said.starts_with("unknown field") {
        // serde quotes the field: the span may be the key or the whole pair.
        let name = said.split('`').nth(1).unwrap_or(meant);
        return (format!("unknown key '{name}'"), keys::remedy(name, unit));
    }
    if let Some(wrong) = said.strip_prefix("invalid type: ") {
        let found = wrong
            .split(", expected")
            .next()
            .unwrap_or(wrong)
            .replace('`', "'");
        let (what, remedy) = match keys::find(&table, &key) {
            Some(known) => (
                format!("wrong type for '{key}': {found}"),
                format!("'{key}' takes {}", known.takes),
            ),
            None => (
                format!("wrong type: {found}"),
                "see greeter.toml(5) for what stands here".to_owned(),
            ),
        };
        return (what, remedy);
    }
    if said.starts_with("duplicate key") {
        return (
            "a key that stands here twice".to_owned(),
            "remove one of the two".to_owned(),
        );
    }
    (
        format!("no TOML: {}", said.trim_end_matches('.')),
        "mend the line; strings stand in quotes".to_owned(),
    )
}

/// The table and the key at a byte of the text, as far as its lines tell.
fn place(text: &str, at: usize) -> (String, String) {
    let line_end = text[at.min(text.len())..]
        .find('\n')
        .map_or(text.len(), |n| at + n);
    let mut table = String::new();
    let mut key = String::new();
    for line in text[..line_end].lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            table = header
                .split(']')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned();
        } else if let Some((name, _)) = line.split_once('=') {
            key = name.trim().to_owned();
        }
    }
    match key.rsplit_once('.') {
        // A dotted key: `limits.connections = 5`.
        Some((front, name)) if table.is_empty() => (front.to_owned(), name.to_owned()),
        _ => (table, key),
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
