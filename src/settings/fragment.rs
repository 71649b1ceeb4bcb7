//! One settings file as written; wraps serde and toml.
//!
//! Every type here accepts only valid values, so that a file which parses needs no
//! further checks of its values. What a type accepts is worded once, in its
//! `expecting`, which serde places behind "expected" in the error.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};

use super::files::SettingsFile;
use super::network::Network;
use super::schema;
use super::{PeerDetail, ProxyProtocol};
use crate::error::Error;
use crate::greeting::LineEnding;
use crate::mode::Mode;
use crate::time_format;

/// The longest duration: a year. It keeps every sum of an `Instant` and a few
/// durations in range.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A value with the byte range of the file that contains it.
pub(super) type Located<T> = toml::Spanned<T>;

/// The top level of a settings file. A key that is not set is `None`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Fragment {
    pub(super) mode: Option<Located<Word<Option<Mode>>>>,
    pub(super) message: Option<Located<MessageText>>,
    pub(super) message_file: Option<Located<MessagePath>>,
    pub(super) line_ending: Option<Located<Word<LineEnding>>>,
    pub(super) proxy_protocol: Option<Located<Word<ProxyProtocol>>>,
    pub(super) log_level: Option<Located<Word<LevelFilter>>>,
    pub(super) log_peer: Option<Located<Word<PeerDetail>>>,
    pub(super) log_exclude: Option<Located<NetworkList>>,
    pub(super) limits: Table<LimitsFragment>,
    pub(super) greeting: Table<BTreeMap<Located<String>, Table<GreetingFragment>>>,
}

/// The table `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsFragment {
    pub(super) connections: Option<Located<Bounded<ConnectionCount>>>,
    pub(super) connections_per_source: Option<Located<Bounded<ConnectionsPerSource>>>,
    pub(super) header_timeout: Option<Located<Timeout>>,
    pub(super) write_timeout: Option<Located<Timeout>>,
    pub(super) linger_timeout: Option<Located<Timeout>>,
    pub(super) linger_bytes: Option<Located<Bounded<LingerBytes>>>,
    pub(super) drain_timeout: Option<Located<Timeout>>,
    pub(super) idle_timeout: Option<Located<IdleTimeout>>,
}

/// A table `[greeting.NAME]`. The keys are repeated, because serde's `flatten`
/// loses the position of values.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct GreetingFragment {
    pub(super) message: Option<Located<MessageText>>,
    pub(super) message_file: Option<Located<MessagePath>>,
    pub(super) line_ending: Option<Located<Word<LineEnding>>>,
    pub(super) proxy_protocol: Option<Located<Word<ProxyProtocol>>>,
}

/// Parses a file. `unit` is the socket unit that the settings belong to, for hints.
///
/// # Errors
/// [`Error::Settings`] for the first invalid part, with its position.
pub(super) fn parse(file: &SettingsFile, unit: &str) -> Result<Fragment, Error> {
    let fragment: Fragment =
        toml::from_str(&file.text).map_err(|error| explain(file, &error, unit))?;
    let greetings = fragment.greeting.0.values();
    let message_files = greetings
        .map(|Table(table)| (table.message.as_ref(), table.message_file.as_ref()))
        .chain([(fragment.message.as_ref(), fragment.message_file.as_ref())]);
    for keys in message_files {
        if let (Some(_), Some(message_file)) = keys {
            return Err(file.error_at(
                &message_file.span(),
                "both 'message' and 'message_file' are set; remove one of the two",
            ));
        }
    }
    Ok(fragment)
}

