//! Temporary errors of system calls only delay: one error each, injected by strace(1) into
//! a running server. `make anomaly` injects all errors at all calls.

mod support;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{GREETER, Standalone, TempDir, connection, cpu_time};

/// strace(1), attached to a server; detached when dropped.
struct Injection {
    strace: Child,
    /// Kept open, as strace writes to it.
    _stderr: BufReader<std::process::ChildStderr>,
}

impl Injection {
    /// The first calls of this kind from now on fail with this error.
    fn new(server: &Standalone, call: &str, error: &str, count: usize) -> Self {
        Self::attach(server, call, &format!("error={error}:when=1..{count}"))
    }

    /// The first call of this kind from now on takes this long.
    fn delay(server: &Standalone, call: &str, delay: Duration) -> Self {
        let effect = format!("delay_enter={}:when=1", delay.as_micros());
        Self::attach(server, call, &effect)
    }

    fn attach(server: &Standalone, call: &str, effect: &str) -> Self {
        let mut strace = Command::new("strace")
            .args([
                "-f",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
            ])
            .arg(format!("inject={call}:{effect}"))
            .args(["-p", &server.process.pid().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace(1) is installed");
        let mut stderr = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        Self {
            strace,
            _stderr: stderr,
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

const LIMITS: &str = "log_level = 'debug'\n[limits]\nlinger_timeout = '300ms'\n";

fn start(settings: &str) -> (TempDir, Standalone) {
    let directory = TempDir::new();
    let path = directory.write("g.toml", format!("{settings}{LIMITS}"));
    let server = Standalone::start(&path);
    (directory, server)
}

/// A client that reads the greeting and the end, and then stays open for its time.
fn check_held_client(call: &str, error: &str, settings: &str, request: &[u8]) -> String {
    let (_directory, server) = start(settings);
    let injection = Injection::new(&server, call, error, 1);
    let mut stream = server.connect();
    stream.write_all(request).unwrap();
    let mut received = String::new();
    stream.read_to_string(&mut received).unwrap();
    assert_eq!(received, "This is a test\n", "{call} {error}");
    server
        .process
        .expect_stderr(": linger_timeout has expired; ");
    drop(injection);
    let stderr = server.stop();
    assert!(stderr.contains("stopped; 1 greeting sent\n"), "{stderr}");
    stderr
}

#[test]
fn send_is_tried_again() {
    for error in ["ENOBUFS", "ENOMEM"] {
        check_held_client("sendto", error, "", b"");
    }
}

/// An error is neither the client's end nor a reason to stop reading.
#[test]
fn receive_is_tried_again() {
    for error in ["ENOMEM", "EINTR"] {
        check_held_client("recvfrom", error, "", b"");
        check_held_client("recvfrom", error, "", b"hello\r\n");
    }
}

#[test]
fn header_is_received_after_an_error() {
    let settings = "proxy_protocol = 'required'\n";
    for error in ["ENOMEM", "EINTR"] {
        check_held_client("recvfrom", error, settings, b"PROXY UNKNOWN\r\n");
    }
}

#[test]
fn connection_that_epoll_cannot_register_is_served() {
    for error in ["ENOMEM", "ENOSPC"] {
        for (settings, request) in [
            ("", &b""[..]),
            ("proxy_protocol = 'required'\n", b"PROXY UNKNOWN\r\n"),
        ] {
            let stderr = check_held_client("epoll_ctl", error, settings, request);
            let warning = "cannot accept more than 1 connection: ";
            assert_eq!(stderr.matches(warning).count(), 1, "{stderr}");
        }
    }
}

#[test]
fn accept_is_tried_again() {
    for error in [
        "ECONNABORTED",
        "EPROTO",
        "EPERM",
        "EINTR",
        "ENOMEM",
        "EACCES",
    ] {
        check_held_client("accept4", error, "", b"");
    }
}

/// At the exit the whole backlog is accepted, although an error of a single connection
/// comes in between.
#[test]
fn stop_greets_the_backlog_after_an_error() {
    for error in ["ECONNABORTED", "EPROTO", "EINTR"] {
        let directory = TempDir::new();
        let settings = "[limits]\nconnections = 1\nlinger_timeout = '1min'\n";
        let server = Standalone::start(&directory.write("g.toml", settings));
        let mut held = server.connect();
        held.read_exact(&mut [0; "This is a test\n".len()]).unwrap();
        let clients = [server.connect(), server.connect()];
        let injection = Injection::new(&server, "accept4", error, 1);
        server.process.signal("-TERM");
        for mut client in clients {
            let mut received = String::new();
            client.read_to_string(&mut received).unwrap();
            assert_eq!(received, "This is a test\n", "{error}");
        }
        drop(injection);
        let stderr = server.stop();
        assert!(stderr.contains("stopped; 3 greetings sent\n"), "{stderr}");
    }
}

/// Errors of single connections are passed over, sixteen in a row without a line.
#[test]
fn seventeen_errors_of_single_connections_pause_the_socket() {
    for (count, lines) in [(16, 0), (17, 1)] {
        let (_directory, server) = start("");
        let injection = Injection::new(&server, "accept4", "ECONNABORTED", count);
        assert_eq!(server.read(), "This is a test\n");
        drop(injection);
        let stderr = server.stop();
        assert_eq!(
            stderr.matches("cannot accept on '").count(),
            lines,
            "{stderr}"
        );
    }
}

#[test]
fn socket_that_cannot_accept_is_in_the_status() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (server, manager) = Standalone::with_manager(&settings, |_| {});
    let _injection = Injection::new(&server, "accept4", "EACCES", 60_000);
    let _client = server.connect();
    let expected = format!("; cannot accept on 127.0.0.1:{}", server.port);
    while !manager.expect("STATUS=").ends_with(&expected) {}
}

/// A signal interrupts the opening of the directory of drop-ins.
#[test]
fn drop_ins_are_read_after_an_interruption() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let drop_in = directory.write("g.toml.d/50.toml", "message = 'x'\n");
    let output = Command::new("strace")
        .args(["-qqq", "-o", "/dev/null", "-P"])
        .arg(directory.path("g.toml.d"))
        .args(["-e", "inject=openat:error=EINTR:when=1"])
        .args([GREETER, "--check", "--config", &settings])
        .output()
        .expect("strace(1) is installed");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains(&format!("{drop_in}: read\n")), "{output:?}");
}

/// stdout and stderr are the client, and /dev/null, to which they are redirected, cannot
/// be opened.
#[test]
fn nothing_is_written_if_it_would_reach_the_client() {
    for argument in ["--help", "--version", "--nonsense", "--check"] {
        let (mut client, accepted) = connection();
        let duplicate = || Stdio::from(accepted.try_clone().unwrap());
        let mut command = Command::new("strace");
        command
            .args(["-qqq", "-o", "/dev/null", "-P", "/dev/null", "-e"])
            .args(["inject=openat:error=EMFILE", GREETER, argument])
            .stdin(duplicate())
            .stdout(duplicate())
            .stderr(duplicate());
        command.status().expect("strace(1) is installed");
        drop((command, accepted));
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "", "{argument}");
    }
}

#[test]
fn wait_is_tried_again() {
    for error in ["EINTR", "EBADF"] {
        check_held_client("epoll_wait", error, "", b"");
    }
}

/// Ten errors in a row only delay; the next one ends the service, with a line.
#[test]
fn lasting_error_of_the_wait_ends_the_service() {
    let (_directory, server) = start("");
    let injection = Injection::new(&server, "epoll_wait", "EBADF", 10);
    assert_eq!(server.read(), "This is a test\n");
    drop(injection);
    server.stop();

    let (_directory, server) = start("");
    let injection = Injection::new(&server, "epoll_wait", "EBADF", 11);
    // Ends the wait that has begun before.
    drop(server.connect());
    server.process.expect_stderr("wait for events: ");
    drop(injection);
    let (status, _) = server.process.wait();
    assert_eq!(status.code(), Some(1));
}

/// Clients wait while there are no descriptors, and the service does not try all the time.
#[test]
fn shortage_of_descriptors_pauses_accept() {
    let (_directory, server) = start("");
    let injection = Injection::new(&server, "accept4", "EMFILE", 60_000);
    let mut client = server.connect();
    server
        .process
        .expect_stderr("cannot accept more than 0 connections: ");
    let before = cpu_time(&server.process);
    thread::sleep(Duration::from_secs(1));
    let used = cpu_time(&server.process) - before;
    assert!(used < Duration::from_millis(200), "{used:?}");
    drop(injection);
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "This is a test\n");
    let stderr = server.stop();
    assert_eq!(
        stderr.matches("cannot accept more than").count(),
        1,
        "{stderr}"
    );
}

