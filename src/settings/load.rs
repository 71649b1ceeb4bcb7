//! Lays the files over each other and checks what comes out. Floor 5.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use log::LevelFilter;

use super::fragment::{self, Found, Fragment};
use super::keys;
use super::source::{self, Choice, Source, socket_unit};
use super::values::{Limits, PeerDetail, Settings, Wording};
use crate::clock;
use crate::error::{Error, Place};
use crate::greeting::{LineEnding, PLACEHOLDERS, Template};
use crate::mode::Mode;

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
    let files: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
    // The defaults are a file without a name, below all others.
    let (path, text) = (PathBuf::new(), keys::defaults());
    let mut merged = fragment::parse(&Rc::new(Source { path, text }), unit)?;
    for source in sources {
        lay(&mut merged, fragment::parse(&Rc::new(source), unit)?)?;
    }
    let others = wording(&merged, "")?;
    let mut named = BTreeMap::new();
    for table in merged.keys() {
        if let Some(name) = table.strip_prefix("greeting.") {
            named.insert(name.to_owned(), wording(&merged, table)?);
        }
    }
    let (top, limits) = (&merged[""], &merged["limits"]);
    let idle_timeout = duration(&limits["idle_timeout"])?;
    let (mode, asked) = (&top["mode"], word(&top["mode"])?);
    let modes = [Mode::Accept, Mode::Accepted, Mode::Inet];
    let level = word(&top["log_level"])?;
    let log_peer = match word(&top["log_peer"])? {
        "full" => PeerDetail::Full,
        "prefix" => PeerDetail::Prefix,
        _ => PeerDetail::None,
    };
    Ok(Settings {
        mode: modes.into_iter().find(|known| known.name() == asked),
        mode_origin: format!("{}:{}", mode.origin(), mode.place().column),
        log_level: level.parse().unwrap_or(LevelFilter::Info),
        log_peer,
        limits: Limits {
            connections: number(&limits["connections"], 1..=1_000_000)?,
            connections_per_source: number(&limits["connections_per_source"], 0..=1_000_000)?,
            write_timeout: duration(&limits["write_timeout"])?,
            linger_timeout: duration(&limits["linger_timeout"])?,
            linger_bytes: number(&limits["linger_bytes"], 0..=1 << 30)?,
            drain_timeout: duration(&limits["drain_timeout"])?,
            idle_timeout: Some(idle_timeout).filter(|time| !time.is_zero()),
        },
        shown: show(&merged, &files),
        files,
        others,
        named,
    })
}

/// What is in force where no file says anything.
///
/// # Panics
/// Never: a test of this file reads every default.
pub fn defaults() -> Settings {
    merge(Vec::new(), "").expect("the defaults of our own")
}

/// Lays one file's keys over those of the files before it. A text in either
/// form takes the place of a text in either form.
fn lay(merged: &mut Fragment, fragment: Fragment) -> Result<(), Error> {
    for (table, keys) in fragment {
        let is_text = |name: &str| name.starts_with("message");
        let given = keys.keys().filter(|name| is_text(name)).count();
        if given == 2 {
            let what = "both 'message' and 'message_file' are set";
            return Err(keys["message_file"].complain(what, "keep one of the two"));
        }
        let below = merged.entry(table).or_default();
        below.retain(|name, _| given == 0 || !is_text(name));
        below.extend(keys);
    }
    Ok(())
}

/// The word of a key that takes only some.
fn word(found: &Found) -> Result<&str, Error> {
    let mut words = found.key.words();
    let word = words.find(|word| *word == found.text());
    word.ok_or_else(|| refuse(found))
}

fn duration(found: &Found) -> Result<Duration, Error> {
    let duration = clock::parse_duration(found.text());
    let fitting = duration.filter(|duration| *duration <= LONGEST);
    fitting.ok_or_else(|| refuse(found))
}

fn number<T: TryFrom<i64>>(found: &Found, range: RangeInclusive<i64>) -> Result<T, Error> {
    let number = found.value.as_integer();
    let fitting = number.filter(|number| range.contains(number));
    let fitting = fitting.and_then(|number| T::try_from(number).ok());
    fitting.ok_or_else(|| refuse(found))
}

