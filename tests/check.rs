//! `--check` and `--show-config`: exact output. Each invalid settings file of
//! tests/fixtures/invalid/ has the expected stderr beside it.

mod support;

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn error_messages_match_fixtures() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/invalid");
    let mut checked = 0;
    for entry in fs::read_dir(&directory).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let name = format!("./{}", file.file_name().unwrap().to_str().unwrap());
        let output = Command::new(support::GREETER)
            .current_dir(&directory)
            .args(["--config", &name, "--check"])
            .output()
            .unwrap();
        let expected = fs::read_to_string(file.with_extension("stderr")).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected, "{name}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{name}");
        assert_eq!(output.status.code(), Some(78), "{name}");
        checked += 1;
    }
    assert!(checked >= 30, "only {checked} files were found");
}

/// The table is a script, so that tests/container runs it with the packages.
#[test]
fn settings_mean_what_the_table_says() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/settings-language");
    let output = Command::new(script).arg(support::GREETER).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

#[test]
fn check_lists_files_and_renders_every_greeting() {
    let directory = support::TempDir::new();
    let main = directory.write("g.toml", "mode = 'accept'\nmessage = 'hello'\n");
    let drop_in = directory.write("g.toml.d/smtp.toml", "[greeting.smtp]\nmessage = '421'\n");
    let output = Command::new(support::GREETER)
        .args(["--config", &main, "--check"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "{main}: read\n{drop_in}: read\nmode: accept\ngreeting: 6 bytes\n\
             greeting of sockets named 'smtp': 4 bytes\nsettings are valid\n"
        )
    );
}

#[test]
fn show_config_has_origins_and_is_valid_toml() {
    let directory = support::TempDir::new();
    let main = directory.write(
        "g.toml",
        "\nmessage = 'a \"b\" {{'\n[limits]\nconnections = 5\n",
    );
    let drop_in = directory.write("g.toml.d/1.toml", "[limits]\nconnections = 6\n");
    let shown = show_config(&main);
    for expected in [
        format!("limits.connections = 6  # {drop_in}:2"),
        "limits.write_timeout = \"10s\"  # default".to_owned(),
    ] {
        assert!(
            shown.lines().any(|line| line == expected),
            "{expected}\n{shown}"
        );
    }
    assert!(shown.contains(&format!("  # {main}:2\n")), "{shown}");

    let copy = directory.write("copy.toml", &shown);
    assert_eq!(
        without_comments(&show_config(&copy)),
        without_comments(&shown)
    );
}

