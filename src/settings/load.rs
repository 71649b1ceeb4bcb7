//! From the merged settings files to the settings in force.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use log::LevelFilter;

use super::files;
use super::layers::{Layers, Merged, MergedLimits, Message, Origin, Setting};
use super::schema;
use super::{Greetings, Limits, Settings, SocketSettings};
use crate::error::Error;
use crate::greeting::{Greeting, LineEnding, Placeholder, TemplateError};
use crate::mode::Mode;

/// Converts the merged settings and reads the message files. `socket_mode` is the
/// mode of the passed sockets, if there are any: if the settings name a mode, it
/// must be the same.
///
/// # Errors
/// [`Error::Settings`] for the first invalid value, with its position and a fix.
pub fn settings(layers: &Layers, socket_mode: Option<Mode>) -> Result<Settings, Error> {
    let requested = layers.mode();
    let mode = match (requested.value, socket_mode) {
        (Some(requested_mode), Some(socket_mode)) if requested_mode != socket_mode => {
            return Err(mode_mismatch(
                requested_mode,
                socket_mode,
                &requested.origin,
            ));
        }
        (requested, socket_mode) => socket_mode.or(requested).unwrap_or(Mode::Accept),
    };
    let merged = layers.merge(mode);
    Ok(Settings {
        mode: requested.value,
        log_level: log_level(&merged.log_level),
        log_peer: merged.log_peer.value,
        log_exclude: merged.log_exclude.value.to_vec(),
        limits: Rc::new(limits(&merged.limits)),
        greetings: greetings(&merged)?,
    })
}

fn log_level(setting: &Setting<'_, LevelFilter>) -> LevelFilter {
    match setting.value {
        LevelFilter::Trace => {
            let note = "log_level = \"trace\" is taken as \"debug\"; write \"debug\"";
            log::warn!("{}", setting.origin.error(note));
            LevelFilter::Debug
        }
        level => level,
    }
}

fn mode_mismatch(requested: Mode, socket: Mode, origin: &Origin<'_>) -> Error {
    let setup = requested.unit_setup();
    let (requested, socket) = (requested.name(), socket.name());
    origin.error(&format!(
        "mode = \"{requested}\" does not match the socket (mode \"{socket}\"); \
         set mode = \"{socket}\", or configure {setup}"
    ))
}

fn limits(merged: &MergedLimits<'_>) -> Limits {
    Limits {
        connections: merged.connections.value,
        connections_per_source: merged.connections_per_source.value,
        header_timeout: merged.header_timeout.value,
        write_timeout: merged.write_timeout.value,
        linger_timeout: merged.linger_timeout.value,
        linger_bytes: merged.linger_bytes.value,
        drain_timeout: merged.drain_timeout.value,
        idle_timeout: merged.idle_timeout.value,
    }
}

fn greetings(merged: &Merged<'_>) -> Result<Greetings, Error> {
    let mut cache = Cache::default();
    let default = SocketSettings {
        greeting: cache.greeting(&merged.message, merged.line_ending.value)?,
        proxy_protocol: merged.proxy_protocol.value,
    };
    let mut by_name = BTreeMap::new();
    for (name, own) in &merged.greetings {
        let greeting = if own.message.is_none() && own.line_ending.is_none() {
            default.greeting.clone()
        } else {
            let message = own.message.as_ref().unwrap_or(&merged.message);
            let line_ending = own.line_ending.as_ref().unwrap_or(&merged.line_ending);
            cache.greeting(message, line_ending.value)?
        };
        let proxy_protocol = own
            .proxy_protocol
            .as_ref()
            .unwrap_or(&merged.proxy_protocol);
        let own = SocketSettings {
            greeting,
            proxy_protocol: proxy_protocol.value,
        };
        by_name.insert((*name).to_owned(), own);
    }
    Ok(Greetings::new(default, by_name))
}

/// The greetings that were parsed, so that each distinct text is in memory once, and
/// each message file is read once.
#[derive(Default)]
struct Cache {
    by_path: HashMap<(PathBuf, LineEnding), Greeting>,
    distinct: HashSet<Greeting>,
}

impl Cache {
    fn greeting(
        &mut self,
        message: &Setting<'_, Message<'_>>,
        ending: LineEnding,
    ) -> Result<Greeting, Error> {
        match message.value {
            Message::Text("") if ending != LineEnding::Raw => Err(message.origin.error(
                "'message' is empty, and clients would get an empty line; write a text, or set \
                 line_ending = \"raw\" to send nothing",
            )),
            Message::Text(text) => {
                let greeting = Greeting::parse(text.as_bytes(), ending)
                    .map_err(|error| text_error(&error, text, &message.origin))?;
                Ok(self.share(greeting))
            }
            Message::File(path, settings_file) => {
                let key = (settings_file.path.with_file_name(path), ending);
                if let Some(greeting) = self.by_path.get(&key) {
                    return Ok(greeting.clone());
                }
                let greeting = read_message_file(&key.0, ending, &message.origin)?;
                let greeting = self.share(greeting);
                self.by_path.insert(key, greeting.clone());
                Ok(greeting)
            }
        }
    }

