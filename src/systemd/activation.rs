//! Receives and validates the sockets passed by systemd (sd_listen_fds(3)); wraps
//! libsystemd.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::{OwnedFd, RawFd};

use libsystemd::activation::receive_descriptors;

use crate::error::Error;
use crate::socket;
use crate::sys::{self, ffi};

/// The first passed descriptor: `SD_LISTEN_FDS_START`.
const LISTEN_FDS_START: RawFd = 3;

/// The most descriptors that are accepted: four times the kernel's default limit
/// of open files, so no unit passes more.
const MAX_FDS: usize = 4096;

/// The longest name that systemd assigns, in bytes (`FDNAME_MAX`).
const MAX_NAME_LENGTH: usize = 255;

/// The name of a socket that was passed without one, as in sd_listen_fds_with_names(3).
const UNNAMED: &str = "unknown";

/// What announces sockets. The crate does not know all of them, so it does not unset them.
const VARIABLES: [&str; 4] = [
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

/// One passed socket.
#[derive(Debug)]
pub struct PassedSocket {
    /// The socket.
    pub fd: OwnedFd,
    /// Its `FileDescriptorName=`.
    pub name: String,
    /// Whether it listens, according to the kernel.
    pub is_listening: bool,
}

/// The values of `LISTEN_PID`, `LISTEN_PIDFDID`, `LISTEN_FDS` and `LISTEN_FDNAMES`, as far
/// as they are set.
#[derive(Debug)]
pub struct ListenEnv {
    /// The process that the sockets are for.
    pub pid: Option<String>,
    /// The same, as an identifier that is not reused (systemd 259 and newer).
    pub pidfd_id: Option<String>,
    /// The number of sockets.
    pub fds: Option<String>,
    /// Their names, separated by colons.
    pub names: Option<String>,
}

/// What identifies a process.
#[derive(Debug, Clone, Copy)]
pub struct Identity {
    /// Its process ID.
    pub pid: u32,
    /// The inode number of its pidfd; `None` if it cannot be asked for.
    pub pidfd_id: Option<u64>,
}

/// Why no sockets were received although the environment announces some.
#[derive(Debug)]
pub enum ListenError {
    /// A variable or a descriptor is invalid.
    Invalid {
        /// Which one, and why.
        error: Error,
        /// How many descriptors were passed, as far as that is known.
        count: usize,
    },
    /// `LISTEN_PID` names another process: the sockets are for that one, which is no
    /// error if this one gets its sockets otherwise (sd_listen_fds(3)).
    ForAnotherProcess(Error),
}

impl ListenError {
    /// Ends the connections among the descriptors that were passed to this process, so
    /// that their clients see no reset when it exits.
    pub fn end_connections(&self) {
        if let Self::Invalid { count, .. } = self {
            for fd in (LISTEN_FDS_START..).take(*count) {
                ffi::with_fd(fd, socket::end_if_connected);
            }
        }
    }

    fn with_count(self, count: usize) -> Self {
        match self {
            Self::Invalid { error, .. } => Self::Invalid { error, count },
            Self::ForAnotherProcess(_) => self,
        }
    }
}

impl From<ListenError> for Error {
    fn from(error: ListenError) -> Self {
        match error {
            ListenError::Invalid { error, .. } | ListenError::ForAnotherProcess(error) => error,
        }
    }
}

impl ListenEnv {
    fn read() -> Result<Self, ListenError> {
        Ok(Self {
            pid: read_variable("LISTEN_PID")?,
            pidfd_id: read_variable("LISTEN_PIDFDID")?,
            fds: read_variable("LISTEN_FDS")?,
            names: read_variable("LISTEN_FDNAMES")?,
        })
    }
}

/// Takes over every socket that was passed to this process, and unsets the
/// variables that announced them. The result is empty if there are none.
///
/// Must be called once, first, before any thread starts: it changes the environment.
///
/// # Errors
/// A variable is invalid, a descriptor cannot be served, or the sockets are for
/// another process.
pub fn receive() -> Result<Vec<PassedSocket>, ListenError> {
    let env = ListenEnv::read()?;
    let own = Identity {
        pid: std::process::id(),
        // A system call that is needed only if the variable is set.
        pidfd_id: env.pidfd_id.as_ref().and_then(|_| sys::pidfd_id()),
    };
    let names = validate(&env, own)?;
    let count = names.len();
    receive_named(names).map_err(|error| error.with_count(count))
}

fn receive_named(names: Vec<String>) -> Result<Vec<PassedSocket>, ListenError> {
    let mut passed = Vec::new();
    for (fd, name) in (LISTEN_FDS_START..).zip(names) {
        match ffi::with_fd(fd, socket::is_listening) {
            Ok(is_listening) => passed.push((name, is_listening)),
            Err(reason) => {
                return Err(invalid(format!(
                    "descriptor {fd}, passed by LISTEN_FDS, {reason}"
                )));
            }
        }
    }
    let descriptors = if passed.is_empty() {
        Vec::new()
    } else {
        receive_descriptors(false).map_err(|error| {
            invalid(format!("cannot receive the sockets of LISTEN_FDS: {error}"))
        })?
    };
    for variable in VARIABLES {
        ffi::unset_variable(variable);
    }
    let sockets = descriptors
        .into_iter()
        .zip(passed)
        .map(|(descriptor, (name, is_listening))| PassedSocket {
            // The crate's handle, which can be cloned, ends here. The descriptor is
            // open (asked above), and it is owned by this process alone, as
            // LISTEN_PID names it and the variables are unset now.
            fd: ffi::into_owned_fd(descriptor),
            name,
            is_listening,
        });
    Ok(sockets.collect())
}

/// The names of the sockets that are passed to the process `own`; empty if there are none.
///
/// # Errors
/// A value is invalid, or the sockets are for another process.
pub fn validate(env: &ListenEnv, own: Identity) -> Result<Vec<String>, ListenError> {
    let (pid, fds) = match (&env.pid, &env.fds) {
        (None, None) => return Ok(Vec::new()),
        (Some(_), None) => {
            return Err(invalid_variable("LISTEN_PID is set, but LISTEN_FDS is not"));
        }
        (None, Some(_)) => {
            return Err(invalid_variable("LISTEN_FDS is set, but LISTEN_PID is not"));
        }
        (Some(pid), Some(fds)) => (pid, fds),
    };
    validate_pid(pid, own.pid)?;
    if let Some(id) = &env.pidfd_id {
        validate_pidfd_id(id, own.pidfd_id)?;
    }
    let count = validate_count(fds)?;
    if count == 0 {
        return Ok(Vec::new());
    }
    match &env.names {
        Some(names) => validate_names(names, count).map_err(|error| error.with_count(count)),
        None => Ok(vec![UNNAMED.to_owned(); count]),
    }
}

fn validate_pid(pid: &str, own_pid: u32) -> Result<(), ListenError> {
    match parse_decimal(pid) {
        Some(pid) if pid == u64::from(own_pid) => Ok(()),
        Some(other) if other > 0 && i32::try_from(other).is_ok() => {
            let problem = format!("LISTEN_PID is {other}, but this is process {own_pid}");
            Err(ListenError::ForAnotherProcess(Error::Activation(
                start_from_unit(problem),
            )))
        }
        _ => Err(invalid_variable(format!(
            "invalid LISTEN_PID {}",
            quoted(pid)
        ))),
    }
}

fn validate_pidfd_id(id: &str, own_id: Option<u64>) -> Result<(), ListenError> {
    let Some(parsed) = parse_decimal(id) else {
        let problem = format!("invalid LISTEN_PIDFDID {}", quoted(id));
        return Err(invalid_variable(problem));
    };
    match own_id {
        Some(own_id) if own_id != parsed => {
            let problem =
                format!("LISTEN_PIDFDID is {parsed}, but that of this process is {own_id}");
            Err(ListenError::ForAnotherProcess(Error::Activation(
                start_from_unit(problem),
            )))
        }
        // LISTEN_PID has decided.
        _ => Ok(()),
    }
}

fn validate_count(fds: &str) -> Result<usize, ListenError> {
    let count = parse_decimal(fds).map(|count| usize::try_from(count).unwrap_or(usize::MAX));
    match count {
        Some(count) if count <= MAX_FDS => Ok(count),
        Some(_) => Err(invalid_variable(format!(
            "invalid LISTEN_FDS {}: expected at most {MAX_FDS}",
            quoted(fds)
        ))),
        None => Err(invalid_variable(format!(
            "invalid LISTEN_FDS {}: expected a number",
            quoted(fds)
        ))),
    }
}

fn validate_names(names: &str, count: usize) -> Result<Vec<String>, ListenError> {
    let names: Vec<&str> = names.split(':').collect();
    if names.len() != count {
        let problem = format!(
            "LISTEN_FDNAMES has {} names, but LISTEN_FDS is {count}",
            names.len()
        );
        return Err(if names.len() > count {
            // systemd takes the name of the unit if FileDescriptorName= is not set.
            invalid(format!(
                "{problem}: the name of a socket contains a colon; set FileDescriptorName= in \
                 its socket unit, or name the instance by the port alone (greeter@25.socket)"
            ))
        } else {
            invalid_variable(problem)
        });
    }
    let mut valid = Vec::with_capacity(count);
    for name in names {
        // What fdname_is_valid() of systemd refuses was not assigned by systemd.
        if name.len() > MAX_NAME_LENGTH || name.contains(char::is_control) {
            return Err(invalid_variable(format!(
                "invalid name {} in LISTEN_FDNAMES",
                quoted(name)
            )));
        }
        let name = if name.is_empty() { UNNAMED } else { name };
        valid.push(name.to_owned());
    }
    Ok(valid)
}

/// Parses digits only, without sign and space. A number that does not fit becomes
/// the largest one, which is out of every range.
fn parse_decimal(text: &str) -> Option<u64> {
    let only_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    only_digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// A value of the environment in quotes, on one line, shortened if it is long.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let ellipsis = if short.len() < text.len() { "…" } else { "" };
    format!("'{}{ellipsis}'", short.escape_debug())
}

fn read_variable(name: &str) -> Result<Option<String>, ListenError> {
    env::var_os(name)
        .map(OsString::into_string)
        .transpose()
        .map_err(|_| invalid_variable(format!("{name} is not UTF-8")))
}

/// An invalid variable, which no socket unit causes.
fn invalid_variable(problem: impl Display) -> ListenError {
    invalid(start_from_unit(problem))
}

fn invalid(problem: String) -> ListenError {
    ListenError::Invalid {
        error: Error::Activation(problem),
        count: 0,
    }
}

fn start_from_unit(problem: impl Display) -> String {
    format!("{problem}; start greeter from its socket unit")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(
        pid: Option<&str>,
        fds: Option<&str>,
        names: Option<&str>,
        expected: Result<&[&str], &str>,
    ) {
        let env = ListenEnv {
            pid: pid.map(str::to_owned),
            pidfd_id: None,
            fds: fds.map(str::to_owned),
            names: names.map(str::to_owned),
        };
        let own = Identity {
            pid: 42,
            pidfd_id: Some(7),
        };
        match (validate(&env, own), expected) {
            (Ok(names), Ok(expected)) => assert_eq!(names, expected),
            (Err(error), Err(part)) => {
                let error = Error::from(error);
                let text = error.to_string();
                assert!(
                    text.contains(part) && !text.contains('\n') && error.status() == 1,
                    "{text}"
                );
            }
            (result, expected) => panic!("{result:?} is not {expected:?}"),
        }
    }

    #[test]
    fn pidfd_id_must_be_that_of_this_process_if_both_are_known() {
        let validate_id = |id: &str, own_id| {
            let env = ListenEnv {
                pid: Some("42".to_owned()),
                pidfd_id: Some(id.to_owned()),
                fds: Some("1".to_owned()),
                names: None,
            };
            let own = Identity {
                pid: 42,
                pidfd_id: own_id,
            };
            validate(&env, own)
        };
        assert!(validate_id("7", Some(7)).is_ok());
        assert!(validate_id("7", None).is_ok());
        assert!(matches!(
            validate_id("8", Some(7)),
            Err(ListenError::ForAnotherProcess(_))
        ));
        for id in ["", "x", "-7", "7 "] {
            assert!(matches!(
                validate_id(id, Some(7)),
                Err(ListenError::Invalid { .. })
            ));
        }
    }

    #[test]
    fn valid_listen_env_names_every_socket() {
        check(None, None, None, Ok(&[]));
        check(Some("42"), Some("0"), None, Ok(&[]));
        check(Some("42"), Some("2"), None, Ok(&["unknown", "unknown"]));
        check(
            Some("42"),
            Some("2"),
            Some("smtp:imap"),
            Ok(&["smtp", "imap"]),
        );
        check(Some("42"), Some("1"), Some(""), Ok(&["unknown"]));
        let longest = "a".repeat(255);
        check(Some("42"), Some("1"), Some(&longest), Ok(&[&longest]));
    }

    #[test]
    fn invalid_listen_env_is_a_one_line_error() {
        check(Some("42"), None, None, Err("LISTEN_FDS is not"));
        check(None, Some("1"), None, Err("LISTEN_PID is not"));
        check(Some("41"), Some("1"), None, Err("this is process 42"));
        for pid in [
            "",
            "0",
            "-1",
            "x",
            " 42",
            "42 ",
            "4 2",
            "99999999999999999999",
            "+42",
        ] {
            check(Some(pid), Some("1"), None, Err("invalid LISTEN_PID '"));
        }
        for fds in ["", "-1", "one", "1 ", " 1", "1.0", "0x1", "+1", "1\n"] {
            check(Some("42"), Some(fds), None, Err("': expected a number"));
        }
        for fds in [
            "4097",
            "1000000",
            "18446744073709551615",
            "18446744073709551616",
        ] {
            check(Some("42"), Some(fds), None, Err("': expected at most 4096"));
        }
        check(
            Some("42"),
            Some("2"),
            Some("a"),
            Err("has 1 names, but LISTEN_FDS is 2"),
        );
        check(
            Some("42"),
            Some("1"),
            Some("a:b"),
            Err("has 2 names, but LISTEN_FDS is 1"),
        );
        check(Some("42"), Some("1"), Some("a\nb"), Err("invalid name '"));
        check(
            Some("42"),
            Some("1"),
            Some(&"a".repeat(256)),
            Err("invalid name '"),
        );
    }
}