/// What `--show-config` prints for a file.
fn show_config(file: &str) -> String {
    let output = Command::new(support::GREETER)
        .args(["--config", file, "--show-config"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The lines without the comments, which contain the origins.
fn without_comments(shown: &str) -> Vec<&str> {
    shown
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split("  # ").next().unwrap())
        .collect()
}

/// Runs greeter with a directory of settings above the system's.
fn query(directory: &support::TempDir, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(support::GREETER)
        .args(arguments)
        .env("CONFIGURATION_DIRECTORY", directory.path("settings"))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| {
        let root = directory.path("").display().to_string();
        String::from_utf8_lossy(bytes).replace(&root, "/")
    };
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    (output.status.code(), stdout, stderr)
}

/// As root the queries read the settings of the system, as other users also their own; a
/// reload reads those of the service.
#[test]
fn settings_of_the_user_are_read_unless_it_is_root_or_a_reload() {
    let directory = support::TempDir::new();
    directory.write("greeter/greeter.toml", "x = 1\n");
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    let unused = "2147483647";
    for (arguments, status) in [
        (vec!["--check"], if is_root { 0 } else { 78 }),
        // No such process: the settings are valid.
        (vec!["--reload", unused], 1),
    ] {
        let output = Command::new(support::GREETER)
            .args(&arguments)
            .env_remove("CONFIGURATION_DIRECTORY")
            .env("XDG_CONFIG_HOME", directory.path(""))
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(status),
            "{arguments:?}: {output:?}"
        );
    }
}

/// `greeter --show-config | head` reads only the beginning.
#[test]
fn reader_that_has_gone_is_no_error() {
    let (reader, stdout) = UnixStream::pair().unwrap();
    drop(reader);
    let output = Command::new(support::GREETER)
        .args(["--show-config", "--config", "/dev/null"])
        .stdout(Stdio::from(OwnedFd::from(stdout)))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

const INVALID: Option<i32> = Some(78);

#[test]
fn mode_of_the_unit_is_checked() {
    let directory = support::TempDir::new();
    directory.write("settings/greeter.toml", "mode = 'accepted'\n");
    directory.write("settings/greeter-inet.toml", "mode = 'inet'\n");
    let (status, stdout, stderr) = query(&directory, &["--check"]);
    assert_eq!((status, stdout.as_str()), (INVALID, ""));
    let expected = "greeter: /settings/greeter.toml:1:8: mode = \"accepted\" does not match the \
                    socket (mode \"accept\"); set mode = \"accept\", or configure ";
    assert!(stderr.starts_with(expected), "{stderr}");
    let (status, stdout, _) = query(&directory, &["--check", "--config", "greeter-inet"]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains("greeting: 39 bytes\n"), "{stdout}");
}

#[test]
fn unknown_name_is_an_error_with_the_nearest_one() {
    let directory = support::TempDir::new();
    directory.write("settings/smtp.toml", "");
    for (name, remedy) in [
        ("greter", "did you mean 'greeter'?"),
        ("smpt", "did you mean 'smtp'?"),
        (
            "greeter.toml",
            "write 'greeter', or './greeter.toml' for a file in this directory",
        ),
        ("zzz", "create 'zzz.toml' in the first of them"),
    ] {
        let (status, stdout, stderr) = query(&directory, &["--check", "--config", name]);
        let expected = format!(
            "greeter: {name}: no settings of this name in /settings, /etc/greeter, \
             /run/greeter, /usr/lib/greeter; {remedy}\n"
        );
        assert_eq!((status, stdout.as_str()), (INVALID, ""));
        assert_eq!(stderr, expected);
    }
}

/// The name of the sockets of each unit selects a greeting.
#[test]
fn preview_is_that_of_the_sockets_of_the_unit() {
    let directory = support::TempDir::new();
    for (config, name) in [
        ("greeter", "greeter"),
        ("greeter-accepted", "greeter-accepted"),
        ("greeter-inet", "stdin"),
    ] {
        let text = format!("[greeting.{name}]\nmessage = 'of {name}'\n");
        directory.write(&format!("settings/{config}.toml"), text);
        let (status, stdout, _) = query(&directory, &["--preview", "--config", config]);
        assert_eq!((status, stdout), (Some(0), format!("of {name}\n")));
    }
}

#[test]
fn show_config_lists_every_key_with_its_default() {
    let expected = r#"mode = "auto"
message = "This is a test"
line_ending = "lf"
proxy_protocol = "off"
log_level = "info"
log_peer = "full"
log_exclude = []
limits.connections = 1024
limits.connections_per_source = 0
limits.header_timeout = "3s"
limits.write_timeout = "10s"
limits.linger_timeout = "2s"
limits.linger_bytes = 65536
limits.drain_timeout = "5s"
limits.idle_timeout = "0s""#;
    let shown = show_config("/dev/null");
    assert_eq!(without_comments(&shown).join("\n"), expected);
    assert_eq!(
        shown.matches("  # default\n").count(),
        shown.lines().count()
    );
}

/// An empty text is a mistake, unless line_ending says that it is none.
#[test]
fn empty_text_is_valid_as_raw_bytes() {
    let directory = support::TempDir::new();
    directory.write(
        "settings/greeter.toml",
        "message = ''\nline_ending = 'raw'\n",
    );
    let (status, stdout, stderr) = query(&directory, &["--preview"]);
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (Some(0), "", "")
    );
}

/// A file's name can contain anything but a slash: none of it reaches the terminal, nor
/// adds a line that reads as a setting.
#[test]
fn control_characters_in_names_are_escaped() {
    let directory = support::TempDir::new();
    let settings = directory.write("g.toml", "message = 'x'\n");
    let name = "a\x1b[2J\nmode = \"inet\".toml";
    directory.write(
        &format!("g.toml.d/{name}"),
        "[greeting.\"\\u001b\"]\nmessage = 'y'\n",
    );
    directory.write("g.toml.d/b\x07.conf", "");
    for query in ["--check", "--show-config"] {
        let output = Command::new(support::GREETER)
            .args(["--config", &settings, query])
            .output()
            .unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        let is_clean = |line: &str| !line.contains(char::is_control);
        assert!(stdout.lines().all(is_clean), "{query}: {stdout:?}");
        let added = stdout
            .lines()
            .any(|line| line.starts_with("mode = \"inet\""));
        assert!(!added, "{query}: {stdout:?}");
        assert!(stdout.contains("a\\u{1b}[2J\\nmode"), "{query}: {stdout:?}");
    }
}

/// Only the service can read it.
#[test]
fn credential_that_cannot_be_read_is_a_warning() {
    let directory = support::TempDir::new();
    let settings = directory.write(
        "g.toml",
        "message_file = '/run/credentials/greeter.service/notice'\n",
    );
    let output = Command::new(support::GREETER)
        .args(["--config", &settings, "--check"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let expected = "'/run/credentials/greeter.service/notice' was not checked: it is a credential";
    assert!(stderr.contains(expected), "{stderr}");
    // The service needs it.
    let service = Command::new(support::GREETER)
        .args(["--listen", "127.0.0.1:0", "--config", &settings])
        .output()
        .unwrap();
    assert_eq!(service.status.code(), Some(78));
}

#[test]
fn drop_ins_that_are_passed_over_are_listed() {
    let directory = support::TempDir::new();
    directory.write("settings/greeter.toml.d/my.conf", "message = 'x'\n");
    directory.write("settings/greeter.toml.d/a.toml", "message = 'a'\n");
    let (status, stdout, _) = query(&directory, &["--check"]);
    assert_eq!(status, Some(0));
    let expected = "/settings/greeter.toml.d/a.toml: read\n\
                    /settings/greeter.toml.d/my.conf: ignored, because its name is not NAME.toml\n";
    assert!(stdout.starts_with(expected), "{stdout}");
}

#[test]
fn preview_of_a_name_without_a_table_is_noted() {
    let directory = support::TempDir::new();
    directory.write(
        "settings/greeter.toml",
        "message = 'general'\n[greeting.smtp]\nmessage = '421'\n",
    );
    let (status, stdout, stderr) = query(&directory, &["--preview", "smpt"]);
    assert_eq!((status, stdout.as_str()), (Some(0), "general\n"));
    assert_eq!(
        stderr,
        "greeter: no table [greeting.smpt]: this is the general greeting; did you mean 'smtp'?\n"
    );
    let (_, stdout, stderr) = query(&directory, &["--preview", "smtp"]);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("421\n", ""));
    let (_, stdout, stderr) = query(&directory, &["--preview"]);
    assert_eq!((stdout.as_str(), stderr.as_str()), ("general\n", ""));
}
