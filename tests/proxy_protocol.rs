//! The PROXY protocol: which headers are accepted, what they change, and what a
//! connection without a valid one leads to.

mod support;

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use support::{Process, Standalone, TIMEOUT, TempDir, activate, free_port};

const SETTINGS: &str = "proxy_protocol = 'required'\n\
                        message = '{peer_addr} {peer_port} {local_addr} {local_port}'\n";

const V4: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 49152 25\r\n";
const V4_GREETING: &str = "192.0.2.1 49152 198.51.100.1 25\n";
const V6_GREETING: &str = "2001:db8::1 49152 2001:db8::2 25\n";

const MALFORMED: Expected = Expected::Invalid("a malformed PROXY header");
const ABSENT: Expected = Expected::Invalid("no PROXY header");
const UNKNOWN_VERSION: Expected = Expected::Invalid("a PROXY header of an unknown version");
const TOO_LONG: Expected =
    Expected::Invalid("a PROXY header of version 1 with more than 107 bytes");
const INCOMPLETE: Expected = Expected::Invalid("an incomplete PROXY header");

/// What a header leads to.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Expected {
    /// A greeting with the addresses in the header.
    Greeting(&'static str),
    /// A greeting with the connection's own addresses.
    Own,
    /// No greeting, and a line with this reason.
    Invalid(&'static str),
}

/// A header of version 2: version and command, family and transport, the rest.
fn version_2(version_and_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let fixed = [version_and_command, family, length[0], length[1]];
    [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], rest].concat()
}

/// The addresses of [`V4_GREETING`] in version 2.
const INET: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0xc0, 0, 0, 25];

/// The addresses of [`V6_GREETING`], or IPv4-mapped ones, in version 2.
fn inet6(is_mapped: bool) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    if is_mapped {
        bytes[10..16].copy_from_slice(&[0xff, 0xff, 192, 0, 2, 1]);
        bytes[26..32].copy_from_slice(&[0xff, 0xff, 198, 51, 100, 1]);
    } else {
        bytes[..4].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        bytes[15] = 1;
        bytes[16..20].copy_from_slice(&[0x20, 1, 0xd, 0xb8]);
        bytes[31] = 2;
    }
    bytes[32..].copy_from_slice(&[0xc0, 0, 0, 25]);
    bytes
}

