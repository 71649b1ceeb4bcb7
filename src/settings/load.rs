//! From the merged settings files to the settings in force.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::files;
use super::hints;
use super::layers::{Layers, Merged, Message};
use super::table::{Origin, Setting};
use super::{Greetings, Limits, Settings, SocketSettings};
use crate::error::Error;
use crate::greeting::{Greeting, LineEnding, MAX_RENDERED_LENGTH, Placeholder, TemplateError};
use crate::mode::Mode;

/// Converts the merged settings and reads the message files. `socket_mode` is the
/// mode of the passed sockets, if there are any: if the settings name a mode, it
/// must be the same.
///
/// # Errors
/// [`Error::Settings`] for the first invalid value, with its position and a fix.
pub fn settings(layers: &Layers, socket_mode: Option<Mode>) -> Result<Settings, Error> {
    convert(layers, socket_mode, Cache::default())
}

/// Does the same for a query. A credential of the service (systemd.exec(5)) that cannot be
/// read is only a warning, as no other process may read it.
///
/// # Errors
/// As [`settings`].
pub fn settings_for_query(layers: &Layers, socket_mode: Option<Mode>) -> Result<Settings, Error> {
    let cache = Cache {
        may_lack_credentials: true,
        ..Cache::default()
    };
    convert(layers, socket_mode, cache)
}

fn convert(
    layers: &Layers,
    socket_mode: Option<Mode>,
    mut cache: Cache,
) -> Result<Settings, Error> {
    let merged = layers.merge();
    let general = &merged.general;
    let requested = &general.mode;
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
    Ok(Settings {
        mode: requested.value,
        log_level: general.log_level.value,
        log_peer: general.log_peer.value,
        log_exclude: general.log_exclude.value.clone(),
        limits: Rc::new(Limits::from(&merged.limits)),
        greetings: greetings(&merged, mode, &mut cache)?,
    })
}

fn mode_mismatch(requested: Mode, socket: Mode, origin: &Origin<'_>) -> Error {
    let setup = requested.unit_setup();
    let (requested, socket) = (requested.name(), socket.name());
    origin.error(&format!(
        "mode = \"{requested}\" does not match the socket (mode \"{socket}\"); \
         set mode = \"{socket}\", or configure {setup}"
    ))
}

fn greetings(merged: &Merged<'_>, mode: Mode, cache: &mut Cache) -> Result<Greetings, Error> {
    let message = merged.message(mode);
    let line_ending = merged.general.line_ending.value;
    let proxy_protocol = merged.general.proxy_protocol.value;
    let default = SocketSettings {
        greeting: cache.greeting(&message, line_ending)?,
        proxy_protocol,
    };
    let mut by_name = BTreeMap::new();
    for (name, own) in &merged.greetings {
        let own_message = own.message();
        let greeting = if own_message.is_none() && own.line_ending.value.is_none() {
            default.greeting.clone()
        } else {
            let message = own_message.as_ref().unwrap_or(&message);
            cache.greeting(message, own.line_ending.value.unwrap_or(line_ending))?
        };
        let own = SocketSettings {
            greeting,
            proxy_protocol: own.proxy_protocol.value.unwrap_or(proxy_protocol),
        };
        by_name.insert((*name).to_owned(), own);
    }
    Ok(Greetings::new(default, by_name))
}

/// Where systemd shows the credentials of a unit to its processes (systemd.exec(5)).
const CREDENTIALS: &str = "/run/credentials";

/// The greetings that were parsed, so that each distinct text is in memory once, and
/// each message file is read once.
#[derive(Default)]
struct Cache {
    by_path: HashMap<(PathBuf, LineEnding), Greeting>,
    distinct: HashSet<Greeting>,
    /// Whether an unreadable credential is only a warning.
    may_lack_credentials: bool,
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
                let greeting = match read_message_file(&key.0, ending, &message.origin) {
                    Err(_) if self.may_lack_credentials && key.0.starts_with(CREDENTIALS) => {
                        log::warn!(
                            "'{}' was not checked: it is a credential, which only the service can \
                             read",
                            key.0.display()
                        );
                        Greeting::Fixed(Rc::new([]))
                    }
                    result => result?,
                };
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
    Greeting::parse(&bytes, ending).map_err(|error| {
        let span = error.span();
        let location = span.as_ref().map(|span| (bytes.as_slice(), span));
        Error::settings(path, location, &describe(&error))
    })
}

