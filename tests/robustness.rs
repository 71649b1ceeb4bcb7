//! What clients, the service manager, signals and a broken environment can do to the
//! program, and what must hold all the same.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::{
    GREETER, Manager, Process, Standalone, TIMEOUT, TempDir, connection, cpu_time, free_port,
    read_tcp, read_unix, retry,
};

const SMALL: &str = "This is a test\n";

/// A TCP client with a small receive buffer: a large greeting needs its reads.
fn slow_client(port: u16) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    socket.connect(&address.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream
}

/// Starts greeter with these descriptors as 3 and, if there are two, 4.
fn activate_fds(settings: &str, fds: [Option<OwnedFd>; 2]) -> Process {
    let count = fds.iter().flatten().count();
    let [first, second] = fds;
    let script = format!(
        "export LISTEN_PID=$$ LISTEN_FDS={count}; exec '{GREETER}' --config '{settings}' \
         3<&0 4<&1 0</dev/null 1>/dev/null"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    command.stdin(first.map_or_else(Stdio::null, Stdio::from));
    command.stdout(second.map_or_else(Stdio::null, Stdio::from));
    Process::start(&mut command)
}

fn large_settings(directory: &TempDir, length: usize, more: &str) -> String {
    let message = directory.write("large", "x".repeat(length));
    directory.write("g.toml", format!("message_file = '{message}'\n{more}"))
}

#[test]
fn notifications_are_bounded_and_ready_is_alone() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let path = directory.path("notify");
    let manager = Manager::new(&path);
    let mut command = Command::new(GREETER);
    command
        .args(["--config", &settings])
        .env("NOTIFY_SOCKET", &path);
    for number in 0..300 {
        let path = directory.path(&format!("socket-with-a-long-name-{number}"));
        command.arg("--listen").arg(path);
    }
    let process = Process::start(&mut command);
    manager.expect("STATUS=Listening on ");
    assert_eq!(manager.receive(), "READY=1");

    let unknown_key = "k".repeat(5000);
    directory.write("g.toml", format!("{unknown_key} = 1\n"));
    process.signal("-HUP");
    let reloading = manager.expect("RELOADING=1\n");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    let status = manager.expect("STATUS=");
    assert!(status.contains("reload failed: "), "{status}");
    assert_eq!(manager.receive(), "READY=1");

    process.signal("-TERM");
    assert_eq!(manager.expect("STOPPING=1"), "STOPPING=1");
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn full_queue_of_the_service_manager_does_not_block_greetings() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let path = directory.path("notify");
    let _manager_that_does_not_read = UnixDatagram::bind(&path).unwrap();
    let server = Standalone::with(&settings, |command| {
        command
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "2000");
    });
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        assert_eq!(server.read(), SMALL);
        thread::sleep(Duration::from_millis(10));
    }
    let begun = Instant::now();
    server.stop();
    assert!(begun.elapsed() < Duration::from_secs(1), "the exit waits");
}

#[test]
fn ready_is_sent_again_until_the_service_manager_has_it() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let path = directory.path("notify");
    let server = Standalone::with(&settings, |command| {
        command.env("NOTIFY_SOCKET", &path);
    });
    server.process.expect_stderr("sd_notify failed: ");
    let manager = Manager::new(&path);
    assert_eq!(manager.expect("READY=1"), "READY=1");
    server.stop();
}

/// STOPPING=1 is tried about twenty times before the exit.
#[test]
fn service_manager_that_does_not_answer_is_logged_once() {
    let directory = TempDir::new();
    let server = Standalone::with(&directory.write("g.toml", ""), |command| {
        command.env("NOTIFY_SOCKET", directory.path("notify"));
    });
    let stderr = server.stop();
    assert_eq!(stderr.matches("sd_notify failed: ").count(), 1, "{stderr}");
}

