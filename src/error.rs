//! Errors that end greeter, one variant per exit status and catalogue entry.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Why greeter exits early. The exit status follows from the variant
/// (greeter(8), EXIT STATUS).
#[derive(Debug)]
pub enum Error {
    /// A settings file is invalid and must be edited. Status 78.
    Settings {
        /// Position, problem and fix, on one line.
        message: String,
        /// The line with a mark under the invalid part; empty if the error is
        /// about the whole file.
        excerpt: String,
    },
    /// The sockets are valid but do not match the settings: one of the two must
    /// change. Status 78.
    SocketMismatch(String),
    /// The sockets announced in the environment are missing or invalid: the
    /// caller must change. Status 1.
    Activation(String),
    /// A system call failed: the attempted action, with its object in single
    /// quotes, and the cause. Status 1.
    Io(String, io::Error),
}

impl Error {
    /// An error in a settings file. `location` is the content of the file and the
    /// byte range that is invalid, or `None` if the error is about the whole file.
    pub(crate) fn settings(
        file: &Path,
        location: Option<(&[u8], &Range<usize>)>,
        message: &str,
    ) -> Self {
        let (position, excerpt) = match location {
            Some((text, span)) => excerpt_at(text, span),
            None => (String::new(), String::new()),
        };
        Self::Settings {
            message: escape_control(&format!("{}:{position} {message}", file.display())),
            excerpt,
        }
    }

    /// A failed system call. `action` completes the sentence "cannot …".
    pub fn io(action: impl Into<String>, cause: io::Error) -> Self {
        Self::Io(action.into(), cause)
    }

    /// The exit status: 78 is `EX_CONFIG` of sysexits(3); everything else is 1.
    pub fn status(&self) -> u8 {
        match self {
            Self::Settings { .. } | Self::SocketMismatch(_) => 78,
            Self::Activation(_) | Self::Io(..) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings { message, .. } => f.write_str(message),
            Self::SocketMismatch(message) | Self::Activation(message) => f.write_str(message),
            Self::Io(action, cause) => write!(f, "cannot {action}: {}", os_message(cause)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, cause) => Some(cause),
            _ => None,
        }
    }
}

/// The position of a byte range as `LINE:COLUMN:`, both from 1 and the column in
/// characters, and its line with a mark under the range, as compilers print it.
fn excerpt_at(text: &[u8], span: &Range<usize>) -> (String, String) {
    let is_newline = |byte: &u8| *byte == b'\n';
    let start = span.start.min(text.len());
    let before = &text[..start];
    let after = &text[start..];
    let line_start = before.rsplit(is_newline).next().unwrap_or_default();
    let line_end = after.split(is_newline).next().unwrap_or_default();
    let marked = &line_end[..span.len().min(line_end.len())];

    let number = line_number(text, start).to_string();
    let column = String::from_utf8_lossy(line_start).chars().count() + 1;
    let line_start = printable(line_start);
    let line = format!("{line_start}{}", printable(line_end));
    let line = line.trim_end();
    // A tab before the mark must be as wide below the line as it is in it.
    let indent: String = line_start
        .chars()
        .map(|c| if c == '\t' { c } else { ' ' })
        .collect();
    let mark = "^".repeat(printable(marked).chars().count().max(1));
    let margin = " ".repeat(number.len());
    let excerpt = format!("{margin} |\n{number} | {line}\n{margin} | {indent}{mark}\n");
    (format!("{number}:{column}:"), excerpt)
}

/// A part of a line of a file that can be printed on a terminal: tabs are kept, other
/// control characters are escaped.
fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let parts: Vec<String> = text
        .trim_end_matches('\r')
        .split('\t')
        .map(escape_control)
        .collect();
    parts.join("\t")
}

/// The line of a byte offset, from 1.
fn line_number(text: &[u8], offset: usize) -> usize {
    let newlines = text[..offset].iter().filter(|byte| **byte == b'\n');
    newlines.count() + 1
}

/// Escapes control characters. Names and paths may contain newlines, but a log
/// line and a line of sd_notify(3) must stay one line.
pub(crate) fn escape_control(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The description of an operating system error, without Rust's "(os error N)".
pub(crate) fn os_message(cause: &io::Error) -> String {
    if cause.raw_os_error().is_none() {
        return cause.to_string();
    }
    let mut text = cause.to_string().to_lowercase();
    if let Some(end) = text.find(" (os error") {
        text.truncate(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Range<usize>, line: usize, column: usize, width: usize) {
        let (position, excerpt) = excerpt_at(text.as_bytes(), &span);
        let marks = excerpt.matches('^').count();
        let expected = (format!("{line}:{column}:"), width);
        assert_eq!((position, marks), expected, "{text:?}");
    }

    #[test]
    fn positions_count_lines_and_characters_from_one() {
        check("mode = 1", 7..8, 1, 8, 1);
        check("a\nbc = 2\n", 2..4, 2, 1, 2);
        check("é = 1", 5..6, 1, 5, 1);
        check("", 0..0, 1, 1, 1);
        check("a = \"\"\"\nb", 4..9, 1, 5, 3);
        check("a", 99..100, 1, 2, 1);
    }

    #[test]
    fn settings_error_is_one_line_with_an_excerpt() {
        let error = Error::settings(
            Path::new("/etc/greeter/greeter.toml"),
            Some((b"x = 1\nmod = 2\n", &(6..9))),
            "unknown key 'mod'; did you mean 'mode'?",
        );
        assert_eq!(
            error.to_string(),
            "/etc/greeter/greeter.toml:2:1: unknown key 'mod'; did you mean 'mode'?"
        );
        let Error::Settings { excerpt, .. } = error else {
            panic!("{error:?}");
        };
        assert_eq!(excerpt, "  |\n2 | mod = 2\n  | ^^^\n");
    }

    #[test]
    fn control_characters_in_excerpts_are_escaped() {
        let text = b"a\x1b[2J = \t\x07bc\r\n";
        let (position, excerpt) = excerpt_at(text, &(9..12));
        assert_eq!(position, "1:10:");
        let lines: Vec<&str> = excerpt.lines().collect();
        let indent = format!("{}\t", " ".repeat("a\\u{1b}[2J = ".len()));
        assert_eq!(lines[1], "1 | a\\u{1b}[2J = \t\\u{7}bc");
        assert_eq!(lines[2], format!("  | {indent}^^^^^^^"));
    }

    #[test]
    fn control_characters_in_names_are_escaped() {
        let error = Error::settings(
            Path::new("/etc/a\nb"),
            None,
            "file 'x\nMAINPID=1' not found; create it",
        );
        assert_eq!(
            error.to_string(),
            "/etc/a\\nb: file 'x\\nMAINPID=1' not found; create it"
        );
        assert_eq!(error.status(), 78);
    }

    #[test]
    fn os_message_has_no_error_number() {
        let error = Error::io("bind '127.0.0.1:1'", io::Error::from_raw_os_error(13));
        assert_eq!(
            error.to_string(),
            "cannot bind '127.0.0.1:1': permission denied"
        );
        assert_eq!(error.status(), 1);
    }

    #[test]
    fn source_is_the_error_of_the_system_call() {
        use std::error::Error as _;
        let error = Error::io("listen", io::Error::from(io::ErrorKind::AddrInUse));
        assert!(error.source().is_some());
        assert!(Error::Activation(String::new()).source().is_none());
    }
}
