//! Which files hold the settings, and their text. Floor 3.
//!
//! The order is that of the UAPI.6 configuration files specification and of
//! systemd's own drop-ins (systemd.unit(5)): a higher folder hides the files of
//! the same name in the lower ones, drop-ins are laid over the main file in name
//! order, an empty file or a link to /dev/null masks.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, plain};

/// Where system settings are looked for, the highest folder first.
pub const SYSTEM_FOLDERS: [&str; 3] = ["/etc/greeter", "/run/greeter", "/usr/lib/greeter"];

/// A settings file or a message file is at most this long, in bytes.
pub const MOST_BYTES: u64 = 1024 * 1024;

/// One file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
}

/// Where the main file can be, the highest place first, by the argument of
/// `--config`: with a slash in it it is that file alone. `above` is the service
/// manager's `$CONFIGURATION_DIRECTORY` (systemd.exec(5)), which is how a user
/// unit's folder becomes known; it stands above the system's.
pub fn places(config: &str, above: Option<&str>) -> Vec<PathBuf> {
    if config.contains('/') {
        return vec![config.into()];
    }
    let own = above.unwrap_or_default().split(':');
    let own = own.filter(|path| path.starts_with('/'));
    let folders = own.chain(SYSTEM_FOLDERS).map(Path::new);
    let file = format!("{config}.toml");
    folders.map(|folder| folder.join(&file)).collect()
}

/// The socket unit that goes with the argument of `--config`, for messages.
pub(super) fn socket_unit(config: &str) -> String {
    let stem = Path::new(config).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    let is_ours = !config.contains('/') || stem.starts_with("greeter-");
    format!("{}.socket", if is_ours { &stem } else { "greeter" })
}

/// Reads the main file, the first there is of `places`, and the drop-ins beside
/// all of them, in the order in which they are laid over each other. That there is
/// no file is no error, unless it is the only place.
/// Fails where a file that is there cannot be read as text.
pub(super) fn read(places: &[PathBuf]) -> Result<Vec<Source>, Error> {
    let main = places.iter().find_map(|place| read_text(place).transpose());
    let mut sources = Vec::from_iter(main.transpose()?);
    if let ([file], []) = (places, &sources[..]) {
        let remedy = "name a file that does, or leave '--config' out";
        return Err(Error::settings(file, None, "does not exist", remedy));
    }
    let mut drop_ins = BTreeMap::new();
    for place in places {
        for path in list(place)? {
            let name = path.file_name().map(ToOwned::to_owned);
            drop_ins.entry(name).or_insert(path);
        }
    }
    for path in drop_ins.into_values() {
        // One that goes away between the listing and the reading was never meant.
        sources.extend(read_text(&path)?);
    }
    Ok(sources)
}

/// The bytes of a file, or none where it does not exist. Fails where it is no
/// regular file (a link to /dev/null counts as an empty one), is too long, or the
/// kernel refuses.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let read = || {
        let (mut bytes, mask) = (Vec::new(), Path::new("/dev/null"));
        // Asked before it is opened: opening a FIFO would wait for its writer.
        if fs::metadata(path)?.is_file() {
            let file = File::open(path)?;
            file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        } else if !fs::canonicalize(path).is_ok_and(|end| end == mask) {
            return Ok(None);
        }
        Ok(Some(bytes))
    };
    let Some(read) = present(path, read())? else {
        return Ok(None);
    };
    let length = read.as_ref().map_or(0, Vec::len) as u64;
    let (what, remedy) = match read {
        Some(bytes) if length <= MOST_BYTES => return Ok(Some(bytes)),
        Some(_) => (format!("is longer than {MOST_BYTES} bytes"), "shorten it"),
        None => (
            "is no regular file".to_owned(),
            "put a file in its place, or remove it",
        ),
    };
    Err(Error::settings(path, None, &what, remedy))
}

fn read_text(path: &Path) -> Result<Option<Source>, Error> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let start = error.utf8_error().valid_up_to();
        let (text, span) = (error.as_bytes(), start..start + 1);
        let what = "is not UTF-8, as TOML must be";
        Error::settings(path, Some((text, &span)), what, "save it as UTF-8")
    })?;
    let path = path.to_owned();
    Ok(Some(Source { path, text }))
}

/// The drop-ins beside a main file.
fn list(main: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    let folder = Path::new(&folder);
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = present(folder, entries)?.unwrap_or_default();
    let is_meant = |entry: &DirEntry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        name.ends_with(b".toml") && !name.starts_with(b".")
    };
    let meant = entries.into_iter().filter(is_meant);
    Ok(meant.map(|entry| entry.path()).collect())
}

/// What was read, or none where nothing is there. Fails where the kernel refuses.
fn present<T>(path: &Path, read: io::Result<T>) -> Result<Option<T>, Error> {
    match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let what = format!("cannot be read: {}", plain(&error));
            let remedy = "make it readable for the service's user, or remove it";
            Err(Error::settings(path, None, &what, remedy))
        }
        Ok(read) => Ok(Some(read)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fixture's places of a main file, and the fixture.
    fn fixture(name: &str) -> (Vec<PathBuf>, PathBuf) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layers");
        let folders = ["etc/greeter", "run/greeter", "usr/lib/greeter"];
        let places = folders.map(|folder| root.join(folder).join(format!("{name}.toml")));
        (places.to_vec(), root)
    }

    fn check(name: &str, expected: &[&str]) {
        let (places, root) = fixture(name);
        let read = read(&places).unwrap();
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
        let (places, _) = fixture("greeter");
        let sources = read(&places[2..]).unwrap();
        assert_eq!(sources.len(), 4, "{sources:?}");
        let beside = places[2].parent().unwrap();
        assert!(sources.iter().all(|source| source.path.starts_with(beside)));
        let missing = read(&[PathBuf::from("/nonexistent/x.toml")]).unwrap_err();
        assert_eq!(missing.status(), 78);
    }

    #[test]
    fn a_masked_drop_in_is_empty() {
        let sources = read(&fixture("greeter").0).unwrap();
        assert_eq!(sources[4].text, "");
    }

    #[test]
    fn the_managers_folder_stands_above_the_systems() {
        let check = |config: &str, given: Option<&str>, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(places(config, given), expected);
        };
        let system = [
            "/etc/greeter/smtp.toml",
            "/run/greeter/smtp.toml",
            "/usr/lib/greeter/smtp.toml",
        ];
        check("smtp", None, &system);
        let own = "/home/u/.config/greeter/smtp.toml";
        let above = [&[own], &system[..]].concat();
        check("smtp", Some("/home/u/.config/greeter:relative"), &above);
        check("./smtp", Some("/home/u/.config/greeter"), &["./smtp"]);
    }

    #[test]
    fn settings_go_with_a_socket_unit() {
        for (config, unit) in [
            ("smtp", "smtp.socket"),
            ("./smtp.toml", "greeter.socket"),
            ("/etc/greeter/greeter-inet.toml", "greeter-inet.socket"),
        ] {
            assert_eq!(socket_unit(config), unit);
        }
    }
}