/// A value that its key does not take.
fn refuse(found: &Found) -> Error {
    let (name, takes) = (found.key.name, found.key.takes);
    let given = match found.value.as_str() {
        Some(text) => format!("\"{text}\""),
        None => found.value.to_string(),
    };
    let given = given.escape_debug().to_string().replace("\\\"", "\"");
    let nearest = keys::nearest(found.text(), found.key.words());
    let meant = nearest.map_or(String::new(), |word| format!("did you mean \"{word}\"? "));
    let what = format!("{given} is no value for '{name}'");
    found.complain(&what, &format!("{meant}'{name}' takes {takes}"))
}

/// The greeting of a table. What it does not say the top says.
fn wording(merged: &Fragment, table: &str) -> Result<Wording, Error> {
    let (own, top) = (&merged[table], &merged[""]);
    let ending = own.get("line_ending").unwrap_or(&top["line_ending"]);
    let ending = match word(ending)? {
        "crlf" => LineEnding::Crlf,
        "raw" => LineEnding::Raw,
        _ => LineEnding::Lf,
    };
    let mut tables = [own, top].into_iter();
    let found = tables.find_map(|keys| keys.get("message").or(keys.get("message_file")));
    let text = found.map(|found| template(found, ending)).transpose()?;
    Ok(Wording { text, ending })
}

/// The text that stands in the settings, or in the file that they name.
fn template(found: &Found, ending: LineEnding) -> Result<Template, Error> {
    let (text, source) = (found.text(), &found.source);
    if found.key.name == "message" {
        let whole = &found.span;
        return Template::parse(text.as_bytes(), ending).map_err(|fault| {
            let span = match source.text[whole.clone()].find(text) {
                Some(at) => whole.start + at + fault.start..whole.start + at + fault.end,
                // Written with escapes: the whole value is meant.
                None => whole.clone(),
            };
            complain(&source.path, source.text.as_bytes(), &span, fault.name)
        });
    }
    let path = source.path.with_file_name(text);
    let bytes = source::read_bytes(&path)?.ok_or_else(|| {
        let what = format!("no file '{}'", path.display());
        found.complain(&what, "write it, or name another")
    })?;
    Template::parse(&bytes, ending)
        .map_err(|fault| complain(&path, &bytes, &(fault.start..fault.end), fault.name))
}

/// A complaint about a greeting, of which the bytes `span` of `text` are meant:
/// an unknown placeholder, or a brace.
fn complain(file: &Path, text: &[u8], span: &Range<usize>, name: Option<String>) -> Error {
    let place = Some(Place::of(text, span));
    let Some(name) = name else {
        let remedy = "write '{{' or '}}' for a brace, or set line_ending = \"raw\"";
        return Error::settings(file, place, "a brace without its partner", remedy);
    };
    let braces = "braces of your own are '{{' and '}}'";
    let remedy = match keys::nearest(&name, PLACEHOLDERS.iter().copied()) {
        Some(near) => format!("did you mean '{{{near}}}'? ({braces})"),
        None => format!("there are {{{}}}; {braces}", PLACEHOLDERS.join("} {")),
    };
    let what = format!("unknown placeholder '{{{}}}'", name.escape_debug());
    Error::settings(file, place, &what, &remedy)
}

/// The settings as TOML, every key with its value and where it comes from.
fn show(merged: &Fragment, files: &[PathBuf]) -> String {
    let mut out = String::new();
    for file in files {
        out += &format!("# read: {}\n", file.display());
    }
    if files.is_empty() {
        out += "# read: no file, every value is a default\n";
    }
    let is_named = |table: &&str| table.starts_with("greeting.");
    let named = merged.keys().map(String::as_str).filter(is_named);
    for table in ["", "limits"].into_iter().chain(named) {
        if !table.is_empty() {
            out += &format!("\n[{}]\n", fragment::spell_table(table));
        }
        for key in keys::of(table) {
            match merged[table].get(key.name) {
                Some(found) => {
                    out += &format!("{} = {}  # {}\n", key.name, found.value, found.origin());
                }
                None if is_named(&table) => {}
                None => out += &format!("#{} =  # not set\n", key.name),
            }
        }
    }
    out
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
        let own = Template::parse(b"This socket was passed on stdin/stdout", LineEnding::Lf);
        assert_eq!(settings.template(Mode::Inet, "stdin"), own.unwrap());
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
        for (socket, ending) in [("other", LineEnding::Lf), ("x", LineEnding::Crlf)] {
            let expected = Template::parse(b"from a file", ending).unwrap();
            assert_eq!(settings.template(Mode::Accept, socket), expected);
        }
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
