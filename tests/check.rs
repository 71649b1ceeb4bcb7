//! `--check` and `--show-config`: exact output. Each invalid settings file of
//! tests/fixtures/invalid/ has the expected stderr beside it.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

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
