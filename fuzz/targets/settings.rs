//! A settings file and its drop-ins, parsed, merged and validated. The files are
//! separated by bytes 0xFF, which UTF-8 does not contain.
#![no_main]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str;

use greeter::error::Error;
use greeter::mode::Mode;
use greeter::settings::Settings;
use greeter::settings::files::SettingsFile;
use greeter::settings::layers::Layers;
use greeter::settings::load;
use greeter::settings::show::show;
use libfuzzer_sys::fuzz_target;

/// It does not exist, so that a relative `message_file` is not found.
const DIRECTORY: &str = "/nonexistent/greeter";
const SOCKET_UNIT: &str = "greeter.socket";

fuzz_target!(|bytes: &[u8]| {
    let Ok(texts) = bytes
        .split(|byte| *byte == 0xFF)
        .map(str::from_utf8)
        .collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let files = texts
        .iter()
        .enumerate()
        .map(|(number, text)| file(&number.to_string(), text));
    match Layers::parse(files.collect(), SOCKET_UNIT) {
        Ok(layers) => match load::settings(&layers, None) {
            Ok(settings) => {
                assert_within_limits(&settings);
                assert_round_trip(&layers, &settings);
            }
            Err(error) => assert_is_helpful(&error, &layers.merge().message_files()),
        },
        Err(error) => assert_is_helpful(&error, &BTreeSet::new()),
    }
});

fn file(name: &str, text: &str) -> SettingsFile {
    SettingsFile::new(format!("{DIRECTORY}/{name}.toml"), text)
}

/// Valid settings are within the limits that greeter.toml(5) documents.
fn assert_within_limits(settings: &Settings) {
    let limits = &settings.limits;
    assert!((1..=1_000_000).contains(&limits.connections));
    assert!(limits.connections_per_source <= 1_000_000);
    assert!(limits.linger_bytes <= 1 << 30);
    assert!(limits.idle_timeout.is_none_or(|timeout| !timeout.is_zero()));
}

/// What `--show-config` prints is a settings file with the same settings.
fn assert_round_trip(layers: &Layers, settings: &Settings) {
    let mode = settings.mode.unwrap_or(Mode::Accept);
    let shown = show(layers, mode);
    let copied_layers = Layers::parse(vec![file("shown", &shown)], SOCKET_UNIT).expect(&shown);
    let copied = load::settings(&copied_layers, None).expect(&shown);
    assert_eq!(
        without_origins(&shown),
        without_origins(&show(&copied_layers, mode))
    );
    assert_eq!(copied.mode, settings.mode);
    assert_eq!(copied.limits, settings.limits);
    for name in settings.greetings.names().chain(copied.greetings.names()) {
        assert_eq!(
            copied.greetings.for_socket(name),
            settings.greetings.for_socket(name)
        );
    }
}

/// An error is one line that begins with the settings file or the message file, and has
/// an excerpt if it is about a part of it.
fn assert_is_helpful(error: &Error, message_files: &BTreeSet<PathBuf>) {
    assert_eq!(error.status(), 78);
    let message = error.to_string();
    let names_message_file = message_files.iter().any(|path| {
        let path = path.to_string_lossy();
        // Control characters are escaped in the message.
        path.split(char::is_control)
            .next()
            .is_some_and(|start| !start.is_empty() && message.starts_with(start))
    });
    assert!(
        message.starts_with(DIRECTORY) || names_message_file,
        "{message:?}"
    );
    assert!(!message.contains(char::is_control), "{message:?}");
    assert!(!message.contains(": invalid TOML: ;"), "{message:?}");
    if let Error::Settings { excerpt, .. } = error {
        let lines = excerpt.lines().count();
        assert!(lines == 0 || lines == 3, "{excerpt:?}");
    }
}

/// The lines without their comments, which contain the origins. A comment begins at
/// the last `  # ` of its line.
fn without_origins(shown: &str) -> Vec<&str> {
    shown
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value))
        .collect()
}
