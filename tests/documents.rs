//! Holds manual, settings files, catalogue, completions and security model to
//! the lists in the code, both ways: nothing is missing and nothing is made up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use greeter::greeting::PLACEHOLDERS;
use greeter::settings::keys::{KEYS, Key};

const SETTINGS: &[&str] = &["greeter", "greeter-accepted", "greeter-inet"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands between `open` and the next `close`, wherever `known` holds for
/// each of its characters.
fn between(text: &str, open: &str, close: &str, known: fn(char) -> bool) -> BTreeSet<String> {
    let parts = text
        .split(open)
        .skip(1)
        .filter_map(|rest| rest.split(close).next());
    parts
        .filter(|part| !part.is_empty() && part.chars().all(known))
        .map(str::to_owned)
        .collect()
}

fn name_like(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

/// The words of `text` that begin so, with what belongs to a name of that kind.
fn words(text: &str, prefix: &str, known: fn(char) -> bool) -> BTreeSet<String> {
    let ends = text
        .split(prefix)
        .skip(1)
        .map(|rest| rest.chars().take_while(|c| known(*c)));
    ends.map(|rest| format!("{prefix}{}", rest.collect::<String>()))
        .collect()
}

fn same(what: &str, found: &BTreeSet<String>, expected: impl IntoIterator<Item = String>) {
    let expected: BTreeSet<String> = expected.into_iter().collect();
    assert_eq!(found, &expected, "{what}");
}

#[test]
fn the_manual_explains_every_key_with_its_default_and_no_other() {
    let manual = read("man/greeter.toml.5.scd");
    for key in KEYS {
        let (table, name) = key.place();
        let heading = match (table, key.default) {
            // These stand indented, as they have been explained above.
            ("greeting.NAME", _) => format!("*{name}*"),
            (_, "") => format!("\n*{name}* "),
            (_, default) => format!("\n*{name}* = {default}\n"),
        };
        assert!(
            manual.contains(&heading),
            "greeter.toml(5) lacks {heading:?}"
        );
    }
    let headings = manual
        .lines()
        .filter(|line| line.starts_with('*') && (line.contains("* = ") || line.contains("* (no")));
    let headings: String = headings.map(|line| format!("{line}\n")).collect();
    let own = between(&headings, "*", "* ", name_like);
    let places = KEYS.iter().map(Key::place);
    let top = places.filter(|(table, _)| *table != "greeting.NAME");
    same("headings", &own, top.map(|(_, name)| name.to_owned()));
}

#[test]
fn every_settings_file_has_every_key_at_its_default() {
    for name in SETTINGS {
        let path = format!("etc/{name}.toml");
        let text = read(&path);
        for key in KEYS.iter().filter(|key| key.place().0 != "greeting.NAME") {
            let line = match key.place().1 {
                name @ ("mode" | "message") => format!("\n{name} = \""),
                "message_file" => "\n#message_file = \"".to_owned(),
                name => format!("\n#{name} = {}\n", key.default),
            };
            assert!(text.contains(&line), "{path} lacks {line:?}");
        }
        for placeholder in PLACEHOLDERS {
            assert!(
                text.contains(&format!("{{{placeholder}}}")),
                "{path}: {placeholder}"
            );
        }
        // With every comment sign taken off it is still sound.
        let bare = text.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c| name_like(c) || c == '[') => rest,
            _ => line,
        });
        let bare = bare.filter(|line| !line.starts_with("message_file"));
        let bare: String = bare.map(|line| format!("{line}\n")).collect();
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        fs::write(&file, bare).unwrap();
        assert!(greeter(&["--config", file.to_str().unwrap(), "--check"]).contains("sound"));
    }
}

#[test]
fn the_manual_explains_every_placeholder_and_no_other() {
    let manual = read("man/greeter.toml.5.scd");
    let found = between(&manual, "*{", "}*", name_like);
    same(
        "placeholders",
        &found,
        PLACEHOLDERS.iter().map(|name| (*name).to_owned()),
    );
}

