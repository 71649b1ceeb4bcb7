//! A greeting from its text to the bytes on the wire. The first byte chooses the
//! line ending, the second who the client is, the rest is the text.
#![no_main]

use std::net::{Ipv6Addr, SocketAddr};

use greeter::greeting::{Facts, LineEnding, Template};
use greeter::socket::Local;
use libfuzzer_sys::fuzz_target;

/// What is filled in looks like placeholders: none may be filled in twice.
const BRACES: &str = "{peer_addr}}{";

fuzz_target!(|bytes: &[u8]| {
    let [ending, client, text @ ..] = bytes else {
        return;
    };
    let ending = [LineEnding::Lf, LineEnding::Crlf, LineEnding::Raw][usize::from(ending % 3)];
    let plain = braces_doubled(text);
    let same = render(
        &Template::parse(&plain, ending).expect("doubled braces are never a fault"),
        *client,
    );
    match Template::parse(text, ending) {
        Ok(_) if ending == LineEnding::Raw => assert_eq!(same, plain),
        Ok(template) => {
            let sent = render(&template, *client);
            assert_lines_end(&sent, ending);
            assert_lines_end(&same, ending);
            // A placeholder is 6 bytes at least and becomes 45 at most.
            assert!(sent.len() <= 10 * (text.len() + 2));
        }
        Err(fault) => {
            assert_ne!(ending, LineEnding::Raw);
            assert!(!fault.span.is_empty() && fault.span.end <= text.len());
            let meant = &text[fault.span];
            match fault.name {
                None => assert!(meant == b"{" || meant == b"}"),
                Some(name) => {
                    assert_eq!(meant[0], b'{');
                    assert_eq!(meant[meant.len() - 1], b'}');
                    assert_eq!(name, String::from_utf8_lossy(&meant[1..meant.len() - 1]));
                }
            }
        }
    }
});

fn render(template: &Template, client: u8) -> Vec<u8> {
    let v4 = |port| Some(SocketAddr::from(([192, 0, 2, client], port)));
    let v6 = |port| {
        Some(SocketAddr::from((
            Ipv6Addr::from(u128::MAX - u128::from(client)),
            port,
        )))
    };
    let local = Local {
        ip: [v6(25), None, v4(0)][usize::from(client % 3)],
        text: BRACES.to_owned(),
    };
    let facts = Facts {
        peer: [None, v4(1), v6(65535)][usize::from(client % 3)],
        local: &local,
        hostname: BRACES.to_owned(),
        time: "2026-01-02T03:04:05Z".to_owned(),
        socket: "a socket",
        mode: "accept",
    };
    let once = template.render(&facts);
    assert_eq!(once, template.render(&facts));
    once.to_vec()
}

/// Every line ends as asked, the last one too.
fn assert_lines_end(sent: &[u8], ending: LineEnding) {
    if ending == LineEnding::Raw {
        return;
    }
    assert_eq!(sent.last(), Some(&b'\n'));
    if ending == LineEnding::Crlf {
        for (at, _) in sent.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            assert!(at > 0 && sent[at - 1] == b'\r');
        }
    }
}

fn braces_doubled(text: &[u8]) -> Vec<u8> {
    let twice = |byte: &u8| match byte {
        b'{' | b'}' => vec![*byte; 2],
        _ => vec![*byte],
    };
    text.iter().flat_map(twice).collect()
}
