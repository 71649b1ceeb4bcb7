//! The service units of the package, as far as `--check` must know them: which mode
//! they have, and what they see of the host.

use crate::mode::Mode;

/// The user that the services run as (`DynamicUser=yes`).
const USER: &str = "_greeterd";

/// A service unit of the package.
#[derive(Debug)]
pub struct Unit {
    /// What it passes as `--config`.
    pub config: &'static str,
    /// Its name, which is also the name of its directory of drop-ins, without the `.d`.
    pub service: &'static str,
    /// The mode of its socket unit.
    pub mode: Mode,
}

/// Every service unit of the package. The instances of greeter@.service are like
/// greeter.service.
pub const UNITS: [Unit; 3] = [
    Unit {
        config: "greeter",
        service: "greeter.service",
        mode: Mode::Accept,
    },
    Unit {
        config: "greeter-accepted",
        service: "greeter-accepted@.service",
        mode: Mode::Accepted,
    },
    Unit {
        config: "greeter-inet",
        service: "greeter-inet@.service",
        mode: Mode::Inet,
    },
];

/// The directories of the host that the services see, `BindReadOnlyPaths=` of each unit:
/// programs and libraries, and the settings.
pub const VISIBLE: [&str; 3] = ["/usr", "/etc/greeter", "/run/greeter"];

impl Unit {
    /// The properties that decide what the service can read.
    pub const ACCESS_PROPERTIES: [&'static str; 4] = [
        "User",
        "SupplementaryGroups",
        "BindPaths",
        "BindReadOnlyPaths",
    ];

    /// The unit that passes this argument of `--config`.
    pub fn of_config(config: &str) -> Option<&'static Self> {
        UNITS.iter().find(|unit| unit.config == config)
    }

    /// What is wrong with a file that is not in one of the directories [`VISIBLE`], and the
    /// fix.
    pub fn hidden(&self) -> String {
        let [programs, settings, transient] = VISIBLE;
        format!(
            "is hidden from {}, which sees only {programs}, {settings} and {transient}; move it \
             to {settings}, or make it visible with BindReadOnlyPaths= in a drop-in",
            self.service
        )
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
                    SHIPPED_PATHS.contains(&source.trim_start_matches('-'))
                }),
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

/// `BindReadOnlyPaths=` of the units.
const SHIPPED_PATHS: [&str; 7] = [
    "/usr",
    "/lib",
    "/lib64",
    "/etc/greeter",
    "/run/greeter",
    "/run/systemd/journal",
    "/run/systemd/notify",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_unit_shows_the_visible_directories() {
        let services = UNITS.map(|unit| unit.service);
        for service in services.iter().chain(&["greeter@.service"]) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/system");
            let text = fs::read_to_string(path.join(service)).unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("BindReadOnlyPaths="))
                .unwrap_or_default();
            let mut shown: Vec<&str> = line
                .split_whitespace()
                .map(|path| path.trim_start_matches('-'))
                .collect();
            // Parts of /usr.
            shown.retain(|path| !path.starts_with("/lib"));
            assert_eq!(shown, VISIBLE, "{service}");
        }
    }

    #[test]
    fn hidden_file_can_be_moved_or_made_visible() {
        let unit = Unit::of_config("greeter-inet").unwrap();
        assert_eq!(
            unit.hidden(),
            "is hidden from greeter-inet@.service, which sees only /usr, /etc/greeter and \
             /run/greeter; move it to /etc/greeter, or make it visible with BindReadOnlyPaths= \
             in a drop-in"
        );
        assert!(Unit::of_config("./greeter.toml").is_none());
    }

    #[test]
    fn changed_properties_are_those_of_drop_ins() {
        let check = |properties: &str, expected: &[&str]| {
            assert_eq!(Unit::changed_properties(properties), expected);
        };
        let shipped = "User=_greeterd\nSupplementaryGroups=\nBindPaths=";
        let visible =
            "BindReadOnlyPaths=/usr:/usr:rbind -/lib:/lib:rbind /etc/greeter -/run/greeter";
        check(&format!("{shipped}\n{visible}\n"), &[]);
        check(
            &format!("{visible} /srv/notices:/srv/notices:\nUser=www-data\n"),
            &["BindReadOnlyPaths", "User"],
        );
        check("SupplementaryGroups=notices\n", &["SupplementaryGroups"]);
    }
}