/// The names and identifiers of src/event.rs.
fn events() -> Vec<(String, String)> {
    let code = read("src/event.rs");
    let lines = code.lines().filter_map(|line| {
        let (name, id) = line.strip_prefix("pub const ")?.split_once(": &str = ")?;
        let id = id.strip_prefix('"')?.strip_suffix("\";")?;
        Some((name.to_owned(), id.to_owned()))
    });
    let events: Vec<_> = lines.collect();
    assert_eq!(events.len(), code.matches("const").count());
    events
}

#[test]
fn every_event_has_an_identifier_of_128_bits_that_no_other_has() {
    let ids: BTreeSet<String> = events().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), events().len());
    for id in ids {
        let digits = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(id.len() == 32 && digits, "{id}");
    }
}

#[test]
fn every_event_is_in_the_manual_and_in_the_catalogue_and_no_other() {
    let (manual, catalogue) = (read("man/greeter.8.scd"), read("systemd/greeter.catalog"));
    for (name, id) in events() {
        let heading = manual
            .lines()
            .find(|line| line.starts_with(&format!("*{name}* (")));
        assert!(
            heading.is_some_and(|line| line.ends_with(&id)),
            "greeter(8): {name}"
        );
        let entry = format!("\n# {name}\n-- {id}\nSubject: ");
        assert!(catalogue.contains(&entry), "the catalogue lacks {entry:?}");
    }
    let ids = between(&catalogue, "\n-- ", "\n", |c| c.is_ascii_hexdigit());
    same("catalogue", &ids, events().into_iter().map(|(_, id)| id));
}

#[test]
fn the_manual_names_every_journal_field_and_no_other() {
    let field = |c: char| c.is_ascii_uppercase() || c == '_';
    let found = words(&read("man/greeter.8.scd"), "GREETER_", field);
    let logged = words(&read("src/server/guest.rs"), "GREETER_", field);
    assert!(logged.len() > 5, "{logged:?}");
    same("fields", &found, logged);
}

#[test]
fn every_option_is_in_the_manual_and_completed() {
    let option = |c: char| c.is_ascii_lowercase() || c == '-';
    let help = greeter(&["--help"]);
    let help = help.lines().filter(|line| line.trim().starts_with('-'));
    let help = words(&help.collect::<String>(), "--", option);
    assert!(help.contains("--preview"), "{help:?}");
    let manual = read("man/greeter.8.scd");
    let headings: String = manual
        .lines()
        .filter(|line| line.starts_with("*-"))
        .collect();
    same("greeter(8)", &words(&headings, "--", option), help.clone());
    for option in &help {
        let name = &option[2..];
        for (path, spelling) in [
            ("completions/greeter.bash", format!("{option} ")),
            ("completions/_greeter", format!("{option}[")),
            ("completions/greeter.fish", format!("-l {name} ")),
        ] {
            let text = read(path).replace("--version'", "--version ");
            assert!(text.contains(&spelling), "{path} lacks {option}");
        }
    }
}

#[test]
fn the_security_model_names_tests_that_there_are() {
    fn walk(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, text);
            } else if path.extension().is_some_and(|end| end == "rs") {
                text.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut sources = String::new();
    walk(&root().join("src"), &mut sources);
    walk(&root().join("tests"), &mut sources);
    let model = read("SECURITY.md");
    let held = model
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split(" | ").nth(1));
    let named: String = held.collect();
    let tests = between(&named, "`", "`", |c| {
        name_like(c) || c == '/' || c == '-' || c == '.'
    });
    assert!(tests.len() > 10, "{tests:?}");
    for test in tests
        .iter()
        .filter(|name| name.contains('_') || name.contains('/'))
    {
        let there = match test.contains('/') {
            true => root().join(test).exists(),
            false => sources.contains(&format!("fn {test}()")),
        };
        assert!(there, "SECURITY.md names '{test}', which is no test");
    }
}

/// What the program prints.
fn greeter(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_greeter"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