/// Words an error of toml and serde in the terms of the settings.
fn explain(file: &SettingsFile, error: &toml::de::Error, unit: &str) -> Error {
    let message = error.message();
    let span = error.span().unwrap_or(0..0);
    let written = file.text.get(span.clone()).unwrap_or_default();
    let expected = message.rsplit_once(", expected ");
    let is_value_error =
        message.starts_with("invalid type: ") || message.starts_with("invalid value: ");
    let is_dotted = file.text[span.end.min(file.text.len())..].starts_with('.');
    let text = match expected {
        // What toml 0.8 reports if a value is a table made by dotted keys.
        Some((_, "a borrowed string")) => {
            format!("invalid key '{written}': the key before it is not a table")
        }
        Some((_, expected)) if is_value_error && is_dotted => {
            format!("'{written}' is not a table: expected {expected}")
        }
        Some((found, expected)) if is_value_error => {
            let value = shown_value(written, found);
            match key_before(&file.text, &span) {
                Some(key)
                    if expected == GreetingFragment::NAME && schema::is_key_of_greeting(key) =>
                {
                    format!(
                        "'{key}' stands in [greeting] itself; put it below [greeting.NAME], the name \
                     of the socket, or at the top of the file"
                    )
                }
                Some(key) => format!("invalid value {value} for '{key}': expected {expected}"),
                None => format!("invalid value {value}: expected {expected}"),
            }
        }
        _ if message.starts_with("unknown field ") => match table_header(&file.text, &span) {
            Some(header) => format!(
                "invalid table [greeting.{header}]; a name with a dot needs quotes: \
                 [greeting.\"{header}\"]"
            ),
            None => {
                let key = written.trim_matches(['"', '\'']);
                let hint = if file.text[..span.start].ends_with('.') {
                    // The name alone says nothing: it is a part of a dotted key.
                    "remove it, or see greeter.toml(5) for the valid keys".to_owned()
                } else {
                    schema::unknown_key_hint(key, unit)
                };
                format!("unknown key '{key}'; {hint}")
            }
        },
        // What toml 0.8 reports of an integer that does not fit 64 bits.
        _ if message.contains("number too large") => {
            "number too large; write a smaller one".to_owned()
        }
        _ if message.contains("duplicate key") => "duplicate key; remove one of the two".to_owned(),
        _ => {
            let problem = message.trim_end_matches('.').replace('\n', ", ");
            format!("invalid TOML: {problem}; check the syntax (strings need quotes)")
        }
    };
    file.error_at(&span, &text)
}

/// The rest of a table header `[greeting.…]` that contains this span.
fn table_header<'a>(text: &'a str, span: &Range<usize>) -> Option<&'a str> {
    let start = text[..span.start].rfind('\n').unwrap_or(0);
    let header = text[start..].trim_start().strip_prefix("[greeting.")?;
    let (header, _) = header.split_once([']', '\n'])?;
    let is_plain = !header.contains(['"', '\'']);
    (is_plain && header.contains('.')).then_some(header)
}

/// A value as the file contains it, if that is short enough for a message; else
/// what serde calls it.
fn shown_value<'a>(written: &'a str, found: &'a str) -> &'a str {
    let is_short = !written.is_empty() && written.len() <= 80 && !written.contains('\n');
    if is_short {
        return written;
    }
    match found.split_once(": ") {
        Some((_, description)) if description.len() <= 80 => description,
        _ => "(too long to print)",
    }
}

/// The name of the key whose value has this span: the last part of a dotted key
/// before the `=`.
fn key_before<'a>(text: &'a str, span: &Range<usize>) -> Option<&'a str> {
    let before = text.get(..span.start)?.trim_end();
    let key = before.strip_suffix('=')?.trim_end();
    let start = key.rfind(['\n', '{', ',', '.']).map_or(0, |at| at + 1);
    Some(key[start..].trim().trim_matches(['"', '\'']))
}

/// A table. Serde's derived structs also accept arrays; this does not.
#[derive(Debug, Default)]
pub(super) struct Table<T>(pub(super) T);

/// The name of a table in messages.
pub(super) trait TableName {
    /// As in "expected …".
    const NAME: &'static str;
}

impl TableName for LimitsFragment {
    const NAME: &'static str = "the table [limits]";
}

impl TableName for GreetingFragment {
    const NAME: &'static str = "a table [greeting.NAME]";
}

impl TableName for BTreeMap<Located<String>, Table<GreetingFragment>> {
    const NAME: &'static str = "tables [greeting.NAME]";
}

impl<'de, T: Deserialize<'de> + TableName> Deserialize<'de> for Table<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TableVisitor<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de> + TableName> Visitor<'de> for TableVisitor<T> {
            type Value = Table<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::NAME)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Table)
            }
        }

        deserializer.deserialize_map(TableVisitor(PhantomData))
    }
}

/// The range of an integer setting.
pub(super) trait Bounds {
    /// The smallest valid value.
    const MIN: u32;
    /// The largest valid value.
    const MAX: u32;
    /// What the number is, as in "expected … from 1 to 5".
    const NOUN: &'static str = "an integer";
    /// What the smallest value means, if it is special.
    const MIN_NOTE: &'static str = "";
}

/// The bounds of `connections`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionCount;

impl Bounds for ConnectionCount {
    const MIN: u32 = 1;
    const MAX: u32 = 1_000_000;
}

/// The bounds of `connections_per_source`.
#[derive(Debug, Clone, Copy)]
pub(super) struct ConnectionsPerSource;

impl Bounds for ConnectionsPerSource {
    const MIN: u32 = 0;
    const MAX: u32 = 1_000_000;
    const MIN_NOTE: &'static str = " (off)";
}

