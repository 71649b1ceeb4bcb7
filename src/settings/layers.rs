//! The settings files in order of precedence, and the value of each key in the
//! highest file that sets it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::LevelFilter;

use super::files::{self, SettingsFile};
use super::fragment::{
    self, Fragment, IdleTimeout, LimitsFragment, Located, MessagePath, MessageText, Table, Timeout,
    Word,
};
use super::network::Network;
use super::{Limits, PeerDetail, ProxyProtocol, schema};
use crate::error::Error;
use crate::greeting::LineEnding;
use crate::mode::Mode;
use crate::unit::{UNITS, Unit};

/// The settings files, the lowest precedence first.
#[derive(Debug)]
pub struct Layers(Vec<Layer>);

#[derive(Debug)]
struct Layer {
    file: SettingsFile,
    fragment: Fragment,
}

/// Where a value comes from.
#[derive(Debug, Clone)]
pub enum Origin<'a> {
    /// No file sets the key.
    Default,
    /// The bytes of a file.
    File(&'a SettingsFile, Range<usize>),
}

/// The value of a key.
#[derive(Debug, Clone)]
pub struct Setting<'a, T> {
    /// The value.
    pub value: T,
    /// The file that sets it.
    pub origin: Origin<'a>,
}

/// Where the text of a greeting is. Either form replaces either form of a lower file.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// `message`: the text itself.
    Text(&'a str),
    /// `message_file`: the path as written, and the settings file that contains it,
    /// whose directory a relative path starts from.
    File(&'a Path, &'a SettingsFile),
}

/// Every key with its value.
pub struct Merged<'a> {
    /// `mode`; `None` is `auto`.
    pub mode: Setting<'a, Option<Mode>>,
    /// `message` or `message_file`.
    pub message: Setting<'a, Message<'a>>,
    /// `line_ending`.
    pub line_ending: Setting<'a, LineEnding>,
    /// `proxy_protocol`.
    pub proxy_protocol: Setting<'a, ProxyProtocol>,
    /// `log_level`.
    pub log_level: Setting<'a, LevelFilter>,
    /// `log_peer`.
    pub log_peer: Setting<'a, PeerDetail>,
    /// `log_exclude`.
    pub log_exclude: Setting<'a, &'a [Network]>,
    /// `[limits]`.
    pub limits: MergedLimits<'a>,
    /// `[greeting.NAME]`.
    pub greetings: BTreeMap<&'a str, MergedGreeting<'a>>,
}

impl Merged<'_> {
    /// The paths of all message files.
    pub fn message_files(&self) -> BTreeSet<PathBuf> {
        let own = self.greetings.values();
        let messages = own
            .filter_map(|greeting| greeting.message.as_ref())
            .chain([&self.message]);
        messages
            .filter_map(|message| match message.value {
                Message::Text(_) => None,
                Message::File(path, settings_file) => Some(settings_file.path.with_file_name(path)),
            })
            .collect()
    }
}

/// The keys of `[limits]`; see [`Limits`].
#[expect(missing_docs, reason = "the fields are those of Limits")]
pub struct MergedLimits<'a> {
    pub connections: Setting<'a, u32>,
    pub connections_per_source: Setting<'a, u32>,
    pub header_timeout: Setting<'a, Duration>,
    pub write_timeout: Setting<'a, Duration>,
    pub linger_timeout: Setting<'a, Duration>,
    pub linger_bytes: Setting<'a, u32>,
    pub drain_timeout: Setting<'a, Duration>,
    pub idle_timeout: Setting<'a, Option<Duration>>,
}

/// The keys of a table `[greeting.NAME]`. What is `None` is as at the top of the file.
#[derive(Default)]
pub struct MergedGreeting<'a> {
    /// `message` or `message_file`.
    pub message: Option<Setting<'a, Message<'a>>>,
    /// `line_ending`.
    pub line_ending: Option<Setting<'a, LineEnding>>,
    /// `proxy_protocol`.
    pub proxy_protocol: Option<Setting<'a, ProxyProtocol>>,
}

impl Layers {
    /// Reads and parses the files that `--config` names; `above` is
    /// `$CONFIGURATION_DIRECTORY`.
    ///
    /// # Errors
    /// [`Error::Settings`] for the first file that cannot be read or is invalid.
    pub fn read(config: &str, above: Option<&OsStr>) -> Result<Self, Error> {
        let paths = files::search_paths(config, above);
        let files = files::read(&paths)?;
        if files.is_empty() && Unit::of_config(config).is_none() {
            return Err(unknown_config(config, &paths));
        }
        Self::parse(files, &files::socket_unit(config))
    }