#[test]
fn watchdog_is_notified_in_half_of_its_time() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (_server, manager) = Standalone::with_manager(&settings, |command| {
        command.env("WATCHDOG_USEC", "400000");
    });
    manager.expect("WATCHDOG=1");
    let begun = Instant::now();
    for _ in 0..5 {
        manager.expect("WATCHDOG=1");
    }
    // Five times 200 ms.
    let elapsed = begun.elapsed();
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(3)).contains(&elapsed),
        "{elapsed:?}"
    );
}

#[test]
fn abstract_address_without_a_name_is_no_service_manager() {
    let directory = TempDir::new();
    let server = Standalone::with(&directory.write("g.toml", ""), |command| {
        command.env("NOTIFY_SOCKET", "@");
    });
    assert_eq!(server.read(), SMALL);
    let stderr = server.stop();
    assert!(!stderr.contains("sd_notify"), "{stderr}");
}

/// epoll_wait(2) returns EINTR each time, even without a signal handler (signal(7)). It is
/// not counted as a failure.
#[test]
fn stopped_process_goes_on_when_it_is_continued() {
    let directory = TempDir::new();
    let server = Standalone::start(&directory.write("g.toml", ""));
    for _ in 0..15 {
        server.process.signal("-STOP");
        server.process.signal("-CONT");
        // Longer than the pause after an error of the wait.
        thread::sleep(Duration::from_millis(30));
    }
    assert_eq!(server.read(), SMALL);
    server.stop();
}

/// The lines are dropped.
#[test]
fn full_pipe_as_stderr_does_not_delay_an_instance() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let full = directory.path("full").display().to_string();
    let (mut client, accepted) = connection();
    let script = format!(
        "mkfifo '{full}'; exec 9<>'{full}'
         dd if=/dev/zero of='{full}' bs=4096 count=1024 oflag=nonblock 2>/dev/null
         export LISTEN_PID=$$ LISTEN_FDS=1
         exec '{GREETER}' --config '{settings}' 3<&0 0</dev/null 1>/dev/null 2>&9"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).stdin(Stdio::from(accepted));
    let process = Process::start(&mut command);
    let mut received = String::new();
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "This socket was already accepted\n");
    drop(client);
    let (status, _) = process.wait();
    assert_eq!(status.code(), Some(0));
}

/// Lines that stderr has no room for are counted, and reported once it has.
#[test]
fn lines_that_were_dropped_are_reported() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (mut reader, mut stderr) = UnixStream::pair().unwrap();
    reader.set_nonblocking(true).unwrap();
    stderr.set_nonblocking(true).unwrap();
    let port = free_port();
    let script = format!(
        "exec '{GREETER}' --config '{settings}' --listen 127.0.0.1:{port} 2>&0 0</dev/null"
    );
    let stdin = OwnedFd::from(stderr.try_clone().unwrap());
    let mut command = Command::new("sh");
    let _process = Process::start(command.args(["-c", &script]).stdin(stdin));
    let deadline = Instant::now() + TIMEOUT;
    let mut received = Vec::new();
    loop {
        while stderr.write(b"full\n").is_ok() {}
        // The first line finds no room, the second one does.
        for _ in 0..2 {
            retry(|| read_tcp(port, b""));
            thread::sleep(Duration::from_millis(50));
            // The end is an error: nothing more has arrived.
            reader.read_to_end(&mut received).unwrap_err();
        }
        let received = String::from_utf8_lossy(&received);
        if received.contains("greeter: journal unavailable: ") {
            assert!(received.contains(" messages dropped\ngreeter: greeted 127.0.0.1 "));
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{}",
            received.replace("full\n", "")
        );
    }
}

#[test]
fn signals_that_the_parent_blocked_are_handled() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "message = 'one'\n");
    let port = free_port();
    let process = Process::start(
        Command::new("env")
            .arg("--block-signal=TERM,HUP,INT")
            .args([GREETER, "--config", &settings, "--listen"])
            .arg(format!("127.0.0.1:{port}")),
    );
    process.expect_stderr("listening on ");
    directory.write("g.toml", "message = 'two'\n");
    process.signal("-HUP");
    process.expect_stderr("settings reloaded");
    assert_eq!(read_tcp(port, b"").unwrap(), b"two\n");
    process.signal("-TERM");
    assert_eq!(process.wait().0.code(), Some(0));
}

