//! The queries of the command line: `--check`, `--show-config`, `--preview`, and the
//! validation of `--reload`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::access;
use crate::cli::Cli;
use crate::error::{Error, escape_control};
use crate::event;
use crate::greeting::Context;
use crate::mode::Mode;
use crate::settings::files;
use crate::settings::hints;
use crate::settings::layers::Layers;
use crate::settings::load;
use crate::settings::show;
use crate::settings::{ProxyProtocol, Settings};
use crate::socket::LocalAddr;
use crate::sys;
use crate::time_format;
use crate::unit::{self, Unit};

/// Answers what the command line asks for: prints it, or returns the error.
///
/// # Errors
/// The settings are invalid, the service cannot read them, or stdout cannot be written.
pub fn answer(cli: &Cli) -> Result<(), Error> {
    let query = Query::read(cli)?;
    let answer = if let Some(name) = &cli.preview {
        query.preview(name)?
    } else if cli.show_config {
        query.show_config()?.into_bytes()
    } else {
        query.check()?.into_bytes()
    };
    if cli.quiet || cli.reload.is_some() || !sys::is_output_usable() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    match stdout.write_all(&answer).and_then(|()| stdout.flush()) {
        // `greeter --show-config | head` reads only the beginning.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("write to stdout", error))
        }
        _ => Ok(()),
    }
}

/// The settings of a command line, and the unit that passes it.
struct Query<'a> {
    cli: &'a Cli,
    /// `$CONFIGURATION_DIRECTORY`, or what systemd would set.
    configuration_directory: Option<OsString>,
    layers: Layers,
    unit: Option<&'static Unit>,
}

impl<'a> Query<'a> {
    fn read(cli: &'a Cli) -> Result<Self, Error> {
        let configuration_directory =
            env::var_os("CONFIGURATION_DIRECTORY").or_else(|| user_directory(cli));
        let layers = Layers::read(&cli.config, configuration_directory.as_deref())?;
        Ok(Self {
            cli,
            configuration_directory,
            layers,
            unit: Unit::of_config(&cli.config),
        })
    }

    /// The settings as the service loads them: its sockets have the mode of the unit.
    fn settings(&self) -> Result<Settings, Error> {
        load::settings_for_query(&self.layers, self.unit.map(|unit| unit.mode))
    }

    /// The mode of the service.
    fn mode(&self) -> Mode {
        let mode = self.unit.map(|unit| unit.mode);
        mode.or(self.layers.merge().general.mode.value)
            .unwrap_or(Mode::Accept)
    }

    fn preview(&self, name: &str) -> Result<Vec<u8>, Error> {
        let settings = self.settings()?;
        let own_name = self.mode().socket_name();
        let name = if name.is_empty() { own_name } else { name };
        if name != own_name && !settings.greetings.names().any(|known| known == name) {
            let near = hints::nearest(name, settings.greetings.names());
            let hint = near.map_or(String::new(), |near| format!("; did you mean '{near}'?"));
            log::warn!("no table [greeting.{name}]: this is the general greeting{hint}");
        }
        Ok(render(&settings, self.mode(), name))
    }

    fn show_config(&self) -> Result<String, Error> {
        // Settings that the sockets do not match are shown, too.
        load::settings_for_query(&self.layers, None)?;
        Ok(show::show(&self.layers, self.mode()))
    }

    /// Validates everything, and lists the files, the mode and the length of every
    /// greeting; all of them are rendered.
    fn check(&self) -> Result<String, Error> {
        let settings = self.settings()?;
        let mode = self.mode();
        let mut out = String::new();
        for path in self.layers.paths() {
            out += &format!("{}: read\n", printable(path));
        }
        if out.is_empty() {
            out += "no settings file found, using defaults\n";
        }
        for path in files::ignored(&self.search_paths())? {
            let path = printable(&path);
            out += &format!("{path}: ignored, because its name is not NAME.toml\n");
        }
        let mode_setting = settings.mode.map_or("auto", Mode::name);
        out += &format!("mode: {mode_setting}\n");
        let describe = |name: &str| {
            let length = render(&settings, mode, name).len();
            match settings.greetings.for_socket(name).proxy_protocol {
                ProxyProtocol::Off => format!("{length} bytes"),
                ProxyProtocol::Required => format!("{length} bytes, after a PROXY header"),
            }
        };
        out += &format!("greeting: {}\n", describe(mode.socket_name()));
        for name in settings.greetings.names() {
            let shown = escape_control(name);
            out += &format!("greeting of sockets named '{shown}': {}\n", describe(name));
        }
        // A user unit reads with the permissions of its user, and a reload with those of
        // the service.
        if let (Some(unit), None, None) =
            (self.unit, &self.configuration_directory, self.cli.reload)
        {
            if sys::is_root() {
                self.check_access(unit)?;
                check_sandbox(unit);
            } else {
                out += "read with the permissions of this user; as root, greeter --check tells \
                        whether the service can read the files\n";
            }
        }
        Ok(out + "settings are valid\n")
    }