    /// Parses files in order of precedence, the lowest first. `unit` is the socket
    /// unit that they belong to, for hints.
    ///
    /// # Errors
    /// [`Error::Settings`] for the first invalid file.
    pub fn parse(files: Vec<SettingsFile>, unit: &str) -> Result<Self, Error> {
        let mut layers = Vec::with_capacity(files.len());
        for file in files {
            let fragment = fragment::parse(&file, unit)?;
            layers.push(Layer { file, fragment });
        }
        Ok(Self(layers))
    }

    /// The paths of the files.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|layer| layer.file.path.as_path())
    }

    /// The value of `mode`; `None` is `auto`.
    pub fn mode(&self) -> Setting<'_, Option<Mode>> {
        self.get(|fragment| fragment.mode.as_ref(), word, None)
    }

    /// The value of every key. `mode` selects the default message.
    pub fn merge(&self, mode: Mode) -> Merged<'_> {
        Merged {
            mode: self.mode(),
            message: self.message(mode),
            line_ending: self.get(
                |fragment| fragment.line_ending.as_ref(),
                word,
                LineEnding::Lf,
            ),
            proxy_protocol: self.get(
                |fragment| fragment.proxy_protocol.as_ref(),
                word,
                ProxyProtocol::Off,
            ),
            log_level: self.get(
                |fragment| fragment.log_level.as_ref(),
                word,
                LevelFilter::Info,
            ),
            log_peer: self.get(
                |fragment| fragment.log_peer.as_ref(),
                word,
                PeerDetail::Full,
            ),
            log_exclude: self.get(
                |fragment| fragment.log_exclude.as_ref(),
                |list| list.0.as_slice(),
                &[],
            ),
            limits: self.merge_limits(),
            greetings: self.merge_greetings(),
        }
    }

    fn merge_limits(&self) -> MergedLimits<'_> {
        let default = Limits::default();
        MergedLimits {
            connections: self.limit(
                |limits| limits.connections.as_ref(),
                |count| count.get(),
                default.connections,
            ),
            connections_per_source: self.limit(
                |limits| limits.connections_per_source.as_ref(),
                |count| count.get(),
                default.connections_per_source,
            ),
            header_timeout: self.limit(
                |limits| limits.header_timeout.as_ref(),
                |Timeout(duration)| *duration,
                default.header_timeout,
            ),
            write_timeout: self.limit(
                |limits| limits.write_timeout.as_ref(),
                |Timeout(duration)| *duration,
                default.write_timeout,
            ),
            linger_timeout: self.limit(
                |limits| limits.linger_timeout.as_ref(),
                |Timeout(duration)| *duration,
                default.linger_timeout,
            ),
            linger_bytes: self.limit(
                |limits| limits.linger_bytes.as_ref(),
                |count| count.get(),
                default.linger_bytes,
            ),
            drain_timeout: self.limit(
                |limits| limits.drain_timeout.as_ref(),
                |Timeout(duration)| *duration,
                default.drain_timeout,
            ),
            idle_timeout: self.limit(
                |limits| limits.idle_timeout.as_ref(),
                |IdleTimeout(duration)| *duration,
                default.idle_timeout,
            ),
        }
    }

    fn merge_greetings(&self) -> BTreeMap<&str, MergedGreeting<'_>> {
        let mut merged: BTreeMap<&str, MergedGreeting<'_>> = BTreeMap::new();
        for Layer { file, fragment } in &self.0 {
            for (name, Table(table)) in &fragment.greeting.0 {
                let greeting = merged.entry(name.get_ref()).or_default();
                let message = message(file, table.message.as_ref(), table.message_file.as_ref());
                let line_ending = table.line_ending.as_ref();
                let proxy_protocol = table.proxy_protocol.as_ref();
                greeting.message = message.or(greeting.message.take());
                greeting.line_ending = line_ending
                    .map(|located| Setting::new(file, located, word))
                    .or(greeting.line_ending.take());
                greeting.proxy_protocol = proxy_protocol
                    .map(|located| Setting::new(file, located, word))
                    .or(greeting.proxy_protocol.take());
            }
        }
        merged
    }

    fn message(&self, mode: Mode) -> Setting<'_, Message<'_>> {
        let highest = self.0.iter().rev().find_map(|Layer { file, fragment }| {
            message(
                file,
                fragment.message.as_ref(),
                fragment.message_file.as_ref(),
            )
        });
        highest.unwrap_or(Setting {
            value: Message::Text(mode.default_message()),
            origin: Origin::Default,
        })
    }

    /// The value of a key of `[limits]`; see [`Layers::get`].
    fn limit<'a, T: 'a, V>(
        &'a self,
        key: impl Fn(&'a LimitsFragment) -> Option<&'a Located<T>>,
        value: impl Fn(&'a T) -> V,
        default: V,
    ) -> Setting<'a, V> {
        self.get(|fragment| key(&fragment.limits.0), value, default)
    }

    /// The value of a key in the highest file that sets it.
    fn get<'a, T: 'a, V>(
        &'a self,
        key: impl Fn(&'a Fragment) -> Option<&'a Located<T>>,
        value: impl Fn(&'a T) -> V,
        default: V,
    ) -> Setting<'a, V> {
        for layer in self.0.iter().rev() {
            if let Some(located) = key(&layer.fragment) {
                return Setting::new(&layer.file, located, value);
            }
        }
        Setting {
            value: default,
            origin: Origin::Default,
        }
    }
}

/// The value of a [`Word`].
fn word<T: Copy>(word: &Word<T>) -> T {
    word.0
}

/// The text of a greeting in one table. At most one of the two keys is set.
fn message<'a>(
    file: &'a SettingsFile,
    text: Option<&'a Located<MessageText>>,
    path: Option<&'a Located<MessagePath>>,
) -> Option<Setting<'a, Message<'a>>> {
    if let Some(text) = text {
        return Some(Setting::new(file, text, |text| Message::Text(&text.0)));
    }
    let path = path?;
    Some(Setting::new(file, path, |path| {
        Message::File(&path.0, file)
    }))
}