#[test]
fn signals_of_no_concern_do_not_end_the_service() {
    let directory = TempDir::new();
    let server = Standalone::start(&directory.write("g.toml", ""));
    for signal in ["-USR1", "-USR2", "-ALRM", "-PIPE", "-IO", "-34", "-64"] {
        server.process.signal(signal);
    }
    assert_eq!(server.read(), SMALL);
    server.stop();
}

#[test]
fn sockets_for_another_process_are_no_error_with_a_client_on_stdin() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (mut client, accepted) = connection();
    let mut command = Command::new(GREETER);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    command.args(["--config", &settings]);
    command.stdin(accepted).stdout(Stdio::null());
    let process = Process::start(&mut command);
    let mut received = String::new();
    // The process has the other descriptor of the connection.
    drop(command);
    client.read_to_string(&mut received).unwrap();
    assert_eq!(received, "This socket was passed on stdin/stdout\n");
    assert!(process.wait().0.success());
}

#[test]
fn reload_that_precedes_a_client_applies_to_it() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "message = '0'\n");
    let server = Standalone::start(&settings);
    for number in 1..100 {
        directory.write("g.toml", format!("message = '{number}'\n"));
        server.process.signal("-HUP");
        assert_eq!(server.read(), format!("{number}\n"));
    }
    server.stop();
}

#[test]
fn no_close_cuts_a_greeting() {
    const LENGTH: usize = 300_000;
    for limits in [
        "",
        "linger_bytes = 0\n",
        "linger_bytes = 1000\n",
        "linger_timeout = '0s'\n",
    ] {
        let directory = TempDir::new();
        let settings = large_settings(&directory, LENGTH, &format!("[limits]\n{limits}"));
        let server = Standalone::start(&settings);
        let mut client = slow_client(server.port);
        client.set_nonblocking(true).unwrap();
        // More than `linger_bytes`, and more than greeter's receive buffer at once.
        let mut sent = 0;
        while sent < 100_000 {
            match client.write(&[b'y'; 10_000]) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => panic!("{limits}: {error}"),
            }
        }
        client.set_nonblocking(false).unwrap();
        thread::sleep(Duration::from_millis(300));
        let mut received = Vec::new();
        let result = client.read_to_end(&mut received);
        assert!(
            result.is_ok() && received.len() == LENGTH + 1,
            "{limits}: {result:?} after {} bytes",
            received.len()
        );
        drop(client);
        server.process.expect_stderr("greeted ");
        server.stop();
    }
}

/// A greeter whose connections have a small send buffer: a large greeting needs the
/// reads of its client. Accepted sockets inherit the buffer's size (tcp(7)).
fn with_small_send_buffer(settings: &str) -> Standalone {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let socket = Socket::from(listener);
    socket.set_send_buffer_size(16_384).unwrap();
    let process = activate_fds(settings, [Some(OwnedFd::from(socket)), None]);
    process.expect_stderr("listening on ");
    Standalone { process, port }
}

#[test]
fn greeting_cut_by_write_timeout_ends_in_a_reset() {
    let directory = TempDir::new();
    let settings = large_settings(&directory, 1 << 20, "[limits]\nwrite_timeout = '200ms'\n");
    let server = with_small_send_buffer(&settings);
    let mut client = slow_client(server.port);
    server
        .process
        .expect_stderr("did not receive the greeting within write_timeout");
    let mut received = Vec::new();
    let error = client.read_to_end(&mut received).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(server.stop().contains("1 timeout"));
}

