//! The merged settings as TOML, each value with its origin (`--show-config`).

use std::collections::HashMap;
use std::path::Path;

use super::files::SettingsFile;
use super::formats::quoted;
use super::layers::{Layers, Message};
use super::table::{Line, Origin};
use crate::error::escape_control;
use crate::mode::Mode;

/// Every key of `layers` in the order of greeter.toml(5), one key per line, in
/// the form `KEY = VALUE  # ORIGIN`. The result is valid TOML, and reading it gives
/// the same settings. `mode` selects the default message.
pub fn show(layers: &Layers, mode: Mode) -> String {
    let mut merged = layers.merge();
    if let Message::Text(text) = merged.message(mode).value {
        merged.general.message.value = Some(text.to_owned());
    }
    let mut output = Output::default();
    output.table("", merged.general.lines());
    output.table("limits.", merged.limits.lines());
    for (name, greeting) in &merged.greetings {
        // A socket's name may contain what a bare key of TOML may not.
        output.table(&format!("greeting.{}.", quoted(name)), greeting.lines());
    }
    output.text
}

#[derive(Default)]
struct Output<'a> {
    text: String,
    /// The offsets of all newlines of each file that was met.
    newlines: HashMap<&'a Path, Vec<usize>>,
}

impl<'a> Output<'a> {
    /// Appends the keys of a table that are set. `prefix` is the table's name and a dot.
    fn table(&mut self, prefix: &str, lines: Vec<Line<'a>>) {
        for Line { key, value, origin } in lines {
            let Some(value) = value else {
                continue;
            };
            let origin = match origin {
                Origin::Default => "default".to_owned(),
                Origin::File(file, span) => {
                    let line = self.line_number(file, span.start);
                    // A name with a newline must not add a line that reads as a setting.
                    escape_control(&format!("{}:{line}", file.path.display()))
                }
            };
            self.text += &format!("{prefix}{key} = {value}  # {origin}\n");
        }
    }

    /// The line of a byte offset, from 1. Each file is searched for newlines once,
    /// so that a file with many keys takes linear time.
    fn line_number(&mut self, file: &'a SettingsFile, offset: usize) -> usize {
        let newlines = self.newlines.entry(&file.path).or_insert_with(|| {
            let newlines = file.text.match_indices('\n');
            newlines.map(|(offset, _)| offset).collect()
        });
        newlines.partition_point(|newline| *newline < offset) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_higher_file_replaces_is_not_shown() {
        let file = |path: &str, text: &str| SettingsFile::new(path, text);
        let files = vec![
            file("1", "message = 'a'\n[greeting.x]\nmessage_file = 'f'\n"),
            file("2", "\nmessage_file = 'f'\n[greeting.x]\nmessage = 'x'\n"),
        ];
        let layers = Layers::parse(files, "greeter.socket").unwrap();
        let shown = show(&layers, Mode::Accept);
        let messages: Vec<_> = shown.lines().filter(|line| line.contains("mess")).collect();
        let expected = [
            "message_file = \"f\"  # 2:2",
            "greeting.\"x\".message = \"x\"  # 2:4",
        ];
        assert_eq!(messages, expected);
    }
}