impl<'a, V> Setting<'a, V> {
    fn new<T>(
        file: &'a SettingsFile,
        located: &'a Located<T>,
        value: impl FnOnce(&'a T) -> V,
    ) -> Self {
        Self {
            value: value(located.get_ref()),
            origin: Origin::File(file, located.span()),
        }
    }
}

/// The error for a name without a slash that no settings file has. The settings of
/// the package's units need no file.
fn unknown_config(config: &str, paths: &[PathBuf]) -> Error {
    let directories: Vec<_> = paths
        .iter()
        .filter_map(|path| path.parent())
        .map(|directory| directory.display().to_string())
        .collect();
    let stem = config.strip_suffix(".toml").unwrap_or(config);
    let known = UNITS.map(|unit| unit.config.to_owned());
    let known: BTreeSet<String> = known.into_iter().chain(files::names(paths)).collect();
    let remedy = if known.contains(stem) {
        format!("write '{stem}', or './{config}' for a file in this directory")
    } else {
        match schema::nearest(stem, known.iter().map(String::as_str)) {
            Some(near) => format!("did you mean '{near}'?"),
            None => format!("create '{stem}.toml' in the first of them"),
        }
    };
    let message = format!(
        "no settings of this name in {}; {remedy}",
        directories.join(", ")
    );
    Error::settings(Path::new(config), None, &message)
}

impl Origin<'_> {
    /// An error about the value.
    pub fn error(&self, message: &str) -> Error {
        match self {
            Self::Default => Error::settings(Path::new("default"), None, message),
            Self::File(file, span) => file.error_at(span, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_files_are_beside_the_file_that_names_them() {
        let file = |path: &str, text: &str| SettingsFile {
            path: path.into(),
            text: text.to_owned(),
        };
        let files = vec![
            file("/usr/lib/greeter/greeter.toml", "message_file = 'motd'\n"),
            file(
                "/etc/greeter/greeter.toml.d/1.toml",
                "[greeting.smtp]\nmessage_file = '421'\n[greeting.imap]\nmessage = 'BYE'\n",
            ),
        ];
        let layers = Layers::parse(files, "greeter.socket").unwrap();
        let message_files = layers.merge(Mode::Accept).message_files();
        let expected = ["/etc/greeter/greeter.toml.d/421", "/usr/lib/greeter/motd"];
        assert_eq!(message_files, BTreeSet::from(expected.map(PathBuf::from)));
    }
}