/// The bounds of `linger_bytes`.
#[derive(Debug, Clone, Copy)]
pub(super) struct LingerBytes;

impl Bounds for LingerBytes {
    const MIN: u32 = 0;
    const MAX: u32 = 1 << 30;
    const NOUN: &'static str = "a number of bytes";
}

/// An integer within the bounds of `B`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounded<B> {
    value: u32,
    bounds: PhantomData<B>,
}

impl<B: Bounds> Bounded<B> {
    /// The value.
    pub fn get(self) -> u32 {
        self.value
    }
}

impl<'de, B: Bounds> Deserialize<'de> for Bounded<B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoundedVisitor<B>(PhantomData<B>);

        impl<B: Bounds> Visitor<'_> for BoundedVisitor<B> {
            type Value = Bounded<B>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (noun, min, note, max) = (B::NOUN, B::MIN, B::MIN_NOTE, B::MAX);
                write!(f, "{noun} from {min}{note} to {max}")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Self::Value, E> {
                match u32::try_from(number) {
                    Ok(value) if (B::MIN..=B::MAX).contains(&value) => Ok(Bounded {
                        value,
                        bounds: PhantomData,
                    }),
                    _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
                }
            }
        }

        deserializer.deserialize_i64(BoundedVisitor(PhantomData))
    }
}

/// A type whose values are written as one of a few words.
pub(super) trait Keyword: Copy + PartialEq + 'static {
    /// Every word with its value, in the order of greeter.toml(5). It is the list
    /// for parsing, for messages and for printing.
    const WORDS: &'static [(&'static str, Self)];
}

impl Keyword for Option<Mode> {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("auto", None),
        (Mode::Accept.name(), Some(Mode::Accept)),
        (Mode::Accepted.name(), Some(Mode::Accepted)),
        (Mode::Inet.name(), Some(Mode::Inet)),
    ];
}

impl Keyword for LineEnding {
    const WORDS: &'static [(&'static str, Self)] =
        &[("lf", Self::Lf), ("crlf", Self::Crlf), ("raw", Self::Raw)];
}

impl Keyword for ProxyProtocol {
    const WORDS: &'static [(&'static str, Self)] =
        &[("off", Self::Off), ("required", Self::Required)];
}

impl Keyword for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::Error),
        ("warn", Self::Warn),
        ("info", Self::Info),
        ("debug", Self::Debug),
    ];
}

impl Keyword for PeerDetail {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("full", Self::Full),
        ("prefix", Self::Prefix),
        ("none", Self::None),
    ];
}

/// A value that is written as a word.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word<T>(pub(super) T);

impl<'de, T: Keyword> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = keyword_list::<T>();
        deserialize_string(deserializer, &expected, |text| {
            if let Some((_, value)) = T::WORDS.iter().find(|(word, _)| *word == text) {
                return Ok(Self(*value));
            }
            let words = T::WORDS.iter().map(|(word, _)| *word);
            Err(match schema::nearest(text, words) {
                Some(word) => format!("{expected}; did you mean \"{word}\"?"),
                None => expected.clone(),
            })
        })
    }
}

/// `"a", "b" or "c"`.
fn keyword_list<T: Keyword>() -> String {
    let mut list = String::new();
    for (index, (word, _)) in T::WORDS.iter().enumerate() {
        if index > 0 {
            let is_last = index + 1 == T::WORDS.len();
            list += if is_last { " or " } else { ", " };
        }
        list += &format!("\"{word}\"");
    }
    list
}

/// A duration of at most a year.
#[derive(Debug, Clone, Copy)]
pub(super) struct Timeout(pub(super) Duration);

impl<'de> Deserialize<'de> for Timeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"";
        deserialize_duration(deserializer, expected).map(Self)
    }
}

/// A duration of at most a year; `None` is "never", which is written as zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct IdleTimeout(pub(super) Option<Duration>);

impl<'de> Deserialize<'de> for IdleTimeout {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a duration in quotes, such as \"10min\", or \"0s\" for never";
        let duration = deserialize_duration(deserializer, expected)?;
        Ok(Self((!duration.is_zero()).then_some(duration)))
    }
}

fn deserialize_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
) -> Result<Duration, D::Error> {
    deserialize_string(
        deserializer,
        expected,
        |text| match time_format::parse_duration(text) {
            Some(duration) if duration <= MAX_DURATION => Ok(duration),
            Some(_) => Err("a duration of at most \"365d\"".to_owned()),
            None => Err(expected.to_owned()),
        },
    )
}

