//! The built program under `systemd-socket-activate`, in all three modes, and with
//! `--listen`.

mod support;

use std::io::Read;
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use support::{
    GREETER, MODES, Process, TIMEOUT, TempDir, activate, free_port, read_tcp, read_unix,
};

/// A request of several packets: a server that closes before it has read them
/// resets the connection.
fn large_request() -> Vec<u8> {
    [
        b"GET / HTTP/1.0\r\n".to_vec(),
        vec![b'x'; 20_000],
        b"\r\n\r\n".to_vec(),
    ]
    .concat()
}

#[test]
fn every_mode_greets_silent_and_talking_clients() {
    for (options, greeting) in MODES {
        let port = free_port();
        let process = activate(options, &port.to_string(), &[]);
        for input in [&b""[..], b"\r\n", &large_request()] {
            for _ in 0..10 {
                let received = read_tcp(port, input)
                    .unwrap_or_else(|error| panic!("{options:?}: {error}\n{}", process.stderr()));
                assert_eq!(String::from_utf8_lossy(&received), greeting);
            }
        }
    }
}

#[test]
fn every_mode_serves_a_unix_socket() {
    for (options, greeting) in MODES {
        let directory = TempDir::new();
        let path = directory.path("socket");
        let _process = activate(options, path.to_str().unwrap(), &[]);
        assert_eq!(read_unix(&path).unwrap(), greeting.as_bytes());
    }
}

#[test]
fn invalid_settings_exit_78_and_close_gracefully() {
    let directory = TempDir::new();
    let file = directory.write("greeter.toml", "mesage = 'x'\n");
    for (options, _) in MODES {
        let port = free_port();
        let process = activate(options, &port.to_string(), &["--config", &file]);
        if options.is_empty() {
            // The client stays in the backlog, which is closed when greeter exits.
            let _queued = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let (status, stderr) = process.wait();
            assert_eq!(status.code(), Some(78), "{stderr}");
            assert!(
                stderr.contains(":1:1: unknown key 'mesage'; did you mean 'message'?"),
                "{stderr}"
            );
        } else {
            assert_eq!(read_tcp(port, &large_request()).unwrap(), b"");
            process.expect_stderr(":1:1: unknown key 'mesage'; did you mean 'message'?");
            process.expect_stderr("died with code 78");
        }
    }
}

#[test]
fn mode_mismatch_names_what_to_change() {
    let directory = TempDir::new();
    for (mode, options) in [
        ("accept", MODES[1].0),
        ("accepted", MODES[2].0),
        ("inet", MODES[1].0),
    ] {
        let file = directory.write(&format!("{mode}.toml"), format!("\nmode = '{mode}'\n"));
        let port = free_port();
        let process = activate(options, &port.to_string(), &["--config", &file]);
        assert_eq!(read_tcp(port, b"").unwrap(), b"");
        process.expect_stderr(&format!(
            "{file}:2:8: mode = \"{mode}\" does not match the socket"
        ));
        process.expect_stderr("; set mode = ");
        process.expect_stderr("died with code 78");
    }
}

#[test]
fn socket_name_selects_the_greeting() {
    let directory = TempDir::new();
    let file = directory.write(
        "g.toml",
        "message = 'other'\n[greeting.smtp]\nmessage = '421 {socket}'\nline_ending = 'crlf'\n",
    );
    let port = free_port();
    let _process = activate(&["--fdname=smtp"], &port.to_string(), &["--config", &file]);
    assert_eq!(read_tcp(port, b"EHLO x\r\n").unwrap(), b"421 smtp\r\n");
}