fn headers() -> Vec<(Vec<u8>, Expected)> {
    let text = [
        (
            "PROXY TCP4 192.0.2.1 198.51.100.1 49152 25\r\n",
            Expected::Greeting(V4_GREETING),
        ),
        (
            "PROXY TCP6 2001:db8::1 2001:db8::2 49152 25\r\n",
            Expected::Greeting(V6_GREETING),
        ),
        (
            "PROXY TCP6 2001:0DB8:0:0:0:0:0:1 2001:db8::2 49152 25\r\n",
            Expected::Greeting(V6_GREETING),
        ),
        (
            "PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 49152 25\r\n",
            Expected::Greeting(V4_GREETING),
        ),
        (
            "PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
            Expected::Greeting("0.0.0.0 0 255.255.255.255 65535\n"),
        ),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff \
             ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
            Expected::Greeting(
                "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 \
                 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535\n",
            ),
        ),
        ("PROXY UNKNOWN\r\n", Expected::Own),
        ("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", Expected::Own),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 49152\r\n", MALFORMED),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.1 49152 25 1\r\n",
            MALFORMED,
        ),
        ("PROXY TCP4  192.0.2.1 198.51.100.1 49152 25\r\n", MALFORMED),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 49152 25 \r\n", MALFORMED),
        (
            "PROXY TCP4 192.0.2.1 198.51.100.1 49152 65536\r\n",
            MALFORMED,
        ),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 049152 25\r\n", MALFORMED),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 -1 25\r\n", MALFORMED),
        (
            "PROXY TCP4 192.0.2.256 198.51.100.1 49152 25\r\n",
            MALFORMED,
        ),
        ("PROXY TCP4 192.0.2.01 198.51.100.1 49152 25\r\n", MALFORMED),
        ("PROXY TCP4 2001:db8::1 2001:db8::2 49152 25\r\n", MALFORMED),
        ("PROXY TCP6 192.0.2.1 198.51.100.1 49152 25\r\n", MALFORMED),
        ("PROXY TCP6 fe80::1%1 2001:db8::2 49152 25\r\n", MALFORMED),
        (
            "PROXY TCP6 2001:db8:::1 2001:db8::2 49152 25\r\n",
            MALFORMED,
        ),
        ("PROXY UDP4 192.0.2.1 198.51.100.1 49152 25\r\n", MALFORMED),
        ("PROXY tcp4 192.0.2.1 198.51.100.1 49152 25\r\n", MALFORMED),
        ("PROXY UNKNOWNS\r\n", MALFORMED),
        ("PROXY \r\n", MALFORMED),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 49152 25\n", MALFORMED),
        ("PROXY TCP4 192.0.2.1 198.51.100.1 49152 25\r \n", MALFORMED),
        ("GET / HTTP/1.1\r\n", ABSENT),
        ("EHLO example.org\r\n", ABSENT),
        ("proxy TCP4 192.0.2.1 198.51.100.1 49152 25\r\n", ABSENT),
        ("PROXY4", ABSENT),
        ("\r\n\r\n\r\n", ABSENT),
        ("PROXY TCP4 192.0.2.1", INCOMPLETE),
        ("P", INCOMPLETE),
        ("\r\n\r\n\0\r\nQUIT\n", INCOMPLETE),
    ];
    let mut headers: Vec<_> = text
        .into_iter()
        .map(|(text, expected)| (text.as_bytes().to_vec(), expected))
        .collect();
    let line = |length: usize| format!("PROXY UNKNOWN {}\r\n", "x".repeat(length - 16));
    let with_tlvs = [&INET[..], &[0xEE; 300]].concat();
    headers.extend([
        (line(107).into_bytes(), Expected::Own),
        (line(108).into_bytes(), TOO_LONG),
        (line(200).into_bytes(), TOO_LONG),
        (
            version_2(0x21, 0x11, &INET),
            Expected::Greeting(V4_GREETING),
        ),
        (
            version_2(0x21, 0x21, &inet6(false)),
            Expected::Greeting(V6_GREETING),
        ),
        (
            version_2(0x21, 0x21, &inet6(true)),
            Expected::Greeting(V4_GREETING),
        ),
        (
            version_2(0x21, 0x11, &with_tlvs),
            Expected::Greeting(V4_GREETING),
        ),
        (version_2(0x21, 0x00, b""), Expected::Own),
        (version_2(0x21, 0x00, &[0; 40]), Expected::Own),
        (version_2(0x21, 0x31, &[b'/'; 216]), Expected::Own),
        (version_2(0x20, 0x00, b""), Expected::Own),
        (version_2(0x20, 0x11, &INET), Expected::Own),
        (version_2(0x20, 0x12, &INET), Expected::Own),
        (version_2(0x21, 0x12, &INET), Expected::Own),
        (version_2(0x21, 0x13, &INET), MALFORMED),
        (version_2(0x21, 0x22, &inet6(false)), Expected::Own),
        (version_2(0x21, 0x32, &[b'/'; 216]), Expected::Own),
        (version_2(0x21, 0x33, &[b'/'; 216]), MALFORMED),
        (version_2(0x21, 0x10, &INET), MALFORMED),
        (version_2(0x21, 0x41, &INET), MALFORMED),
        (version_2(0x22, 0x11, &INET), MALFORMED),
        (version_2(0x21, 0x11, &INET[..11]), MALFORMED),
        (version_2(0x21, 0x21, &INET), MALFORMED),
        (version_2(0x21, 0x31, &[0; 215]), MALFORMED),
        (version_2(0x11, 0x11, &INET), UNKNOWN_VERSION),
        (version_2(0x31, 0x11, &INET), UNKNOWN_VERSION),
        (version_2(0x21, 0x11, &INET)[..27].to_vec(), INCOMPLETE),
        (
            version_2(0x21, 0x11, &with_tlvs)[..200].to_vec(),
            INCOMPLETE,
        ),
    ]);
    headers
}

fn start(settings: &str) -> (TempDir, Standalone) {
    let directory = TempDir::new();
    let path = directory.write("g.toml", settings);
    let server = Standalone::start(&path);
    (directory, server)
}

/// Sends parts of a header with a pause between them, closes the sending side, and reads
/// until EOF. A connection that greeter has closed may be reset meanwhile.
fn exchange(mut stream: TcpStream, parts: &[&[u8]], pause: Duration) -> String {
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_nodelay(true).unwrap();
    for part in parts {
        if stream.write_all(part).is_err() {
            break;
        }
        thread::sleep(pause);
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut received = Vec::new();
    match stream.read_to_end(&mut received) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
    String::from_utf8(received).unwrap()
}

/// Each header whole, in two parts, byte by byte, and with data behind it.
#[test]
fn each_header_leads_to_the_same_however_it_arrives() {
    let headers = headers();
    assert!(headers.len() >= 40, "{}", headers.len());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while let Some((bytes, expected)) = headers.get(next.fetch_add(1, Relaxed)) {
                    check_header(bytes, *expected);
                }
            });
        }
    });
}

