//! The built program under `systemd-socket-activate`, in all three modes, and by
//! hand with `--listen`.

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{Folder, GREETER, Running, activate, client, free_port, unix_client};

const MODES: [(&[&str], &str); 3] = [
    (&[], "This is a test\n"),
    (&["--accept"], "This socket was already accepted\n"),
    (
        &["--accept", "--inetd"],
        "This socket was passed on stdin/stdout\n",
    ),
];

/// A request that fills several packets: what closes too early resets it.
fn request() -> Vec<u8> {
    [
        b"GET / HTTP/1.0\r\n".to_vec(),
        vec![b'x'; 20_000],
        b"\r\n\r\n".to_vec(),
    ]
    .concat()
}

#[test]
fn every_mode_greets_silent_and_talking_clients_without_any_settings() {
    for (options, greeting) in MODES {
        let port = free_port();
        let running = activate(options, &port.to_string(), &[]);
        for first in [&b""[..], b"\r\n", &request()] {
            for _ in 0..10 {
                let read = client(port, first)
                    .unwrap_or_else(|error| panic!("{options:?}: {error}\n{}", running.said()));
                assert_eq!(String::from_utf8_lossy(&read), greeting);
            }
        }
    }
}

#[test]
fn every_mode_serves_a_unix_socket() {
    for (options, greeting) in MODES {
        let folder = Folder::new();
        let path = folder.path("socket");
        let _running = activate(options, path.to_str().unwrap(), &[]);
        assert_eq!(unix_client(&path).unwrap(), greeting.as_bytes());
    }
}

#[test]
fn curl_takes_the_greeting_for_a_page() {
    for (options, greeting) in MODES {
        let port = free_port();
        let _running = activate(options, &port.to_string(), &[]);
        for _ in 0..20 {
            let url = format!("http://127.0.0.1:{port}/");
            let curl = Command::new("curl")
                .args(["--http0.9", "-sS", &url])
                .output()
                .unwrap();
            assert!(
                curl.status.success(),
                "{}",
                String::from_utf8_lossy(&curl.stderr)
            );
            assert_eq!(String::from_utf8_lossy(&curl.stdout), greeting);
        }
    }
}

#[test]
fn wrong_settings_are_status_78_and_a_clean_end_for_the_client() {
    let folder = Folder::new();
    let file = folder.write("greeter.toml", "mesage = 'x'\n");
    for (options, _) in MODES {
        let port = free_port();
        let running = activate(options, &port.to_string(), &["--config", &file]);
        if options.is_empty() {
            // The client waits in the queue of a socket that ends with its program.
            let _waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (status, said) = running.end();
            assert_eq!(status.code(), Some(78), "{said}");
            assert!(
                said.contains(":1:1: unknown key 'mesage'; did you mean 'message'?"),
                "{said}"
            );
        } else {
            assert_eq!(client(port, &request()).unwrap(), b"");
            running.expect(":1:1: unknown key 'mesage'; did you mean 'message'?");
            running.expect("died with code 78");
        }
    }
}

#[test]
fn a_mode_that_does_not_fit_says_which_of_the_two_to_change() {
    let folder = Folder::new();
    for (mode, options) in [
        ("accept", MODES[1].0),
        ("accepted", MODES[2].0),
        ("inet", MODES[1].0),
    ] {
        let file = folder.write(&format!("{mode}.toml"), format!("\nmode = '{mode}'\n"));
        let port = free_port();
        let running = activate(options, &port.to_string(), &["--config", &file]);
        assert_eq!(client(port, b"").unwrap(), b"");
        running.expect(&format!(
            "{file}:2:8: mode = \"{mode}\" does not fit the socket"
        ));
        running.expect("; set mode = ");
        running.expect("died with code 78");
    }
}

#[test]
fn the_sockets_name_chooses_the_greeting() {
    let folder = Folder::new();
    let file = folder.write(
        "g.toml",
        "message = 'other'\n[greeting.smtp]\nmessage = '421 {socket}'\nline_ending = 'crlf'\n",
    );
    let port = free_port();
    let _running = activate(&["--fdname=smtp"], &port.to_string(), &["--config", &file]);
    assert_eq!(client(port, b"EHLO x\r\n").unwrap(), b"421 smtp\r\n");
}