#[test]
fn listen_option_binds_reloads_and_stops() {
    let directory = TempDir::new();
    let file = directory.write("g.toml", "message = 'one {peer_addr} {local_port}'\n");
    let path = directory.path("socket");
    let port = free_port();
    let ipv4 = format!("127.0.0.1:{port}");
    let ipv6 = format!("[::1]:{port}");
    let arguments = [
        "--config",
        &file,
        "--listen",
        &ipv4,
        "--listen",
        &ipv6,
        "--listen",
        path.to_str().unwrap(),
    ];
    let process = Process::start(Command::new(GREETER).args(arguments));
    process.expect_stderr("listening on ");
    assert_eq!(
        read_tcp(port, b"").unwrap(),
        format!("one 127.0.0.1 {port}\n").as_bytes()
    );
    assert_eq!(read_unix(&path).unwrap(), b"one - -\n");
    let mut received = String::new();
    TcpStream::connect(&ipv6)
        .unwrap()
        .read_to_string(&mut received)
        .unwrap();
    assert_eq!(received, format!("one ::1 {port}\n"));

    directory.write("g.toml", "message = 'two'\n");
    process.signal("-HUP");
    process.expect_stderr("settings reloaded");
    assert_eq!(read_tcp(port, b"").unwrap(), b"two\n");

    directory.write("g.toml", "message = {\n");
    process.signal("-HUP");
    process.expect_stderr("reload failed, keeping the current settings");
    assert_eq!(read_tcp(port, b"").unwrap(), b"two\n");

    process.signal("-TERM");
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!path.exists());
}

#[test]
fn failed_bind_removes_earlier_socket_files() {
    let directory = TempDir::new();
    let first = directory.path("first");
    let in_use = directory.path("in-use");
    let _other = UnixListener::bind(&in_use).unwrap();
    let output = Command::new(GREETER)
        .arg("--listen")
        .arg(&first)
        .arg("--listen")
        .arg(&in_use)
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("cannot listen on '") && stderr.contains("in-use'"));
    assert!(!first.exists() && in_use.exists());
}

/// Starts greeter without systemd, with a settings file and a free port.
fn start_with_listen(file: &str) -> (Process, u16) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let mut command = Command::new(GREETER);
    command.args(["--config", file, "--listen", &address]);
    let process = Process::start(&mut command);
    process.expect_stderr("listening on ");
    (process, port)
}

#[test]
fn idle_timeout_exits_cleanly() {
    let directory = TempDir::new();
    let file = directory.write("g.toml", "[limits]\nidle_timeout = '200ms'\n");
    let port = free_port();
    let process = activate(&[], &port.to_string(), &["--config", &file]);
    assert_eq!(read_tcp(port, b"").unwrap(), b"This is a test\n");
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("no connections for 200ms"), "{stderr}");
}

#[test]
fn connection_limit_queues_clients_and_timeouts_close_them() {
    let directory = TempDir::new();
    let file = directory.write(
        "g.toml",
        "[limits]\nconnections = 2\nlinger_timeout = '500ms'\n",
    );
    let (_process, port) = start_with_listen(&file);
    let open: Vec<_> = (0..2)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    assert_eq!(read_tcp(port, b"").unwrap(), b"This is a test\n");
    let elapsed = start.elapsed();
    assert!(
        (Duration::from_millis(200)..Duration::from_secs(5)).contains(&elapsed),
        "{elapsed:?}"
    );
    drop(open);
}

#[test]
fn write_timeout_closes_the_connection_in_every_mode() {
    let directory = TempDir::new();
    let message = directory.write("large", "x".repeat(1 << 20));
    let settings = format!("message_file = '{message}'\n[limits]\nwrite_timeout = '200ms'\n");
    let file = directory.write("g.toml", &settings);
    for (options, _) in MODES {
        // The send buffer of a Unix socket is smaller than the message on any system.
        let path = directory.path(&format!("socket{}", options.len()));
        let process = activate(options, path.to_str().unwrap(), &["--config", &file]);
        let mut stream = UnixStream::connect(&path).unwrap();
        process.expect_stderr("did not receive the greeting within write_timeout");
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        assert!(received.len() < 1 << 20, "{options:?}");
    }
}

#[test]
fn connections_per_source_is_enforced() {
    let directory = TempDir::new();
    let file = directory.write(
        "g.toml",
        "[limits]\nconnections_per_source = 1\nlinger_timeout = '10s'\n",
    );
    let (process, port) = start_with_listen(&file);
    let mut open = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let mut greeting = [0; b"This is a test\n".len()];
    open.read_exact(&mut greeting).unwrap();
    assert_eq!(read_tcp(port, b"").unwrap(), b"");
    process.expect_stderr("too many connections from this address");
    drop(open);
    let deadline = Instant::now() + TIMEOUT;
    while read_tcp(port, b"").unwrap() != b"This is a test\n" {
        assert!(
            Instant::now() < deadline,
            "a closed connection still counts"
        );
        thread::sleep(Duration::from_millis(10));
    }
}
