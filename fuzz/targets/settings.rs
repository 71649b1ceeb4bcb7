//! A settings file and its drop-ins, laid over each other and checked. The files
//! stand between bytes 0xFF, which no UTF-8 holds.
#![no_main]

use std::path::PathBuf;
use std::str;

use greeter::error::Error;
use greeter::settings::load::merge;
use greeter::settings::source::Source;
use greeter::settings::values::Settings;
use libfuzzer_sys::fuzz_target;

/// Where no file is, so that `message_file` finds none.
const FOLDER: &str = "/nonexistent/greeter";

fuzz_target!(|bytes: &[u8]| {
    let Ok(texts) = bytes
        .split(|byte| *byte == 0xFF)
        .map(str::from_utf8)
        .collect::<Result<Vec<_>, _>>()
    else {
        return;
    };
    let sources = texts.iter().enumerate().map(|(number, text)| Source {
        path: PathBuf::from(format!("{FOLDER}/{number}.toml")),
        text: (*text).to_owned(),
    });
    match merge(sources.collect(), "greeter.socket", None) {
        Ok(settings) => assert_sound(&settings),
        Err(error) => {
            assert_eq!(error.status(), 78);
            let said = error.to_string();
            assert!(said.starts_with(FOLDER), "{said:?}");
            assert!(!said.contains(char::is_control), "{said:?}");
            if let Error::Settings { excerpt, .. } = &error {
                let lines = excerpt.lines().count();
                assert!(lines == 0 || lines == 3, "{excerpt:?}");
            }
        }
    }
});

/// What the manual promises of settings that were taken: they are within their
/// limits, and what `--show-config` prints is the same settings again.
fn assert_sound(settings: &Settings) {
    assert!((1..=1_000_000).contains(&settings.limits.connections));
    assert!(settings.limits.linger_bytes <= 1 << 30);
    assert!(
        settings
            .limits
            .idle_timeout
            .is_none_or(|time| !time.is_zero())
    );
    for name in settings.named.keys() {
        assert_eq!(settings.template(name), &settings.named[name]);
    }
    let printed = &settings.shown;
    let source = Source {
        path: PathBuf::from(format!("{FOLDER}/printed.toml")),
        text: printed.clone(),
    };
    let again = merge(vec![source], "greeter.socket", None).expect(printed);
    assert_eq!(values(printed), values(&again.shown));
}

/// The lines without their comments, which say where a value stood. The comment
/// is behind the last `  # ` of a line.
fn values(printed: &str) -> Vec<&str> {
    printed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.rsplit_once("  # ").map_or(line, |(value, _)| value))
        .collect()
}
