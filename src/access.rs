//! Whether a service can read the files that its settings consist of: permissions, and
//! what the sandbox of its unit hides. For root, who can read everything; any other
//! user finds out by reading.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The permission of others to read a file, and to pass through a directory (inode(7)).
const OTHERS_READ: u32 = 0o004;
const OTHERS_SEARCH: u32 = 0o001;

/// Each obstacle between the service and `files`, an error with a remedy. They need not
/// exist; a directory among them is one that must be listed. No account exists while no
/// service runs, so everything must be readable by all. `hides` tells what the sandbox
/// hides, and why.
pub fn obstacles(hides: impl Fn(&Path) -> Option<String>, files: &[PathBuf]) -> Vec<Error> {
    let mut obstacles = Vec::new();
    // A directory that many files are in is reported once.
    let mut directories = BTreeSet::new();
    for file in files {
        directories.extend(file.ancestors().skip(1).map(Path::to_owned));
        // What does not exist is no obstacle, if the service can see that.
        let Ok(target) = fs::canonicalize(file) else {
            continue;
        };
        directories.extend(target.ancestors().skip(1).map(Path::to_owned));
        let hidden_path = [file.as_path(), target.as_path()]
            .into_iter()
            .find_map(&hides);
        if let Some(reason) = hidden_path {
            obstacles.push(Error::settings(file, None, &reason));
        } else if let Some((mode, is_directory)) = mode(&target) {
            let needed = if is_directory {
                OTHERS_READ | OTHERS_SEARCH
            } else {
                OTHERS_READ
            };
            if mode & needed != needed {
                let change = if is_directory { "o+rx" } else { "o+r" };
                obstacles.push(closed(file, mode, change));
            }
        }
    }
    for directory in directories {
        if files.contains(&directory) {
            continue;
        }
        if let Some((mode, true)) = mode(&directory) {
            if mode & OTHERS_SEARCH == 0 && hides(&directory.join("file")).is_none() {
                obstacles.push(closed(&directory, mode, "o+x"));
            }
        }
    }
    obstacles
}

/// The permission bits of a path, and whether it is a directory.
fn mode(path: &Path) -> Option<(u32, bool)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.mode() & 0o7777, metadata.is_dir()))
}

fn closed(path: &Path, mode: u32, change: &str) -> Error {
    let message = format!(
        "the service cannot read it, as its mode is {mode:04o}; run 'chmod {change} {}'",
        path.display()
    );
    Error::settings(path, None, &message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// Creates files and directories (a slash at the end) with their modes, and checks
    /// what is in the way of reading `files`.
    fn check(test: &str, tree: &[(&str, u32)], files: &[&str], expected: &[&str]) {
        let name = format!("greeter-access-{}-{test}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        for (path, mode) in tree {
            let path = root.join(path);
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                fs::create_dir(&path).unwrap();
            } else {
                fs::write(&path, "").unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        symlink(root.join("hidden"), root.join("link")).unwrap();
        let files: Vec<PathBuf> = files.iter().map(|file| root.join(file)).collect();
        let hides = |path: &Path| path.ends_with("hidden").then(|| "is hidden".to_owned());
        let messages: Vec<String> = obstacles(hides, &files)
            .iter()
            .map(|error| error.to_string().replace(root.to_str().unwrap(), ""))
            .collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(messages, expected, "{test}");
    }

    #[test]
    fn everything_on_the_path_must_be_open_to_all() {
        check(
            "open",
            &[("d/", 0o711), ("d/file", 0o604)],
            &["d/file"],
            &[],
        );
        check(
            "file",
            &[("file", 0o640)],
            &["file", "absent"],
            &["/file: the service cannot read it, as its mode is 0640; run 'chmod o+r /file'"],
        );
        check(
            "directory",
            &[("d/", 0o750), ("d/one", 0o644), ("d/two", 0o644)],
            &["d/one", "d/two"],
            &["/d: the service cannot read it, as its mode is 0750; run 'chmod o+x /d'"],
        );
        check(
            "list",
            &[("d/", 0o700), ("d/file", 0o644)],
            &["d", "d/file"],
            &["/d: the service cannot read it, as its mode is 0700; run 'chmod o+rx /d'"],
        );
        check(
            "empty",
            &[("d/", 0o700)],
            &["d/absent"],
            &["/d: the service cannot read it, as its mode is 0700; run 'chmod o+x /d'"],
        );
    }

    #[test]
    fn sandbox_hides_a_file_and_the_target_of_a_link() {
        let tree = [("hidden", 0o644)];
        check("hidden", &tree, &["hidden"], &["/hidden: is hidden"]);
        check("link", &tree, &["link"], &["/link: is hidden"]);
    }
}