#[test]
fn by_hand_it_binds_what_it_is_told_reloads_and_stops() {
    let folder = Folder::new();
    let file = folder.write("g.toml", "message = 'one {peer_addr} {local_port}'\n");
    let path = folder.path("socket");
    let port = free_port();
    let (v4, v6) = (format!("127.0.0.1:{port}"), format!("[::1]:{port}"));
    let arguments = [
        "--config",
        &file,
        "--listen",
        &v4,
        "--listen",
        &v6,
        "--listen",
        path.to_str().unwrap(),
    ];
    let running = Running::start(Command::new(GREETER).args(arguments));
    running.expect("listening on ");
    assert_eq!(
        client(port, b"").unwrap(),
        format!("one 127.0.0.1 {port}\n").as_bytes()
    );
    assert_eq!(unix_client(&path).unwrap(), b"one - -\n");
    let mut read = String::new();
    TcpStream::connect(&v6)
        .unwrap()
        .read_to_string(&mut read)
        .unwrap();
    assert_eq!(read, format!("one ::1 {port}\n"));

    folder.write("g.toml", "message = 'two'\n");
    running.signal("-HUP");
    running.expect("read the settings anew");
    assert_eq!(client(port, b"").unwrap(), b"two\n");

    folder.write("g.toml", "message = {\n");
    running.signal("-HUP");
    running.expect("the settings from before stay in force");
    assert_eq!(client(port, b"").unwrap(), b"two\n");

    running.signal("-TERM");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(!path.exists());
}

#[test]
fn a_place_that_cannot_be_had_leaves_no_other_behind() {
    let folder = Folder::new();
    let (first, taken) = (folder.path("first"), folder.path("taken"));
    let _other = UnixListener::bind(&taken).unwrap();
    let places = [&first, &taken].map(|path| format!("--listen={}", path.display()));
    let output = Command::new(GREETER).args(places).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot listen on '") && said.contains("taken'"));
    assert!(!first.exists() && taken.exists());
}

/// Starts the program by hand, with these settings, at a port of its own.
fn by_hand(file: &str) -> (Running, u16) {
    let port = free_port();
    let place = format!("127.0.0.1:{port}");
    let running =
        Running::start(Command::new(GREETER).args(["--config", file, "--listen", &place]));
    running.expect("listening on ");
    (running, port)
}

#[test]
fn a_stop_waits_for_clients_only_as_long_as_it_may() {
    let folder = Folder::new();
    let file = folder.write(
        "g.toml",
        "[limits]\ndrain_timeout = '300ms'\nlinger_timeout = '1min'\n",
    );
    let (running, port) = by_hand(&file);
    let held = TcpStream::connect(("127.0.0.1", port)).unwrap();
    running.expect("greeted ");
    let begun = Instant::now();
    running.signal("-TERM");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(5)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    drop(held);
}

#[test]
fn nobody_for_idle_timeout_is_an_end_in_good_order() {
    let folder = Folder::new();
    let file = folder.write("g.toml", "[limits]\nidle_timeout = '200ms'\n");
    let port = free_port();
    let running = activate(&[], &port.to_string(), &["--config", &file]);
    assert_eq!(client(port, b"").unwrap(), b"This is a test\n");
    let (status, said) = running.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("nobody came for 200ms"), "{said}");
}

#[test]
fn held_clients_are_let_go_and_the_limit_makes_others_wait() {
    let folder = Folder::new();
    let file = folder.write(
        "g.toml",
        "[limits]\nconnections = 2\nlinger_timeout = '500ms'\n",
    );
    let (_running, port) = by_hand(&file);
    let held: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    assert_eq!(client(port, b"").unwrap(), b"This is a test\n");
    let waited = begun.elapsed();
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(5)).contains(&waited),
        "{waited:?}"
    );
    drop(held);
}

#[test]
fn a_client_that_takes_nothing_is_let_go_in_every_mode() {
    let folder = Folder::new();
    let message = folder.write("large", "x".repeat(1 << 20));
    let text = format!("message_file = '{message}'\n[limits]\nwrite_timeout = '200ms'\n");
    let file = folder.write("g.toml", &text);
    for (options, _) in MODES {
        // A Unix socket's buffer is smaller than that, whatever the system's settings.
        let path = folder.path(&format!("socket{}", options.len()));
        let running = activate(options, path.to_str().unwrap(), &["--config", &file]);
        let mut held = UnixStream::connect(&path).unwrap();
        running.expect("did not take its greeting in time");
        let mut read = Vec::new();
        held.read_to_end(&mut read).unwrap();
        assert!(read.len() < 1 << 20, "{options:?}");
    }
}

#[test]
fn one_source_holds_only_what_it_may() {
    let folder = Folder::new();
    let file = folder.write(
        "g.toml",
        "[limits]\nconnections_per_source = 1\nlinger_timeout = '10s'\n",
    );
    let (running, port) = by_hand(&file);
    let held = TcpStream::connect(("127.0.0.1", port)).unwrap();
    running.expect("greeted ");
    assert_eq!(client(port, b"").unwrap(), b"");
    running.expect("too many connections of this source");
    drop(held);
    let end = Instant::now() + support::PATIENCE;
    while client(port, b"").unwrap() != b"This is a test\n" {
        assert!(
            Instant::now() < end,
            "the place of a client that left stays taken"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
