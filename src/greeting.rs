//! From the text in the settings to the bytes that a client is sent.
//!
//! Everything here is computed from values: no I/O, no clock, no environment.

use std::net::SocketAddr;
use std::ops::Range;
use std::rc::Rc;

use crate::mode::Mode;
use crate::socket::{self, LocalAddr};

/// How lines end on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineEnding {
    /// `\n`.
    Lf,
    /// `\r\n`, as Internet protocols require.
    Crlf,
    /// The bytes as they are; braces have no meaning.
    Raw,
}

/// A value that a greeting can contain, written as its name between braces. What else
/// a new one needs: ARCHITECTURE.md, "How to add".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Placeholder {
    /// The client's IP address.
    PeerAddr,
    /// The client's port.
    PeerPort,
    /// The IP address that the client connected to, or the path of a Unix socket.
    LocalAddr,
    /// The port that the client connected to.
    LocalPort,
    /// The host name.
    Hostname,
    /// The current time (RFC 3339, UTC).
    Time,
    /// The socket's name.
    Socket,
    /// The mode's name.
    Mode,
}

impl Placeholder {
    /// Every placeholder, in the order of the enum, by which `Rendered::values` is
    /// indexed, and of greeter.toml(5).
    pub const ALL: [Self; 8] = [
        Self::PeerAddr,
        Self::PeerPort,
        Self::LocalAddr,
        Self::LocalPort,
        Self::Hostname,
        Self::Time,
        Self::Socket,
        Self::Mode,
    ];

    /// The name between the braces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PeerAddr => "peer_addr",
            Self::PeerPort => "peer_port",
            Self::LocalAddr => "local_addr",
            Self::LocalPort => "local_port",
            Self::Hostname => "hostname",
            Self::Time => "time",
            Self::Socket => "socket",
            Self::Mode => "mode",
        }
    }

    /// Whether the value can differ between two connections of one socket.
    const fn differs_by_connection(self) -> bool {
        match self {
            Self::PeerAddr | Self::PeerPort | Self::LocalAddr | Self::LocalPort | Self::Time => {
                true
            }
            Self::Hostname | Self::Socket | Self::Mode => false,
        }
    }
}

/// The values of the placeholders for one connection.
#[derive(Debug)]
pub struct Context<'a> {
    /// The client's address and port; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that the client connected to.
    pub local: &'a LocalAddr,
    /// The host name.
    pub hostname: String,
    /// The current time: RFC 3339, UTC, whole seconds.
    pub time: String,
    /// The socket's name.
    pub socket: &'a str,
    /// The mode.
    pub mode: Mode,
}

impl Context<'_> {
    /// The value of a placeholder; `-` if there is none.
    fn value(&self, placeholder: Placeholder) -> String {
        let local_ip = match self.local {
            LocalAddr::Ip(address) => Some(*address),
            LocalAddr::Path(_) | LocalAddr::Abstract(_) | LocalAddr::Unnamed => None,
        };
        match placeholder {
            Placeholder::PeerAddr => ip_or_dash(self.peer),
            Placeholder::PeerPort => port_or_dash(self.peer),
            Placeholder::LocalAddr => match local_ip {
                Some(address) => ip_or_dash(Some(address)),
                None => self.local.to_string(),
            },
            Placeholder::LocalPort => port_or_dash(local_ip),
            Placeholder::Hostname => self.hostname.clone(),
            Placeholder::Time => self.time.clone(),
            Placeholder::Socket => self.socket.to_owned(),
            Placeholder::Mode => self.mode.name().to_owned(),
        }
    }
}

fn ip_or_dash(address: Option<SocketAddr>) -> String {
    match address {
        Some(address) => socket::format_ip(address),
        None => "-".to_owned(),
    }
}

fn port_or_dash(address: Option<SocketAddr>) -> String {
    match address {
        Some(address) => address.port().to_string(),
        None => "-".to_owned(),
    }
}