    /// The greeting of the same text that was parsed before, if there is one.
    fn share(&mut self, greeting: Greeting) -> Greeting {
        if let Some(known) = self.distinct.get(&greeting) {
            return known.clone();
        }
        self.distinct.insert(greeting.clone());
        greeting
    }
}

fn read_message_file(
    path: &Path,
    ending: LineEnding,
    origin: &Origin<'_>,
) -> Result<Greeting, Error> {
    let bytes = files::read_bytes(path)?.ok_or_else(|| {
        origin.error(&format!(
            "file '{}' not found; create it, or change 'message_file' \
             (the service sees only /usr, /etc/greeter and /run/greeter)",
            path.display()
        ))
    })?;
    let bytes = match ending {
        LineEnding::Raw => bytes,
        LineEnding::Lf | LineEnding::Crlf => files::text_of(path, bytes)?,
    };
    Greeting::parse(&bytes, ending)
        .map_err(|error| Error::settings(path, Some((&bytes, &error.span)), &describe(&error)))
}

/// An error in the text of `message`.
fn text_error(error: &TemplateError, text: &str, origin: &Origin<'_>) -> Error {
    let description = describe(error);
    if let Origin::File(file, span) = origin {
        // With escapes in it, the string in the file is not the text: the error is
        // about all of it then.
        if let Some(start) = file.text[span.clone()].find(text) {
            let shift = span.start + start;
            let span = error.span.start + shift..error.span.end + shift;
            return file.error_at(&span, &description);
        }
    }
    origin.error(&description)
}

