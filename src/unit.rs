//! The service units of the package, as far as `--check` must know them: which mode
//! they have, and what they see of the host.

use crate::mode::Mode;

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
}

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
}