/// Has a server of its own, as the number of lines in a second is limited.
fn check_header(bytes: &[u8], expected: Expected) {
    let (_directory, server) = start(SETTINGS);
    let shown = bytes.escape_ascii();
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    let with_data = [bytes, &b"EHLO example.org\r\n"[..]].concat();
    let ways: [&[&[u8]]; 4] = [&[bytes], &[first, second], &single, &[&with_data]];
    // Data would complete an incomplete header.
    let count = if expected == INCOMPLETE { 3 } else { 4 };
    for parts in &ways[..count] {
        let stream = server.connect();
        let own_port = stream.local_addr().unwrap().port();
        let received = exchange(stream, parts, Duration::from_micros(300));
        let (greeting, line) = match expected {
            Expected::Greeting(greeting) => {
                let client: Vec<&str> = greeting.split(' ').collect();
                let line = format!("greeted {} port {} on ", client[0], client[1]);
                (greeting.to_owned(), line)
            }
            Expected::Own => (
                format!("127.0.0.1 {own_port} 127.0.0.1 {}\n", server.port),
                format!("greeted 127.0.0.1 port {own_port} on "),
            ),
            Expected::Invalid(reason) => (
                String::new(),
                format!(
                    "no greeting for 127.0.0.1 port {own_port} on '127.0.0.1:{}': {reason}\n",
                    server.port
                ),
            ),
        };
        assert_eq!(received, greeting, "{shown}");
        server.process.expect_stderr(&line);
    }
    let totals = match expected {
        Expected::Greeting(_) | Expected::Own => "stopped; 4 greetings sent\n".to_owned(),
        Expected::Invalid(_) => format!("stopped; 0 greetings sent, {count} invalid header\n"),
    };
    let stderr = server.stop();
    assert!(stderr.contains(&totals), "{shown}: {stderr}");
}

#[test]
fn every_mode_takes_the_addresses_of_the_header() {
    for options in [&[][..], &["--accept"], &["--accept", "--inetd"]] {
        let directory = TempDir::new();
        let settings = directory.write("g.toml", SETTINGS);
        let port = free_port();
        let process: Process = activate(options, &port.to_string(), &["--config", &settings]);
        let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
        let pause = Duration::from_millis(20);
        let (first, second) = V4.split_at(10);
        assert_eq!(exchange(connect(), &[first, second], pause), V4_GREETING);
        let v6 = version_2(0x21, 0x21, &inet6(false));
        assert_eq!(exchange(connect(), &[&v6], pause), V6_GREETING);
        assert_eq!(exchange(connect(), &[b"GET / HTTP/1.1\r\n"], pause), "");
        process.expect_stderr("no greeting for 127.0.0.1 port ");
        process.expect_stderr("greeted 192.0.2.1 port 49152 on ");
        process.expect_stderr("greeted 2001:db8::1 port 49152 on ");
    }
}

#[test]
fn a_greeting_of_a_socket_decides_for_itself() {
    let directory = TempDir::new();
    let (plain, proxied) = (free_port(), free_port());
    let settings = directory.write(
        "g.toml",
        format!(
            "proxy_protocol = 'required'\nmessage = '{{peer_addr}}'\n\
             [greeting.\"127.0.0.1:{plain}\"]\nproxy_protocol = 'off'\n"
        ),
    );
    let server = Standalone::with(&settings, |command| {
        command.args(["--listen", &format!("127.0.0.1:{plain}")]);
        command.args(["--listen", &format!("127.0.0.1:{proxied}")]);
    });
    let read = |port, header: &[u8]| {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        exchange(stream, &[header], Duration::ZERO)
    };
    assert_eq!(read(plain, b""), "127.0.0.1\n");
    assert_eq!(read(plain, V4), "127.0.0.1\n");
    assert_eq!(read(proxied, V4), "192.0.2.1\n");
    server.stop();
}

#[test]
fn client_that_sends_a_byte_a_second_is_closed_at_header_timeout() {
    let settings = format!("{SETTINGS}[limits]\nheader_timeout = '1500ms'\n");
    let (_directory, server) = start(&settings);
    let mut stream = server.connect();
    let begun = Instant::now();
    for byte in V4 {
        if stream.write_all(&[*byte]).is_err() || begun.elapsed() > Duration::from_secs(2) {
            break;
        }
        thread::sleep(Duration::from_secs(1));
    }
    server
        .process
        .expect_stderr(": no complete PROXY header in time");
    let (silent, begun) = (server.connect(), Instant::now());
    let received = exchange(
        silent.try_clone().unwrap(),
        &[b"PROXY"],
        Duration::from_secs(2),
    );
    assert_eq!(received, "");
    let lasted = begun.elapsed();
    assert!(lasted < Duration::from_millis(2500), "{lasted:?}");
    drop(silent);
    let stderr = server.stop();
    assert_eq!(
        stderr.matches("no complete PROXY header in time").count(),
        2,
        "{stderr}"
    );
    assert!(
        stderr.contains("stopped; 0 greetings sent, 2 invalid header\n"),
        "{stderr}"
    );
}

