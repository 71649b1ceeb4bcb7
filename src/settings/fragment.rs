//! Parses one settings file, and words the errors of toml and serde in the terms of the
//! settings; wraps toml.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

use super::files::SettingsFile;
use super::formats::{Text, TextFile};
use super::hints;
use super::table::{Located, Table, TableName};
use super::{Fragment, GreetingFragment, LimitsFragment, MergedGreeting, TABLES};
use crate::error::Error;

impl TableName for LimitsFragment {
    const NAME: &'static str = "the table [limits]";
}

impl TableName for GreetingFragment {
    const NAME: &'static str = "a table [greeting.NAME]";
}

impl TableName for BTreeMap<String, Table<GreetingFragment>> {
    const NAME: &'static str = "tables [greeting.NAME]";
}

/// Parses a file. `unit` is the socket unit that the settings belong to, for hints.
///
/// # Errors
/// [`Error::Settings`] for the first invalid part, with its position.
pub(super) fn parse(file: &SettingsFile, unit: &str) -> Result<Fragment, Error> {
    // Line ends were normalized, so what is left of CR CR LF must not be taken for one.
    if let Some(at) = file.text.find('\r') {
        return Err(file.error_at(&(at..at), &invisible_character('\r')));
    }
    let mut fragment = deserialize(&file.text).map_err(|error| explain(file, &error, unit))?;
    for Table(greeting) in fragment.greeting.0.values_mut() {
        replace_other(file, &mut greeting.message, &mut greeting.message_file)?;
    }
    replace_other(file, &mut fragment.message, &mut fragment.message_file)?;
    Ok(fragment)
}

/// The most integers that are replaced in a file. A file needs fewer, and each takes a parse.
const MAX_REPLACED: usize = 8;

/// Deserializes a file. An integer that does not fit 64 bits is an error of toml, without
/// its key and range. It is replaced by one that fits, has the same length, and is larger
/// than every key allows, so that the error is that of the key.
fn deserialize(text: &str) -> Result<Fragment, toml::de::Error> {
    let mut text = Cow::from(text);
    for _ in 0..MAX_REPLACED {
        let error = match toml::from_str(&text) {
            Ok(fragment) => return Ok(fragment),
            Err(error) => error,
        };
        let Some(span) = integer_too_large(&text, &error) else {
            return Err(error);
        };
        let digits = span.len() - "0x".len();
        let largest = format!("0x{:0digits$x}", i64::MAX);
        text.to_mut().replace_range(span, &largest);
    }
    toml::from_str(&text)
}

/// The integer that this error is about, if it is one that does not fit 64 bits.
fn integer_too_large(text: &str, error: &toml::de::Error) -> Option<Range<usize>> {
    if !error.message().contains("to fit in target type") {
        return None;
    }
    let start = error.span()?.start;
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-_".contains(byte);
    let length = text
        .as_bytes()
        .get(start..)?
        .iter()
        .take_while(|byte| is_digit(byte))
        .count();
    (length >= "0x7fffffffffffffff".len()).then_some(start..start + length)
}

/// If one of `message` and `message_file` is set, sets the other one to no value, which
/// replaces its value in a lower file.
///
/// # Errors
/// Both are set.
fn replace_other(
    file: &SettingsFile,
    message: &mut Option<Located<Option<Text>>>,
    message_file: &mut Option<Located<Option<TextFile>>>,
) -> Result<(), Error> {
    match (&message, &message_file) {
        (Some(_), Some(message_file)) => {
            return Err(file.error_at(
                &message_file.span,
                "both 'message' and 'message_file' are set; remove one of the two",
            ));
        }
        (Some(message), None) => *message_file = Some(Located::none(&message.span)),
        (None, Some(message_file)) => *message = Some(Located::none(&message_file.span)),
        (None, None) => {}
    }
    Ok(())
}

