//! Lays the files over each other and makes of them the settings in force. Floor 5.

use std::collections::BTreeMap;

use log::LevelFilter;

use super::fragment::{self, Found, Fragment};
use super::keys;
use super::source::{self, Source};
use super::values::{Limits, PeerDetail, Settings};
use crate::error::Error;
use crate::greeting::{LineEnding, PLACEHOLDERS, Template};
use crate::mode::Mode;

/// Reads, merges and checks the settings of which [`source::places`] tells.
/// [`merge`] explains `handed`.
///
/// # Errors
/// [`Error::Settings`]: the first thing that is wrong, with its place and remedy.
pub fn load(config: &str, above: Option<&str>, handed: Option<Mode>) -> Result<Settings, Error> {
    let sources = source::read(&source::places(config, above))?;
    merge(sources, &source::socket_unit(config), handed)
}

/// Merges and checks the settings of files that were read. `unit` is the socket
/// unit that they go with, for messages. `handed` is how the sockets were handed
/// over, if they were: a mode that the settings name must be that one.
///
/// # Errors
/// As [`load`].
pub fn merge(sources: Vec<Source>, unit: &str, handed: Option<Mode>) -> Result<Settings, Error> {
    let files = sources.iter().map(|source| source.path.clone()).collect();
    let mut given = Fragment::new();
    for source in sources {
        lay(&mut given, fragment::parse(source, unit)?)?;
    }
    let asked = given.get("mode").and_then(|mode| Mode::named(mode.text()));
    let mode = handed.or(asked).unwrap_or(Mode::Accept);
    if let Some(asked) = asked.filter(|asked| *asked != mode) {
        let (setup, asked, mode) = (asked.unit_setup(), asked.name(), mode.name());
        let what = format!("mode = \"{asked}\" does not fit the socket");
        let what = format!("{what}, which was handed over as for \"{mode}\"");
        let remedy = format!("set mode = \"{mode}\", or have {setup}");
        return Err(given["mode"].complain(&what, &remedy));
    }
    let mut merged = fragment::defaults(mode.default_message());
    lay(&mut merged, given)?;
    let mut named = BTreeMap::new();
    for (name, _) in merged.keys().filter_map(|path| fragment::socket(path)) {
        let template = template(&merged, &format!("greeting.{name}."))?;
        named.insert(name.to_owned(), template);
    }
    let level = merged["log_level"].text().parse();
    let idle_timeout = merged["limits.idle_timeout"].duration();
    Ok(Settings {
        mode: asked,
        log_level: level.unwrap_or(LevelFilter::Info),
        log_peer: match merged["log_peer"].text() {
            "full" => PeerDetail::Full,
            "prefix" => PeerDetail::Prefix,
            _ => PeerDetail::None,
        },
        limits: Limits {
            connections: merged["limits.connections"].number(),
            connections_per_source: merged["limits.connections_per_source"].number(),
            write_timeout: merged["limits.write_timeout"].duration(),
            linger_timeout: merged["limits.linger_timeout"].duration(),
            linger_bytes: merged["limits.linger_bytes"].number(),
            drain_timeout: merged["limits.drain_timeout"].duration(),
            idle_timeout: Some(idle_timeout).filter(|time| !time.is_zero()),
        },
        files,
        others: template(&merged, "")?,
        named,
        shown: fragment::show(&merged),
    })
}

/// What is in force where no file says anything.
///
/// # Panics
/// Never: a test of this file reads every default.
pub fn defaults() -> Settings {
    merge(Vec::new(), "", None).expect("the defaults of our own")
}

/// Lays one file's keys over those of the files before it. A text in either
/// form takes the place of a text in either form.
fn lay(merged: &mut Fragment, fragment: Fragment) -> Result<(), Error> {
    for path in fragment.keys() {
        if let Some(both) = fragment.get(&format!("{path}_file")) {
            let what = "both 'message' and 'message_file' are set";
            return Err(both.complain(what, "keep one of the two"));
        }
    }
    for (path, found) in fragment {
        let text = path.trim_end_matches("_file");
        merged.remove(text);
        merged.remove(&format!("{text}_file"));
        merged.insert(path, found);
    }
    Ok(())
}

/// The greeting of a table. What it does not say the top says.
fn template(merged: &Fragment, table: &str) -> Result<Template, Error> {
    let find = |table: &str, name: &str| merged.get(&format!("{table}{name}"));
    let ending = find(table, "line_ending").or(find("", "line_ending"));
    let ending = match ending.map_or("lf", Found::text) {
        "crlf" => LineEnding::Crlf,
        "raw" => LineEnding::Raw,
        _ => LineEnding::Lf,
    };
    for table in [table, ""] {
        if let Some(found) = find(table, "message") {
            return written(found, ending);
        }
        if let Some(found) = find(table, "message_file") {
            return read(found, ending);
        }
    }
    // Never: the mode's own is there at least.
    Ok(Template::default())
}

