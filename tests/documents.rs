//! Compares the manual, the settings files, the message catalogue, the completions
//! and the security model with the lists in the code, in both directions: nothing is
//! missing, and nothing is documented that does not exist. Compares the units that are
//! copies of each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use greeter::greeting::Placeholder;
use greeter::settings::TABLES;

/// The names of the settings files in etc/.
const SETTINGS: &[&str] = &["greeter", "greeter-accepted", "greeter-inet"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts of all Rust files in a directory and below.
fn sources(directory: &Path) -> Vec<String> {
    let mut texts = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            texts.push(fs::read_to_string(path).unwrap());
        }
    }
    texts
}

/// Every text between `open` and the next `close` that is not empty and consists of
/// `allowed` characters.
fn between(text: &str, open: &str, close: &str, allowed: fn(char) -> bool) -> BTreeSet<String> {
    text.split(open)
        .skip(1)
        .filter_map(|rest| rest.split(close).next())
        .filter(|part| !part.is_empty() && part.chars().all(allowed))
        .map(str::to_owned)
        .collect()
}

/// Every word that begins with `prefix` and continues with `allowed` characters.
fn words(text: &str, prefix: &str, allowed: fn(char) -> bool) -> BTreeSet<String> {
    text.split(prefix)
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c| !allowed(c)).unwrap_or(rest.len());
            format!("{prefix}{}", &rest[..end])
        })
        .collect()
}

fn is_key_character(c: char) -> bool {
    c.is_ascii_lowercase() || c == '_'
}

fn is_field_character(c: char) -> bool {
    c.is_ascii_uppercase() || c == '_'
}

fn is_option_character(c: char) -> bool {
    c.is_ascii_lowercase() || c == '-'
}

fn assert_same(what: &str, found: &BTreeSet<String>, expected: impl IntoIterator<Item = String>) {
    let expected: BTreeSet<String> = expected.into_iter().collect();
    assert_eq!(found, &expected, "{what}");
}

/// A key of the settings.
struct Key {
    table: &'static str,
    name: &'static str,
    /// The default as `--show-config` prints it; empty if there is none, and for `message`,
    /// whose default depends on the mode.
    default: String,
}

/// Every key.
fn keys() -> Vec<Key> {
    let shown = run_greeter(&["--config", "/dev/null", "--show-config"]);
    let mut defaults: BTreeMap<&str, &str> = shown
        .lines()
        .filter_map(|line| line.strip_suffix("  # default")?.split_once(" = "))
        .collect();
    assert_eq!(defaults.len(), shown.lines().count(), "{shown}");
    defaults.remove("message").unwrap();
    let mut keys = Vec::new();
    for (table, names) in TABLES {
        for name in names {
            let path = format!("{table}.{name}");
            let default = defaults.remove(path.trim_start_matches('.'));
            let default = default.unwrap_or_default().to_owned();
            keys.push(Key {
                table,
                name,
                default,
            });
        }
    }
    assert!(defaults.is_empty(), "{defaults:?}");
    keys
}

#[test]
fn manual_documents_every_key_with_its_default() {
    let manual = read("man/greeter.toml.5.scd");
    for key in keys() {
        let heading = match (key.table, key.default.as_str()) {
            // The keys of these tables are indented: the manual explains them above.
            ("greeting.NAME", _) => format!("*{}*", key.name),
            (_, "") => format!("\n*{}* ", key.name),
            (_, default) => format!("\n*{}* = {default}\n", key.name),
        };
        assert!(
            manual.contains(&heading),
            "greeter.toml(5) lacks {heading:?}"
        );
    }
    let headings: String = manual
        .lines()
        .filter(|line| line.starts_with('*') && (line.contains("* = ") || line.contains("* (no")))
        .map(|line| format!("{line}\n"))
        .collect();
    let expected = keys()
        .into_iter()
        .filter(|key| key.table != "greeting.NAME")
        .map(|key| key.name.to_owned());
    assert_same(
        "headings of greeter.toml(5)",
        &between(&headings, "*", "* ", is_key_character),
        expected,
    );
}

#[test]
fn greeter_toml_shows_every_default() {
    let path = "etc/greeter.toml";
    let text = read(path);
    for key in keys().iter().filter(|key| key.table != "greeting.NAME") {
        let line = match key.name {
            "mode" | "message" => format!("\n{} = \"", key.name),
            "message_file" => "\n#message_file = \"".to_owned(),
            _ => format!("\n#{} = {}\n", key.name, key.default),
        };
        assert!(text.contains(&line), "{path} lacks {line:?}");
    }
    for placeholder in Placeholder::ALL {
        let written = format!("{{{}}}", placeholder.name());
        assert!(text.contains(&written), "{path} lacks {written}");
    }
}