#[test]
fn failing_listener_affects_no_other() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let broken = TcpListener::bind("127.0.0.1:0").unwrap();
    let working = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = working.local_addr().unwrap().port();
    let holder = Socket::from(broken.try_clone().unwrap());
    let fds = [Some(OwnedFd::from(broken)), Some(OwnedFd::from(working))];
    let process = activate_fds(&settings, fds);
    process.expect_stderr("listening on ");
    let held = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // accept(2) returns EINVAL from now on.
    holder.shutdown(std::net::Shutdown::Both).unwrap();
    process.expect_stderr("cannot accept on '");
    for _ in 0..20 {
        assert_eq!(read_tcp(port, b"").unwrap(), SMALL.as_bytes());
        thread::sleep(Duration::from_millis(20));
    }
    drop(held);
    process.signal("-TERM");
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert_eq!(stderr.matches("cannot accept on '").count(), 1, "{stderr}");
    assert!(stderr.contains("stopped; 21 greetings sent"), "{stderr}");
}

/// The service waits until a client that it cannot greet has closed.
#[test]
fn client_of_a_failed_start_can_send_until_it_closes() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "x = 1\n");
    let (mut client, accepted) = connection();
    let process = activate_fds(&settings, [Some(accepted), None]);
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(100));
        client.write_all(b"hello").unwrap();
    }
    thread::sleep(Duration::from_millis(100));
    assert!(client.take_error().unwrap().is_none());
    drop(client);
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(78), "{stderr}");
}

/// Descriptor 3 is a connection with unread input, 4 is not a socket.
#[test]
fn client_sees_no_reset_if_the_descriptors_are_invalid() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let (mut client, accepted) = connection();
    client.write_all(b"hello").unwrap();
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let process = activate_fds(&settings, [Some(accepted), Some(file)]);
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 0);
    assert!(client.take_error().unwrap().is_none());
}

#[test]
fn connection_limit_is_shared_by_the_listeners() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "[limits]\nconnections = 2\n");
    let path = directory.path("socket");
    let server = Standalone::with(&settings, |command| {
        command.arg("--listen").arg(&path);
    });
    let port = server.port;
    let others_greeted = Arc::new(AtomicU32::new(0));
    let is_done = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let others_greeted = Arc::clone(&others_greeted);
            let is_done = Arc::clone(&is_done);
            thread::spawn(move || {
                while !is_done.load(Relaxed) {
                    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
                    stream.read_to_end(&mut Vec::new()).unwrap();
                    others_greeted.fetch_add(1, Relaxed);
                    // It holds one of the two connections for a moment.
                    thread::sleep(Duration::from_millis(2));
                }
            })
        })
        .collect();
    // All of them compete from now on.
    thread::sleep(Duration::from_millis(200));
    others_greeted.store(0, Relaxed);
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(read_unix(&path).unwrap(), SMALL.as_bytes());
    }
    let elapsed = begun.elapsed();
    let others_greeted = others_greeted.load(Relaxed);
    is_done.store(true, Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    // Each socket has half of the two connections.
    assert!(others_greeted <= 200, "{others_greeted} besides 100");
    assert!(elapsed < Duration::from_secs(9), "{elapsed:?}");
    server.stop();
}

/// The peak resident memory of a process, in KiB (proc(5), VmHWM).
fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// How much the memory of a server grows with 200 clients that do not read, in KiB, and
/// what the first of them receives then.
fn growth_with_slow_clients(text: &str) -> (u64, TcpStream, String) {
    let directory = TempDir::new();
    let message = directory.write("large", text);
    let settings = directory.write("g.toml", format!("message_file = '{message}'\n"));
    let server = Standalone::start(&settings);
    let before = peak_memory(server.process.pid());
    let clients: Vec<TcpStream> = (0..200).map(|_| slow_client(server.port)).collect();
    thread::sleep(Duration::from_millis(300));
    let after = peak_memory(server.process.pid());
    let mut first = clients.into_iter().next().unwrap();
    let mut received = String::new();
    first.read_to_string(&mut received).unwrap();
    (after - before, first, received)
}

