//! What is logged, and what is not, at each `log_level`; what STATUS says.

mod support;

use std::io::{Read, Write};
use std::iter;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{
    GREETER, Manager, Process, Standalone, TempDir, activate, free_port, read_tcp, retry,
};

fn start(settings: &str) -> (TempDir, Standalone) {
    let directory = TempDir::new();
    let path = directory.write("g.toml", settings);
    (directory, Standalone::start(&path))
}

/// Connects, reads the greeting and the end of the stream, then closes.
fn greet(server: &Standalone, count: usize) {
    for _ in 0..count {
        assert_eq!(server.read(), "This is a test\n");
    }
}

#[test]
fn debug_says_why_each_connection_was_closed() {
    let settings = "log_level = 'debug'\n[limits]\nlinger_timeout = '20s'\nlinger_bytes = 1000\n";
    let (_directory, server) = start(settings);
    greet(&server, 1);
    server
        .process
        .expect_stderr(": the client has closed; 0 bytes discarded, ");
    let mut talking = server.connect();
    talking.write_all(&[b'x'; 5000]).unwrap();
    server.process.expect_stderr(": linger_bytes was reached; ");
    let stderr = server.stop();
    let line = "greeter: closed the connection of 127.0.0.1";
    assert_eq!(stderr.matches(line).count(), 2);

    let settings = "log_level = 'debug'\n[limits]\nlinger_timeout = '50ms'\n";
    let (_directory, server) = start(settings);
    let _silent = server.connect();
    server
        .process
        .expect_stderr(": linger_timeout has expired; 0 bytes discarded, ");
    assert_eq!(server.stop().matches(line).count(), 1);
}

#[test]
fn debug_lines_share_the_rate_limit() {
    let (_directory, server) = start("log_level = 'debug'");
    let begun = Instant::now();
    greet(&server, 200);
    let stderr = server.stop();
    let seconds = usize::try_from(begun.elapsed().as_secs()).unwrap() + 1;
    let lines = stderr.matches("greeted 127.0.0.1").count()
        + stderr.matches("closed the connection").count();
    // The limiter's seconds can begin in the middle of these.
    let most = 50 * (seconds + 1);
    assert!((50..=most).contains(&lines), "{lines} in {seconds} s");
}

/// A server that logs warnings only.
fn start_with_warnings(directory: &TempDir, settings: &str, listen: &str) -> Process {
    let settings = directory.write("g.toml", format!("log_level = 'warn'\n{settings}"));
    let mut command = Command::new(GREETER);
    command.args(["--config", &settings, "--listen", listen]);
    Process::start(&mut command)
}

/// The same on a TCP port, and its first client.
fn start_tcp_with_warnings(directory: &TempDir, settings: &str) -> (Standalone, TcpStream) {
    let port = free_port();
    let process = start_with_warnings(directory, settings, &format!("127.0.0.1:{port}"));
    // No line says that it listens.
    let client = retry(|| TcpStream::connect(("127.0.0.1", port)));
    (Standalone { process, port }, client)
}

#[test]
fn warn_summarizes_connections_without_a_greeting() {
    let directory = TempDir::new();
    let settings = "[limits]\nconnections_per_source = 1\n";
    let (server, held) = start_tcp_with_warnings(&directory, settings);
    // The first connection is accepted before the others, which are refused.
    for _ in 0..3 {
        assert_eq!(server.read(), "");
    }
    drop(held);
    assert_eq!(
        server.stop(),
        "greeter: connections without a greeting, not logged individually: 3 refused\n"
    );
}

#[test]
fn warn_has_no_line_if_all_were_greeted() {
    let directory = TempDir::new();
    let (server, mut client) = start_tcp_with_warnings(&directory, "");
    client.read_to_string(&mut String::new()).unwrap();
    greet(&server, 3);
    assert_eq!(server.stop(), "");
}

/// A client that disconnects before it has received the greeting is worth a line; the check
/// of a proxy, which sends no byte, is not.
#[test]
fn warn_counts_disconnected_clients_but_not_checks() {
    let directory = TempDir::new();
    let socket = directory.path("socket");
    // More than the send buffer of a Unix socket has room for.
    directory.write("large", "x".repeat(1_000_000));
    for (settings, read, expected) in [
        (
            "message_file = 'large'\n",
            1,
            "greeter: connections without a greeting, not logged individually: 1 gone\n",
        ),
        ("proxy_protocol = 'required'\n", 0, ""),
    ] {
        let process = start_with_warnings(&directory, settings, socket.to_str().unwrap());
        let mut client = retry(|| UnixStream::connect(&socket));
        client.read_exact(&mut vec![0; read]).unwrap();
        drop(client);
        process.signal("-TERM");
        assert_eq!(process.wait().1, expected);
    }
}