/// A closed connection ends the pause, which otherwise takes 100 ms.
#[test]
fn closed_connection_ends_the_pause() {
    let (_directory, server) = start("");
    let mut times = Vec::new();
    // It is a race with the pause, which a busy machine can lose.
    for _ in 0..50 {
        let mut open = server.connect();
        open.read_exact(&mut [0; 15]).unwrap();
        let _injection = Injection::new(&server, "accept4", "EMFILE", 1);
        let begun = Instant::now();
        let mut client = server.connect();
        thread::sleep(Duration::from_millis(20));
        drop(open);
        client.read_to_string(&mut String::new()).unwrap();
        times.push(begun.elapsed());
        if begun.elapsed() < Duration::from_millis(80) {
            return;
        }
    }
    panic!("{times:?}");
}

/// The input of other clients does not end the pause: in 250 ms there are two or three
/// attempts.
#[test]
fn input_does_not_end_the_pause() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "[limits]\nlinger_timeout = '20s'\n");
    let server = Standalone::start(&settings);
    let mut open = server.connect();
    open.read_exact(&mut [0; 15]).unwrap();
    let injection = Injection::new(&server, "accept4", "EMFILE", 10);
    let mut client = server.connect();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(250) {
        open.write_all(b"x").unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    client.set_nonblocking(true).unwrap();
    let error = client.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    drop((open, injection));
    client.set_nonblocking(false).unwrap();
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "This is a test\n");
    server.stop();
}

