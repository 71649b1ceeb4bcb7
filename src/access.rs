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

/// Where units and their drop-ins are, below the root directory (systemd.unit(5)).
const UNIT_DIRECTORIES: [&str; 4] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
];

/// Settings of a unit that may let its service read more than as shipped.
const WIDENING: [&str; 9] = [
    "User",
    "SupplementaryGroups",
    "RootDirectory",
    "BindPaths",
    "BindReadOnlyPaths",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "SetCredential",
    "ImportCredential",
];

/// Each obstacle between a service and `files`, an error with a remedy. They need not
/// exist; a directory among them is one that must be listed. No account exists while no
/// service runs, so everything must be readable by all. The service sees only the
/// directories `visible`; `hidden` is the message about a file outside of them.
pub fn obstacles(visible: &[&str], hidden: &str, files: &[PathBuf]) -> Vec<Error> {
    let is_visible = |path: &Path| visible.iter().any(|directory| path.starts_with(directory));
    // If a directory is a link, systemd shows the target in its place.
    let targets = visible
        .iter()
        .filter_map(|directory| fs::canonicalize(directory).ok());
    let targets: Vec<PathBuf> = targets.collect();
    let is_shown = |target: &Path| {
        is_visible(target)
            || targets
                .iter()
                .any(|directory| target.starts_with(directory))
    };
    let mut obstacles = Vec::new();
    // A directory that many files are in is reported once.
    let mut directories = BTreeSet::new();
    for file in files {
        directories.extend(file.ancestors().skip(1).map(Path::to_owned));
        // What does not exist is no obstacle, if the service can see that.
        let Ok(target) = fs::canonicalize(file) else {
            continue;
        };
        // The sandbox has it: a link to it masks a file.
        if target == Path::new("/dev/null") {
            continue;
        }
        directories.extend(target.ancestors().skip(1).map(Path::to_owned));
        if !is_visible(file) || !is_shown(&target) {
            obstacles.push(Error::settings(file, None, hidden));
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
            if mode & OTHERS_SEARCH == 0 && is_shown(&directory) {
                obstacles.push(closed(&directory, mode, "o+x"));
            }
        }
    }
    obstacles
}

/// The settings that may let a service read what [`obstacles`] reports, each with its file.
/// Their values are not examined. `root` is the root directory.
pub fn exceptions(root: &Path, service: &str) -> Vec<String> {
    changed_settings(root, service, &WIDENING)
}

/// Whether a drop-in changes `PrivateUsers=`, as those do that reduce the sandbox to what
/// the machine can set up.
pub fn has_reduced_sandbox(root: &Path, service: &str) -> bool {
    !changed_settings(root, service, &["PrivateUsers"]).is_empty()
}

/// Those of `settings` that a drop-in of the unit contains, or a file in /etc that replaces
/// the unit, each with its file.
fn changed_settings(root: &Path, service: &str, settings: &[&str]) -> Vec<String> {
    let mut files = vec![root.join(UNIT_DIRECTORIES[0]).join(service)];
    for directory in UNIT_DIRECTORIES {
        let directory = root.join(directory).join(format!("{service}.d"));
        let drop_ins = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut drop_ins: Vec<PathBuf> = drop_ins.map(|entry| entry.path()).collect();
        drop_ins.retain(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        });
        drop_ins.sort();
        files.extend(drop_ins);
    }
    let mut changed = Vec::new();
    for file in files {
        let text = fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let names: BTreeSet<&str> = lines.map(|(name, _)| name.trim()).collect();
        for setting in settings.iter().filter(|setting| names.contains(**setting)) {
            changed.push(format!("{setting}= in {}", file.display()));
        }
    }
    changed
}

/// Why the service manager cannot set up the sandbox of the services, if it cannot: the exit
/// status, the reason and the drop-in that helps. `status` is /proc/1/status (proc_pid_status(5)), `max_user_namespaces` the file
/// of that name in /proc/sys/user (namespaces(7)).
pub fn sandbox_obstacle(status: &str, max_user_namespaces: &str) -> Option<&'static str> {
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let bounding_set = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding_set = bounding_set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    if bounding_set.is_some_and(|set| set & CAP_SYS_ADMIN == 0) {
        Some(
            "(status=226/NAMESPACE), because systemd has no CAP_SYS_ADMIN in this container; \
             install the example unprivileged-container.conf as a drop-in",
        )
    } else if max_user_namespaces.trim() == "0" {
        Some(
            "(status=217/USER), because user.max_user_namespaces is 0; set PrivateUsers=no in a \
             drop-in",
        )
    } else {
        None
    }
}

