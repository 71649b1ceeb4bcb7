//! The settings files in order of precedence, and the value of each key in the
//! highest file that sets it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::files::{self, SettingsFile};
use super::table::{Origin, Setting, Table};
use super::{Fragment, General, MergedGreeting, MergedLimits, fragment, hints};
use crate::error::Error;
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

/// Where the text of a greeting is. Either form replaces either form of a lower file.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// `message`: the text itself.
    Text(&'a str),
    /// `message_file`: the path as written, and the settings file that contains it,
    /// whose directory a relative path starts from.
    File(&'a Path, &'a SettingsFile),
}

/// The files merged: every key has the value in the highest file that sets it.
#[derive(Default)]
pub struct Merged<'a> {
    /// The keys at the top of the files.
    pub general: General<'a>,
    /// `[limits]`.
    pub limits: MergedLimits<'a>,
    /// `[greeting.NAME]`.
    pub greetings: BTreeMap<&'a str, MergedGreeting<'a>>,
}

impl Merged<'_> {
    /// The message of the sockets without their own. `mode` selects the default.
    pub fn message(&self, mode: Mode) -> Setting<'_, Message<'_>> {
        let General {
            message,
            message_file,
            ..
        } = &self.general;
        select(message, message_file)
            .unwrap_or(Setting::with_default(Message::Text(mode.default_message())))
    }

    /// The paths of all message files.
    pub fn message_files(&self) -> BTreeSet<PathBuf> {
        let own = self.greetings.values();
        own.map(|greeting| &greeting.message_file)
            .chain([&self.general.message_file])
            .filter_map(|setting| match (&setting.value, &setting.origin) {
                (Some(path), Origin::File(file, _)) => Some(file.path.with_file_name(path)),
                _ => None,
            })
            .collect()
    }
}

impl MergedGreeting<'_> {
    /// The message of the table, if it sets one.
    pub fn message(&self) -> Option<Setting<'_, Message<'_>>> {
        select(&self.message, &self.message_file)
    }
}

/// The one of two keys that is set: [`fragment::parse`] lets each replace the other.
fn select<'a>(
    message: &'a Setting<'_, Option<String>>,
    message_file: &'a Setting<'_, Option<PathBuf>>,
) -> Option<Setting<'a, Message<'a>>> {
    if let (Some(path), Origin::File(file, _)) = (&message_file.value, &message_file.origin) {
        return Some(Setting {
            value: Message::File(path, file),
            origin: message_file.origin.clone(),
        });
    }
    let text = message.value.as_deref()?;
    Some(Setting {
        value: Message::Text(text),
        origin: message.origin.clone(),
    })
}

impl Layers {
    /// Reads and parses the files that `--config` names; `configuration_directory` is
    /// `$CONFIGURATION_DIRECTORY`.
    ///
    /// # Errors
    /// [`Error::Settings`] for the first file that cannot be read or is invalid.
    pub fn read(config: &str, configuration_directory: Option<&OsStr>) -> Result<Self, Error> {
        let paths = files::search_paths(config, configuration_directory);
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

    /// The value of every key.
    pub fn merge(&self) -> Merged<'_> {
        let mut merged = Merged::default();
        for Layer { file, fragment } in &self.0 {
            merged.general.merge(file, fragment);
            merged.limits.merge(file, &fragment.limits.0);
            for (name, Table(greeting)) in &fragment.greeting.0 {
                let own = merged.greetings.entry(name).or_default();
                own.merge(file, greeting);
            }
        }
        merged
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
        match hints::nearest(stem, known.iter().map(String::as_str)) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_files_are_beside_the_file_that_names_them() {
        let file = |path: &str, text: &str| SettingsFile::new(path, text);
        let files = vec![
            file("/usr/lib/greeter/greeter.toml", "message_file = 'motd'\n"),
            file(
                "/etc/greeter/greeter.toml.d/1.toml",
                "[greeting.smtp]\nmessage_file = '421'\n[greeting.imap]\nmessage = 'BYE'\n",
            ),
        ];
        let layers = Layers::parse(files, "greeter.socket").unwrap();
        let message_files = layers.merge().message_files();
        let expected = ["/etc/greeter/greeter.toml.d/421", "/usr/lib/greeter/motd"];
        assert_eq!(message_files, BTreeSet::from(expected.map(PathBuf::from)));
    }
}