#[test]
fn slow_clients_share_the_text_of_the_greeting() {
    let (growth, _client, received) = growth_with_slow_clients(&"x".repeat(1_000_000));
    assert!(growth < 2048, "{growth} KiB");
    assert_eq!(received.len(), 1_000_001);
}

#[test]
fn slow_clients_of_a_greeting_with_placeholders_need_little_memory() {
    let text = format!("{{peer_port}}{}", "x".repeat(16_000));
    let (growth, client, received) = growth_with_slow_clients(&text);
    // At most 16 KiB for each.
    assert!(growth < 200 * 16 + 1024, "{growth} KiB");
    let port = client.local_addr().unwrap().port().to_string();
    assert!(received.starts_with(&port) && received.len() == port.len() + 16_001);
}

#[test]
fn sockets_share_the_text_of_the_greeting() {
    let directory = TempDir::new();
    let message = directory.write("large", "x".repeat(1_000_000));
    let settings = directory.write("g.toml", format!("message_file = '{message}'\n"));
    let server = Standalone::with(&settings, |command| {
        for number in 0..200 {
            command
                .arg("--listen")
                .arg(directory.path(&number.to_string()));
        }
    });
    let peak = peak_memory(server.process.pid());
    assert!(peak < 20_000, "{peak} KiB");
    server.stop();
}

#[test]
fn tables_without_a_text_share_the_default() {
    use std::fmt::Write;
    let directory = TempDir::new();
    let message = directory.write("large", "x".repeat(1_000_000));
    let mut text = format!("message_file = '{message}'\n");
    for number in 0..2000 {
        writeln!(text, "[greeting.s{number}]\nline_ending = 'lf'").unwrap();
    }
    let server = Standalone::start(&directory.write("g.toml", text));
    let peak = peak_memory(server.process.pid());
    assert!(peak < 20_000, "{peak} KiB");
    server.stop();
}

#[test]
fn instance_finishes_its_greeting_after_sigterm() {
    const LENGTH: usize = 300_000;
    let directory = TempDir::new();
    let settings = large_settings(&directory, LENGTH, "");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = slow_client(listener.local_addr().unwrap().port());
    let (accepted, _) = listener.accept().unwrap();
    let process = activate_fds(&settings, [Some(OwnedFd::from(accepted)), None]);
    let mut begin = vec![0; 1000];
    client.read_exact(&mut begin).unwrap();
    process.signal("-HUP");
    thread::sleep(Duration::from_millis(100));
    process.signal("-TERM");
    thread::sleep(Duration::from_millis(100));
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(begin.len() + rest.len(), LENGTH + 1);
    drop(client);
    let (status, stderr) = process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("greeted "), "{stderr}");
    assert!(!stderr.contains("reloaded"), "{stderr}");
}

#[test]
fn reload_while_the_service_stops_does_nothing() {
    let directory = TempDir::new();
    let settings = large_settings(&directory, 1 << 20, "[limits]\ndrain_timeout = '1min'\n");
    let server = with_small_send_buffer(&settings);
    let mut client = slow_client(server.port);
    client.read_exact(&mut [0; 1000]).unwrap();
    server.process.signal("-TERM");
    server.process.signal("-HUP");
    thread::sleep(Duration::from_millis(100));
    client.read_to_end(&mut Vec::new()).unwrap();
    drop(client);
    let (status, stderr) = server.process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
    assert!(!stderr.contains("reloaded"), "{stderr}");
}

/// Starts a service that has descriptors for 46 connections, on a TCP port and on the
/// path; returns it with the port.
fn start_with_few_descriptors(settings: &str, path: &Path) -> (Process, u16) {
    let port = free_port();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 80; exec \"$@\"", "sh", GREETER]);
    command.args(["--config", settings, "--listen"]);
    command.arg(format!("127.0.0.1:{port}"));
    command.arg("--listen").arg(path);
    let process = Process::start(&mut command);
    process.expect_stderr("listening on ");
    (process, port)
}