#[test]
fn excluded_clients_are_counted_and_not_logged() {
    let (_directory, server) = start("log_exclude = ['192.0.2.1', '127.0.0.0/8']");
    greet(&server, 60);
    let stderr = server.stop();
    assert!(
        !stderr.contains("greeted") && !stderr.contains("not logged"),
        "{stderr}"
    );
    assert!(stderr.contains("stopped; 60 greetings sent\n"), "{stderr}");
}

#[test]
fn status_names_the_last_client_that_was_greeted() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (server, manager) = Standalone::with_manager(&settings, |_| {});
    server.read();
    manager.expect("STATUS=1 greeting sent, 0 open connections; last client 127.0.0.1 at ");
    // It is sent again only when it has changed.
    let more_than_a_second = Duration::from_millis(1500);
    manager
        .0
        .set_read_timeout(Some(more_than_a_second))
        .unwrap();
    assert!(manager.0.recv(&mut [0; 16]).is_err());
}

#[test]
fn status_is_sent_once_a_second_at_most() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (server, manager) = Standalone::with_manager(&settings, |_| {});
    manager.expect("READY=1");
    let begun = Instant::now();
    for _ in 0..30 {
        server.read();
        // The next one is not accepted in the same iteration of the loop.
        thread::sleep(Duration::from_millis(5));
    }
    // At once.
    manager.expect("STATUS=");
    manager.0.set_nonblocking(true).unwrap();
    let count = iter::from_fn(|| manager.0.recv(&mut [0; 4096]).ok()).count();
    let allowed = 1 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!(count <= allowed, "{count}");
}

#[test]
fn misspelt_names_are_warned_of_once() {
    let directory = TempDir::new();
    let check = |names: &str, warning: Option<&str>| {
        let text = "[greeting.smpt]\nmessage = '421'\n[greeting.110]\nmessage = '-ERR'\n";
        let settings = directory.write("g.toml", text);
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let process = activate(&["--fdname", names], &listen, &["--config", &settings]);
        read_tcp(port, b"").unwrap();
        process.expect_stderr(&format!("listening on 127.0.0.1:{port} ({names})\n"));
        process.signal("-TERM");
        let (_, stderr) = process.wait();
        let expected = warning.map_or(0, |warning| stderr.matches(warning).count());
        assert_eq!(expected, usize::from(warning.is_some()), "{stderr}");
        assert_eq!(
            stderr.matches("no greeting of its own").count(),
            expected,
            "{stderr}"
        );
    };
    check(
        "smtp",
        Some(
            "no greeting of its own for the socket 'smtp', and no socket for [greeting.smpt]; \
             correct the table, or FileDescriptorName= in the socket unit\n",
        ),
    );
    check("smpt", None);
    check("imap", None);
    check("111", None);
}

#[test]
fn status_has_the_reason_of_a_start_that_failed() {
    let directory = TempDir::new();
    let notify = directory.path("notify");
    let manager = Manager::new(&notify);
    let settings = directory.write("g.toml", "mesage = 'x'");
    for (arguments, expected) in [
        (
            vec!["--listen", "127.0.0.1:0", "--config", settings.as_str()],
            format!("STATUS=Failed: {settings}:1:1: unknown key 'mesage'; did you mean"),
        ),
        (
            vec![],
            "STATUS=Failed: no sockets passed by systemd; run 'systemctl restart".to_owned(),
        ),
    ] {
        let mut command = Command::new(GREETER);
        command.args(&arguments).env("NOTIFY_SOCKET", &notify);
        let process = Process::start(command.stdin(Stdio::null()));
        manager.expect(&expected);
        let (status, _) = process.wait();
        assert!(!status.success());
        // Nothing follows, such as READY=1.
        manager.0.set_nonblocking(true).unwrap();
        thread::sleep(Duration::from_millis(20));
        assert!(manager.0.recv(&mut [0; 10]).is_err());
        manager.0.set_nonblocking(false).unwrap();
    }
}