/// An error in the text of `message`.
fn text_error(error: &TemplateError, text: &str, origin: &Origin<'_>) -> Error {
    let description = describe(error);
    if let (Origin::File(file, span), Some(invalid)) = (origin, error.span()) {
        // With escapes in it, the string in the file is not the text: the error is
        // about all of it then.
        if let Some(start) = file.text[span.clone()].find(text) {
            let shift = span.start + start;
            let span = invalid.start + shift..invalid.end + shift;
            return file.error_at(&span, &description);
        }
    }
    origin.error(&description)
}

/// What is wrong with a text that is not a valid template, and the fix.
fn describe(error: &TemplateError) -> String {
    match error {
        TemplateError::Unmatched(_) => "unmatched '{' or '}'; write '{{' or '}}' for a literal \
                                        brace, or set line_ending = \"raw\""
            .to_owned(),
        TemplateError::Unknown(_, name) => describe_unknown(name),
        TemplateError::TooLong(length) => format!(
            "the greeting can be {length} bytes long with its placeholders at their longest, and \
             the limit is {MAX_RENDERED_LENGTH}; shorten it, or remove the placeholders"
        ),
    }
}

fn describe_unknown(name: &str) -> String {
    let literal = "literal braces are written '{{' and '}}'";
    let escaped = name.escape_debug();
    let known = Placeholder::ALL.map(Placeholder::name);
    match hints::nearest(name, known.into_iter()) {
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

    use log::LevelFilter;

    use crate::settings::files::SettingsFile;
    use crate::settings::show::show;
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
        let greeting = Greeting::parse(b"This socket was passed on stdin/stdout", LineEnding::Lf);
        let socket_settings = SocketSettings {
            greeting: greeting.unwrap(),
            proxy_protocol: ProxyProtocol::Off,
        };
        let expected = Settings {
            mode: None,
            log_level: LevelFilter::Info,
            log_peer: PeerDetail::Full,
            log_exclude: Vec::new(),
            limits: Rc::new(Limits {
                connections: 1024,
                connections_per_source: 0,
                header_timeout: Duration::from_secs(3),
                write_timeout: Duration::from_secs(10),
                linger_timeout: Duration::from_secs(2),
                linger_bytes: 65536,
                drain_timeout: Duration::from_secs(5),
                idle_timeout: None,
            }),
            greetings: Greetings::new(socket_settings, BTreeMap::new()),
        };
        assert_eq!(settings, expected);
        assert_eq!(Limits::default(), *expected.limits);
    }

    /// The defaults that `--show-config` prints, and the documents contain, are in force.
    #[test]
    fn shown_defaults_are_those_in_force() {
        let layers = Layers::parse(Vec::new(), "greeter.socket").unwrap();
        let file = SettingsFile::new("defaults.toml", &show(&layers, Mode::Accept));
        let layers = Layers::parse(vec![file], "greeter.socket").unwrap();
        assert_eq!(settings(&layers, None).unwrap(), without_files(None));
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
    fn message_and_message_file_replace_each_other() {
        let settings = load(
            "message",
            &[
                (
                    "greeter.toml",
                    "message_file = 'f'\n[greeting.x]\nmessage = 'x'\n\
                     [greeting.y]\nmessage_file = 'f'\n",
                ),
                (
                    "greeter.toml.d/1.toml",
                    "message = 'a'\n[greeting.x]\nmessage_file = '../f'\n\
                     [greeting.y]\nline_ending = 'lf'\n",
                ),
                ("f", "from a file"),
            ],
        )
        .unwrap();
        for (socket, message) in [("other", "a"), ("x", "from a file"), ("y", "from a file")] {
            let expected = Greeting::parse(message.as_bytes(), LineEnding::Lf).unwrap();
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
            Greeting::Fixed(text) => Rc::as_ptr(text),
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
        let long = format!("message = '{}{{time}}'\n", "x".repeat(16_400));
        check(
            "long",
            &long,
            "1:11: the greeting can be 16421 bytes long with its placeholders at their longest, \
             and the limit is 16384; shorten it, or remove the placeholders",
        );
        check(
            "named",
            "[greeting.smtp]\nmessage = 'a }'\n",
            "2:14: unmatched '{' or '}'; write '{{' or '}}' for a literal brace, or set line_ending = \"raw\"",
        );
    }
}
