//! The service units of the package, as far as `--check` must know them: which mode
//! they have, and what their sandbox hides.

use std::path::Path;

use crate::mode::Mode;

/// The user that the services run as (`DynamicUser=yes`).
pub const USER: &str = "_greeterd";

/// A service unit of the package.
#[derive(Debug)]
pub struct Unit {
    /// What it passes as `--config`.
    pub config: &'static str,
    /// Its name; of a template, the name of any instance.
    pub service: &'static str,
    /// The mode of its socket unit.
    pub mode: Mode,
    sandbox: Sandbox,
}

#[derive(Debug)]
enum Sandbox {
    /// All but the home directories and the temporary ones is visible.
    Host,
    /// Nothing is visible but /usr and the settings.
    Minimal,
}

/// Every service unit of the package.
pub const UNITS: [Unit; 3] = [
    Unit {
        config: "greeter",
        service: "greeter.service",
        mode: Mode::Accept,
        sandbox: Sandbox::Host,
    },
    Unit {
        config: "greeter-accepted",
        service: "greeter-accepted@.service",
        mode: Mode::Accepted,
        sandbox: Sandbox::Minimal,
    },
    Unit {
        config: "greeter-inet",
        service: "greeter-inet@.service",
        mode: Mode::Inet,
        sandbox: Sandbox::Minimal,
    },
];

/// Directories that are empty in greeter.service, and the setting that hides each.
const HIDDEN: [(&str, &str); 5] = [
    ("/home", "ProtectHome="),
    ("/root", "ProtectHome="),
    ("/run/user", "ProtectHome="),
    ("/tmp", "PrivateTmp="),
    ("/var/tmp", "PrivateTmp="),
];

/// What the per-connection services see; /bin, /lib and others are links to /usr, or
/// contain nothing but programs and libraries.
const VISIBLE: [&str; 9] = [
    "/usr",
    "/etc/greeter",
    "/run/greeter",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
];

impl Unit {
    /// The properties that decide what the service can read.
    pub const ACCESS_PROPERTIES: [&'static str; 6] = [
        "User",
        "SupplementaryGroups",
        "ProtectHome",
        "PrivateTmp",
        "BindPaths",
        "BindReadOnlyPaths",
    ];

    /// The unit that passes this argument of `--config`.
    pub fn of_config(config: &str) -> Option<&'static Self> {
        UNITS.iter().find(|unit| unit.config == config)
    }

    /// Why the service cannot see a path, and what to do; `None` if it can. The path
    /// must be absolute and without links.
    pub fn hides(&self, path: &Path) -> Option<String> {
        let service = self.service;
        match self.sandbox {
            Sandbox::Host => {
                let (_, setting) = HIDDEN.iter().find(|(hidden, _)| path.starts_with(hidden))?;
                Some(format!(
                    "is hidden from {service} by {setting}; move it to /etc/greeter"
                ))
            }
            Sandbox::Minimal if is_visible(path) => None,
            Sandbox::Minimal => Some(format!(
                "is hidden from {service}, which sees only /usr, /etc/greeter and /run/greeter; \
                 move it to /etc/greeter, or make it visible with BindReadOnlyPaths= in a drop-in"
            )),
        }
    }

    /// The properties that a drop-in of a unit has changed so that the service may read
    /// more than as shipped, of the output of systemctl(1) `show`.
    pub fn changed_properties(properties: &str) -> Vec<&str> {
        let mut changed = Vec::new();
        for line in properties.lines() {
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            let is_shipped = match name {
                "SupplementaryGroups" | "BindPaths" => value.is_empty(),
                // Each entry is SOURCE:TARGET:OPTIONS, the source perhaps after a dash.
                "BindReadOnlyPaths" => value.split_whitespace().all(|entry| {
                    let source = entry.split(':').next().unwrap_or_default();
                    is_visible(Path::new(source.trim_start_matches('-')))
                }),
                "ProtectHome" => matches!(value, "yes" | "tmpfs"),
                "PrivateTmp" => matches!(value, "yes" | "disconnected"),
                "User" => value == USER,
                _ => true,
            };
            if !is_shipped {
                changed.push(name);
            }
        }
        changed
    }
}

fn is_visible(path: &Path) -> bool {
    VISIBLE.iter().any(|visible| path.starts_with(visible))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_hides_what_the_units_hide() {
        let check = |config: &str, path: &str, is_hidden: bool| {
            let unit = Unit::of_config(config).unwrap();
            let reason = unit.hides(Path::new(path));
            assert_eq!(reason.is_some(), is_hidden, "{config} {path}: {reason:?}");
        };
        for path in [
            "/home/a/x",
            "/root/x",
            "/tmp/x",
            "/var/tmp/x",
            "/run/user/1/x",
        ] {
            check("greeter", path, true);
            check("greeter-inet", path, true);
        }
        for path in ["/etc/greeter/x", "/usr/share/x", "/run/greeter/x"] {
            check("greeter", path, false);
            check("greeter-accepted", path, false);
        }
        for path in ["/srv/x", "/etc/motd", "/etc/greeter-old/x", "/homes/x"] {
            check("greeter", path, false);
            check("greeter-accepted", path, true);
        }
    }

    #[test]
    fn changed_properties_are_those_of_drop_ins() {
        let check = |properties: &str, expected: &[&str]| {
            assert_eq!(Unit::changed_properties(properties), expected);
        };
        let shipped = "User=_greeterd\nSupplementaryGroups=\nBindPaths=\nProtectHome=";
        check(
            &format!("{shipped}yes\nPrivateTmp=disconnected\nBindReadOnlyPaths=\n"),
            &[],
        );
        let visible =
            "BindReadOnlyPaths=/usr:/usr:rbind -/bin:/bin:rbind /etc/greeter -/run/greeter";
        check(&format!("{shipped}tmpfs\nPrivateTmp=yes\n{visible}\n"), &[]);
        check(
            &format!("{visible} /srv/notices:/srv/notices:\nUser=www-data\n"),
            &["BindReadOnlyPaths", "User"],
        );
        check("ProtectHome=read-only\n", &["ProtectHome"]);
        check("PrivateTmp=no\n", &["PrivateTmp"]);
        check("SupplementaryGroups=notices\n", &["SupplementaryGroups"]);
    }
}
