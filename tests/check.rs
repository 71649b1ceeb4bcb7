//! `greeter --check` on wrong settings files: what it says, to the letter. Each
//! file of tests/fixtures/wrong/ has its text beside it.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn wrong_files_are_answered_to_the_letter() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wrong");
    let mut checked = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|end| end != "toml") {
            continue;
        }
        let name = format!("./{}", file.file_name().unwrap().to_str().unwrap());
        let output = Command::new(support::GREETER)
            .current_dir(&folder)
            .args(["--config", &name, "--check"])
            .output()
            .unwrap();
        let expected = fs::read_to_string(file.with_extension("said")).unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stderr), expected, "{name}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{name}");
        assert_eq!(output.status.code(), Some(78), "{name}");
        checked += 1;
    }
    assert!(checked >= 30, "only {checked} files were found");
}

#[test]
fn sound_files_are_listed_and_every_greeting_is_rendered() {
    let folder = support::Folder::new();
    let main = folder.write("g.toml", "mode = 'accept'\nmessage = 'hello'\n");
    let drop_in = folder.write("g.toml.d/smtp.toml", "[greeting.smtp]\nmessage = '421'\n");
    let output = Command::new(support::GREETER)
        .args(["--config", &main, "--check"])
        .output()
        .unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!(
            "{main}: read\n{drop_in}: read\nmode: accept\ngreeting: 6 bytes\n\
             greeting of sockets named 'smtp': 4 bytes\nthe settings are sound\n"
        )
    );
}

#[test]
fn show_config_names_the_file_and_line_of_every_value_and_can_be_read_again() {
    let folder = support::Folder::new();
    let main = folder.write(
        "g.toml",
        "\nmessage = 'a \"b\" {{'\n[limits]\nconnections = 5\n",
    );
    let drop_in = folder.write("g.toml.d/1.toml", "[limits]\nconnections = 6\n");
    let show = |file: &str| {
        let shown = Command::new(support::GREETER)
            .args(["--config", file, "--show-config"])
            .output()
            .unwrap();
        assert!(shown.status.success(), "{shown:?}");
        String::from_utf8(shown.stdout).unwrap()
    };
    let shown = show(&main);
    for line in [
        format!("limits.connections = 6  # {drop_in}:2"),
        "limits.write_timeout = \"10s\"  # default".to_owned(),
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}\n{shown}");
    }
    assert!(shown.contains(&format!("  # {main}:2\n")), "{shown}");

    let values = |text: &str| {
        let value = |line: &str| line.split("  # ").next().unwrap().to_owned();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(value).collect::<Vec<_>>()
    };
    let again = folder.write("again.toml", &shown);
    assert_eq!(values(&show(&again)), values(&shown));
}
