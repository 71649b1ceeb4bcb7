//! A greeting from its text to the bytes that a client is sent. The first byte
//! selects the line ending, the second the addresses, the rest is the text.
#![no_main]

use std::net::{Ipv6Addr, SocketAddr};

use greeter::greeting::{Context, Greeting, LineEnding, MAX_RENDERED_LENGTH, TemplateError};
use greeter::mode::Mode;
use greeter::socket::LocalAddr;
use libfuzzer_sys::fuzz_target;

/// A value that contains a placeholder, which must not be replaced.
const BRACES: &str = "{peer_addr}}{";

fuzz_target!(|bytes: &[u8]| {
    let [ending, client, text @ ..] = bytes else {
        return;
    };
    let ending = [LineEnding::Lf, LineEnding::Crlf, LineEnding::Raw][usize::from(ending % 3)];
    let literal = double_braces(text);
    let literal_greeting =
        Greeting::parse(&literal, ending).expect("double braces are always valid");
    let literal_sent = render(&literal_greeting, *client);
    match Greeting::parse(text, ending) {
        Ok(_) if ending == LineEnding::Raw => assert_eq!(literal_sent, literal),
        Ok(greeting) => {
            let sent = render(&greeting, *client);
            assert_line_endings(&sent, ending);
            assert_line_endings(&literal_sent, ending);
            if matches!(greeting, Greeting::Template(_)) {
                assert!(sent.len() <= MAX_RENDERED_LENGTH);
            } else {
                // At most, every line end becomes two bytes, and one is appended.
                assert!(sent.len() <= 2 * (text.len() + 1));
            }
        }
        Err(error) => {
            assert_ne!(ending, LineEnding::Raw);
            let invalid = error.span().map(|span| &text[span]);
            match (error, invalid) {
                (TemplateError::TooLong(length), None) => assert!(length > MAX_RENDERED_LENGTH),
                (TemplateError::Unmatched(_), Some(invalid)) => {
                    assert!(invalid == b"{" || invalid == b"}");
                }
                (TemplateError::Unknown(_, name), Some(invalid)) => {
                    assert_eq!(invalid[0], b'{');
                    assert_eq!(invalid[invalid.len() - 1], b'}');
                    let inner = &invalid[1..invalid.len() - 1];
                    assert_eq!(name, String::from_utf8_lossy(inner));
                }
                (error, invalid) => panic!("{error:?} at {invalid:?}"),
            }
        }
    }
});

fn render(greeting: &Greeting, client: u8) -> Vec<u8> {
    let local = match client % 4 {
        0 => LocalAddr::Ip(ipv6(client, 25)),
        1 => LocalAddr::Path(BRACES.to_owned()),
        2 => LocalAddr::Ip(ipv4(client, 0)),
        _ => LocalAddr::Unnamed,
    };
    let context = || Context {
        peer: match client % 3 {
            0 => None,
            1 => Some(ipv4(client, 1)),
            _ => Some(ipv6(client, 65535)),
        },
        local: local.clone(),
        hostname: BRACES.to_owned(),
        time: "2026-01-02T03:04:05Z".to_owned(),
        socket: "a socket",
        mode: Mode::Accept,
    };
    let sent = greeting.render(context);
    assert_eq!(sent, greeting.render(context));
    sent.to_vec()
}

fn ipv4(client: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, client], port))
}

fn ipv6(client: u8, port: u16) -> SocketAddr {
    let address = Ipv6Addr::from(u128::MAX - u128::from(client));
    SocketAddr::from((address, port))
}

/// Every line has the ending, the last one too.
fn assert_line_endings(sent: &[u8], ending: LineEnding) {
    if ending == LineEnding::Raw {
        return;
    }
    assert_eq!(sent.last(), Some(&b'\n'));
    if ending == LineEnding::Crlf {
        for (index, byte) in sent.iter().enumerate() {
            assert!(*byte != b'\n' || (index > 0 && sent[index - 1] == b'\r'));
        }
    }
}

fn double_braces(text: &[u8]) -> Vec<u8> {
    let mut doubled = Vec::with_capacity(text.len());
    for byte in text {
        doubled.push(*byte);
        if matches!(byte, b'{' | b'}') {
            doubled.push(*byte);
        }
    }
    doubled
}