#[test]
fn settings_files_are_valid() {
    for name in SETTINGS {
        let path = format!("etc/{name}.toml");
        let text = read(&path);
        for key in ["mode", "message"] {
            assert!(text.contains(&format!("\n{key} = \"")), "{path}: {key}");
        }
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.toml"));
        fs::write(&file, uncommented(&text)).unwrap();
        let output = run_greeter(&["--config", file.to_str().unwrap(), "--check"]);
        assert!(output.contains("settings are valid"), "{path}: {output}");
    }
}

/// A settings file with every key set: the comment signs before keys and tables are
/// removed, and `message_file`, which excludes `message`, is left out.
fn uncommented(text: &str) -> String {
    text.lines()
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c| is_key_character(c) || c == '[') => rest,
            _ => line,
        })
        .filter(|line| !line.starts_with("message_file"))
        .map(|line| format!("{line}\n"))
        .collect()
}

#[test]
fn manual_documents_every_placeholder() {
    let manual = read("man/greeter.toml.5.scd");
    let found = between(&manual, "*{", "}*", is_key_character);
    let names = Placeholder::ALL.map(|placeholder| placeholder.name().to_owned());
    assert_same("placeholders in greeter.toml(5)", &found, names);
}

/// The names and MESSAGE_IDs of src/event.rs.
fn events() -> Vec<(String, String)> {
    let code = read("src/event.rs");
    let mut events = Vec::new();
    for line in code.lines() {
        let Some(constant) = line.strip_prefix("pub const ") else {
            continue;
        };
        let (name, value) = constant.split_once(": &str = \"").unwrap();
        let id = value.strip_suffix("\";").unwrap();
        events.push((name.to_owned(), id.to_owned()));
    }
    assert_eq!(events.len(), code.matches("const").count());
    events
}

#[test]
fn message_ids_are_unique_128_bit_values() {
    let ids: BTreeSet<String> = events().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids.len(), events().len());
    for id in ids {
        let is_hex = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        assert!(id.len() == 32 && is_hex, "{id}");
    }
}

#[test]
fn manual_and_catalogue_document_every_event() {
    let manual = read("man/greeter.8.scd");
    let catalogue = read("systemd/greeter.catalog");
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
    assert_same(
        "identifiers in the catalogue",
        &ids,
        events().into_iter().map(|(_, id)| id),
    );
}

#[test]
fn manual_documents_every_journal_field() {
    let documented = words(&read("man/greeter.8.scd"), "GREETER_", is_field_character);
    let mut logged = BTreeSet::new();
    for text in sources(&root().join("src")) {
        // Comments also name fields; they must not count as code that logs them.
        for line in text.lines().filter(|line| !line.trim().starts_with("//")) {
            logged.extend(words(line, "GREETER_", is_field_character));
        }
    }
    assert!(logged.len() > 5, "{logged:?}");
    assert_same("fields in greeter(8)", &documented, logged);
}

#[test]
fn every_option_is_documented_and_completed() {
    let help = run_greeter(&["--help"]);
    let option_lines: String = help
        .lines()
        .filter(|line| line.trim().starts_with('-'))
        .collect();
    let options = words(&option_lines, "--", is_option_character);
    assert!(options.contains("--preview"), "{options:?}");
    let manual = read("man/greeter.8.scd");
    let headings: String = manual
        .lines()
        .filter(|line| line.starts_with("*-"))
        .collect();
    assert_same(
        "options in greeter(8)",
        &words(&headings, "--", is_option_character),
        options.clone(),
    );
    for option in &options {
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
fn security_model_names_existing_tests() {
    let code = sources(&root().join("src")).concat() + &sources(&root().join("tests")).concat();
    let model = read("SECURITY.md");
    let test_cells: String = model
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split(" | ").nth(1))
        .collect();
    let tests = between(&test_cells, "`", "`", |c| {
        is_key_character(c) || c.is_ascii_digit() || c == '/' || c == '-' || c == '.'
    });
    assert!(tests.len() > 10, "{tests:?}");
    for test in tests
        .iter()
        .filter(|name| name.contains('_') || name.contains('/'))
    {
        let exists = if test.contains('/') {
            root().join(test).exists()
        } else {
            code.contains(&format!("fn {test}()"))
        };
        assert!(exists, "SECURITY.md names '{test}', which is not a test");
    }
}

#[test]
fn template_services_are_copies_of_greeter_service() {
    for directory in ["systemd/system", "systemd/user"] {
        let service = read(&format!("{directory}/greeter.service"));
        let (service, _) = service
            .split_once("\n[Install]\n")
            .unwrap_or((&service, ""));
        let mut expected = String::new();
        for line in service.trim_end().lines() {
            let line = match line.split_once('=') {
                Some(("Description", _)) => "Description=Greeter on port %i",
                Some(("Requires", "greeter.socket")) => "Requires=greeter@%i.socket",
                Some(("User", "_greeterd")) => "User=_greeterd-port",
                _ => line,
            };
            expected.push_str(line);
            expected.push('\n');
        }
        let path = format!("{directory}/greeter@.service");
        assert_eq!(read(&path), expected, "{path}");
    }
}

/// What the program prints.
fn run_greeter(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_greeter"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