/// 32 descriptors and one for each listening socket are not for connections.
#[test]
fn connections_leave_descriptors_to_the_service() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "[limits]\nlinger_timeout = '1min'\n");
    let path = directory.path("socket");
    let (process, port) = start_with_few_descriptors(&settings, &path);
    let held: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap())
        .collect();
    process.expect_stderr(
        "cannot accept more than 46 connections: LimitNOFILE= of the service is too low",
    );
    drop(held);
    assert_eq!(read_unix(&path).unwrap(), SMALL.as_bytes());
}

#[test]
fn enough_descriptors_for_the_limit_are_no_shortage() {
    let directory = TempDir::new();
    let limits = "[limits]\nconnections = 46\nlinger_timeout = '1min'\n";
    let settings = directory.write("g.toml", limits);
    let (process, port) = start_with_few_descriptors(&settings, &directory.path("socket"));
    let held: Vec<TcpStream> = (0..46)
        .map(|_| {
            let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            client.read_exact(&mut [0; SMALL.len()]).unwrap();
            client
        })
        .collect();
    let mut waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
    drop(held);
    waiting.read_exact(&mut [0; SMALL.len()]).unwrap();
    process.signal("-TERM");
    let (_, stderr) = process.wait();
    assert!(!stderr.contains("cannot accept"), "{stderr}");
}

/// The backlog is longer than what is accepted at a time, and no event tells of the rest.
#[test]
fn whole_backlog_is_accepted_without_further_events() {
    let directory = TempDir::new();
    let limits = "[limits]\nconnections_per_source = 1\nlinger_timeout = '1min'\n";
    let server = Standalone::start(&directory.write("g.toml", limits));
    let mut held = server.connect();
    held.read_exact(&mut [0; SMALL.len()]).unwrap();
    server.process.signal("-STOP");
    let clients: Vec<TcpStream> = (0..400).map(|_| server.connect()).collect();
    server.process.signal("-CONT");
    let begun = Instant::now();
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    let elapsed = begun.elapsed();
    // Up to a second for each 128 connections otherwise.
    assert!(elapsed < Duration::from_secs(1), "{elapsed:?}");
}

/// At the limit no client waits until greeted connections are looked at again.
#[test]
fn close_at_the_limit_is_known_at_once() {
    let directory = TempDir::new();
    let server = Standalone::start(&directory.write("g.toml", "[limits]\nconnections = 1\n"));
    let mut elapsed = Vec::new();
    // A host that is busy can be late, but not each time.
    for _ in 0..3 {
        let begun = Instant::now();
        for _ in 0..200 {
            assert_eq!(server.read(), SMALL);
        }
        elapsed.push(begun.elapsed());
        // 200 times 10 ms otherwise.
        if begun.elapsed() < Duration::from_millis(1500) {
            return;
        }
    }
    panic!("{elapsed:?}");
}

#[test]
fn waiting_costs_no_cpu() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "[limits]\nlinger_timeout = '1min'\n");
    let server = Standalone::start(&settings);
    let _held = server.connect();
    thread::sleep(Duration::from_secs(1));
    let used = cpu_time(&server.process);
    assert!(used < Duration::from_millis(200), "{used:?}");
}

#[test]
fn stop_closes_delivered_connections_and_greets_the_backlog() {
    let directory = TempDir::new();
    let text = "[limits]\nconnections = 1\nlinger_timeout = '1min'\ndrain_timeout = '1min'\n";
    let server = Standalone::start(&directory.write("g.toml", text));
    let mut held = server.connect();
    let mut received = vec![0; SMALL.len()];
    held.read_exact(&mut received).unwrap();
    let mut waiting: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    let begun = Instant::now();
    let stderr = server.stop();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    for client in &mut waiting {
        let mut received = String::new();
        client.read_to_string(&mut received).unwrap();
        assert_eq!(received, SMALL);
    }
    assert!(stderr.contains("stopped; 21 greetings sent"), "{stderr}");
}

