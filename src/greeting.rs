//! From the text in the settings to the bytes that one client is sent. Floor 1.
//!
//! Everything here is made from values: no I/O, no clock, no environment.

use std::io::Write;
use std::mem;
use std::net::IpAddr;
use std::rc::Rc;

/// How lines end on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnding {
    /// `\n`.
    Lf,
    /// `\r\n`, as the protocols of the Internet want it.
    Crlf,
    /// The bytes as they are, placeholders included.
    Raw,
}

/// What may stand between braces in a greeting, in the order of greeter.toml(5).
pub const PLACEHOLDERS: &[&str] = &[
    // The client's address and port.
    "peer_addr",
    "peer_port",
    // The address and port that the client reached.
    "local_addr",
    "local_port",
    // The host's name.
    "hostname",
    // The moment of the greeting: RFC 3339, UTC, whole seconds.
    "time",
    // The socket's name.
    "socket",
    // The mode.
    "mode",
];

/// Why a text is no template: the bytes of it that are meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins in the text.
    pub start: usize,
    /// Where it ends in the text.
    pub end: usize,
    /// The name between braces that is no placeholder; none where a brace is
    /// without its partner.
    pub name: Option<String>,
}

/// A text with its placeholders found and its line ends made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Template {
    /// Each placeholder with the text that stands before it.
    places: Vec<(Vec<u8>, &'static str)>,
    /// The text behind the last of them.
    tail: Vec<u8>,
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// A brace without its partner, or a name between braces that is no
    /// placeholder; never with [`LineEnding::Raw`].
    pub fn parse(text: &[u8], ending: LineEnding) -> Result<Self, Fault> {
        let mut template = Self::default();
        let end: &[u8] = match ending {
            LineEnding::Raw => {
                template.tail = text.to_vec();
                return Ok(template);
            }
            LineEnding::Lf => b"\n",
            LineEnding::Crlf => b"\r\n",
        };
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let next = text.get(at + 1);
            let mut length = 1;
            match byte {
                b'{' | b'}' if next == Some(&byte) => {
                    template.tail.push(byte);
                    length = 2;
                }
                b'{' | b'}' => {
                    let place = placeholder(text, at)?;
                    let before = mem::take(&mut template.tail);
                    template.places.push((before, place));
                    length = place.len() + 2;
                }
                b'\r' if next == Some(&b'\n') => {}
                b'\n' => template.tail.extend_from_slice(end),
                _ => template.tail.push(byte),
            }
            at += length;
        }
        if text.last() != Some(&b'\n') {
            template.tail.extend_from_slice(end);
        }
        Ok(template)
    }

    /// Fills in what is the same for every client of one socket.
    #[must_use]
    pub fn settle(&self, hostname: &str, socket: &str, mode: &str) -> Greeting {
        let mut settled = Self::default();
        for (before, place) in &self.places {
            settled.tail.extend_from_slice(before);
            match *place {
                "hostname" => settled.tail.extend_from_slice(hostname.as_bytes()),
                "socket" => settled.tail.extend_from_slice(socket.as_bytes()),
                "mode" => settled.tail.extend_from_slice(mode.as_bytes()),
                place => {
                    let before = mem::take(&mut settled.tail);
                    settled.places.push((before, place));
                }
            }
        }
        settled.tail.extend_from_slice(&self.tail);
        if settled.places.is_empty() {
            return Greeting::Same(settled.tail.into());
        }
        Greeting::Each(settled)
    }
}

/// The placeholder whose brace stands at `start`.
fn placeholder(text: &[u8], start: usize) -> Result<&'static str, Fault> {
    let fault = |end, name| Fault { start, end, name };
    let inner = &text[start + 1..];
    let stop = |byte: &u8| matches!(byte, b'{' | b'}' | b'\n');
    let length = inner.iter().position(stop).unwrap_or(inner.len());
    if text[start] != b'{' || inner.get(length) != Some(&b'}') {
        return Err(fault(start + 1, None));
    }
    let name = String::from_utf8_lossy(&inner[..length]);
    let known = PLACEHOLDERS.iter().find(|known| **known == name);
    let unknown = || fault(start + length + 2, Some(name.into_owned()));
    known.copied().ok_or_else(unknown)
}

/// What one socket's clients are sent.
#[derive(Debug, Clone)]
pub enum Greeting {
    /// The same bytes for everybody, rendered once.
    Same(Rc<[u8]>),
    /// Bytes that depend on the client.
    Each(Template),
}

/// What is known of one client, for its greeting.
#[derive(Debug, Clone, Copy, Default)]
pub struct Facts<'a> {
    /// The client's address and port; none for a Unix socket.
    pub peer: Option<(IpAddr, u16)>,
    /// Our address and port; none for a Unix socket.
    pub local: Option<(IpAddr, u16)>,
    /// The path of a Unix socket that has one.
    pub path: Option<&'a str>,
    /// The moment, already in RFC 3339.
    pub time: &'a str,
}