/// The text of a greeting.
#[derive(Debug)]
pub(super) struct MessageText(pub(super) String);

impl<'de> Deserialize<'de> for MessageText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a string: the greeting";
        deserialize_string(deserializer, expected, |text| Ok(Self(text.to_owned())))
    }
}

/// The path of a file that contains a greeting, as written.
#[derive(Debug)]
pub(super) struct MessagePath(pub(super) PathBuf);

impl<'de> Deserialize<'de> for MessagePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a string: the path of a file that contains the greeting";
        deserialize_string(deserializer, expected, |text| Ok(Self(text.into())))
    }
}

/// An array of networks.
#[derive(Debug)]
pub(super) struct NetworkList(pub(super) Vec<Network>);

impl<'de> Deserialize<'de> for NetworkList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;

        impl<'de> Visitor<'de> for ListVisitor {
            type Value = NetworkList;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of addresses and networks, such as [\"192.0.2.10\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut networks = Vec::new();
                while let Some(Listed(network)) = list.next_element()? {
                    networks.push(network);
                }
                Ok(NetworkList(networks))
            }
        }

        deserializer.deserialize_seq(ListVisitor)
    }
}

/// One entry of a [`NetworkList`].
struct Listed(Network);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an address or a network, such as \"192.0.2.10\" or \"2001:db8::/64\"";
        deserialize_string(deserializer, expected, |text| {
            text.parse().map(Self).map_err(|()| expected.to_owned())
        })
    }
}