/// Why a text is not a valid template.
#[derive(Debug, PartialEq, Eq)]
pub struct TemplateError {
    /// The invalid bytes of the text.
    pub span: Range<usize>,
    /// The unknown name between braces; `None` for an unmatched brace.
    pub name: Option<String>,
}

/// A greeting, ready to be sent or rendered. Clones share its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Greeting {
    /// The same bytes for every connection.
    Fixed(Payload),
    /// A text with placeholders whose values differ by connection or by socket.
    Template(Rc<Template>),
}

/// A text with placeholders; its line endings are those to send.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Template {
    /// The text without the placeholders.
    text: Box<[u8]>,
    /// Each placeholder with the end of the text before it.
    placeholders: Box<[(usize, Placeholder)]>,
}

/// The bytes for one connection. The text is shared by all connections; only the
/// values of placeholders are the connection's own, one of each kind.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Payload {
    /// A text without placeholders.
    Text(Rc<[u8]>),
    /// A text with the values of its placeholders.
    Rendered(Rc<Rendered>),
}

/// A text with the values of its placeholders.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Rendered {
    template: Rc<Template>,
    /// The values by [`Placeholder`]; empty for those that the text does not contain.
    values: [Box<str>; Placeholder::ALL.len()],
}

/// A position between two bytes of a [`Payload`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    piece: usize,
    offset: usize,
}

impl Greeting {
    /// Parses a text.
    ///
    /// # Errors
    /// An unmatched brace, or an unknown name between braces; never with
    /// [`LineEnding::Raw`].
    pub fn parse(text: &[u8], ending: LineEnding) -> Result<Self, TemplateError> {
        let newline: &[u8] = match ending {
            LineEnding::Raw => return Ok(Self::Fixed(Payload::Text(text.into()))),
            LineEnding::Lf => b"\n",
            LineEnding::Crlf => b"\r\n",
        };
        let mut placeholders = Vec::new();
        let mut literal = Vec::with_capacity(text.len() + newline.len());
        let mut at = 0;
        while let Some(&byte) = text.get(at) {
            let next = text.get(at + 1);
            let mut length = 1;
            match byte {
                b'{' | b'}' if next == Some(&byte) => {
                    literal.push(byte);
                    length = 2;
                }
                b'{' | b'}' => {
                    let placeholder = placeholder_at(text, at)?;
                    placeholders.push((literal.len(), placeholder));
                    length = placeholder.name().len() + 2;
                }
                b'\r' if next == Some(&b'\n') => {}
                b'\n' => literal.extend_from_slice(newline),
                _ => literal.push(byte),
            }
            at += length;
        }
        if text.last() != Some(&b'\n') {
            literal.extend_from_slice(newline);
        }
        if placeholders.is_empty() {
            return Ok(Self::Fixed(Payload::Text(literal.into())));
        }
        Ok(Self::Template(Rc::new(Template {
            text: literal.into(),
            placeholders: placeholders.into(),
        })))
    }

    /// The greeting for the connections of one socket: fixed if they are all sent the
    /// same bytes.
    pub fn for_socket(&self, context: &Context<'_>) -> Self {
        match self {
            Self::Template(template) if !template.differs_by_connection() => {
                Self::Fixed(template.render(context))
            }
            _ => self.clone(),
        }
    }

    /// The bytes for one connection.
    pub fn render(&self, context: &Context<'_>) -> Payload {
        match self {
            Self::Fixed(payload) => payload.clone(),
            Self::Template(template) => template.render(context),
        }
    }
}

impl Template {
    fn differs_by_connection(&self) -> bool {
        self.placeholders
            .iter()
            .any(|(_, placeholder)| placeholder.differs_by_connection())
    }

    /// The bytes for one connection.
    pub fn render(self: &Rc<Self>, context: &Context<'_>) -> Payload {
        let values = Placeholder::ALL.map(|placeholder| {
            let is_used = self
                .placeholders
                .iter()
                .any(|(_, used)| *used == placeholder);
            if is_used {
                context.value(placeholder).into()
            } else {
                Box::default()
            }
        });
        Payload::Rendered(Rc::new(Rendered {
            template: Rc::clone(self),
            values,
        }))
    }

