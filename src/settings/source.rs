//! Which files hold the settings, and their text. Floor 3.
//!
//! The order is that of the UAPI.6 configuration files specification and of
//! systemd's own drop-ins (systemd.unit(5)): a higher folder hides the files of
//! the same name in the lower ones, drop-ins are laid over the main file in name
//! order, an empty file or a link to /dev/null masks.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Place, plain};

/// Where system settings are looked for, the highest folder first.
pub const SYSTEM_FOLDERS: &[&str] = &["/etc/greeter", "/run/greeter", "/usr/lib/greeter"];

/// A settings file or a message file is at most this long, in bytes.
pub const MOST_BYTES: u64 = 1024 * 1024;

/// What to do about a file that cannot be read, or that is none.
const MAKE_READABLE: &str = "make it readable for the service's user, or remove it";
const PUT_A_FILE: &str = "put a file in its place, or remove it";

/// Whose settings are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// `NAME.toml` and its drop-ins in every folder.
    Named(String),
    /// This file and the drop-ins beside it, nothing else.
    File(PathBuf),
}

impl Choice {
    /// Reads the argument of `--config`: with a slash in it it is a file.
    pub fn new(argument: &str) -> Self {
        match argument.contains('/') {
            true => Self::File(PathBuf::from(argument)),
            false => Self::Named(argument.to_owned()),
        }
    }
}

/// The folders of the settings: `directories` (the service manager's
/// `$CONFIGURATION_DIRECTORY`, see systemd.exec(5), which is how a user unit's
/// folder becomes known), then the system's.
pub fn folders(directories: Option<&str>) -> Vec<PathBuf> {
    let own = directories.unwrap_or_default().split(':');
    let own = own.filter(|path| path.starts_with('/'));
    let mut folders = Vec::new();
    for folder in own.chain(SYSTEM_FOLDERS.iter().copied()).map(PathBuf::from) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

/// The socket unit that goes with a choice of settings, for messages.
pub(super) fn socket_unit(choice: &Choice) -> String {
    let mut known = ["greeter-accepted", "greeter-inet"].into_iter();
    let name = match choice {
        Choice::Named(name) => Some(name.as_str()),
        Choice::File(file) => known.find(|name| file.file_stem() == Some(name.as_ref())),
    };
    format!("{}.socket", name.unwrap_or("greeter"))
}

/// One file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Reads the files in the order in which they are laid over each other. The
/// highest of `folders` comes first. That there is no file is no error, unless
/// it was named.
/// Fails where a file that is there cannot be read as text.
pub(super) fn read(choice: &Choice, folders: &[PathBuf]) -> Result<Vec<Source>, Error> {
    let mains: Vec<PathBuf> = match choice {
        Choice::File(file) => vec![file.clone()],
        Choice::Named(name) => {
            let file = format!("{name}.toml");
            folders.iter().map(|folder| folder.join(&file)).collect()
        }
    };
    let main = mains.iter().find_map(|main| read_text(main).transpose());
    let mut sources = Vec::from_iter(main.transpose()?);
    if let (Choice::File(file), []) = (choice, &sources[..]) {
        let remedy = "name a file that does, or leave '--config' out";
        return Err(Error::settings(file, None, "does not exist", remedy));
    }
    for path in list(&mains)?.into_values() {
        // One that goes away between the listing and the reading was never meant.
        sources.extend(read_text(&path)?);
    }
    Ok(sources)
}

/// The bytes of a file, or none where it does not exist. Fails where it is no
/// regular file (a link to /dev/null counts as an empty one), is too long, or the
/// kernel refuses.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let complain = |what: &str, remedy: &str| Err(Error::settings(path, None, what, remedy));
    let mut bytes = Vec::new();
    // Asked before it is opened: opening a FIFO would wait for its writer.
    let is_there = fs::metadata(path).and_then(|metadata| {
        if metadata.is_file() {
            let file = File::open(path)?;
            file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        }
        let is_mask = || fs::canonicalize(path).is_ok_and(|end| end == Path::new("/dev/null"));
        Ok(metadata.is_file() || is_mask())
    });
    let length = bytes.len() as u64;
    match is_there {
        Ok(true) if length <= MOST_BYTES => Ok(Some(bytes)),
        Ok(true) => complain(&format!("is longer than {MOST_BYTES} bytes"), "shorten it"),
        Ok(false) => complain("is no regular file", PUT_A_FILE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => complain(&format!("cannot be read: {}", plain(&error)), MAKE_READABLE),
    }
}

fn read_text(path: &Path) -> Result<Option<Source>, Error> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        let place = Place::of(error.as_bytes(), &(start..start + 1));
        let what = "is not UTF-8, as TOML must be";
        Error::settings(path, Some(place), what, "save it as UTF-8")
    })?;
    let path = path.to_owned();
    Ok(Some(Source { path, text }))
}

