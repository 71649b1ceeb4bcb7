//! What can stop greeter, one variant a remedy. Floor 1.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

/// Why greeter stops; the exit status follows from it (greeter(8), EXIT STATUS).
#[derive(Debug)]
pub enum Error {
    /// A settings file is wrong: somebody must edit it. Status 78.
    Settings {
        /// Where, what it is and what to do, on one line.
        said: String,
        /// The line with a mark under what is meant; empty where the file as a
        /// whole is meant.
        excerpt: String,
    },
    /// The sockets are sound but not what the settings ask for: somebody must
    /// change one of the two. Status 78.
    Unfit(String),
    /// What the environment promises is not there or is absurd: whoever started
    /// us must change. Status 1.
    Handover(String),
    /// The kernel refused something: what we were doing, with its object in
    /// single quotes, and what the kernel said. Status 1.
    Os(String, io::Error),
}

impl Error {
    /// One thing wrong in one file: the bytes of its text that are meant, if not
    /// all of it is, what it is, what to do.
    pub(crate) fn settings(
        file: &Path,
        meant: Option<(&[u8], &Range<usize>)>,
        what: &str,
        remedy: &str,
    ) -> Self {
        let place = meant.map(|(text, span)| point(text, span));
        let (at, excerpt) = place.unwrap_or_default();
        let said = one_line(&format!("{}:{at} {what}; {remedy}", file.display()));
        Self::Settings { said, excerpt }
    }

    /// The refusal of the kernel, with what we were doing.
    pub fn os(act: impl Into<String>, cause: io::Error) -> Self {
        Self::Os(act.into(), cause)
    }

    /// The exit status: 78 is `EX_CONFIG` of sysexits(3), 1 everything else.
    pub fn status(&self) -> u8 {
        match self {
            Self::Settings { .. } | Self::Unfit(_) => 78,
            Self::Handover(_) | Self::Os(..) => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings { said, .. } => f.write_str(said),
            Self::Unfit(text) | Self::Handover(text) => f.write_str(text),
            Self::Os(act, cause) => write!(f, "cannot {act}: {}", plain(cause)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Os(_, cause) => Some(cause),
            _ => None,
        }
    }
}

/// Where bytes of a text stand, as `LINE:COLUMN`, both from 1 and the column in
/// characters, and the line with a mark under them, as compilers show it.
fn point(text: &[u8], span: &Range<usize>) -> (String, String) {
    let (before, after) = text.split_at(span.start.min(text.len()));
    let is_end = |byte: &u8| *byte == b'\n';
    let lead = before.rsplit(is_end).next().unwrap_or_default();
    let rest = after.split(is_end).next().unwrap_or_default();
    let meant = &rest[..span.len().min(rest.len())];
    let [lead, rest, meant] = [lead, rest, meant].map(String::from_utf8_lossy);
    let (line, column) = (line(text, span).to_string(), lead.chars().count() + 1);
    // A tab before the mark must be as wide below as it is above.
    let blank = |c| if c == '\t' { c } else { ' ' };
    let below: String = lead.chars().map(blank).collect();
    let (margin, mark) = (
        " ".repeat(line.len()),
        "^".repeat(meant.chars().count().max(1)),
    );
    let text = format!("{lead}{rest}");
    let text = text.trim_end();
    let excerpt = format!("{margin} |\n{line} | {text}\n{margin} | {below}{mark}\n");
    (format!("{line}:{column}:"), excerpt)
}

/// The line in which bytes of a text stand, from 1.
pub(crate) fn line(text: &[u8], span: &Range<usize>) -> usize {
    let before = &text[..span.start.min(text.len())];
    before.split(|byte| *byte == b'\n').count()
}

/// Text as one line: names and paths may bring line ends, and a line of the
/// journal, or of sd_notify(3), must stay one.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_default()),
            false => line.push(c),
        }
    }
    line
}

/// The kernel's words without Rust's "(os error N)".
pub(crate) fn plain(cause: &io::Error) -> String {
    let mut text = cause.to_string().to_lowercase();
    text.truncate(text.find(" (os error").unwrap_or(text.len()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, span: Range<usize>, line: usize, column: usize, width: usize) {
        let (place, excerpt) = point(text.as_bytes(), &span);
        let marks = excerpt.matches('^').count();
        let expected = (format!("{line}:{column}:"), width);
        assert_eq!((place, marks), expected, "{text:?}");
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        check("mode = 1", 7..8, 1, 8, 1);
        check("a\nbc = 2\n", 2..4, 2, 1, 2);
        check("é = 1", 5..6, 1, 5, 1);
        check("", 0..0, 1, 1, 1);
        check("a = \"\"\"\nb", 4..9, 1, 5, 3);
        check("a", 99..100, 1, 2, 1);
    }

    #[test]
    fn a_complaint_is_one_line_and_its_excerpt_points() {
        let complaint = Error::settings(
            Path::new("/etc/greeter/greeter.toml"),
            Some((b"x = 1\nmod = 2\n", &(6..9))),
            "unknown key 'mod'",
            "did you mean 'mode'?",
        );
        assert_eq!(
            complaint.to_string(),
            "/etc/greeter/greeter.toml:2:1: unknown key 'mod'; did you mean 'mode'?"
        );
        let Error::Settings { excerpt, .. } = complaint else {
            panic!("{complaint:?}");
        };
        assert_eq!(excerpt, "  |\n2 | mod = 2\n  | ^^^\n");
    }

    #[test]
    fn a_complaint_about_a_hostile_name_stays_one_line() {
        let complaint = Error::settings(
            Path::new("/etc/a\nb"),
            None,
            "no file 'x\nMAINPID=1'",
            "write it",
        );
        assert_eq!(
            complaint.to_string(),
            "/etc/a\\nb: no file 'x\\nMAINPID=1'; write it"
        );
        assert_eq!(complaint.status(), 78);
    }

    #[test]
    fn the_kernels_words_lose_the_number() {
        let error = Error::os("bind '127.0.0.1:1'", io::Error::from_raw_os_error(13));
        assert_eq!(
            error.to_string(),
            "cannot bind '127.0.0.1:1': permission denied"
        );
        assert_eq!(error.status(), 1);
    }
}