/// The deadlines of these clients have passed when the loop goes on.
fn check_late_headers(late: impl FnOnce(&Standalone, &[TcpStream])) {
    let directory = TempDir::new();
    let path = directory.write(
        "g.toml",
        "proxy_protocol = 'required'\n[limits]\nheader_timeout = '500ms'\n",
    );
    let server = Standalone::start(&path);
    let clients: Vec<TcpStream> = (0..300).map(|_| server.connect()).collect();
    late(&server, &clients);
    for mut client in clients {
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, "This is a test\n");
    }
    server.stop();
}

fn send_headers(clients: &[TcpStream]) {
    for mut client in clients {
        client.write_all(b"PROXY UNKNOWN\r\n").unwrap();
    }
}

#[test]
fn headers_that_arrive_while_the_process_is_stopped_are_in_time() {
    check_late_headers(|server, clients| {
        server.process.signal("-STOP");
        send_headers(clients);
        thread::sleep(Duration::from_secs(1));
        server.process.signal("-CONT");
    });
}

#[test]
fn headers_that_arrive_during_a_slow_reload_are_in_time() {
    check_late_headers(|server, clients| {
        let injection = Injection::delay(server, "openat", Duration::from_secs(1));
        server.process.signal("-HUP");
        thread::sleep(Duration::from_millis(100));
        send_headers(clients);
        server.process.expect_stderr("settings reloaded");
        drop(injection);
    });
}

/// SIGTERM is seen although the handler's write fails, or the wait is interrupted.
#[test]
fn stop_signal_is_not_lost() {
    for (call, error) in [("sendto", "EAGAIN"), ("epoll_wait", "EINTR")] {
        let (_directory, server) = start("");
        let injection = Injection::new(&server, call, error, 1);
        server.process.signal("-TERM");
        // The line can be lost to the same injection, in the thread that writes it.
        let (status, _) = server.process.wait();
        drop(injection);
        assert_eq!(status.code(), Some(0));
    }
}
