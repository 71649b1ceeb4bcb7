//! The settings as `--show-config` and `--check` print them. Floor 4.

use std::fmt::Write;

use super::Settings;

impl Settings {
    /// The merged settings as TOML, each value with the file that set it. What
    /// is printed can be saved and read again.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        for file in &self.files {
            // Writing to a string does not fail.
            let _ = writeln!(out, "# read: {}", file.display());
        }
        if self.files.is_empty() {
            out.push_str("# read: no file, every value is a default\n");
        }
        let mut table = "";
        for shown in &self.shown {
            if shown.table != table {
                table = &shown.table;
                let _ = write!(out, "\n[{table}]\n");
            }
            let origin = shown.origin.as_deref().unwrap_or("default");
            let name = shown.name;
            let _ = match &shown.value {
                Some(value) => writeln!(out, "{name} = {value}  # {origin}"),
                None => writeln!(out, "#{name} =  # not set"),
            };
        }
        out
    }
}
