//! Which files contain the settings, and their content.
//!
//! The order is that of the UAPI.6 configuration files specification and of
//! systemd's drop-ins (systemd.unit(5)): a file in a higher directory hides the
//! files of the same name in lower ones, drop-ins are merged over the main file in
//! the order of their names, and an empty file or a link to /dev/null masks.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, DirEntry, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, os_message};
use crate::sys::ffi::errno::{ENXIO, O_NONBLOCK};

/// Where system settings are searched for, the highest directory first.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/etc/greeter", "/run/greeter", "/usr/lib/greeter"];

/// The maximum size of a settings file or a message file, in bytes.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// A settings file that was read.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingsFile {
    /// Its path.
    pub(super) path: PathBuf,
    /// Its content. Lines end in LF, whatever the editor wrote.
    pub(super) text: String,
}

impl SettingsFile {
    /// A file with this content, in which lines may end in CRLF as well.
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self {
            path: path.into(),
            text: text.replace("\r\n", "\n"),
        }
    }

    /// An error about the bytes `span` of the file.
    pub(super) fn error_at(&self, span: &Range<usize>, message: &str) -> Error {
        Error::settings(&self.path, Some((self.text.as_bytes(), span)), message)
    }
}

/// The possible paths of the main file, the highest first. `config` is the argument
/// of `--config`: with a slash in it, it is the only path. `configuration_directory` is
/// `$CONFIGURATION_DIRECTORY` (systemd.exec(5)), which names the directory of a user
/// unit; it takes precedence over the system's.
pub fn search_paths(config: &str, configuration_directory: Option<&OsStr>) -> Vec<PathBuf> {
    if config.contains('/') {
        return vec![config.into()];
    }
    let file = format!("{config}.toml");
    configuration_directory
        .unwrap_or_default()
        .as_bytes()
        .split(|byte| *byte == b':')
        .map(|directory| Path::new(OsStr::from_bytes(directory)))
        .filter(|directory| directory.is_absolute())
        .chain(SYSTEM_DIRECTORIES.map(Path::new))
        .map(|directory| directory.join(&file))
        .collect()
}

/// The socket unit that the settings of `--config` belong to, for messages.
pub(super) fn socket_unit(config: &str) -> String {
    let stem = Path::new(config).file_stem().unwrap_or_default();
    let stem = stem.to_string_lossy();
    if !config.contains('/') || stem.starts_with("greeter-") {
        format!("{stem}.socket")
    } else {
        "greeter.socket".to_owned()
    }
}

/// Reads the main file, the first that exists of `paths`, and the drop-ins beside
/// all of them; returns them in order of precedence, the lowest first.
///
/// A file masks those of the same name in lower directories, whatever it contains: an
/// empty file, or a link to /dev/null, sets nothing and hides them.
///
/// # Errors
/// A file that exists cannot be read as text, or the only path does not exist.
pub(super) fn read(paths: &[PathBuf]) -> Result<Vec<SettingsFile>, Error> {
    let mut files = Vec::new();
    for path in paths {
        if let Some(file) = read_text(path)? {
            files.push(file);
            break;
        }
    }
    if let ([path], []) = (paths, files.as_slice()) {
        return Err(Error::settings(
            path,
            None,
            "file not found; check the path given to --config",
        ));
    }
    let mut drop_ins = BTreeMap::new();
    for path in paths {
        for drop_in in list_drop_ins(path)? {
            let name = drop_in.file_name().map(OsStr::to_owned);
            // The highest directory wins: paths are in this order.
            drop_ins.entry(name).or_insert(drop_in);
        }
    }
    for path in drop_ins.into_values() {
        // A drop-in that was removed after it was listed is skipped.
        files.extend(read_text(&path)?);
    }
    Ok(files)
}

/// The content of a file; `None` if it does not exist. A link to /dev/null counts
/// as an empty file.
///
/// # Errors
/// It is not a regular file, is too long, cannot be read, or is a link to a file that
/// does not exist.
pub(super) fn read_bytes(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match read_regular_file(path) {
        Ok(Content::Bytes(bytes)) => Ok(Some(bytes)),
        Ok(Content::TooLong) => Err(Error::settings(
            path,
            None,
            &format!("is longer than {MAX_FILE_SIZE} bytes; shorten it"),
        )),
        Ok(Content::NotRegular) => Err(Error::settings(
            path,
            None,
            "is not a regular file; replace it with a file, or remove it",
        )),
        Err(error) => match unreadable(path, &error) {
            Unreadable::Absent => Ok(None),
            Unreadable::Masked => Ok(Some(Vec::new())),
            Unreadable::Invalid(error) => Err(error),
        },
    }
}