#[test]
fn drain_timeout_cuts_and_says_so() {
    let directory = TempDir::new();
    let settings = large_settings(&directory, 1 << 20, "[limits]\ndrain_timeout = '300ms'\n");
    let server = with_small_send_buffer(&settings);
    let mut client = slow_client(server.port);
    let mut begin = [0; 1000];
    client.read_exact(&mut begin).unwrap();
    let begun = Instant::now();
    let stderr = server.stop();
    let elapsed = begun.elapsed();
    assert!(
        (Duration::from_millis(300)..Duration::from_secs(2)).contains(&elapsed),
        "{elapsed:?}"
    );
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(
        stderr.contains("closed 1 connection after drain_timeout"),
        "{stderr}"
    );
    assert!(
        stderr.contains("stopped; 0 greetings sent, 1 cut off"),
        "{stderr}"
    );
}

/// A greeting that was cut off before is not one that `drain_timeout` has cut.
#[test]
fn stop_does_not_report_what_was_cut_off_before() {
    let directory = TempDir::new();
    let limits = "[limits]\nlinger_timeout = '100ms'\nwrite_timeout = '100ms'\n";
    let settings = large_settings(&directory, 14_000, limits);
    let server = with_small_send_buffer(&settings);
    let _client = slow_client(server.port);
    server
        .process
        .expect_stderr("before the greeting was delivered");
    let stderr = server.stop();
    assert!(stderr.contains("sent, 1 cut off\n"), "{stderr}");
    assert!(!stderr.contains("after drain_timeout"), "{stderr}");
}

#[test]
fn totals_add_up_and_suppressed_lines_are_reported_at_exit() {
    let directory = TempDir::new();
    let text = "[limits]\nconnections_per_source = 1\nlinger_timeout = '1min'\n";
    let server = Standalone::start(&directory.write("g.toml", text));
    let mut held = server.connect();
    let mut received = vec![0; SMALL.len()];
    held.read_exact(&mut received).unwrap();
    for _ in 0..70 {
        assert_eq!(server.read(), "");
    }
    let stderr = server.stop();
    assert!(
        stderr.contains("21 more connections not logged individually"),
        "{stderr}"
    );
    assert!(
        stderr.contains("stopped; 1 greeting sent, 70 refused"),
        "{stderr}"
    );
}

#[test]
fn idle_time_begins_with_the_last_close() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "[limits]\nidle_timeout = '500ms'\n");
    let server = Standalone::start(&settings);
    let client = server.connect();
    thread::sleep(Duration::from_millis(400));
    drop(client);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(server.read(), SMALL, "exited 300 ms after the last close");
    let (status, stderr) = server.process.wait();
    assert_eq!(status.code(), Some(0), "{stderr}");
}

#[test]
fn idle_exit_is_announced() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "[limits]\nidle_timeout = '200ms'\n");
    let (server, manager) = Standalone::with_manager(&settings, |_| {});
    manager.expect("STOPPING=1");
    manager.expect("STATUS=Exiting; the next connection starts the service again");
    assert_eq!(server.process.wait().0.code(), Some(0));
}

/// The CPU time of a query with `count` tables `[greeting.NAME]`.
#[expect(clippy::zombie_processes, reason = "wait4(2) waits for it")]
fn query_time(query: &str, count: usize) -> Duration {
    use std::fmt::Write;
    let directory = TempDir::new();
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "[greeting.s{number}]\nmessage = 'x'").unwrap();
    }
    let settings = directory.write("g.toml", text);
    let mut command = Command::new(GREETER);
    command.args(["--config", &settings, query]);
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    let (mut status, pid) = (0, i32::try_from(child.id()).unwrap());
    // SAFETY: zero is a valid value of every field.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for writing during the call.
    let result = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
    assert_eq!((result, status), (pid, 0));
    let micros = |time: libc::timeval| time.tv_sec * 1_000_000 + time.tv_usec;
    let used = micros(usage.ru_utime) + micros(usage.ru_stime);
    Duration::from_micros(used.try_into().unwrap())
}

