//! Which files hold the settings, and their text. Floor 3.
//!
//! The order is that of the UAPI.6 configuration files specification and of
//! systemd's own drop-ins (systemd.unit(5)): a higher folder hides the files of
//! the same name in the lower ones, drop-ins are laid over the main file in name
//! order, an empty file or a link to /dev/null masks.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::error::{Complaint, Error, Place, plain};

/// Where system settings are looked for, the highest folder first.
pub const SYSTEM_FOLDERS: &[&str] = &["/etc/greeter", "/run/greeter", "/usr/lib/greeter"];

/// A settings file or a message file is at most this long, in bytes.
pub const MOST_BYTES: u64 = 1024 * 1024;

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
    #[must_use]
    pub fn new(argument: &str) -> Self {
        if argument.contains('/') {
            Self::File(PathBuf::from(argument))
        } else {
            Self::Named(argument.to_owned())
        }
    }
}

/// The folders of the settings: `directories` (the service manager's
/// `$CONFIGURATION_DIRECTORY`, see systemd.exec(5), which is how a user unit's
/// folder becomes known), then the system's.
#[must_use]
pub fn folders(directories: Option<&str>) -> Vec<PathBuf> {
    let own = directories
        .unwrap_or_default()
        .split(':')
        .filter(|path| path.starts_with('/'))
        .map(PathBuf::from);
    let mut folders: Vec<PathBuf> = own.collect();
    for folder in SYSTEM_FOLDERS.iter().map(Path::new) {
        if !folders.iter().any(|known| known == folder) {
            folders.push(folder.to_owned());
        }
    }
    folders
}

/// The socket unit that goes with a choice of settings, for messages.
#[must_use]
pub fn socket_unit(choice: &Choice) -> String {
    match choice {
        Choice::Named(name) => format!("{name}.socket"),
        Choice::File(file) => {
            let name = file.file_stem().unwrap_or_default().to_string_lossy();
            let known = matches!(&*name, "greeter-accepted" | "greeter-inet");
            format!("{}.socket", if known { &*name } else { "greeter" })
        }
    }
}

/// One file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

impl Source {
    /// A complaint about the bytes `start..end` of this file.
    #[must_use]
    pub fn complain(&self, start: usize, end: usize, what: String, remedy: String) -> Error {
        let place = Some(Place::of(self.text.as_bytes(), start, end));
        Error::Settings(Complaint {
            file: self.path.clone(),
            place,
            what,
            remedy,
        })
    }
}

/// Reads the files in the order in which they are laid over each other. The
/// highest of `folders` comes first. That there is no file is no error, unless
/// it was named.
///
/// # Errors
/// A file that is there cannot be read as text.
pub fn read(choice: &Choice, folders: &[PathBuf]) -> Result<Vec<Source>, Error> {
    let (mains, drop_ins): (Vec<PathBuf>, Vec<PathBuf>) = match choice {
        Choice::File(file) => (vec![file.clone()], vec![add_suffix(file)]),
        Choice::Named(name) => {
            let mains = folders
                .iter()
                .map(|folder| folder.join(format!("{name}.toml")));
            let mains: Vec<PathBuf> = mains.collect();
            let drop_ins = mains.iter().map(|main| add_suffix(main)).collect();
            (mains, drop_ins)
        }
    };
    let mut sources = Vec::new();
    for main in mains {
        if let Some(source) = read_text(&main)? {
            sources.push(source);
            break;
        }
        if matches!(choice, Choice::File(_)) {
            return Err(complain(
                &main,
                "does not exist",
                "name a file that does, or leave '--config' out",
            ));
        }
    }
    for path in list(&drop_ins)?.into_values() {
        // One that goes away between the listing and the reading was never meant.
        sources.extend(read_text(&path)?);
    }
    Ok(sources)
}

/// The bytes of a file, or none where it does not exist.
///
/// # Errors
/// It is no regular file (a link to /dev/null counts as an empty one), is too
/// long, or the kernel refuses.
pub fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let refused = |error: &io::Error| {
        let what = format!("cannot be read: {}", plain(error));
        complain(
            path,
            &what,
            "make it readable for the service's user, or remove it",
        )
    };
    // Asked before it is opened: opening a FIFO would wait for its writer.
    let kind = match fs::metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(&error)),
    };
    if kind.is_char_device()
        && fs::canonicalize(path).is_ok_and(|end| end == Path::new("/dev/null"))
    {
        return Ok(Some(Vec::new()));
    }
    if !kind.is_file() {
        return Err(complain(
            path,
            "is no regular file",
            "put a file in its place, or remove it",
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| refused(&error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(complain(
            path,
            &format!("is longer than {MOST_BYTES} bytes"),
            "shorten it",
        ));
    }
    Ok(Some(bytes))
}

fn read_text(path: &Path) -> Result<Option<Source>, Error> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(Source {
            path: path.to_owned(),
            text,
        })),
        Err(error) => {
            let start = error.utf8_error().valid_up_to();
            Err(Error::Settings(Complaint {
                file: path.to_owned(),
                place: Some(Place::of(error.as_bytes(), start, start + 1)),
                what: "is not UTF-8, as TOML must be".to_owned(),
                remedy: "save it as UTF-8".to_owned(),
            }))
        }
    }
}

/// The drop-ins of all folders by name; the highest folder's wins.
fn list(folders: &[PathBuf]) -> Result<BTreeMap<std::ffi::OsString, PathBuf>, Error> {
    let mut found = BTreeMap::new();
    for folder in folders {
        let refused = |error: io::Error| {
            let what = format!("cannot be read: {}", plain(&error));
            complain(
                folder,
                &what,
                "make it a folder that the service's user can read, or remove it",
            )
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(refused(error)),
        };
        for entry in entries {
            let path = entry.map_err(refused)?.path();
            let Some(name) = path.file_name() else {
                continue;
            };
            if path.extension().is_some_and(|end| end == "toml")
                && !name.as_encoded_bytes().starts_with(b".")
            {
                found.entry(name.to_owned()).or_insert(path);
            }
        }
    }
    Ok(found)
}

fn add_suffix(main: &Path) -> PathBuf {
    let mut name = main.as_os_str().to_owned();
    name.push(".d");
    name.into()
}

fn complain(file: &Path, what: &str, remedy: &str) -> Error {
    Error::Settings(Complaint {
        file: file.to_owned(),
        place: None,
        what: what.to_owned(),
        remedy: remedy.to_owned(),
    })
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