/// The text of a file that is written with an editor: a byte order mark in front is
/// dropped.
///
/// # Errors
/// The text is UTF-16.
pub(super) fn text_of(path: &Path, mut bytes: Vec<u8>) -> Result<Vec<u8>, Error> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Error::settings(path, None, "is UTF-16; save it as UTF-8"));
    }
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    Ok(bytes)
}

enum Content {
    Bytes(Vec<u8>),
    TooLong,
    NotRegular,
}

fn read_regular_file(path: &Path) -> io::Result<Content> {
    // O_NONBLOCK: open(2) of a FIFO must not wait for its writer. What was opened is
    // checked, not what was at the path before.
    let opened = File::options()
        .read(true)
        .custom_flags(O_NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        // A socket, or a device without a driver.
        Err(error) if error.raw_os_error() == Some(ENXIO) => return Ok(Content::NotRegular),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        let is_masked = fs::canonicalize(path).is_ok_and(|target| target == Path::new("/dev/null"));
        return Ok(if is_masked {
            Content::Bytes(Vec::new())
        } else {
            Content::NotRegular
        });
    }
    let mut bytes = Vec::new();
    let limit = MAX_FILE_SIZE + 1;
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 == limit {
        Content::TooLong
    } else {
        Content::Bytes(bytes)
    })
}

fn read_text(path: &Path) -> Result<Option<SettingsFile>, Error> {
    let Some(bytes) = read_bytes(path)? else {
        return Ok(None);
    };
    match String::from_utf8(text_of(path, bytes)?) {
        Ok(text) => Ok(Some(SettingsFile::new(path, &text))),
        Err(error) => {
            let start = error.utf8_error().valid_up_to();
            let location = (error.as_bytes(), &(start..start));
            let message = "is not UTF-8; save it as UTF-8";
            Err(Error::settings(path, Some(location), message))
        }
    }
}

/// The directory `FILE.d` beside a main file, which contains its drop-ins.
pub fn drop_in_directory(main: &Path) -> PathBuf {
    let mut directory = main.as_os_str().to_owned();
    directory.push(".d");
    directory.into()
}

/// The drop-ins beside a main file: `*.toml` in the directory `FILE.d`, except
/// hidden files.
fn list_drop_ins(main: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = list_directory(&drop_in_directory(main))?;
    paths.retain(|path| is_settings_name(path));
    Ok(paths)
}

fn is_settings_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".toml") && !name.starts_with(b".")
}

/// The files in the drop-in directories of `paths` that are passed over because of
/// their names.
///
/// # Errors
/// A directory that exists cannot be read.
pub fn ignored(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut ignored = Vec::new();
    for path in paths {
        ignored.extend(list_directory(&drop_in_directory(path))?);
    }
    ignored.retain(|path| !is_settings_name(path));
    ignored.sort();
    Ok(ignored)
}

/// The names of the main files in the directories of `paths`, as `--config` takes them.
pub(super) fn names(paths: &[PathBuf]) -> Vec<String> {
    let mut names = Vec::new();
    for directory in paths.iter().filter_map(|path| path.parent()) {
        // A directory that cannot be read has been reported already.
        for path in list_directory(directory).unwrap_or_default() {
            if let (true, Some(stem)) = (is_settings_name(&path), path.file_stem()) {
                names.push(stem.to_string_lossy().into_owned());
            }
        }
    }
    names
}

/// The paths in a directory; none if it does not exist.
fn list_directory(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    match read_directory(directory) {
        Ok(entries) => Ok(entries.iter().map(DirEntry::path).collect()),
        Err(error) => match unreadable(directory, &error) {
            Unreadable::Absent | Unreadable::Masked => Ok(Vec::new()),
            Unreadable::Invalid(error) => Err(error),
        },
    }
}