/// The greeting that stands in the settings.
fn written(found: &Found, ending: LineEnding) -> Result<Template, Error> {
    let (text, Found { source, span, .. }) = (found.text(), found);
    Template::parse(text.as_bytes(), ending).map_err(|fault| {
        let (what, remedy) = explain(fault.name);
        // Where it is written with escapes the whole value is meant.
        match source.text[span.clone()].find(text) {
            Some(at) => {
                let shift = |place| span.start + at + place;
                let meant = shift(fault.span.start)..shift(fault.span.end);
                source.complain(&meant, &what, &remedy)
            }
            None => found.complain(&what, &remedy),
        }
    })
}

/// The greeting that stands in a file of its own, beside the settings if it is
/// not said where.
fn read(found: &Found, ending: LineEnding) -> Result<Template, Error> {
    let path = found.source.path.with_file_name(found.text());
    let bytes = source::read_bytes(&path)?.ok_or_else(|| {
        let what = format!("no file '{}'", path.display());
        found.complain(&what, "write it, or name another")
    })?;
    Template::parse(&bytes, ending).map_err(|fault| {
        let (what, remedy) = explain(fault.name);
        Error::settings(&path, Some((&bytes, &fault.span)), &what, &remedy)
    })
}

/// What is wrong with a greeting that has an unknown placeholder, or a brace
/// without its partner, and what to do.
fn explain(name: Option<String>) -> (String, String) {
    let braces = "braces of your own are '{{' and '}}'";
    let Some(name) = name else {
        let remedy = "write '{{' or '}}' for a brace, or set line_ending = \"raw\"";
        return ("a brace without its partner".to_owned(), remedy.to_owned());
    };
    let remedy = match keys::nearest(&name, PLACEHOLDERS.iter().copied()) {
        Some(near) => format!("did you mean '{{{near}}}'? ({braces})"),
        None => format!("there are {{{}}}; {braces}", PLACEHOLDERS.join("} {")),
    };
    let what = format!("unknown placeholder '{{{}}}'", name.escape_debug());
    (what, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    fn loaded(name: &str, files: &[(&str, &str)]) -> Result<Settings, Error> {
        let folder =
            std::env::temp_dir().join(format!("greeter-merge-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = folder.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let config = folder.join("greeter.toml");
        let settings = load(config.to_str().unwrap(), None, None);
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
        let settings = merge(Vec::new(), "greeter.socket", Some(Mode::Inet)).unwrap();
        assert_eq!(settings.mode, None);
        assert_eq!(settings.limits.connections, 1024);
        assert_eq!(settings.limits.write_timeout, Duration::from_secs(10));
        assert_eq!(settings.limits.linger_timeout, Duration::from_secs(2));
        assert_eq!(settings.limits.linger_bytes, 65536);
        assert_eq!(settings.limits.drain_timeout, Duration::from_secs(5));
        assert_eq!(settings.limits.idle_timeout, None);
        assert_eq!(settings.log_level, LevelFilter::Info);
    }

    #[test]
    fn each_mode_has_a_text_of_its_own() {
        for mode in [Mode::Accept, Mode::Accepted, Mode::Inet] {
            let settings = merge(Vec::new(), "greeter.socket", Some(mode)).unwrap();
            let own = Template::parse(mode.default_message().as_bytes(), LineEnding::Lf);
            assert_eq!(settings.template("any"), &own.unwrap());
        }
        let inet = "This socket was passed on stdin/stdout";
        assert_eq!(Mode::Inet.default_message(), inet);
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
            assert_eq!(settings.template(socket), &expected);
        }
    }

    #[test]
    fn wrong_values_are_named_with_place_and_remedy() {
        check(
            "mode",
            "mode = 'acept'\n",
            "1:8: 'acept' is no value for 'mode'; did you mean \"accept\"? 'mode' takes \"auto\", \"accept\", \"accepted\" or \"inet\"",
        );
        check(
            "zero",
            "[limits]\nconnections = 0\n",
            "2:15: 0 is no value for 'connections'; 'connections' takes a whole number from 1 to 1000000",
        );
        check(
            "duration",
            "[limits]\nidle_timeout = 'soon'\n",
            "2:16: 'soon' is no value for 'idle_timeout'; 'idle_timeout' takes a duration in quotes, such as \"10min\", or \"0s\" for never",
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
