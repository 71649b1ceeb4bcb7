//! The formats of the keys: which values a settings file may contain, and what they mean to
//! the program; wraps serde.
//!
//! A format accepts only valid values, so a file that parses needs no further checks of its
//! values. What a format accepts is worded once, in its `expected`, which serde places
//! behind "expected" in the error.

use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Unexpected, Visitor};

use super::hints;
use super::network::Network;
use crate::time_format;

/// The longest duration: a year. It keeps every sum of an `Instant` and a few
/// durations in range.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How a value is written in a settings file.
pub trait Format {
    /// What the program uses.
    type Value: Clone + Debug;

    /// Reads a value.
    ///
    /// # Errors
    /// The value is invalid. The error says what is expected.
    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error>;

    /// Writes a value as TOML, so that [`Format::read`] reads it back. Returns `None` for
    /// the value of a key that is not set.
    fn write(value: &Self::Value) -> Option<String>;
}

/// A key that may be left out; `None` is the value of a key that is not set.
impl<F: Format> Format for Option<F> {
    type Value = Option<F::Value>;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        F::read(deserializer).map(Some)
    }

    fn write(value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(F::write)
    }
}

/// An integer from `MIN` to `MAX`.
#[derive(Debug)]
pub struct Bounded<const MIN: u32, const MAX: u32>;

impl<const MIN: u32, const MAX: u32> Format for Bounded<MIN, MAX> {
    type Value = u32;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let expected = format!("an integer from {MIN} to {MAX}");
        read_integer(deserializer, &expected, MIN..=MAX)
    }

    fn write(value: &u32) -> Option<String> {
        Some(value.to_string())
    }
}

/// An integer from 1 to `MAX`, or 0, which turns the key off.
#[derive(Debug)]
pub struct BoundedOrOff<const MAX: u32>;

impl<const MAX: u32> Format for BoundedOrOff<MAX> {
    type Value = u32;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let expected = format!("an integer from 0 (off) to {MAX}");
        read_integer(deserializer, &expected, 0..=MAX)
    }

    fn write(value: &u32) -> Option<String> {
        Some(value.to_string())
    }
}

/// A number of bytes, at most `MAX`.
#[derive(Debug)]
pub struct Bytes<const MAX: u32>;

impl<const MAX: u32> Format for Bytes<MAX> {
    type Value = u32;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
        let expected = format!("a number of bytes from 0 to {MAX}");
        read_integer(deserializer, &expected, 0..=MAX)
    }

    fn write(value: &u32) -> Option<String> {
        Some(value.to_string())
    }
}

/// A type whose values are written as one of a few words.
pub trait Keyword: Copy + PartialEq + Debug + 'static {
    /// Every word with its value, in the order of greeter.toml(5). It is the list
    /// for parsing, for messages and for printing.
    const WORDS: &'static [(&'static str, Self)];
}

/// One of the words of `T`.
#[derive(Debug)]
pub struct Word<T>(PhantomData<T>);

impl<T: Keyword> Format for Word<T> {
    type Value = T;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let expected = keyword_list::<T>();
        read_string(deserializer, &expected, |text| {
            if let Some((_, value)) = T::WORDS.iter().find(|(word, _)| *word == text) {
                return Ok(*value);
            }
            let words = T::WORDS.iter().map(|(word, _)| *word);
            Err(match hints::nearest(text, words) {
                Some(word) => format!("{expected}; did you mean \"{word}\"?"),
                None => expected.clone(),
            })
        })
    }

    fn write(value: &T) -> Option<String> {
        let (word, _) = T::WORDS.iter().find(|(_, known)| known == value)?;
        Some(quoted(word))
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
#[derive(Debug)]
pub struct Timeout;

impl Format for Timeout {
    type Value = Duration;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let expected = "a duration in quotes, such as \"500ms\", \"10s\" or \"2min\"";
        read_duration(deserializer, expected)
    }

    fn write(value: &Duration) -> Option<String> {
        Some(quoted(&time_format::format_duration(*value)))
    }
}

/// A duration of at most a year; `None` is "never", which is written as zero.
#[derive(Debug)]
pub struct TimeoutOrNever;

impl Format for TimeoutOrNever {
    type Value = Option<Duration>;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        let expected = "a duration in quotes, such as \"10min\", or \"0s\" for never";
        let duration = read_duration(deserializer, expected)?;
        Ok((!duration.is_zero()).then_some(duration))
    }

    fn write(value: &Self::Value) -> Option<String> {
        Timeout::write(&value.unwrap_or(Duration::ZERO))
    }
}

