//! The properties of a unit as systemctl(1) shows them.

use std::ffi::CString;

use crate::sys::ffi;

/// The properties `names` of a unit, a line `NAME=VALUE` each; empty if systemd does not
/// run or does not know. Unit and names must not need quotes in a shell.
pub fn show(unit: &str, names: &[&str]) -> String {
    // systemctl(1) shows the properties of an instance, not of a template.
    let unit = unit.replace("@.", "@check.");
    let names = names.join(",");
    let command = format!("systemctl show --property={names} {unit} </dev/null 2>/dev/null");
    CString::new(command)
        .ok()
        .and_then(|command| ffi::command_output(&command))
        .map(|output| String::from_utf8_lossy(&output).into_owned())
        .unwrap_or_default()
}
