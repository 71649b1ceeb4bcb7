//! Shared by the integration tests: greeter as a child process, with
//! `systemd-socket-activate` or without, clients, and temporary directories.

#![allow(
    dead_code,
    reason = "each test file is a crate of its own and uses a part of this"
)]

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

/// The program under test.
pub const GREETER: &str = env!("CARGO_BIN_EXE_greeter");

/// The options of `systemd-socket-activate` for each mode, and its default greeting.
pub const MODES: [(&[&str], &str); 3] = [
    (&[], "This is a test\n"),
    (&["--accept"], "This socket was already accepted\n"),
    (
        &["--accept", "--inetd"],
        "This socket was passed on stdin/stdout\n",
    ),
];

/// How long an operation may take before the test fails.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A temporary directory, removed when dropped.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let name = format!("greeter-test-{}-{number}", std::process::id());
            let path = std::env::temp_dir().join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // A process ID is unique in its process namespace only.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => panic!("cannot create {}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file, creates the directories above it, and returns its path.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A child process whose stderr is collected; killed when dropped.
pub struct Process {
    child: Child,
    stderr: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let pipe = child.stderr.take().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let collected = Arc::clone(&stderr);
        let reader = thread::spawn(move || collect_lines(pipe, &collected));
        Self {
            child,
            stderr,
            reader: Some(reader),
        }
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// What the process has written to stderr until now.
    pub fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Waits until stderr contains a text.
    pub fn expect_stderr(&self, text: &str) {
        let deadline = Instant::now() + TIMEOUT;
        while !self.stderr().contains(text) {
            assert!(
                Instant::now() < deadline,
                "no {text:?} in:\n{}",
                self.stderr()
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn signal(&self, signal: &str) {
        // Not kill(1), which is in a package of its own.
        let status = Command::new("sh")
            .args(["-c", "kill $0 $1", signal, &self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the process exits; returns its status and all of stderr.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for_exit(&mut self.child);
        self.reader.take().unwrap().join().unwrap();
        (status, self.stderr())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors are ignored: the process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Appends the lines of `pipe` to `collected` until EOF.
fn collect_lines(pipe: ChildStderr, collected: &Mutex<String>) {
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        let mut collected = collected.lock().unwrap();
        collected.push_str(&line);
        collected.push('\n');
    }
}

/// Waits until a child exits, at most [`TIMEOUT`].
pub fn wait_for_exit(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            panic!("the process does not exit");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// A greeter that listens without systemd on one TCP port.
pub struct Standalone {
    pub process: Process,
    pub port: u16,
}

impl Standalone {
    pub fn start(settings: &str) -> Self {
        Self::with(settings, |_| {})
    }

    pub fn with(settings: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let port = free_port();
        let mut command = Command::new(GREETER);
        command.args(["--config", settings, "--listen"]);
        command.arg(format!("127.0.0.1:{port}"));
        configure(&mut command);
        let process = Process::start(&mut command);
        process.expect_stderr("listening on ");
        Self { process, port }
    }

    /// Starts it with a service manager, whose socket is beside the settings file.
    pub fn with_manager(settings: &str, configure: impl FnOnce(&mut Command)) -> (Self, Manager) {
        let path = Path::new(settings).with_file_name("notify");
        let manager = Manager::new(&path);
        let server = Self::with(settings, |command| {
            configure(command.env("NOTIFY_SOCKET", &path));
        });
        (server, manager)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        stream
    }

    pub fn read(&self) -> String {
        String::from_utf8(read_tcp(self.port, b"").unwrap()).unwrap()
    }

    /// Sends SIGTERM; returns stderr.
    pub fn stop(self) -> String {
        self.process.signal("-TERM");
        let (status, stderr) = self.process.wait();
        assert_eq!(status.code(), Some(0), "{stderr}");
        stderr
    }
}

/// A service manager: the datagrams that greeter sends to it.
pub struct Manager(pub UnixDatagram);

impl Manager {
    pub fn new(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(socket)
    }

    pub fn receive(&self) -> String {
        let mut buffer = vec![0; 65536];
        let length = loop {
            match self.0.recv(&mut buffer) {
                // recv(2) with a timeout is not restarted after SIGCONT (signal(7)).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result.unwrap(),
            }
        };
        assert!(length <= 4096, "PID 1 drops a datagram of {length} bytes");
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    /// Waits for a datagram that is, or begins with, `expected`.
    pub fn expect(&self, expected: &str) -> String {
        loop {
            let datagram = self.receive();
            if datagram.starts_with(expected) {
                return datagram;
            }
        }
    }
}

/// The CPU time that a process has used, in steps of 10 ms (proc_pid_stat(5): fields 14
/// and 15).
pub fn cpu_time(process: &Process) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2);
    Duration::from_millis(ticks.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

/// A TCP port that is not in use. It is below those that the kernel chooses for clients
/// (`ip_local_port_range`, tcp(7)), so that no client takes it before it is bound, and
/// test programs that run at the same time begin at different ones.
pub fn free_port() -> u16 {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    loop {
        let number = std::process::id() as usize * 64 + COUNT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(10_000 + number % 20_000).unwrap();
        // Not listening: a child that another test starts at this moment has a copy of the
        // socket until exec(2), and no process could listen on its port until then.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if socket.bind(&address.into()).is_ok() {
            return port;
        }
    }
}

/// The built example program of this name.
pub fn example(name: &str) -> String {
    let directory = Path::new(GREETER).parent().unwrap().join("examples");
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is missing: run 'cargo build --examples'",
        path.display()
    );
    path.to_str().unwrap().to_owned()
}

/// The program that passes sockets: `systemd-socket-activate` or, on a machine without it,
/// the example that does the same.
pub fn activator() -> String {
    let name = "systemd-socket-activate";
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_installed = std::env::split_paths(&path).any(|directory| directory.join(name).exists());
    if is_installed {
        name.to_owned()
    } else {
        example("activate")
    }
}

/// Starts greeter with these arguments under the [`activator`] with these options, and waits
/// until the latter listens.
pub fn activate(options: &[&str], listen: &str, arguments: &[&str]) -> Process {
    activate_by(
        &activator(),
        options,
        listen,
        &[&[GREETER], arguments].concat(),
    )
}

/// Starts a program with its arguments under this activator.
pub fn activate_by(activator: &str, options: &[&str], listen: &str, program: &[&str]) -> Process {
    let mut command = Command::new(activator);
    command.args(options).args(["-l", listen]).args(program);
    // Otherwise the examples would write to the journal.
    command.env_remove("JOURNAL_STREAM");
    command.stdout(Stdio::null()).stdin(Stdio::null());
    let process = Process::start(&mut command);
    process.expect_stderr("Listening on ");
    process
}

/// A TCP connection: the client's end, and the end that was accepted.
pub fn connection() -> (TcpStream, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    (client, OwnedFd::from(listener.accept().unwrap().0))
}

/// Repeats an operation until it succeeds, at most for [`TIMEOUT`].
pub fn retry<T>(operation: impl Fn() -> io::Result<T>) -> T {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match operation() {
            Ok(result) => return result,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Connects to a port, sends `input`, and reads until EOF.
pub fn read_tcp(port: u16, input: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port)))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.write_all(input)?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    Ok(received)
}

/// Connects to a Unix socket and reads until EOF.
pub fn read_unix(path: &Path) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    Ok(received)
}
