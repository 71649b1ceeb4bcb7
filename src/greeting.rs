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
    /// Every placeholder, in the order of greeter.toml(5).
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

    /// The length of the longest value, in bytes, so that the size of a greeting is known
    /// before the first client connects. Bytes that are not UTF-8 become three each.
    const fn max_length(self) -> usize {
        match self {
            // The longest IPv6 address with the number of an interface: `%4294967295`.
            Self::PeerAddr => 39 + 11,
            Self::PeerPort | Self::LocalPort => 5,
            // A Unix address has 108 bytes (unix(7)).
            Self::LocalAddr => 3 * 108,
            // uname(2).
            Self::Hostname => 3 * 64,
            Self::Time => "2026-01-02T03:04:05Z".len(),
            // `FDNAME_MAX` of systemd.
            Self::Socket => 255,
            Self::Mode => "accepted".len(),
        }
    }
}

/// The values of the placeholders for one connection.
#[derive(Debug)]
pub struct Context<'a> {
    /// The client's address and port; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// The address that the client connected to.
    pub local: LocalAddr,
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
        let local_ip = match &self.local {
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
pub enum TemplateError {
    /// The brace at this byte has no counterpart.
    Unmatched(usize),
    /// The name between the braces at these bytes is not a placeholder's.
    Unknown(Range<usize>, String),
    /// The text can be rendered to this many bytes, more than [`MAX_RENDERED_LENGTH`].
    TooLong(usize),
}

impl TemplateError {
    /// The invalid bytes of the text; `None` if the error is about all of it.
    pub fn span(&self) -> Option<Range<usize>> {
        match self {
            Self::Unmatched(at) => Some(*at..*at + 1),
            Self::Unknown(span, _) => Some(span.clone()),
            Self::TooLong(_) => None,
        }
    }
}

/// The most bytes that a text with placeholders can be rendered to, each placeholder at
/// its longest: every connection has its own copy while it is sent.
pub const MAX_RENDERED_LENGTH: usize = 16 * 1024;

/// A greeting, ready to be sent or rendered. Clones share its text.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Greeting {
    /// The same bytes for every connection.
    Fixed(Rc<[u8]>),
    /// A text with placeholders.
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

impl Greeting {
    /// Parses a text.
    ///
    /// # Errors
    /// An unmatched brace, an unknown name between braces, or placeholders in a text that
    /// is too long for them; never with [`LineEnding::Raw`].
    pub fn parse(text: &[u8], ending: LineEnding) -> Result<Self, TemplateError> {
        let newline: &[u8] = match ending {
            LineEnding::Raw => return Ok(Self::Fixed(text.into())),
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
            return Ok(Self::Fixed(literal.into()));
        }
        let values = placeholders.iter();
        let values: usize = values
            .map(|(_, placeholder)| placeholder.max_length())
            .sum();
        let length = literal.len() + values;
        if length > MAX_RENDERED_LENGTH {
            return Err(TemplateError::TooLong(length));
        }
        Ok(Self::Template(Rc::new(Template {
            text: literal.into(),
            placeholders: placeholders.into(),
        })))
    }

    /// The bytes for one connection. `context` is called only if they depend on it.
    pub fn render<'a>(&self, context: impl FnOnce() -> Context<'a>) -> Rc<[u8]> {
        match self {
            Self::Fixed(text) => Rc::clone(text),
            Self::Template(template) => template.render(&context()).into(),
        }
    }
}