/// The entries of a directory. std retries open(2) of a file, but not of a directory,
/// after a signal.
fn read_directory(path: &Path) -> io::Result<Vec<DirEntry>> {
    loop {
        match fs::read_dir(path).and_then(Iterator::collect) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Why a path cannot be read.
enum Unreadable {
    /// There is nothing of this name.
    Absent,
    /// It is a link to /dev/null, which a sandbox may lack.
    Masked,
    /// Anything else, which must not be passed over.
    Invalid(Error),
}

/// What an error of open(2) means. Only what lstat(2) does not find is absent: a link
/// to a file that does not exist, or that a sandbox hides, is an error.
fn unreadable(path: &Path, error: &io::Error) -> Unreadable {
    let message = match error.kind() {
        io::ErrorKind::NotFound => match dangling_link(path) {
            None => return Unreadable::Absent,
            Some((_, target)) if target == Path::new("/dev/null") => return Unreadable::Masked,
            Some((link, target)) => {
                let subject = if link == path {
                    "is a link".to_owned()
                } else {
                    format!("cannot be found: '{}' is a link", link.display())
                };
                format!(
                    "{subject} to '{}', which does not exist or is hidden by the sandbox (the \
                     service sees only /usr, /etc/greeter and /run/greeter); correct the link, \
                     or remove it",
                    target.display()
                )
            }
        },
        io::ErrorKind::NotADirectory => {
            "cannot be read: not a directory; replace the file by a directory, or remove it"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "cannot be read: permission denied; make it readable by all (chmod o+r, and o+x on \
             each directory above it)"
                .to_owned()
        }
        _ => format!(
            "cannot be read: {}; make it readable by all, or remove it",
            os_message(error)
        ),
    };
    Unreadable::Invalid(Error::settings(path, None, &message))
}

/// The first link on the way to `path`, a directory or `path` itself, whose target does
/// not exist, and that target as the link contains it.
fn dangling_link(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut ancestors: Vec<&Path> = path.ancestors().collect();
    ancestors.reverse();
    let link = ancestors
        .into_iter()
        .find(|ancestor| ancestor.is_symlink() && !ancestor.exists())?;
    Some((link.to_owned(), fs::read_link(link).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of errno(3).
    const EIO: i32 = 5;
    const EACCES: i32 = 13;
    const ENOTDIR: i32 = 20;

    /// The possible paths of a main file in the fixture, and the fixture.
    fn fixture(name: &str) -> (Vec<PathBuf>, PathBuf) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layers");
        let directories = ["etc/greeter", "run/greeter", "usr/lib/greeter"];
        let paths = directories.map(|directory| root.join(directory).join(format!("{name}.toml")));
        (paths.to_vec(), root)
    }

    fn check(name: &str, expected: &[&str]) {
        let (paths, root) = fixture(name);
        let files = read(&paths).unwrap();
        let relative: Vec<_> = files
            .iter()
            .map(|file| file.path.strip_prefix(&root).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(relative, expected);
    }

    #[test]
    fn higher_directories_hide_and_drop_ins_are_sorted_by_name() {
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
    fn config_path_must_exist_and_has_its_own_drop_ins() {
        let (paths, _) = fixture("greeter");
        let files = read(&paths[2..]).unwrap();
        assert_eq!(files.len(), 4, "{files:?}");
        let directory = paths[2].parent().unwrap();
        assert!(files.iter().all(|file| file.path.starts_with(directory)));
        let missing = read(&[PathBuf::from("/nonexistent/x.toml")]).unwrap_err();
        assert_eq!(missing.status(), 78);
    }

    #[test]
    fn masked_drop_in_is_empty() {
        let files = read(&fixture("greeter").0).unwrap();
        assert_eq!(files[4].text, "");
    }

    #[test]
    fn configuration_directory_takes_precedence() {
        let check = |config: &str, configuration_directory: Option<&str>, expected: &[&str]| {
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(
                search_paths(config, configuration_directory.map(OsStr::new)),
                expected
            );
        };
        let system = [
            "/etc/greeter/smtp.toml",
            "/run/greeter/smtp.toml",
            "/usr/lib/greeter/smtp.toml",
        ];
        check("smtp", None, &system);
        let user = "/home/u/.config/greeter/smtp.toml";
        let with_user = [&[user], &system[..]].concat();
        check("smtp", Some("/home/u/.config/greeter:relative"), &with_user);
        check("./smtp", Some("/home/u/.config/greeter"), &["./smtp"]);
    }

    #[test]
    fn what_cannot_be_read_is_not_passed_over() {
        let path = Path::new("/etc/greeter/greeter.toml");
        for (errno, remedy) in [
            (
                EACCES,
                "permission denied; make it readable by all (chmod o+r, ",
            ),
            (
                ENOTDIR,
                "not a directory; replace the file by a directory, or ",
            ),
            (EIO, "make it readable by all, or remove it"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            let Unreadable::Invalid(error) = unreadable(path, &error) else {
                panic!("{error}");
            };
            assert!(error.to_string().contains(remedy), "{error}");
        }
        let error = io::Error::from(io::ErrorKind::NotFound);
        assert!(matches!(
            unreadable(Path::new("/nonexistent"), &error),
            Unreadable::Absent
        ));
    }

    #[test]
    fn socket_unit_is_derived_from_config() {
        for (config, unit) in [
            ("smtp", "smtp.socket"),
            ("./smtp.toml", "greeter.socket"),
            ("/etc/greeter/greeter-inet.toml", "greeter-inet.socket"),
        ] {
            assert_eq!(socket_unit(config), unit);
        }
    }
}