    fn search_paths(&self) -> Vec<PathBuf> {
        files::search_paths(&self.cli.config, self.configuration_directory.as_deref())
    }

    /// Whether the service of the unit can read all that root could. If a drop-in of the
    /// unit may let it read more, obstacles are only warnings.
    fn check_access(&self, unit: &Unit) -> Result<(), Error> {
        let paths = self.search_paths();
        let directories = paths.iter().map(|path| files::drop_in_directory(path));
        let read = self.layers.paths().map(Path::to_owned);
        let message_files = self.layers.merge().message_files();
        let files: Vec<PathBuf> = directories
            .chain(paths.iter().cloned())
            .chain(read)
            .chain(message_files)
            .collect();
        let mut obstacles = access::obstacles(&unit::VISIBLE, &unit.hidden(), &files);
        let Some(last) = obstacles.pop() else {
            return Ok(());
        };
        let exceptions = access::exceptions(Path::new("/"), unit.service);
        if exceptions.is_empty() {
            for obstacle in obstacles {
                log::error!(MESSAGE_ID = event::SETTINGS_INVALID; "{obstacle}");
            }
            return Err(last);
        }
        let exceptions = exceptions.join(", ");
        for obstacle in obstacles.iter().chain([&last]) {
            log::warn!("{obstacle} (unless {exceptions} allows it)");
        }
        Ok(())
    }
}

/// Warns if the service manager cannot set up the sandbox of the unit, and no drop-in
/// reduces it.
fn check_sandbox(unit: &Unit) {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let obstacle = access::sandbox_obstacle(
        &read("/proc/1/status"),
        &read("/proc/sys/user/max_user_namespaces"),
    );
    let Some(obstacle) = obstacle else { return };
    // Without systemd as process 1 (sd_booted(3)), no unit can start anyway.
    let is_booted = Path::new("/run/systemd/system").exists();
    if is_booted && !access::has_reduced_sandbox(Path::new("/"), unit.service) {
        log::warn!("{} cannot start with its sandbox {obstacle}", unit.service);
    }
}

/// A path without control characters, on one line.
fn printable(path: &Path) -> String {
    escape_control(&path.to_string_lossy())
}

/// The directory of the user's units, which systemd passes to them as
/// `$CONFIGURATION_DIRECTORY`: `~/.config/greeter`, unless this is root, or greeter was
/// called by a unit.
fn user_directory(cli: &Cli) -> Option<OsString> {
    if sys::is_root() || cli.reload.is_some() {
        return None;
    }
    let base = config_home(env::var_os("XDG_CONFIG_HOME"), env::var_os("HOME"))?;
    let directory = base.join("greeter");
    directory.is_dir().then(|| directory.into())
}

/// Where a user's settings are, by these environment variables (XDG Base Directory
/// Specification, which ignores relative paths).
fn config_home(xdg_config_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    match xdg_config_home.map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => Some(directory),
        _ => Some(Path::new(&home?).join(".config")),
    }
}

/// The greeting of the sockets named `socket`, as a client at one of the addresses
/// for documentation (RFC 5737) would receive it.
fn render(settings: &Settings, mode: Mode, socket: &str) -> Vec<u8> {
    let greeting = &settings.greetings.for_socket(socket).greeting;
    let rendered = greeting.render(|| Context {
        peer: Some(SocketAddr::from(([192, 0, 2, 1], 49152))),
        local: LocalAddr::Ip(SocketAddr::from(([192, 0, 2, 2], 4000))),
        hostname: sys::hostname(),
        time: time_format::rfc3339(SystemTime::now()),
        socket,
        mode,
    });
    rendered.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_a_user_are_below_the_home_directory() {
        let config_home = |xdg: Option<&str>, home: Option<&str>| {
            config_home(xdg.map(OsString::from), home.map(OsString::from))
        };
        let home = Some("/home/you");
        assert_eq!(config_home(Some("/xdg"), home), Some("/xdg".into()));
        for ignored in [None, Some(""), Some("relative")] {
            assert_eq!(config_home(ignored, home), Some("/home/you/.config".into()));
            assert_eq!(config_home(ignored, None), None);
        }
    }
}