impl Template {
    fn render(&self, context: &Context<'_>) -> Vec<u8> {
        let mut rendered = Vec::with_capacity(self.text.len() + 64);
        let mut start = 0;
        for (end, placeholder) in &self.placeholders {
            rendered.extend_from_slice(&self.text[start..*end]);
            rendered.extend_from_slice(context.value(*placeholder).as_bytes());
            start = *end;
        }
        rendered.extend_from_slice(&self.text[start..]);
        rendered
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
        return Err(TemplateError::Unmatched(start));
    }
    let name = String::from_utf8_lossy(&inner[..length]);
    Placeholder::ALL
        .into_iter()
        .find(|placeholder| placeholder.name() == name)
        .ok_or_else(|| TemplateError::Unknown(start..start + length + 2, name.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(peer: Option<&str>, local: &LocalAddr) -> Context<'static> {
        Context {
            peer: peer.map(|peer| peer.parse().unwrap()),
            local: local.clone(),
            hostname: "host".to_owned(),
            time: "2026-01-02T03:04:05Z".to_owned(),
            socket: "smtp",
            mode: Mode::Accept,
        }
    }

    fn render(text: &str, ending: LineEnding, peer: Option<&str>, local: &LocalAddr) -> String {
        let greeting = Greeting::parse(text.as_bytes(), ending).unwrap();
        let rendered = greeting.render(|| context(peer, local));
        String::from_utf8(rendered.to_vec()).unwrap()
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
    fn connections_share_a_text_without_placeholders() {
        let greeting = Greeting::parse(&b"x".repeat(1 << 20), LineEnding::Lf).unwrap();
        let render = || greeting.render(|| panic!("no value is needed"));
        assert!(Rc::ptr_eq(&render(), &render()));
    }

    #[test]
    fn length_with_placeholders_is_bounded() {
        let check = |text: &str, ending, expected| {
            let result = Greeting::parse(text.as_bytes(), ending);
            assert_eq!(result.map(drop), expected, "{}", text.len());
        };
        // A time has 20 bytes, and a line end is appended.
        let x = "x".repeat(MAX_RENDERED_LENGTH - 20 - 1);
        check(&format!("{x}{{time}}"), LineEnding::Lf, Ok(()));
        let over = Err(TemplateError::TooLong(MAX_RENDERED_LENGTH + 1));
        check(&format!("{x}x{{time}}"), LineEnding::Lf, over);
        let over = Err(TemplateError::TooLong(MAX_RENDERED_LENGTH + 1));
        check(&format!("{x}{{time}}"), LineEnding::Crlf, over);
        // Without placeholders there is no such bound.
        check(&"x".repeat(MAX_RENDERED_LENGTH + 1), LineEnding::Lf, Ok(()));
        check(&format!("{x}x{{time}}"), LineEnding::Raw, Ok(()));
    }

    #[test]
    fn values_are_not_longer_than_expected() {
        let longest_path = "\u{fffd}".repeat(108);
        let locals = [
            LocalAddr::Ip(
                "[2001:1111:1111:1111:1111:1111:1111:1111%4294967295]:65535"
                    .parse()
                    .unwrap(),
            ),
            LocalAddr::Path(longest_path.clone()),
            LocalAddr::Abstract(longest_path[3..].to_owned()),
            LocalAddr::Unnamed,
        ];
        for local in locals {
            for mode in [Mode::Accept, Mode::Accepted, Mode::Inet] {
                let context = Context {
                    peer: Some(
                        "[fe80:1111:1111:1111:1111:1111:1111:1111%4294967295]:65535"
                            .parse()
                            .unwrap(),
                    ),
                    local: local.clone(),
                    hostname: "\u{fffd}".repeat(64),
                    time: "9999-12-31T23:59:59Z".to_owned(),
                    socket: &"s".repeat(255),
                    mode,
                };
                for placeholder in Placeholder::ALL {
                    let length = context.value(placeholder).len();
                    assert!(
                        length <= placeholder.max_length(),
                        "{placeholder:?}: {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn template_errors_have_the_span() {
        let error = |text: &str| Greeting::parse(text.as_bytes(), LineEnding::Lf).unwrap_err();
        let unknown = |start, end, name: &str| TemplateError::Unknown(start..end, name.into());
        let unmatched = TemplateError::Unmatched;
        assert_eq!(error("a {nope} b"), unknown(2, 8, "nope"));
        assert_eq!(error("{}"), unknown(0, 2, ""));
        assert_eq!(error("a {peer"), unmatched(2));
        assert_eq!(error("a }"), unmatched(2));
        assert_eq!(error("{a{b}"), unmatched(0));
        assert_eq!(error("{a\n}"), unmatched(0));
    }
}
