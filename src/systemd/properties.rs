//! The properties of a unit as systemctl(1) shows them.

use std::process::{Command, Stdio};

/// The properties `names` of a unit, a line `NAME=VALUE` each; empty if systemd does not
/// run or does not know.
pub fn show(unit: &str, names: &[&str]) -> String {
    // systemctl(1) shows the properties of an instance, not of a template.
    let unit = unit.replace("@.", "@check.");
    let output = Command::new("systemctl")
        .args(["show", "--property", &names.join(","), "--", &unit])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => String::new(),
    }
}