#[test]
fn check_of_a_proxy_is_counted_and_not_warned_about() {
    let settings = format!("{SETTINGS}log_level = 'warn'\n");
    let directory = TempDir::new();
    let path = directory.write("g.toml", settings);
    let port = free_port();
    let process = activate(&[], &port.to_string(), &["--config", &path]);
    let connect = || TcpStream::connect(("127.0.0.1", port)).unwrap();
    for _ in 0..3 {
        drop(connect());
        // HAProxy ends its checks with a reset.
        let mut check = socket2::Socket::from(connect());
        let own_port = check.local_addr().unwrap().as_socket().unwrap().port();
        let header = match own_port % 2 {
            0 => "PROXY UNKNOWN\r\n".to_owned(),
            _ => format!("PROXY TCP4 127.0.0.1 127.0.0.1 {own_port} {port}\r\n"),
        };
        check.write_all(header.as_bytes()).unwrap();
        check.set_linger(Some(Duration::ZERO)).unwrap();
    }
    assert_eq!(exchange(connect(), &[b"P"], Duration::ZERO), "");
    process.signal("-TERM");
    let (_, stderr) = process.wait();
    let warnings: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("without"))
        .collect();
    assert_eq!(
        warnings,
        ["greeter: connections without a greeting, not logged individually: 1 invalid header"]
    );
}

#[test]
fn excluded_is_the_address_in_the_header_or_the_own_one() {
    let settings = format!("{SETTINGS}log_exclude = ['127.0.0.1', '2001:db8::/64']\n");
    let (_directory, server) = start(&settings);
    let v6 = version_2(0x21, 0x21, &inet6(false));
    let local = version_2(0x20, 0, b"");
    for header in [V4, &v6, &local, b"PROXY UNKNOWN\r\n", b"GET", b""] {
        exchange(server.connect(), &[header], Duration::ZERO);
    }
    let stderr = server.stop();
    let lines: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains(" on '"))
        .collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(
        lines[0].contains("greeted 192.0.2.1 port 49152 on "),
        "{stderr}"
    );
    assert!(
        stderr.contains("stopped; 4 greetings sent, 1 gone, 1 invalid header\n"),
        "{stderr}"
    );
}

#[test]
fn connections_per_source_counts_the_address_in_the_header() {
    let settings = format!("{SETTINGS}[limits]\nconnections_per_source = 1\n");
    let (_directory, server) = start(&settings);
    let hold = |header: &[u8]| {
        let mut stream = server.connect();
        stream.write_all(header).unwrap();
        let mut received = String::new();
        stream.read_to_string(&mut received).unwrap();
        (stream, received)
    };
    let (_held, greeting) = hold(V4);
    assert_eq!(greeting, V4_GREETING);
    assert_eq!(hold(V4).1, "", "a second connection of the same client");
    assert_eq!(hold(&version_2(0x21, 0x21, &inet6(false))).1, V6_GREETING);
    let stderr = server.stop();
    assert!(
        stderr.contains("refused 192.0.2.1 port 49152 on "),
        "{stderr}"
    );
}

#[test]
fn greeting_larger_than_the_send_buffer_follows_the_header() {
    let directory = TempDir::new();
    let text = "x".repeat(1_000_000);
    directory.write("text", &text);
    let settings = "proxy_protocol = 'required'\nmessage_file = 'text'\n";
    let path = directory.write("g.toml", settings);
    let server = Standalone::start(&path);
    let mut stream = server.connect();
    // The header comes late, so that the connection is registered before.
    thread::sleep(Duration::from_millis(100));
    stream.write_all(V4).unwrap();
    thread::sleep(Duration::from_millis(100));
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    assert_eq!(received.len(), text.len() + 1);
    drop(stream);
    server.stop();
}

#[test]
fn stop_greets_complete_headers_and_waits_shortly_for_others() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", SETTINGS);
    let (server, manager) = Standalone::with_manager(&settings, |_| {});
    let mut incomplete = server.connect();
    incomplete.write_all(b"PROXY TCP4").unwrap();
    let mut late = server.connect();
    late.write_all(&V4[..10]).unwrap();
    manager.expect("STATUS=0 greetings sent, 2 open connections");
    server.process.signal("-TERM");
    manager.expect("STOPPING=1");
    late.write_all(&V4[10..]).unwrap();
    assert_eq!(exchange(late, &[], Duration::ZERO), V4_GREETING);
    assert_eq!(exchange(incomplete, &[], Duration::from_secs(1)), "");
    let (status, stderr) = server.process.wait();
    assert_eq!(status.code(), Some(0));
    assert!(
        stderr.contains("stopped; 1 greeting sent, 1 invalid header\n"),
        "{stderr}"
    );
}