/// The text of a greeting.
#[derive(Debug)]
pub struct Text;

impl Format for Text {
    type Value = String;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        read_string(deserializer, "a string: the greeting", |text| {
            Ok(text.to_owned())
        })
    }

    fn write(value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// The path of a file that contains a greeting, as written.
#[derive(Debug)]
pub struct TextFile;

impl Format for TextFile {
    type Value = PathBuf;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let expected = "a string: the path of a file that contains the greeting";
        read_string(deserializer, expected, |text| {
            if is_path(text) {
                Ok(text.into())
            } else {
                Err(format!(
                    "{expected}, without NUL characters and with at most {NAME_MAX} bytes per name"
                ))
            }
        })
    }

    fn write(value: &PathBuf) -> Option<String> {
        Some(quoted(&value.to_string_lossy()))
    }
}

/// The longest name in a directory, and the longest path with its NUL, in bytes
/// (pathname(7)).
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4096;

/// Whether a file can have this path.
fn is_path(text: &str) -> bool {
    !text.is_empty()
        && !text.contains('\0')
        && text.len() < PATH_MAX
        && text.split('/').all(|name| name.len() <= NAME_MAX)
}

/// An array of addresses and networks.
#[derive(Debug)]
pub struct Networks;

impl Format for Networks {
    type Value = Vec<Network>;

    fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Self::Value, D::Error> {
        struct NetworksVisitor;

        impl<'de> Visitor<'de> for NetworksVisitor {
            type Value = Vec<Network>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of addresses and networks, such as [\"192.0.2.10\"]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut networks = Vec::new();
                while let Some(Listed(network)) = list.next_element()? {
                    networks.push(network);
                }
                Ok(networks)
            }
        }

        deserializer.deserialize_seq(NetworksVisitor)
    }

    fn write(value: &Self::Value) -> Option<String> {
        let networks = value.iter().map(|network| quoted(&network.to_string()));
        Some(format!("[{}]", networks.collect::<Vec<_>>().join(", ")))
    }
}

/// One entry of [`Networks`].
struct Listed(Network);

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an address or a network, such as \"192.0.2.10\" or \"2001:db8::/64\"";
        read_string(deserializer, expected, |text| {
            text.parse().map(Self).map_err(|()| expected.to_owned())
        })
    }
}

/// Reads an integer in a range. `expected` describes the valid values.
fn read_integer<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
    range: RangeInclusive<u32>,
) -> Result<u32, D::Error> {
    struct IntegerVisitor<'a> {
        expected: &'a str,
        range: RangeInclusive<u32>,
    }

    impl Visitor<'_> for IntegerVisitor<'_> {
        type Value = u32;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.expected)
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<u32, E> {
            match u32::try_from(number) {
                Ok(value) if self.range.contains(&value) => Ok(value),
                _ => Err(E::invalid_value(Unexpected::Signed(number), &self)),
            }
        }
    }

    deserializer.deserialize_i64(IntegerVisitor { expected, range })
}

/// Reads a duration. `expected` describes the valid values.
fn read_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
    expected: &str,
) -> Result<Duration, D::Error> {
    read_string(
        deserializer,
        expected,
        |text| match time_format::parse_duration(text) {
            Some(duration) if duration <= MAX_DURATION => Ok(duration),
            Some(_) => Err("a duration of at most \"365d\"".to_owned()),
            None => Err(expected.to_owned()),
        },
    )
}

/// Reads a string and converts it. `expected` describes the valid values, and so
/// does the error of `convert`.
fn read_string<'de, D, T, F>(deserializer: D, expected: &str, convert: F) -> Result<T, D::Error>
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

/// A TOML basic string, on one line (TOML 1.0, String).
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            '\t' => quoted += "\\t",
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::mode::Mode;

    #[test]
    fn keywords_are_listed_with_commas_and_or() {
        assert_eq!(
            keyword_list::<Option<Mode>>(),
            "\"auto\", \"accept\", \"accepted\" or \"inet\""
        );
    }

    #[test]
    fn strings_are_escaped_on_one_line() {
        for (text, expected) in [
            ("plain", "\"plain\""),
            ("a \"b\" \\", "\"a \\\"b\\\" \\\\\""),
            ("a\r\n\tb", "\"a\\r\\n\\tb\""),
            ("\u{1b}\u{7f}\u{9b}", "\"\\u001B\\u007F\\u009B\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
