//! Takes the sockets that were handed over and doubts every word about them
//! (sd_listen_fds(3)). Floor 3.

use std::env;
use std::ffi::OsString;
use std::fmt::Display;
use std::os::fd::{OwnedFd, RawFd};

use libsystemd::activation::receive_descriptors;

use crate::error::Error;
use crate::raw;
use crate::socket;

/// The first descriptor that is handed over: `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// More descriptors than this no unit hands over; the kernel's own default limit
/// of open files for a process is a quarter of it.
const MOST: usize = 4096;

/// The name of a socket that came without one, as sd_listen_fds_with_names(3) has it.
pub const UNNAMED: &str = "unknown";

/// One socket that was handed over.
#[derive(Debug)]
pub struct Handed {
    /// The socket.
    pub fd: OwnedFd,
    /// Its `FileDescriptorName=`.
    pub name: String,
    /// Whether the kernel says that it listens.
    pub listens: bool,
}

/// What `LISTEN_PID`, `LISTEN_FDS` and `LISTEN_FDNAMES` say, each absent or text.
#[derive(Debug)]
pub struct Claim {
    /// Whom the sockets are meant for.
    pub pid: Option<String>,
    /// How many there are.
    pub fds: Option<String>,
    /// Their names, with colons between.
    pub names: Option<String>,
}

/// Takes every socket that was handed over to this process, and clears the
/// environment of them. Nothing handed over is an empty list.
///
/// Call it once, first, before any thread: it changes the environment.
///
/// # Errors
/// [`Error::Handover`] where the environment lies or a descriptor is none that
/// can be served.
pub fn take() -> Result<Vec<Handed>, Error> {
    let claim = Claim {
        pid: read("LISTEN_PID")?,
        fds: read("LISTEN_FDS")?,
        names: read("LISTEN_FDNAMES")?,
    };
    let mut sound = Vec::new();
    for (fd, name) in (FIRST..).zip(doubt(&claim, std::process::id())?) {
        match raw::ask(fd, socket::listens) {
            Ok(listens) => sound.push((name, listens)),
            Err(what) => refuse(format!(
                "descriptor {fd}, handed over by LISTEN_FDS, {what}"
            ))?,
        }
    }
    let descriptors = match receive_descriptors(true) {
        Ok(descriptors) => descriptors,
        // Before 0.6 the crate called it an error that nothing was handed over.
        Err(_) if sound.is_empty() => Vec::new(),
        Err(error) => {
            let what = format!("cannot take the sockets of LISTEN_FDS: {error}");
            return Err(Error::Handover(what));
        }
    };
    let mut sockets = Vec::new();
    for (descriptor, (name, listens)) in descriptors.into_iter().zip(sound) {
        // The crate's handle, which could be cloned, ends here: the descriptor is
        // open (asked above) and ours alone, as LISTEN_PID names this process and
        // the environment that said so is cleared.
        let fd = raw::own(descriptor);
        sockets.push(Handed { fd, name, listens });
    }
    Ok(sockets)
}

/// The names of the descriptors that are meant for `own_pid`, empty where none are.
///
/// # Errors
/// [`Error::Handover`] where the claim is absurd, or meant for another process.
pub fn doubt(claim: &Claim, own_pid: u32) -> Result<Vec<String>, Error> {
    let (pid, fds) = match (&claim.pid, &claim.fds) {
        (None, None) => return Ok(Vec::new()),
        (Some(_), None) => return refuse("LISTEN_PID is set and LISTEN_FDS is not"),
        (None, Some(_)) => return refuse("LISTEN_FDS is set and LISTEN_PID is not"),
        (Some(pid), Some(fds)) => (pid, fds),
    };
    let said = quoted(pid);
    match number(pid) {
        Some(pid) if pid == own_pid as usize => {}
        Some(other) if other > 0 && i32::try_from(other).is_ok() => {
            return refuse(format!(
                "LISTEN_PID is {other} and this is process {own_pid}: the sockets are not for us"
            ));
        }
        _ => return refuse(format!("LISTEN_PID is {said}, which is no process")),
    }
    let said = quoted(fds);
    let count = match number(fds) {
        Some(0) => return Ok(Vec::new()),
        Some(count) if count <= MOST => count,
        Some(_) => return refuse(format!("LISTEN_FDS is {said}, more than {MOST}")),
        None => {
            return refuse(format!(
                "LISTEN_FDS is {said}, which is no count of sockets"
            ));
        }
    };
    let names: Vec<&str> = match &claim.names {
        Some(names) => names.split(':').collect(),
        None => vec![UNNAMED; count],
    };
    let given = names.len();
    if given != count {
        let what = format!("LISTEN_FDNAMES has {given} names and LISTEN_FDS is {count}");
        return refuse(what);
    }
    // What fdname_is_valid() of systemd refuses never came from systemd.
    let sound = |name: &str| name.len() <= 255 && !name.chars().any(char::is_control);
    if let Some(bad) = names.iter().find(|name| !sound(name)) {
        let what = format!(
            "LISTEN_FDNAMES has the name {}, which systemd would not give",
            quoted(bad)
        );
        return refuse(what);
    }
    let named = |name: &str| if name.is_empty() { UNNAMED } else { name }.to_owned();
    Ok(names.into_iter().map(named).collect())
}

/// A decimal number and nothing else: no sign, no space.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(usize::MAX))
}

/// A word of the environment on one line, cut where it is long.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(40).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("'{}{more}'", short.escape_debug())
}

fn read(variable: &str) -> Result<Option<String>, Error> {
    let text = env::var_os(variable).map(OsString::into_string).transpose();
    text.or_else(|_| refuse(format!("{variable} is not UTF-8")))
}

fn refuse<T>(what: impl Display) -> Result<T, Error> {
    let what = format!("{what}; start greeter from its socket unit");
    Err(Error::Handover(what))
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
        let [pid, fds, names] = [pid, fds, names].map(|text| text.map(str::to_owned));
        let outcome = doubt(&Claim { pid, fds, names }, 42);
        match (outcome, expected) {
            (Ok(names), Ok(expected)) => assert_eq!(names, expected),
            (Err(error), Err(part)) => {
                let text = error.to_string();
                assert!(
                    text.contains(part) && !text.contains('\n') && error.status() == 1,
                    "{text}"
                );
            }
            (outcome, expected) => panic!("{outcome:?} is not {expected:?}"),
        }
    }

    #[test]
    fn a_sound_claim_gives_a_name_to_every_socket() {
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
    }

    #[test]
    fn an_absurd_claim_is_one_line() {
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
            check(Some(pid), Some("1"), None, Err("which is no process"));
        }
        for fds in ["", "-1", "one", "1 ", " 1", "1.0", "0x1", "+1", "1\n"] {
            check(Some("42"), Some(fds), None, Err("no count of sockets"));
        }
        for fds in [
            "4097",
            "1000000",
            "18446744073709551615",
            "18446744073709551616",
        ] {
            check(Some("42"), Some(fds), None, Err("more than 4096"));
        }
        check(
            Some("42"),
            Some("2"),
            Some("a"),
            Err("has 1 names and LISTEN_FDS is 2"),
        );
        check(
            Some("42"),
            Some("1"),
            Some("a:b"),
            Err("has 2 names and LISTEN_FDS is 1"),
        );
        check(
            Some("42"),
            Some("1"),
            Some("a\nb"),
            Err("systemd would not give"),
        );
        check(
            Some("42"),
            Some("1"),
            Some(&"a".repeat(256)),
            Err("systemd would not give"),
        );
    }
}
