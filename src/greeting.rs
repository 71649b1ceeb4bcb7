//! From the text in the settings to the bytes that one client is sent. Floor 3.
//!
//! Everything here is made from values: no I/O, no clock, no environment.

use std::mem;
use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use crate::socket::Local;

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
    "peer_addr",
    "peer_port",
    "local_addr",
    "local_port",
    "hostname",
    "time",
    "socket",
    "mode",
];

/// What is known of one client, for its greeting.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The client's address and port; none for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// What it reached.
    pub local: &'a Local,
    /// The host's name.
    pub hostname: String,
    /// The moment: RFC 3339, UTC, whole seconds.
    pub time: String,
    /// The socket's name.
    pub socket: &'a str,
    /// The mode's name.
    pub mode: &'a str,
}

impl Facts<'_> {
    /// What stands for a placeholder. What does not exist is `-`.
    fn value(&self, placeholder: &str) -> String {
        let none = || "-".to_owned();
        let ip = |end: SocketAddr| end.ip().to_canonical().to_string();
        let port = |end: SocketAddr| end.port().to_string();
        match placeholder {
            "peer_addr" => self.peer.map_or_else(none, ip),
            "peer_port" => self.peer.map_or_else(none, port),
            "local_addr" => self.local.ip.map_or_else(|| self.local.text.clone(), ip),
            "local_port" => self.local.ip.map_or_else(none, port),
            "hostname" => self.hostname.clone(),
            "time" => self.time.clone(),
            "socket" => self.socket.to_owned(),
            _ => self.mode.to_owned(),
        }
    }
}

/// Why a text is no template: some bytes of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where they stand in the text.
    pub span: Range<usize>,
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

    /// Whether every client of one socket is sent the same.
    pub fn is_same(&self) -> bool {
        let same = ["hostname", "socket", "mode"];
        self.places.iter().all(|(_, place)| same.contains(place))
    }

    /// The bytes for one client.
    pub fn render(&self, facts: &Facts<'_>) -> Rc<[u8]> {
        let mut bytes = Vec::new();
        for (before, place) in &self.places {
            bytes.extend_from_slice(before);
            bytes.extend_from_slice(facts.value(place).as_bytes());
        }
        bytes.extend_from_slice(&self.tail);
        bytes.into()
    }
}

/// The placeholder whose brace stands at `start`.
fn placeholder(text: &[u8], start: usize) -> Result<&'static str, Fault> {
    let fault = |end, name| Fault {
        span: start..end,
        name,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str, ending: LineEnding, peer: Option<&str>, local: &Local) -> String {
        let template = Template::parse(text.as_bytes(), ending).unwrap();
        let bytes = template.render(&Facts {
            peer: peer.map(|peer| peer.parse().unwrap()),
            local,
            hostname: "host".to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            socket: "smtp",
            mode: "accept",
        });
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn check(text: &str, ending: LineEnding, expected: &str) {
        let (ip, text_of_ip) = ("[2001:db8::1]:4000".parse().ok(), String::new());
        let local = Local {
            ip,
            text: text_of_ip,
        };
        let peer = Some("[::ffff:192.0.2.7]:51000");
        assert_eq!(render(text, ending, peer, &local), expected, "{text:?}");
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
        let places = "{peer_addr}{peer_port}{local_addr}{local_port}";
        for (path, expected) in [("-", "----\n"), ("/run/s", "--/run/s-\n")] {
            let (ip, text) = (None, path.to_owned());
            let sent = render(places, LineEnding::Lf, None, &Local { ip, text });
            assert_eq!(sent, expected);
        }
    }

    #[test]
    fn a_greeting_without_the_clients_own_facts_is_rendered_once() {
        let same = |text: &str| {
            let template = Template::parse(text.as_bytes(), LineEnding::Lf);
            template.unwrap().is_same()
        };
        assert!(same("plain") && same("{hostname}") && same(""));
        assert!(!same("{time}"));
    }

    #[test]
    fn faults_say_where() {
        let fault = |text: &str| Template::parse(text.as_bytes(), LineEnding::Lf).unwrap_err();
        let unknown = |start, end, name: &str| Fault {
            span: start..end,
            name: Some(name.into()),
        };
        let unpaired = |start| Fault {
            span: start..start + 1,
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