/// The drop-ins beside all of `mains` by name; the highest folder's wins.
fn list(mains: &[PathBuf]) -> Result<BTreeMap<OsString, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    for main in mains {
        let mut folder = main.clone().into_os_string();
        folder.push(".d");
        let entries: Vec<DirEntry> = match fs::read_dir(&folder).and_then(Iterator::collect) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                let what = format!("cannot be read: {}", plain(&error));
                let remedy = "make it a folder that the service's user can read, or remove it";
                return Err(Error::settings(folder.as_ref(), None, &what, remedy));
            }
        };
        for entry in entries {
            let (name, path) = (entry.file_name(), entry.path());
            let is_hidden = name.as_encoded_bytes().starts_with(b".");
            if path.extension().is_some_and(|end| end == "toml") && !is_hidden {
                found.entry(name).or_insert(path);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layers");
        ["etc/greeter", "run/greeter", "usr/lib/greeter"]
            .iter()
            .map(|folder| root.join(folder))
            .collect()
    }

    fn check(name: &str, expected: &[&str]) {
        let folders = fixture();
        let root = folders[0].parent().unwrap().parent().unwrap().to_owned();
        let read = read(&Choice::new(name), &folders).unwrap();
        let found: Vec<_> = read
            .iter()
            .map(|s| s.path.strip_prefix(&root).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn higher_folders_hide_and_drop_ins_are_sorted_by_name() {
        check(
            "greeter",
            &[
                "run/greeter/greeter.toml",
                "usr/lib/greeter/greeter.toml.d/10-vendor.toml",
                "etc/greeter/greeter.toml.d/20-both.toml",
                "run/greeter/greeter.toml.d/30-run.toml",
                "etc/greeter/greeter.toml.d/40-masked.toml",
            ],
        );
        check("absent", &[]);
    }

    #[test]
    fn a_named_file_must_exist_and_brings_its_own_drop_ins() {
        let folders = fixture();
        let path = folders[2].join("greeter.toml");
        let sources = read(&Choice::new(path.to_str().unwrap()), &folders).unwrap();
        assert_eq!(sources.len(), 4, "{sources:?}");
        assert!(
            sources
                .iter()
                .all(|source| source.path.starts_with(&folders[2]))
        );
        let missing = read(&Choice::new("/nonexistent/x.toml"), &[]).unwrap_err();
        assert_eq!(missing.status(), 78);
    }

    #[test]
    fn a_masked_drop_in_is_empty() {
        let sources = read(&Choice::new("greeter"), &fixture()).unwrap();
        assert_eq!(sources[4].text, "");
    }

    #[test]
    fn the_managers_folder_stands_above_the_systems() {
        let check = |given: Option<&str>, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(folders(given), expected);
        };
        check(None, SYSTEM_FOLDERS);
        check(Some("/etc/greeter"), SYSTEM_FOLDERS);
        check(
            Some("/home/u/.config/greeter:relative"),
            &[
                "/home/u/.config/greeter",
                "/etc/greeter",
                "/run/greeter",
                "/usr/lib/greeter",
            ],
        );
    }
}
