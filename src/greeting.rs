//! From the text in the settings to the bytes that one client is sent. Floor 1.
//!
//! Everything here is made from values: no I/O, no clock, no environment.

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

/// What may stand between braces in a greeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placeholder {
    /// The client's address.
    PeerAddr,
    /// The client's port.
    PeerPort,
    /// The address that the client reached.
    LocalAddr,
    /// The port that the client reached.
    LocalPort,
    /// The host's name.
    Hostname,
    /// The moment of the greeting: RFC 3339, UTC, whole seconds.
    Time,
    /// The socket's name.
    Socket,
    /// The mode.
    Mode,
}

/// Every placeholder with its name, in the order of greeter.toml(5).
pub const PLACEHOLDERS: &[(&str, Placeholder)] = &[
    ("peer_addr", Placeholder::PeerAddr),
    ("peer_port", Placeholder::PeerPort),
    ("local_addr", Placeholder::LocalAddr),
    ("local_port", Placeholder::LocalPort),
    ("hostname", Placeholder::Hostname),
    ("time", Placeholder::Time),
    ("socket", Placeholder::Socket),
    ("mode", Placeholder::Mode),
];

/// Why a text is no template, with the bytes of the text that are meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where it begins in the text.
    pub start: usize,
    /// Where it ends in the text.
    pub end: usize,
    /// What it is.
    pub kind: FaultKind,
}

/// The ways in which a text can be no template.
#[derive(Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A name that is no placeholder.
    Unknown(String),
    /// A brace without its partner.
    Unpaired,
}

/// A text with its placeholders found and its line ends made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Place(Placeholder),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// A brace without its partner, or a name between braces that is no
    /// placeholder; never with [`LineEnding::Raw`].
    pub fn parse(text: &[u8], ending: LineEnding) -> Result<Self, Fault> {
        let end: &[u8] = match ending {
            LineEnding::Raw => return Ok(Self(vec![Piece::Text(text.to_vec())])),
            LineEnding::Lf => b"\n",
            LineEnding::Crlf => b"\r\n",
        };
        let mut pieces = Vec::new();
        let mut plain = Vec::with_capacity(text.len() + end.len());
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let doubled = text.get(at + 1) == Some(&byte);
            match byte {
                b'{' | b'}' if doubled => {
                    plain.push(byte);
                    at += 2;
                }
                b'{' => {
                    let (place, length) =
                        placeholder(&text[at..]).map_err(|(kind, length)| Fault {
                            start: at,
                            end: at + length,
                            kind,
                        })?;
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(Piece::Place(place));
                    at += length;
                }
                b'}' => {
                    return Err(Fault {
                        start: at,
                        end: at + 1,
                        kind: FaultKind::Unpaired,
                    });
                }
                b'\r' if text.get(at + 1) == Some(&b'\n') => at += 1,
                b'\n' => {
                    plain.extend_from_slice(end);
                    at += 1;
                }
                _ => {
                    plain.push(byte);
                    at += 1;
                }
            }
        }
        if text.last() != Some(&b'\n') {
            plain.extend_from_slice(end);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// Fills in what is the same for every client of one socket.
    #[must_use]
    pub fn settle(&self, hostname: &str, socket: &str, mode: &str) -> Greeting {
        let mut pieces: Vec<Piece> = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            let text = match piece {
                Piece::Text(text) => text.as_slice(),
                Piece::Place(Placeholder::Hostname) => hostname.as_bytes(),
                Piece::Place(Placeholder::Socket) => socket.as_bytes(),
                Piece::Place(Placeholder::Mode) => mode.as_bytes(),
                Piece::Place(place) => {
                    pieces.push(Piece::Place(*place));
                    continue;
                }
            };
            match pieces.last_mut() {
                Some(Piece::Text(before)) => before.extend_from_slice(text),
                _ => pieces.push(Piece::Text(text.to_vec())),
            }
        }
        match pieces.as_slice() {
            [] => Greeting::Same(Rc::new([])),
            [Piece::Text(text)] => Greeting::Same(Rc::from(text.as_slice())),
            _ => Greeting::Each(Pieces(pieces)),
        }
    }
}

/// What one socket's clients are sent.
#[derive(Debug, Clone)]
pub enum Greeting {
    /// The same bytes for everybody, rendered once.
    Same(Rc<[u8]>),
    /// Bytes that depend on the client.
    Each(Pieces),
}

/// A text with only the client's own placeholders left.
#[derive(Debug, Clone)]
pub struct Pieces(Vec<Piece>);

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
    /// Whether any placeholder of the client's own is left.
    #[must_use]
    pub fn wants_facts(&self) -> bool {
        matches!(self, Self::Each(_))
    }

    /// The bytes for one client. What does not exist is `-`.
    #[must_use]
    pub fn render(&self, facts: &Facts<'_>) -> Rc<[u8]> {
        let pieces = match self {
            Self::Same(bytes) => return Rc::clone(bytes),
            Self::Each(Pieces(pieces)) => pieces,
        };
        let address = |end: Option<(IpAddr, u16)>| end.map(|(ip, _)| ip.to_canonical().to_string());
        let port = |end: Option<(IpAddr, u16)>| end.map(|(_, port)| port.to_string());
        let mut bytes = Vec::new();
        for piece in pieces {
            let value = match piece {
                Piece::Text(text) => {
                    bytes.extend_from_slice(text);
                    continue;
                }
                Piece::Place(Placeholder::PeerAddr) => address(facts.peer),
                Piece::Place(Placeholder::PeerPort) => port(facts.peer),
                Piece::Place(Placeholder::LocalAddr) => {
                    address(facts.local).or(facts.path.map(str::to_owned))
                }
                Piece::Place(Placeholder::LocalPort) => port(facts.local),
                Piece::Place(Placeholder::Time) => Some(facts.time.to_owned()),
                // Filled in by `settle` before.
                Piece::Place(Placeholder::Hostname | Placeholder::Socket | Placeholder::Mode) => {
                    None
                }
            };
            bytes.extend_from_slice(value.as_deref().unwrap_or("-").as_bytes());
        }
        bytes.into()
    }
}

/// The placeholder with which `text` begins and the length of it, braces included.
fn placeholder(text: &[u8]) -> Result<(Placeholder, usize), (FaultKind, usize)> {
    let close = text
        .iter()
        .skip(1)
        .position(|b| matches!(b, b'}' | b'{' | b'\n'))
        .map(|at| at + 1);
    let Some(close) = close.filter(|at| text[*at] == b'}') else {
        return Err((FaultKind::Unpaired, 1));
    };
    let name = &text[1..close];
    PLACEHOLDERS
        .iter()
        .find(|(known, _)| known.as_bytes() == name)
        .map(|(_, place)| (*place, close + 1))
        .ok_or_else(|| {
            (
                FaultKind::Unknown(String::from_utf8_lossy(name).into_owned()),
                close + 1,
            )
        })
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
            !Template::parse(text.as_bytes(), LineEnding::Lf)
                .unwrap()
                .settle("", "", "")
                .wants_facts()
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
            kind: FaultKind::Unknown(name.into()),
        };
        let unpaired = |start| Fault {
            start,
            end: start + 1,
            kind: FaultKind::Unpaired,
        };
        assert_eq!(fault("a {nope} b"), unknown(2, 8, "nope"));
        assert_eq!(fault("{}"), unknown(0, 2, ""));
        assert_eq!(fault("a {peer"), unpaired(2));
        assert_eq!(fault("a }"), unpaired(2));
        assert_eq!(fault("{a{b}"), unpaired(0));
        assert_eq!(fault("{a\n}"), unpaired(0));
    }
}