/// What is wrong with a text that is not a valid template, and the fix.
fn describe(error: &TemplateError) -> String {
    let literal = "literal braces are written '{{' and '}}'";
    let Some(name) = &error.name else {
        return "unmatched '{' or '}'; write '{{' or '}}' for a literal brace, \
                or set line_ending = \"raw\""
            .to_owned();
    };
    let escaped = name.escape_debug();
    let known = Placeholder::ALL.map(Placeholder::name);
    match schema::nearest(name, known.into_iter()) {
        Some(near) => {
            format!("unknown placeholder '{{{escaped}}}'; did you mean '{{{near}}}'? ({literal})")
        }
        None => format!(
            "unknown placeholder '{{{escaped}}}'; valid placeholders are {{{}}}; {literal}",
            known.join("} {")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::time::Duration;

    use crate::greeting::Payload;
    use crate::settings::files::SettingsFile;
    use crate::settings::{PeerDetail, ProxyProtocol};

    /// The settings of files in a directory of their own; the first is the main file.
    fn load(test: &str, files: &[(&str, &str)]) -> Result<Settings, Error> {
        let directory =
            std::env::temp_dir().join(format!("greeter-load-{}-{test}", std::process::id()));
        for (path, text) in files {
            let path = directory.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let config = directory.join("greeter.toml");
        let layers = Layers::read(config.to_str().unwrap(), None);
        let settings = layers.and_then(|layers| settings(&layers, None));
        let _ = fs::remove_dir_all(directory);
        settings
    }

    fn check(test: &str, text: &str, expected: &str) {
        let error = load(test, &[("greeter.toml", text)]).unwrap_err();
        assert_eq!(error.status(), 78);
        let message = error.to_string();
        let (_, message) = message.split_once("greeter.toml:").unwrap();
        assert_eq!(message, expected, "{text}");
    }

    fn without_files(mode: Option<Mode>) -> Settings {
        let layers = Layers::parse(Vec::new(), "greeter.socket").unwrap();
        settings(&layers, mode).unwrap()
    }

    #[test]
    fn no_settings_file_gives_every_default() {
        let settings = without_files(Some(Mode::Inet));
        assert_eq!(settings.mode, None);
        assert_eq!(settings.limits.connections, 1024);
        assert_eq!(settings.limits.write_timeout, Duration::from_secs(10));
        assert_eq!(settings.limits.linger_timeout, Duration::from_secs(2));
        assert_eq!(settings.limits.linger_bytes, 65536);
        assert_eq!(settings.limits.drain_timeout, Duration::from_secs(5));
        assert_eq!(settings.limits.idle_timeout, None);
        assert_eq!(settings.log_level, LevelFilter::Info);
    }

    /// The schema's defaults, which the documents show, are those of the code.
    #[test]
    fn defaults_are_those_of_the_schema() {
        let lines = schema::KEYS.iter().filter(|key| !key.default.is_empty());
        let text = lines
            .map(|key| match key.table {
                "" => format!("{} = {}\n", key.name, key.default),
                table => format!("{table}.{} = {}\n", key.name, key.default),
            })
            .collect();
        let file = SettingsFile {
            path: "defaults.toml".into(),
            text,
        };
        let layers = Layers::parse(vec![file], "greeter.socket").unwrap();
        let settings = settings(&layers, None).unwrap();
        assert_eq!(*settings.limits, Limits::default());
        let code = without_files(None);
        assert_eq!(settings.mode, code.mode);
        assert_eq!(settings.log_level, code.log_level);
        assert_eq!(settings.log_peer, code.log_peer);
        assert_eq!(code.log_peer, PeerDetail::Full);
        assert_eq!(
            settings.greetings.for_socket("any"),
            code.greetings.for_socket("any")
        );
    }

    #[test]
    fn each_mode_has_its_default_message() {
        for mode in [Mode::Accept, Mode::Accepted, Mode::Inet] {
            let settings = without_files(Some(mode));
            let expected = Greeting::parse(mode.default_message().as_bytes(), LineEnding::Lf);
            let own = settings.greetings.for_socket("any");
            assert_eq!(own.greeting, expected.unwrap());
        }
        let inet = "This socket was passed on stdin/stdout";
        assert_eq!(Mode::Inet.default_message(), inet);
    }

    #[test]
    fn later_files_override_key_by_key() {
        let settings = load(
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
        assert_eq!(settings.limits.connections, 5);
        assert_eq!(settings.limits.linger_bytes, 7);
        for (socket, ending) in [("other", LineEnding::Lf), ("x", LineEnding::Crlf)] {
            let expected = Greeting::parse(b"from a file", ending).unwrap();
            assert_eq!(settings.greetings.for_socket(socket).greeting, expected);
        }
    }

    #[test]
    fn proxy_protocol_of_a_greeting_overrides_the_general_one() {
        let settings = load(
            "proxy-protocol",
            &[(
                "greeter.toml",
                "proxy_protocol = 'required'\nmessage = 'a'\n[greeting.x]\n\
                 proxy_protocol = 'off'\n[greeting.y]\nmessage = 'b'\n",
            )],
        )
        .unwrap();
        for (socket, proxy_protocol, message) in [
            ("other", ProxyProtocol::Required, "a"),
            ("x", ProxyProtocol::Off, "a"),
            ("y", ProxyProtocol::Required, "b"),
        ] {
            let own = settings.greetings.for_socket(socket);
            assert_eq!(own.proxy_protocol, proxy_protocol, "{socket}");
            let greeting = Greeting::parse(message.as_bytes(), LineEnding::Lf);
            assert_eq!(own.greeting, greeting.unwrap(), "{socket}");
        }
    }

    #[test]
    fn greetings_with_the_same_text_share_it() {
        let settings = load(
            "shared",
            &[
                (
                    "greeter.toml",
                    "message = 'a'\n[greeting.x]\n[greeting.y]\nmessage = 'a'\n\
                     [greeting.f]\nmessage_file = 'f'\n[greeting.g]\nmessage_file = 'g'\n",
                ),
                ("f", "a\n"),
                ("g", "a"),
            ],
        )
        .unwrap();
        let text = |name| match &settings.greetings.for_socket(name).greeting {
            Greeting::Fixed(Payload::Text(text)) => Rc::as_ptr(text),
            other => panic!("{other:?}"),
        };
        for name in ["x", "y", "f", "g"] {
            assert!(std::ptr::eq(text(name), text("other")), "{name}");
        }
    }

    #[test]
    fn invalid_values_have_position_and_hint() {
        check(
            "mode",
            "mode = 'acept'\n",
            "1:8: invalid value 'acept' for 'mode': expected \"auto\", \"accept\", \"accepted\" or \"inet\"; did you mean \"accept\"?",
        );
        check(
            "zero",
            "[limits]\nconnections = 0\n",
            "2:15: invalid value 0 for 'connections': expected an integer from 1 to 1000000",
        );
        check(
            "duration",
            "[limits]\nidle_timeout = 'soon'\n",
            "2:16: invalid value 'soon' for 'idle_timeout': expected a duration in quotes, such as \"10min\", or \"0s\" for never",
        );
        check(
            "both",
            "message_file = 'x'\nmessage = 'y'\n",
            "1:16: both 'message' and 'message_file' are set; remove one of the two",
        );
        check(
            "placeholder",
            "message = \"hi {peer_adr}\"\n",
            "1:15: unknown placeholder '{peer_adr}'; did you mean '{peer_addr}'? (literal braces are written '{{' and '}}')",
        );
        check(
            "brace",
            "message = '''\na {\n'''\n",
            "2:3: unmatched '{' or '}'; write '{{' or '}}' for a literal brace, or set line_ending = \"raw\"",
        );
        check(
            "named",
            "[greeting.smtp]\nmessage = 'a }'\n",
            "2:14: unmatched '{' or '}'; write '{{' or '}}' for a literal brace, or set line_ending = \"raw\"",
        );
    }
}
