//! The programs of docs/tutorial.md under `systemd-socket-activate`, as the tutorial
//! runs them, and the names and code blocks of the tutorial against the files.

mod support;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use support::{GREETER, Process, free_port, read_tcp};

/// The options of `systemd-socket-activate` for each program, and its greeting.
const EXAMPLES: [(&str, &[&str], &str); 3] = [
    ("accept", &[], "This is a test\n"),
    ("accepted", &["-a"], "This socket was already accepted\n"),
    (
        "inet",
        &["-a", "--inetd"],
        "This socket was passed on stdin/stdout\n",
    ),
];

const THREADS: usize = 8;
const CLIENTS_PER_THREAD: usize = 125;

/// The built example program of this name.
fn example(name: &str) -> String {
    let directory = PathBuf::from(GREETER).parent().unwrap().join("examples");
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is missing: run 'cargo build --examples'",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

/// Starts an example on a free port, without a journal.
fn activate_example(options: &[&str], name: &str) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new("systemd-socket-activate");
    command
        .args(options)
        .args(["-l", &format!("127.0.0.1:{port}"), &example(name)])
        .env_remove("JOURNAL_STREAM")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let process = Process::start(&mut command);
    process.expect_stderr("Listening on ");
    (process, port)
}

#[test]
fn examples_greet_a_thousand_clients_each() {
    for (name, options, greeting) in EXAMPLES {
        let (process, port) = activate_example(options, name);
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                thread::spawn(move || {
                    (0..CLIENTS_PER_THREAD)
                        .filter(|_| read_tcp(port, b"").unwrap() == greeting.as_bytes())
                        .count()
                })
            })
            .collect();
        let greeted: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        let stderr = process.stderr();
        assert_eq!(greeted, THREADS * CLIENTS_PER_THREAD, "{name}: {stderr}");
    }
}

#[test]
fn examples_refuse_sockets_of_another_kind() {
    for (name, options, expected) in [
        ("accept", &["-a"][..], "does not listen"),
        ("accepted", &[], "NotConnected"),
        ("accept", &["-d"], "not a TCP socket"),
        ("accepted", &["-d"], "not a TCP socket"),
    ] {
        let port = free_port();
        let mut command = Command::new("systemd-socket-activate");
        let path = std::env::temp_dir().join(format!("greeter-tutorial-{port}"));
        let address = if options == ["-d"] {
            path.to_str().unwrap().to_owned()
        } else {
            format!("127.0.0.1:{port}")
        };
        command.args(options).args(["-l", &address, &example(name)]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = Process::start(&mut command);
        process.expect_stderr("Listening on ");
        if options == ["-d"] {
            let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
            socket.send_to(b"x", &path).unwrap();
            std::fs::remove_file(&path).unwrap();
        } else {
            // The client is reset, or receives EOF.
            let _ = read_tcp(port, b"");
        }
        process.expect_stderr(expected);
    }
}

#[test]
fn examples_without_a_socket_exit_with_a_reason() {
    for (name, expected) in [
        ("accept", "expected one socket from systemd"),
        ("accepted", "expected one socket from systemd"),
        ("inet", "Socket operation on non-socket"),
    ] {
        let output = Command::new(example(name)).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(stderr.contains(expected), "{name}: {stderr}");
    }
}