impl Greeting {
    /// The bytes for one client. What does not exist is `-`.
    #[must_use]
    pub fn render(&self, facts: &Facts<'_>) -> Rc<[u8]> {
        let template = match self {
            Self::Same(bytes) => return Rc::clone(bytes),
            Self::Each(template) => template,
        };
        let mut bytes = Vec::new();
        for (before, place) in &template.places {
            bytes.extend_from_slice(before);
            // Writing to memory does not fail.
            let _ = match (*place, facts.peer, facts.local) {
                ("peer_addr", Some((ip, _)), _) => write!(bytes, "{}", ip.to_canonical()),
                ("peer_port", Some((_, port)), _) => write!(bytes, "{port}"),
                ("local_addr", _, Some((ip, _))) => write!(bytes, "{}", ip.to_canonical()),
                ("local_addr", _, None) => bytes.write_all(facts.path.unwrap_or("-").as_bytes()),
                ("local_port", _, Some((_, port))) => write!(bytes, "{port}"),
                ("time", ..) => bytes.write_all(facts.time.as_bytes()),
                _ => bytes.write_all(b"-"),
            };
        }
        bytes.extend_from_slice(&template.tail);
        bytes.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, ending: LineEnding, expected: &str) {
        let facts = Facts {
            peer: Some(("::ffff:192.0.2.7".parse().unwrap(), 51000)),
            local: Some(("2001:db8::1".parse().unwrap(), 4000)),
            path: None,
            time: "2026-01-02T03:04:05Z",
        };
        let greeting = Template::parse(text.as_bytes(), ending)
            .unwrap()
            .settle("host", "smtp", "accept");
        assert_eq!(
            String::from_utf8_lossy(&greeting.render(&facts)),
            expected,
            "{text:?}"
        );
    }

    #[test]
    fn lines_end_as_asked_and_the_text_ends_with_one() {
        check("a", LineEnding::Lf, "a\n");
        check("a\n", LineEnding::Lf, "a\n");
        check("a\r\nb", LineEnding::Lf, "a\nb\n");
        check("a\nb\r\n", LineEnding::Crlf, "a\r\nb\r\n");
        check("a\rb", LineEnding::Crlf, "a\rb\r\n");
        check("", LineEnding::Lf, "\n");
        check("", LineEnding::Raw, "");
        check("a\r\n{x", LineEnding::Raw, "a\r\n{x");
    }

    #[test]
    fn placeholders_are_filled_in_and_doubled_braces_are_braces() {
        check(
            "{peer_addr} {peer_port}",
            LineEnding::Lf,
            "192.0.2.7 51000\n",
        );
        check(
            "{local_addr}:{local_port}",
            LineEnding::Lf,
            "2001:db8::1:4000\n",
        );
        check(
            "{hostname}{socket}{mode}",
            LineEnding::Lf,
            "hostsmtpaccept\n",
        );
        check("{{{time}}}", LineEnding::Lf, "{2026-01-02T03:04:05Z}\n");
        check("{{}}", LineEnding::Lf, "{}\n");
    }

    #[test]
    fn what_does_not_exist_is_a_dash() {
        let greeting = Template::parse(
            b"{peer_addr}{peer_port}{local_addr}{local_port}",
            LineEnding::Lf,
        )
        .unwrap();
        let greeting = greeting.settle("", "", "");
        assert_eq!(&*greeting.render(&Facts::default()), b"----\n");
        let facts = Facts {
            path: Some("/run/s"),
            ..Facts::default()
        };
        assert_eq!(&*greeting.render(&facts), b"--/run/s-\n");
    }

    #[test]
    fn a_greeting_without_the_clients_own_facts_is_rendered_once() {
        let same = |text: &str| {
            let template = Template::parse(text.as_bytes(), LineEnding::Lf).unwrap();
            matches!(template.settle("", "", ""), Greeting::Same(_))
        };
        assert!(same("plain") && same("{hostname}") && same(""));
        assert!(!same("{time}"));
    }

    #[test]
    fn faults_say_where() {
        let fault = |text: &str| Template::parse(text.as_bytes(), LineEnding::Lf).unwrap_err();
        let unknown = |start, end, name: &str| Fault {
            start,
            end,
            name: Some(name.into()),
        };
        let unpaired = |start| Fault {
            start,
            end: start + 1,
            name: None,
        };
        assert_eq!(fault("a {nope} b"), unknown(2, 8, "nope"));
        assert_eq!(fault("{}"), unknown(0, 2, ""));
        assert_eq!(fault("a {peer"), unpaired(2));
        assert_eq!(fault("a }"), unpaired(2));
        assert_eq!(fault("{a{b}"), unpaired(0));
        assert_eq!(fault("{a\n}"), unpaired(0));
    }
}
