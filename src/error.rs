//! What can stop greeter, one variant a remedy. Floor 1.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Why greeter stops; the exit status follows from it (greeter(8), EXIT STATUS).
#[derive(Debug)]
pub enum Error {
    /// A settings file is wrong: somebody must edit it. Status 78.
    Settings(Complaint),
    /// The sockets are sound but not what the settings ask for: somebody must
    /// change one of the two. Status 78.
    Unfit(String),
    /// What the environment promises is not there or is absurd: whoever started
    /// us must change. Status 1.
    Handover(String),
    /// The kernel refused something. Status 1.
    Os {
        /// What we were doing, with its object in single quotes.
        act: String,
        /// What the kernel said.
        cause: io::Error,
    },
}

impl Error {
    /// The refusal of the kernel, with what we were doing.
    pub fn os(act: impl Into<String>, cause: io::Error) -> Self {
        let act = act.into();
        Self::Os { act, cause }
    }

    /// The exit status: 78 is `EX_CONFIG` of sysexits(3), 1 everything else.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Settings(_) | Self::Unfit(_) => 78,
            Self::Handover(_) | Self::Os { .. } => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings(complaint) => complaint.fmt(f),
            Self::Unfit(text) | Self::Handover(text) => f.write_str(text),
            Self::Os { act, cause } => write!(f, "cannot {act}: {}", plain(cause)),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Os { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// One thing wrong in one file: where it stands, what it is, what to do.
#[derive(Debug)]
pub struct Complaint {
    /// The file as it was opened.
    pub file: PathBuf,
    /// The place in the file, where there is one.
    pub place: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

/// A place in a text: lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl Place {
    /// The place of the bytes `start..end` of `text`.
    #[must_use]
    pub fn of(text: &[u8], start: usize, end: usize) -> Self {
        let start = start.min(text.len());
        let line_start = text[..start]
            .iter()
            .rposition(|b| *b == b'\n')
            .map_or(0, |at| at + 1);
        let line_end = text[start..]
            .iter()
            .position(|b| *b == b'\n')
            .map_or(text.len(), |n| start + n);
        let characters = |bytes: &[u8]| String::from_utf8_lossy(bytes).chars().count();
        Self {
            line: text[..start].iter().filter(|b| **b == b'\n').count() + 1,
            column: characters(&text[line_start..start]) + 1,
            width: characters(&text[start..end.clamp(start, line_end)]).max(1),
            text: String::from_utf8_lossy(&text[line_start..line_end])
                .trim_end()
                .to_owned(),
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", one_line(&self.file.to_string_lossy()))?;
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}; {}", one_line(&self.what), one_line(&self.remedy))
    }
}

impl Complaint {
    /// The line itself with a mark under what is meant, as compilers show it;
    /// empty where the file as a whole is meant.
    #[must_use]
    pub fn excerpt(&self) -> String {
        let Some(place) = &self.place else {
            return String::new();
        };
        let gutter = place.line.to_string();
        let margin = " ".repeat(gutter.len());
        // A tab before the mark must be as wide below as it is above.
        let lead: String = place
            .text
            .chars()
            .take(place.column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let mark = "^".repeat(place.width);
        format!(
            "{margin} |\n{gutter} | {}\n{margin} | {lead}{mark}\n",
            place.text
        )
    }
}

/// Text as one line: names and paths may bring line ends, and a line of the
/// journal, or of sd_notify(3), must stay one.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut line, c| {
            match c.is_control() {
                true => line.extend(c.escape_default()),
                false => line.push(c),
            }
            line
        })
}

/// The kernel's words without Rust's "(os error N)".
#[must_use]
pub fn plain(cause: &io::Error) -> String {
    let text = cause.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, start: usize, end: usize, line: usize, column: usize, width: usize) {
        let place = Place::of(text.as_bytes(), start, end);
        assert_eq!(
            (place.line, place.column, place.width),
            (line, column, width),
            "{text:?}"
        );
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        check("mode = 1", 7, 8, 1, 8, 1);
        check("a\nbc = 2\n", 2, 4, 2, 1, 2);
        check("é = 1", 5, 6, 1, 5, 1);
        check("", 0, 0, 1, 1, 1);
        check("a = \"\"\"\nb", 4, 9, 1, 5, 3);
        check("a", 99, 100, 1, 2, 1);
    }

    #[test]
    fn a_complaint_is_one_line_and_its_excerpt_points() {
        let complaint = Complaint {
            file: "/etc/greeter/greeter.toml".into(),
            place: Some(Place::of(b"x = 1\nmod = 2\n", 6, 9)),
            what: "unknown key 'mod'".into(),
            remedy: "did you mean 'mode'?".into(),
        };
        assert_eq!(
            complaint.to_string(),
            "/etc/greeter/greeter.toml:2:1: unknown key 'mod'; did you mean 'mode'?"
        );
        assert_eq!(complaint.excerpt(), "  |\n2 | mod = 2\n  | ^^^\n");
    }

    #[test]
    fn a_complaint_about_a_hostile_name_stays_one_line() {
        let complaint = Complaint {
            file: "/etc/a\nb".into(),
            place: None,
            what: "no file 'x\nMAINPID=1'".into(),
            remedy: "write it".into(),
        };
        assert_eq!(
            complaint.to_string(),
            "/etc/a\\nb: no file 'x\\nMAINPID=1'; write it"
        );
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