    /// The text between two placeholders.
    fn text_before(&self, index: usize) -> Option<&[u8]> {
        let start = match index.checked_sub(1) {
            Some(previous) => self.placeholders.get(previous)?.0,
            None => 0,
        };
        let end = match self.placeholders.get(index) {
            Some((end, _)) => *end,
            None => self.text.len(),
        };
        Some(&self.text[start..end])
    }
}

impl Payload {
    /// The pieces from `position` on, in order; none is empty.
    pub fn pieces_from(&self, position: Position) -> impl Iterator<Item = &[u8]> {
        (position.piece..)
            .map_while(|piece| self.piece(piece))
            .enumerate()
            .map(move |(index, bytes)| match index {
                0 => &bytes[position.offset..],
                _ => bytes,
            })
            .filter(|bytes| !bytes.is_empty())
    }

    /// The position `count` bytes after `position`.
    ///
    /// It is the beginning of a piece rather than the end of the one before.
    pub fn advance(&self, position: Position, count: usize) -> Position {
        let Position {
            mut piece,
            mut offset,
        } = position;
        offset += count;
        while let Some(bytes) = self.piece(piece) {
            if offset < bytes.len() {
                break;
            }
            offset -= bytes.len();
            piece += 1;
        }
        Position { piece, offset }
    }

    /// All bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        let pieces: Vec<&[u8]> = self.pieces_from(Position::default()).collect();
        pieces.concat()
    }

    /// Text and values alternate: the even pieces are text.
    fn piece(&self, index: usize) -> Option<&[u8]> {
        match self {
            Self::Text(text) => (index == 0).then_some(text),
            Self::Rendered(rendered) if index % 2 == 0 => rendered.template.text_before(index / 2),
            Self::Rendered(rendered) => {
                let (_, placeholder) = rendered.template.placeholders.get(index / 2)?;
                Some(rendered.values[*placeholder as usize].as_bytes())
            }
        }
    }
}