#[test]
fn thousands_of_tables_take_linear_time() {
    for query in ["--check", "--show-config"] {
        let few = query_time(query, 2_800);
        let many = query_time(query, 28_000);
        // Ten times the tables; a quadratic step would take a hundred times as long.
        assert!(many < 30 * few, "{query}: {few:?}, {many:?}");
    }
}

#[test]
fn stale_socket_path_is_replaced_and_a_foreign_one_is_kept() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let path = directory.path("socket");
    // A listener that was closed leaves its path.
    drop(UnixListener::bind(&path).unwrap());
    let start = || {
        let mut command = Command::new(GREETER);
        command.args(["--config", &settings, "--listen"]).arg(&path);
        let process = Process::start(&mut command);
        process.expect_stderr("listening on ");
        process
    };
    let process = start();
    assert_eq!(read_unix(&path).unwrap(), SMALL.as_bytes());
    fs::remove_file(&path).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    process.signal("-TERM");
    assert_eq!(process.wait().0.code(), Some(0));
    assert!(
        UnixStream::connect(&path).is_ok(),
        "it was another's socket"
    );
    drop(other);
}

/// connect(2) is refused for every path that is not a listening socket.
#[test]
fn listen_leaves_every_file_but_a_stale_socket_alone() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let path = |name: &str| directory.path(name);
    let file = directory.write("file", "text");
    directory.write("empty", "");
    fs::create_dir(path("directory")).unwrap();
    let status = Command::new("mkfifo").arg(path("fifo")).status().unwrap();
    assert!(status.success());
    drop(UnixListener::bind(path("stale")).unwrap());
    symlink(&file, path("link to a file")).unwrap();
    symlink(path("stale"), path("link to a stale socket")).unwrap();
    symlink("/dev/null", path("link to a device")).unwrap();
    symlink(path("nothing"), path("dangling link")).unwrap();
    let _datagram = UnixDatagram::bind(path("datagram socket")).unwrap();
    let list = || {
        let entries = fs::read_dir(path(".")).unwrap().map(Result::unwrap);
        let describe = |entry: fs::DirEntry| {
            let metadata = entry.metadata().unwrap();
            (entry.file_name(), metadata.ino(), metadata.len())
        };
        entries.map(describe).collect::<BTreeSet<_>>()
    };
    let before = list();
    for name in [
        "file",
        "empty",
        "directory",
        "fifo",
        "link to a file",
        "link to a stale socket",
        "link to a device",
        "dangling link",
        "datagram socket",
    ] {
        let output = Command::new(GREETER)
            .args(["--config", &settings, "--listen"])
            .arg(path(name))
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        assert!(
            stderr.ends_with("': address already in use\n"),
            "{name}: {stderr}"
        );
        assert_eq!(list(), before, "{name}");
    }
}

#[test]
fn output_that_cannot_be_written_is_no_panic() {
    let directory = TempDir::new();
    let invalid = directory.write("invalid.toml", "x = 1\n");
    let valid = directory.write("valid.toml", "");
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for (arguments, status) in [
        (vec!["--help"], 1),
        (vec!["--version"], 1),
        (vec!["--nonsense"], 2),
        (vec!["--check", "--config", &invalid], 78),
        (vec!["--check", "--config", &valid], 1),
    ] {
        let exit = Command::new(GREETER)
            .args(&arguments)
            .stdout(full())
            .stderr(full())
            .status()
            .unwrap();
        assert_eq!(exit.code(), Some(status), "{arguments:?}");
    }
}

#[test]
fn sockets_for_another_process_are_no_error_with_listen() {
    let directory = TempDir::new();
    let settings = directory.write("g.toml", "");
    let server = Standalone::with(&settings, |command| {
        command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    });
    assert_eq!(server.read(), SMALL);
    server.stop();
}