/// Whether a directory was removed since the service started. The sandbox then shows the
/// removed directory, which is empty, even if there is a new one of its name.
pub fn is_removed(directory: &Path) -> bool {
    fs::metadata(directory).is_ok_and(|metadata| metadata.nlink() == 0)
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
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::{PermissionsExt, symlink};

    /// An empty directory with mode 0755, which the caller removes.
    fn temporary_directory(test: &str) -> PathBuf {
        let name = format!("greeter-access-{}-{test}", std::process::id());
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(&root).unwrap();
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
        root
    }

    /// Creates files and directories (a slash at the end) with their modes, and checks
    /// what is in the way of reading `files`. The service sees the directories d and
    /// linked-d, which is a link.
    fn check(test: &str, tree: &[(&str, u32)], files: &[&str], expected: &[&str]) {
        let root = temporary_directory(test);
        symlink(root.join("shown"), root.join("linked-d")).unwrap();
        for (path, mode) in [("d/", 0o755), ("shown/", 0o755)].iter().chain(tree) {
            let path = root.join(path);
            if path.as_os_str().as_encoded_bytes().ends_with(b"/") {
                fs::create_dir_all(&path).unwrap();
            } else {
                fs::write(&path, "").unwrap();
            }
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        symlink(root.join("hidden"), root.join("d/link")).unwrap();
        symlink("/dev/null", root.join("d/mask")).unwrap();
        let visible = ["d", "linked-d"].map(|name| root.join(name).display().to_string());
        let visible = visible.each_ref().map(String::as_str);
        let files: Vec<PathBuf> = files.iter().map(|file| root.join(file)).collect();
        let messages: Vec<String> = obstacles(&visible, "is hidden", &files)
            .iter()
            .map(|error| error.to_string().replace(root.to_str().unwrap(), ""))
            .collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(messages, expected, "{test}");
    }

    #[test]
    fn sandbox_requires_namespaces() {
        for (set, namespaces, expected) in [
            ("000001ffffffffff", "96312\n", ""),
            ("0000000000200000", "1\n", ""),
            ("000001ffffffffff", "0\n", "217/USER"),
            ("00000000a80425fb", "96312\n", "226/NAMESPACE"),
            ("00000000a80425fb", "0\n", "226/NAMESPACE"),
            ("unknown", "", ""),
        ] {
            let status = format!("Name:\tsystemd\nCapBnd:\t{set}\nCapAmb:\t0\n");
            let obstacle = sandbox_obstacle(&status, namespaces).unwrap_or_default();
            assert!(obstacle.contains(expected), "{set} {namespaces}");
            assert_eq!(
                obstacle.is_empty(),
                expected.is_empty(),
                "{set} {namespaces}"
            );
        }
    }

    #[test]
    fn everything_on_the_path_must_be_open_to_all() {
        check(
            "open",
            &[("d/e/", 0o711), ("d/e/file", 0o604)],
            &["d/e/file"],
            &[],
        );
        check(
            "file",
            &[("d/file", 0o640)],
            &["d/file", "d/absent"],
            &["/d/file: the service cannot read it, as its mode is 0640; run 'chmod o+r /d/file'"],
        );
        check(
            "directory",
            &[("d/e/", 0o750), ("d/e/one", 0o644), ("d/e/two", 0o644)],
            &["d/e/one", "d/e/two"],
            &["/d/e: the service cannot read it, as its mode is 0750; run 'chmod o+x /d/e'"],
        );
        check(
            "list",
            &[("d/e/", 0o700), ("d/e/file", 0o644)],
            &["d/e", "d/e/file"],
            &["/d/e: the service cannot read it, as its mode is 0700; run 'chmod o+rx /d/e'"],
        );
        check(
            "empty",
            &[("d/e/", 0o700)],
            &["d/e/absent"],
            &["/d/e: the service cannot read it, as its mode is 0700; run 'chmod o+x /d/e'"],
        );
    }

    #[test]
    fn sandbox_hides_a_file_and_the_target_of_a_link() {
        let tree = [("hidden", 0o644)];
        check("hidden", &tree, &["hidden"], &["/hidden: is hidden"]);
        check("link", &tree, &["d/link"], &["/d/link: is hidden"]);
        check("absent", &[], &["absent"], &[]);
        check("mask", &[], &["d/mask"], &[]);
        check("similar", &[("dd", 0o644)], &["dd"], &["/dd: is hidden"]);
        let dots = "hidden/../d/file";
        let tree = [("hidden/", 0o755), ("d/file", 0o644)];
        check("dots", &tree, &[dots], &[&format!("/{dots}: is hidden")]);
    }

    #[test]
    fn visible_directory_can_be_a_link() {
        let tree = [("shown/file", 0o644)];
        check("shown", &tree, &["linked-d/file"], &[]);
        // The service sees the link only, and not the directory by its own name.
        check(
            "target",
            &tree,
            &["shown/file"],
            &["/shown/file: is hidden"],
        );
        let tree = [("shown/e/", 0o700), ("shown/e/file", 0o644)];
        let expected = ["/linked-d/e", "/shown/e"].map(|directory| {
            format!(
                "{directory}: the service cannot read it, as its mode is 0700; \
                 run 'chmod o+x {directory}'"
            )
        });
        let expected = expected.each_ref().map(String::as_str);
        check("closed", &tree, &["linked-d/e/file"], &expected);
    }

    #[test]
    fn removed_directory_is_noticed() {
        let root = temporary_directory("removed");
        let directory = fs::File::open(&root).unwrap();
        let path = format!("/proc/self/fd/{}", directory.as_raw_fd());
        assert!(!is_removed(Path::new("/nonexistent")));
        assert!(!is_removed(Path::new(&path)));
        fs::remove_dir(&root).unwrap();
        assert!(is_removed(Path::new(&path)));
    }

    /// Writes unit files, and checks which of their settings are exceptions for one.
    fn check_exceptions(test: &str, files: &[(&str, &str)], expected: &[&str]) {
        let root = temporary_directory(test);
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let exceptions: Vec<String> = exceptions(&root, "greeter.service")
            .iter()
            .map(|exception| exception.replace(root.to_str().unwrap(), ""))
            .collect();
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(exceptions, expected, "{test}");
    }

    #[test]
    fn settings_of_drop_ins_that_widen_the_sandbox_are_exceptions() {
        let etc = "etc/systemd/system/greeter.service.d/a.conf";
        for setting in WIDENING {
            check_exceptions(
                setting,
                &[(etc, &format!("[Service]\n{setting}=x\n{setting}=y\n"))],
                &[&format!("{setting}= in /{etc}")],
            );
        }
        check_exceptions(
            "spaces",
            &[(etc, "[Service]\nMemoryMax=1G\n  BindPaths = /srv\nUser=")],
            &[
                &format!("User= in /{etc}"),
                &format!("BindPaths= in /{etc}"),
            ],
        );
        for line in [
            "#User=x",
            "; User=x",
            "UserX=x",
            "XUser=x",
            "user=x",
            "User",
            "Environment=User=x",
        ] {
            check_exceptions("other", &[(etc, line)], &[]);
        }
    }

    #[test]
    fn exceptions_are_searched_where_systemd_searches_drop_ins() {
        let files =
            UNIT_DIRECTORIES.map(|directory| format!("{directory}/greeter.service.d/b.conf"));
        let expected = files.each_ref().map(|file| format!("User= in /{file}"));
        check_exceptions(
            "directories",
            &files.each_ref().map(|file| (file.as_str(), "User=x")),
            &expected.each_ref().map(String::as_str),
        );
        let unit = "etc/systemd/system/greeter.service";
        let expected = [&*format!("User= in /{unit}")];
        check_exceptions("unit", &[(unit, "[Service]\nUser=x")], &expected);
        for file in [
            "usr/lib/systemd/system/greeter.service",
            "etc/systemd/system/service.d/a.conf",
            "etc/systemd/system/greeter@.service.d/a.conf",
            "etc/systemd/system/greeter.socket.d/a.conf",
            "etc/systemd/system/greeter.service.d/a.conf.bak",
            "etc/systemd/user/greeter.service.d/a.conf",
        ] {
            check_exceptions("elsewhere", &[(file, "User=x")], &[]);
        }
        check_exceptions("none", &[], &[]);
    }
}