/// The placeholder that begins with the brace at `start`.
fn placeholder_at(text: &[u8], start: usize) -> Result<Placeholder, TemplateError> {
    let inner = &text[start + 1..];
    let length = inner
        .iter()
        .position(|byte| matches!(byte, b'{' | b'}' | b'\n'))
        .unwrap_or(inner.len());
    if text[start] != b'{' || inner.get(length) != Some(&b'}') {
        return Err(TemplateError {
            span: start..start + 1,
            name: None,
        });
    }
    let name = String::from_utf8_lossy(&inner[..length]);
    Placeholder::ALL
        .into_iter()
        .find(|placeholder| placeholder.name() == name)
        .ok_or_else(|| TemplateError {
            span: start..start + length + 2,
            name: Some(name.into_owned()),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_after_a_piece_is_the_beginning_of_the_next() {
        let payload = Payload::Text(b"hello".as_slice().into());
        let start = Position::default();
        let within = Position {
            piece: 0,
            offset: 4,
        };
        let end = Position {
            piece: 1,
            offset: 0,
        };
        assert_eq!(payload.advance(start, 4), within);
        assert_eq!(payload.advance(within, 1), end);
        assert_eq!(payload.pieces_from(end).count(), 0);
    }

    #[test]
    fn list_of_placeholders_is_in_the_order_of_the_enum() {
        for (index, placeholder) in Placeholder::ALL.into_iter().enumerate() {
            assert_eq!(placeholder as usize, index);
        }
    }

    fn context<'a>(peer: Option<&str>, local: &'a LocalAddr) -> Context<'a> {
        Context {
            peer: peer.map(|peer| peer.parse().unwrap()),
            local,
            hostname: "host".to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            socket: "smtp",
            mode: Mode::Accept,
        }
    }

    fn render(text: &str, ending: LineEnding, peer: Option<&str>, local: &LocalAddr) -> String {
        let greeting = Greeting::parse(text.as_bytes(), ending).unwrap();
        let payload = greeting.render(&context(peer, local));
        String::from_utf8(payload.to_vec()).unwrap()
    }

    fn check(text: &str, ending: LineEnding, expected: &str) {
        let local = LocalAddr::Ip("[2001:db8::1]:4000".parse().unwrap());
        let peer = Some("[::ffff:192.0.2.7]:51000");
        assert_eq!(render(text, ending, peer, &local), expected, "{text:?}");
    }

    #[test]
    fn line_endings_are_normalized_and_the_last_line_is_terminated() {
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
    fn placeholders_are_replaced_and_double_braces_are_literal() {
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
    fn missing_values_render_as_a_dash() {
        let text = "{peer_addr}{peer_port}{local_addr}{local_port}";
        for (local, expected) in [
            (LocalAddr::Unnamed, "----\n"),
            (LocalAddr::Path("/run/s".to_owned()), "--/run/s-\n"),
            (LocalAddr::Abstract("s".to_owned()), "--@s-\n"),
        ] {
            assert_eq!(render(text, LineEnding::Lf, None, &local), expected);
        }
    }

    #[test]
    fn greeting_without_connection_values_is_static() {
        let is_static = |text: &str| {
            let greeting = Greeting::parse(text.as_bytes(), LineEnding::Lf).unwrap();
            let greeting = greeting.for_socket(&context(None, &LocalAddr::Unnamed));
            matches!(greeting, Greeting::Fixed(_))
        };
        assert!(is_static("plain") && is_static("{hostname}") && is_static(""));
        assert!(!is_static("{time}"));
    }

    #[test]
    fn payload_continues_at_every_position() {
        let text = "{socket}{mode} between {{ {socket}{time}";
        let greeting = Greeting::parse(text.as_bytes(), LineEnding::Crlf).unwrap();
        let payload = greeting.render(&context(None, &LocalAddr::Unnamed));
        let all = payload.to_vec();
        for first in 0..=all.len() {
            let position = payload.advance(Position::default(), first);
            let rest: Vec<&[u8]> = payload.pieces_from(position).collect();
            assert_eq!(rest.concat(), all[first..], "{first}");
            for second in 0..=all.len() - first {
                let later = payload.advance(position, second);
                let rest: Vec<&[u8]> = payload.pieces_from(later).collect();
                assert_eq!(rest.concat(), all[first + second..], "{first} + {second}");
            }
        }
    }

    #[test]
    fn connections_share_the_text() {
        let text = [b"x".repeat(1 << 20), b"{peer_addr}{time}".to_vec()].concat();
        let greeting = Greeting::parse(&text, LineEnding::Lf).unwrap();
        let Greeting::Template(template) = &greeting else {
            panic!("not a template");
        };
        let local = LocalAddr::Unnamed;
        let payloads: Vec<Payload> = (0..10)
            .map(|_| greeting.render(&context(None, &local)))
            .collect();
        assert_eq!(Rc::strong_count(template), 1 + payloads.len());
    }

    #[test]
    fn template_errors_have_the_span() {
        let error = |text: &str| Greeting::parse(text.as_bytes(), LineEnding::Lf).unwrap_err();
        let unknown = |start, end, name: &str| TemplateError {
            span: start..end,
            name: Some(name.into()),
        };
        let unmatched = |start| TemplateError {
            span: start..start + 1,
            name: None,
        };
        assert_eq!(error("a {nope} b"), unknown(2, 8, "nope"));
        assert_eq!(error("{}"), unknown(0, 2, ""));
        assert_eq!(error("a {peer"), unmatched(2));
        assert_eq!(error("a }"), unmatched(2));
        assert_eq!(error("{a{b}"), unmatched(0));
        assert_eq!(error("{a\n}"), unmatched(0));
    }
}