/// Reads a string and converts it. `expected` describes the valid values, and so
/// does the error of `convert`.
fn deserialize_string<'de, D, T, F>(
    deserializer: D,
    expected: &str,
    convert: F,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    F: FnOnce(&str) -> Result<T, String>,
{
    struct StringVisitor<'a, F> {
        expected: &'a str,
        convert: F,
    }

    impl<T, F: FnOnce(&str) -> Result<T, String>> Visitor<'_> for StringVisitor<'_, F> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            (self.convert)(text)
                .map_err(|expected| E::invalid_value(Unexpected::Str(text), &expected.as_str()))
        }
    }

    deserializer.deserialize_str(StringVisitor { expected, convert })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Fragment, Error> {
        let file = SettingsFile {
            path: "g.toml".into(),
            text: text.to_owned(),
        };
        parse(&file, "greeter.socket")
    }

    /// The error of an invalid file; empty if it is valid.
    fn message(text: &str) -> String {
        match parsed(text) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(message(text), expected, "{text}");
    }

    #[test]
    fn valid_files_are_parsed() {
        check("", "");
        check(
            "mode = \"auto\"\n[limits]\nconnections = 5\n[greeting.smtp]\nmessage = 'x'\n",
            "",
        );
        check("limits.connections = 5\n", "");
    }

    #[test]
    fn errors_have_position_and_hint() {
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
            "g.toml:1:8: invalid value 5 for 'mode': \
             expected \"auto\", \"accept\", \"accepted\" or \"inet\"",
        );
        check(
            "[limits]\nwrite_timeout = 10\n",
            "g.toml:2:17: invalid value 10 for 'write_timeout': \
             expected a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"",
        );
        check(
            "limits.connections = 'many'\n",
            "g.toml:1:22: invalid value 'many' for 'connections': \
             expected an integer from 1 to 1000000",
        );
    }

    #[test]
    fn keys_of_a_greeting_have_their_hint_in_the_wrong_table() {
        check(
            "[greeting]\nmessage = '421'\n",
            "g.toml:2:11: 'message' stands in [greeting] itself; put it below [greeting.NAME], \
             the name of the socket, or at the top of the file",
        );
        check(
            "[greeting]\nmode = 'inet'\n",
            "g.toml:2:8: invalid value 'inet' for 'mode': expected a table [greeting.NAME]",
        );
        check(
            "[greeting.mail.smtp]\nmessage = '421'\n",
            "g.toml:1:16: invalid table [greeting.mail.smtp]; a name with a dot needs quotes: \
             [greeting.\"mail.smtp\"]",
        );
        let message = message("[greeting.\"a\".b]\n");
        assert!(message.contains("unknown key 'b'; "), "{message}");
    }

    #[test]
    fn long_values_are_named_by_their_type() {
        let expected = |value: &str| {
            format!(
                "g.toml:1:8: invalid value {value} for 'mode': \
                 expected \"auto\", \"accept\", \"accepted\" or \"inet\""
            )
        };
        check("mode = [\n5]\n", &expected("sequence"));
        let long = "x".repeat(80);
        check(
            &format!("mode = '{long}'\n"),
            &expected("(too long to print)"),
        );
    }

    /// Which errors toml reports depends on its version.
    #[test]
    fn errors_of_older_versions_of_toml_are_explained() {
        use serde::de::Error as _;
        let file = SettingsFile {
            path: "g.toml".into(),
            text: ".connections = 5\n".to_owned(),
        };
        for (message, expected) in [
            (
                "invalid type: map, expected a borrowed string",
                "invalid key '': the key before it is not a table",
            ),
            (
                "invalid type: integer `5`, expected the table [limits]",
                "'' is not a table: expected the table [limits]",
            ),
            (
                "number too large to fit in target type",
                "number too large; write a smaller one",
            ),
        ] {
            let error = toml::de::Error::custom(message);
            let explained = explain(&file, &error, "greeter.socket").to_string();
            assert_eq!(explained, format!("g.toml:1:1: {expected}"));
        }
    }

    #[test]
    fn arrays_are_not_tables() {
        for (text, expected) in [
            (
                "limits = [5]\n",
                "g.toml:1:10: invalid value [5] for 'limits'",
            ),
            (
                "greeting.smtp = ['hi']\n",
                "g.toml:1:17: invalid value ['hi'] for 'smtp'",
            ),
            ("mode = { accept = {} }\n", "g.toml:1:8: invalid value "),
        ] {
            let message = message(text);
            assert!(message.starts_with(expected), "{message}");
        }
    }

    #[test]
    fn values_are_accepted_exactly_within_their_range() {
        let is_accepted = |key: &str, value: &str| {
            let message = message(&format!("{key} = {value}\n"));
            assert!(
                message.is_empty() || message.contains(": expected "),
                "{message}"
            );
            message.is_empty()
        };
        for (key, valid, invalid) in [
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
            ("log_level", ["'error'", "'debug'"], ["'off'", "1"]),
            ("log_level", ["'warn'", "'info'"], ["'trace'", "'Debug'"]),
        ] {
            assert_eq!(
                valid.map(|value| is_accepted(key, value)),
                [true; 2],
                "{key}"
            );
            assert_eq!(
                invalid.map(|value| is_accepted(key, value)),
                [false; 2],
                "{key}"
            );
        }
        // A quoted key is one name, whatever it contains.
        assert!(message("\"limits.connections\" = 5\n").contains("unknown key"));
    }

    #[test]
    fn keywords_are_listed_in_the_expectation() {
        assert_eq!(
            keyword_list::<Option<Mode>>(),
            "\"auto\", \"accept\", \"accepted\" or \"inet\""
        );
        check(
            "[greeting.smtp]\nline_ending = 'cr'\n",
            "g.toml:2:15: invalid value 'cr' for 'line_ending': \
             expected \"lf\", \"crlf\" or \"raw\"; did you mean \"crlf\"?",
        );
    }

    #[test]
    fn syntax_errors_are_one_line_with_the_position() {
        for (text, line) in [
            ("mode = accept\n", 1),
            ("\nmode\n", 2),
            ("a = 1\na = 2\n", 2),
        ] {
            let message = message(text);
            assert!(
                message.starts_with(&format!("g.toml:{line}:")) && !message.contains('\n'),
                "{message}"
            );
        }
    }

    /// The field names that serde's derived code passes to a deserializer.
    fn fields_of<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
        struct Fields<'a>(&'a mut Vec<&'static str>);

        impl<'de> Deserializer<'de> for Fields<'_> {
            type Error = serde::de::value::Error;

            fn deserialize_struct<V: Visitor<'de>>(
                self,
                _name: &'static str,
                fields: &'static [&'static str],
                _visitor: V,
            ) -> Result<V::Value, Self::Error> {
                *self.0 = fields.to_vec();
                Err(serde::de::Error::custom("only the fields are wanted"))
            }

            fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
                Err(serde::de::Error::custom("not a struct"))
            }

            serde::forward_to_deserialize_any! {
                bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option
                unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
            }
        }

        let mut fields = Vec::new();
        assert!(T::deserialize(Fields(&mut fields)).is_err());
        fields
    }

    #[test]
    fn schema_lists_the_fields_that_serde_reads() {
        let keys = |table| {
            let keys = schema::KEYS.iter().filter(|key| key.table == table);
            keys.map(|key| key.name).collect::<Vec<_>>()
        };
        let top = [keys(""), schema::TABLES.to_vec()].concat();
        assert_eq!(fields_of::<Fragment>(), top);
        assert_eq!(fields_of::<LimitsFragment>(), keys("limits"));
        assert_eq!(fields_of::<GreetingFragment>(), keys("greeting.NAME"));
    }
}
