//! The merged settings as TOML, each value with its origin (`--show-config`).

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use super::files::SettingsFile;
use super::fragment::Keyword;
use super::layers::{Layers, Message, Origin, Setting};
use super::network::Network;
use crate::mode::Mode;
use crate::time_format;

/// Every key of `layers` in the order of greeter.toml(5), one key per line, in
/// the form `KEY = VALUE  # ORIGIN`. The result is valid TOML, and reading it gives
/// the same settings. `mode` selects the default message.
pub fn show(layers: &Layers, mode: Mode) -> String {
    let merged = layers.merge(mode);
    let mut output = Output::default();
    output.word("mode", &merged.mode);
    output.message("", &merged.message);
    output.word("line_ending", &merged.line_ending);
    output.word("proxy_protocol", &merged.proxy_protocol);
    output.word("log_level", &merged.log_level);
    output.word("log_peer", &merged.log_peer);
    output.networks("log_exclude", &merged.log_exclude);
    let limits = &merged.limits;
    output.number("limits.connections", &limits.connections);
    output.number(
        "limits.connections_per_source",
        &limits.connections_per_source,
    );
    output.duration("limits.header_timeout", &limits.header_timeout);
    output.duration("limits.write_timeout", &limits.write_timeout);
    output.duration("limits.linger_timeout", &limits.linger_timeout);
    output.number("limits.linger_bytes", &limits.linger_bytes);
    output.duration("limits.drain_timeout", &limits.drain_timeout);
    let idle_timeout = Setting {
        value: limits.idle_timeout.value.unwrap_or(Duration::ZERO),
        origin: limits.idle_timeout.origin.clone(),
    };
    output.duration("limits.idle_timeout", &idle_timeout);
    for (name, greeting) in &merged.greetings {
        // A socket's name may contain what a bare key of TOML may not.
        let table = format!("greeting.{}.", quoted(name));
        if let Some(message) = &greeting.message {
            output.message(&table, message);
        }
        if let Some(line_ending) = &greeting.line_ending {
            output.word(&format!("{table}line_ending"), line_ending);
        }
        if let Some(proxy_protocol) = &greeting.proxy_protocol {
            output.word(&format!("{table}proxy_protocol"), proxy_protocol);
        }
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
    fn word<T: Keyword>(&mut self, key: &str, setting: &Setting<'a, T>) {
        for (word, value) in T::WORDS {
            if *value == setting.value {
                self.line(key, &quoted(word), &setting.origin);
            }
        }
    }

    fn number(&mut self, key: &str, setting: &Setting<'a, u32>) {
        self.line(key, &setting.value.to_string(), &setting.origin);
    }

    fn networks(&mut self, key: &str, setting: &Setting<'a, &'a [Network]>) {
        let networks: Vec<String> = setting
            .value
            .iter()
            .map(|network| quoted(&network.to_string()))
            .collect();
        self.line(key, &format!("[{}]", networks.join(", ")), &setting.origin);
    }

    fn duration(&mut self, key: &str, setting: &Setting<'a, Duration>) {
        let value = quoted(&time_format::format_duration(setting.value));
        self.line(key, &value, &setting.origin);
    }

    fn message(&mut self, table: &str, setting: &Setting<'a, Message<'a>>) {
        let (name, value) = match setting.value {
            Message::Text(text) => ("message", quoted(text)),
            Message::File(path, _) => ("message_file", quoted(&path.to_string_lossy())),
        };
        self.line(&format!("{table}{name}"), &value, &setting.origin);
    }

    fn line(&mut self, key: &str, value: &str, origin: &Origin<'a>) {
        let origin = match origin {
            Origin::Default => "default".to_owned(),
            Origin::File(file, span) => {
                let line = self.line_number(file, span.start);
                format!("{}:{line}", file.path.display())
            }
        };
        self.text += &format!("{key} = {value}  # {origin}\n");
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

/// A TOML basic string, on one line (TOML 1.0, String).
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted += "\\\"",
            '\\' => quoted += "\\\\",
            '\n' => quoted += "\\n",
            '\r' => quoted += "\\r",
            '\t' => quoted += "\\t",
            c if c.is_control() => quoted += &format!("\\u{:04X}", u32::from(c)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_escaped_on_one_line() {
        for (text, expected) in [
            ("plain", "\"plain\""),
            ("a \"b\" \\", "\"a \\\"b\\\" \\\\\""),
            ("a\r\n\tb", "\"a\\r\\n\\tb\""),
            ("\u{1b}\u{7f}\u{9b}", "\"\\u001B\\u007F\\u009B\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