/// Words an error of toml and serde in the terms of the settings.
fn explain(file: &SettingsFile, error: &toml::de::Error, unit: &str) -> Error {
    let message = error.message();
    let mut span = error.span().unwrap_or(0..0);
    if message.is_empty() {
        // In the comments of an array, the error is behind the character that is not allowed.
        let before = file.text.get(..span.start).unwrap_or_default();
        span.start = before.trim_end_matches(is_invalid_control).len();
    }
    let written = file.text.get(span.clone()).unwrap_or_default();
    let expected = message.rsplit_once(", expected ");
    let is_value_error =
        message.starts_with("invalid type: ") || message.starts_with("invalid value: ");
    let text = match expected {
        // What toml reports if a value is a table made by dotted keys.
        Some((_, "a borrowed string")) => {
            format!("invalid key '{written}': the key before it is not a table")
        }
        Some((found, expected)) if is_value_error => {
            let value = shown_value(written, found);
            match key_before(&file.text, &span) {
                Some(key)
                    if expected == GreetingFragment::NAME
                        && MergedGreeting::NAMES.contains(&key) =>
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
                    hints::unknown_key_hint(key, &TABLES, unit)
                };
                format!("unknown key '{key}'; {hint}")
            }
        },
        _ if message.contains("duplicate key") => "duplicate key; remove one of the two".to_owned(),
        _ => match invisible_at(&file.text, span.start) {
            Some(c) => invisible_character(c),
            None => {
                let problem = match message.trim_end_matches('.').replace('\n', ", ") {
                    // toml has no words for a value that is missing at the end of the file.
                    empty if empty.is_empty() && span.start >= file.text.len() => {
                        "unexpected end of the file".to_owned()
                    }
                    empty if empty.is_empty() => "unexpected character".to_owned(),
                    problem => problem,
                };
                let hint = if problem.starts_with("invalid escape sequence") {
                    "a backslash is written '\\\\'"
                } else {
                    "check the syntax (strings need quotes)"
                };
                format!("invalid TOML: {problem}; {hint}")
            }
        },
    };
    file.error_at(&span, &text)
}

/// The message about a character that an editor may not show.
fn invisible_character(c: char) -> String {
    format!(
        "invalid TOML: the character U+{:04X}, which may be invisible, is not allowed here; \
         remove it",
        u32::from(c)
    )
}

/// The character at this place, if an editor may show nothing or a space for it: a control
/// character, a space other than that of ASCII, or a format character (Unicode, Cf).
fn invisible_at(text: &str, place: usize) -> Option<char> {
    let c = text.get(place..)?.chars().next()?;
    let is_format = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let is_beyond_ascii = !c.is_ascii() && (c.is_whitespace() || c.is_control());
    (is_format || is_beyond_ascii || is_invalid_control(c)).then_some(c)
}

/// Whether TOML allows this control character nowhere, once line ends are LF.
fn is_invalid_control(c: char) -> bool {
    c.is_ascii_control() && !matches!(c, '\t' | '\n')
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Fragment, Error> {
        let file = SettingsFile::new("g.toml", text);
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

    /// toml has no message of some errors.
    #[test]
    fn errors_always_have_a_reason() {
        use serde::de::Error as _;
        let file = SettingsFile::new("g.toml", "mode\n");
        let explained = explain(&file, &toml::de::Error::custom(""), "greeter.socket");
        assert_eq!(
            explained.to_string(),
            "g.toml:1:1: invalid TOML: unexpected character; check the syntax (strings need quotes)"
        );
    }

    #[test]
    fn integers_that_do_not_fit_are_errors_of_their_key() {
        let large = "9".repeat(20);
        check(
            &format!("limits.linger_bytes = -{large}\n"),
            &format!(
                "g.toml:1:23: invalid value -{large} for 'linger_bytes': \
                 expected a number of bytes from 0 to 1073741824"
            ),
        );
        // The first of several is reported, and too many of them, too.
        check(
            &format!("zzz = [{large}, {large}]\nlog_exclude = {large}\n"),
            "g.toml:1:1: unknown key 'zzz'; remove it, or see greeter.toml(5) for the valid keys",
        );
        let message = message(&format!("zzz = [{}]\n", format!("{large}, ").repeat(9)));
        assert!(message.contains("number too large"), "{message}");
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
        check(
            "[greeting.smtp]\nline_ending = 'cr'\n",
            "g.toml:2:15: invalid value 'cr' for 'line_ending': \
             expected \"lf\", \"crlf\" or \"raw\"; did you mean \"crlf\"?",
        );
    }

    #[test]
    fn invisible_characters_are_named() {
        for (text, place, name) in [
            ("mode =\u{a0}'auto'\n", "1:7", "00A0"),
            ("log_level = 'info'\n\u{feff}mode = 'auto'\n", "2:1", "FEFF"),
            ("message = \"a\0b\"\n", "1:13", "0000"),
            ("mode\u{200b} = 'auto'\n", "1:5", "200B"),
            ("# a\u{7}\n", "1:4", "0007"),
        ] {
            let expected = format!(
                "g.toml:{place}: invalid TOML: the character U+{name}, which may be invisible, is \
                 not allowed here; remove it"
            );
            check(text, &expected);
        }
        // In a string, it is text.
        check("message = 'a\u{a0}b'\n", "");
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
}
