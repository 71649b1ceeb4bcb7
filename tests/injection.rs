//! Temporary errors of system calls only delay: one error each, injected by strace(1) into
//! a running server. `make anomaly` injects all errors at all calls.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Stdio};

use support::{Standalone, TempDir};

/// strace(1), attached to a server; detached when dropped.
struct Injection {
    strace: Child,
    /// Kept open, as strace writes to it.
    _stderr: BufReader<std::process::ChildStderr>,
}

impl Injection {
    /// The first calls of this kind from now on fail with this error.
    fn new(server: &Standalone, call: &str, error: &str, count: usize) -> Self {
        let mut strace = Command::new("strace")
            .args([
                "-f",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={call}"),
                "-e",
            ])
            .arg(format!("inject={call}:error={error}:when=1..{count}"))
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
fn check_held_client(call: &str, error: &str, settings: &str, request: &[u8]) {
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
        check_held_client("epoll_ctl", error, "", b"");
        let settings = "proxy_protocol = 'required'\n";
        check_held_client("epoll_ctl", error, settings, b"PROXY UNKNOWN\r\n");
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

#[test]
fn wait_is_tried_again() {
    for error in ["EINTR", "EBADF"] {
        check_held_client("epoll_wait", error, "", b"");
    }
}

/// Ten errors in a row end the service, with a line.
#[test]
fn lasting_error_of_the_wait_ends_the_service() {
    let (_directory, server) = start("");
    let injection = Injection::new(&server, "epoll_wait", "EBADF", 1000);
    // Ends the wait that has begun before.
    drop(server.connect());
    server.process.expect_stderr("wait for events: ");
    drop(injection);
    let (status, _) = server.process.wait();
    assert_eq!(status.code(), Some(1));
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
