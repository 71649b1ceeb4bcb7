//! The modes of greeter, each with its clients and signals.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::client::Client;
use crate::inject::Trace;
use crate::manager::{Inbox, journal_fields};
use crate::program::{DEADLINE, Launch, PassedSocket, Program, TempDir};

/// How long a reload may take.
const RELOAD_TIME: Duration = Duration::from_secs(2);
/// How long a client waits after SIGTERM, if the service manager is not notified.
const STOP_TIME: Duration = Duration::from_millis(300);
/// Smaller than the large greeting, so that it cannot be sent at once.
const SMALL_BUFFER: usize = 16 * 1024;

const LIMITS: &str = "[limits]
write_timeout = \"3s\"
linger_timeout = \"500ms\"
drain_timeout = \"3s\"
";

/// A way to start greeter, and what its clients and the service manager do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// A listening TCP socket; reloads with valid and with invalid settings.
    Accept,
    /// The same with the journal's native protocol.
    AcceptJournal,
    /// A greeting of 300 KB with placeholders, and clients that read slowly.
    AcceptLarge,
    /// Clients that begin with a PROXY header, whole and in parts.
    AcceptProxied,
    /// Settings that are invalid.
    AcceptInvalid,
    /// `--listen` with TCP and a path.
    Listen,
    /// A connected socket on descriptor 3.
    Accepted,
    /// SIGTERM in the middle of 300 KB.
    AcceptedStop,
    /// Settings that are invalid.
    AcceptedInvalid,
    /// A connected socket on stdin and stdout.
    Inet,
    CheckValid,
    CheckInvalid,
    Version,
}

impl Scenario {
    pub const ALL: [Self; 13] = [
        Self::Accept,
        Self::AcceptJournal,
        Self::AcceptLarge,
        Self::AcceptProxied,
        Self::AcceptInvalid,
        Self::Listen,
        Self::Accepted,
        Self::AcceptedStop,
        Self::AcceptedInvalid,
        Self::Inet,
        Self::CheckValid,
        Self::CheckInvalid,
        Self::Version,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::AcceptJournal => "accept-journal",
            Self::AcceptLarge => "accept-large",
            Self::AcceptProxied => "accept-proxied",
            Self::AcceptInvalid => "accept-invalid",
            Self::Listen => "listen",
            Self::Accepted => "accepted",
            Self::AcceptedStop => "accepted-stop",
            Self::AcceptedInvalid => "accepted-invalid",
            Self::Inet => "inet",
            Self::CheckValid => "check-valid",
            Self::CheckInvalid => "check-invalid",
            Self::Version => "version",
        }
    }

    /// Whether the settings are invalid, so that the exit status is 78.
    pub fn is_invalid(self) -> bool {
        matches!(
            self,
            Self::AcceptInvalid | Self::AcceptedInvalid | Self::CheckInvalid
        )
    }

    /// Whether it is a process for one connection.
    pub fn is_instance(self) -> bool {
        matches!(
            self,
            Self::Accepted | Self::AcceptedStop | Self::AcceptedInvalid | Self::Inet
        )
    }

    /// Whether the service manager is notified.
    pub fn notifies(self) -> bool {
        !self.is_invalid() && !matches!(self, Self::CheckValid | Self::Version)
    }

    /// The number of reloads.
    pub fn reloads(self) -> usize {
        match self {
            Self::Accept | Self::AcceptJournal => 2,
            _ => 0,
        }
    }

    /// Whether SIGTERM ends it.
    pub fn is_stopped(self) -> bool {
        matches!(
            self,
            Self::Accept
                | Self::AcceptJournal
                | Self::AcceptLarge
                | Self::AcceptProxied
                | Self::Listen
                | Self::AcceptedStop
        )
    }

    /// Runs greeter once.
    pub fn run(self, greeter: &Path, trace: &Trace<'_>) -> Observation {
        let mut run = Run::new(greeter, trace);
        match self {
            Self::Accept => accept(run),
            Self::AcceptJournal => {
                run.use_abstract_name();
                run.use_journal();
                accept(run)
            }
            Self::AcceptLarge => accept_large(run),
            Self::AcceptProxied => accept_proxied(run),
            Self::AcceptInvalid => accept_invalid(run),
            Self::Listen => listen(run),
            Self::Accepted => instance(run, Instance::Accepted),
            Self::AcceptedStop => instance(run, Instance::Stopped),
            Self::AcceptedInvalid => instance(run, Instance::Invalid),
            Self::Inet => instance(run, Instance::Inet),
            Self::CheckValid => check(run, true),
            Self::CheckInvalid => check(run, false),
            Self::Version => version(run),
        }
    }
}

/// What a run has led to.
pub struct Observation {
    /// `None`: it did not end within the deadline.
    pub status: Option<ExitStatus>,
    pub cpu: Duration,
    pub stdout: String,
    pub clients: Vec<Client>,
    /// The lines of all notifications.
    pub notifications: Vec<String>,
    /// The lines of stderr.
    pub lines: Vec<String>,
    /// The entries that the journal received.
    pub entries: Vec<HashMap<String, String>>,
    /// Whether the path of `--listen` exists after the end.
    pub is_path_left: bool,
    /// What strace(1) has written.
    pub log: String,
}

/// What all scenarios share.
struct Run<'a> {
    greeter: &'a Path,
    trace: &'a Trace<'a>,
    directory: TempDir,
    manager: Inbox,
    environment: Vec<(&'static str, String)>,
    clients: Vec<Client>,
    journal: Option<Inbox>,
    /// The stream to the journal that is greeter's stderr, and its other end.
    stderr: Option<(UnixStream, UnixStream)>,
}

impl<'a> Run<'a> {
    fn new(greeter: &'a Path, trace: &'a Trace<'a>) -> Self {
        let directory = TempDir::new();
        let path = directory.path("notify");
        let manager = Inbox::at_path(&path);
        Self {
            greeter,
            trace,
            environment: vec![("NOTIFY_SOCKET", path.to_str().unwrap().to_owned())],
            manager,
            directory,
            clients: Vec::new(),
            journal: None,
            stderr: None,
        }
    }

    /// Gives greeter a stderr as systemd does: a stream to the journal.
    fn use_journal_stream(&mut self) {
        let (stderr, reader) = UnixStream::pair().unwrap();
        self.environment.push(("JOURNAL_STREAM", identity(&stderr)));
        self.stderr = Some((stderr, reader));
    }

    /// Gives greeter the journal's socket.
    fn use_journal(&mut self) {
        self.use_journal_stream();
        fs::create_dir(self.directory.path("journal")).unwrap();
        self.journal = Some(Inbox::at_path(&self.directory.path("journal/socket")));
    }

    /// Uses an abstract address for the service manager.
    fn use_abstract_name(&mut self) {
        let name = self.directory.path("notify");
        let name = name.to_str().unwrap();
        self.manager = Inbox::at_abstract_name(name);
        self.environment = vec![("NOTIFY_SOCKET", format!("@{name}"))];
    }

    fn write_settings(&self, text: &str) -> String {
        self.directory.write("greeter.toml", text)
    }

    fn start(&mut self, arguments: &[&str], socket: PassedSocket) -> Program {
        let stderr = self.stderr.as_ref();
        let launch = Launch {
            greeter: self.greeter,
            directory: &self.directory,
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            environment: self.environment.clone(),
            socket,
            stderr: stderr.map(|(stderr, _)| stderr.try_clone().unwrap().into()),
            with_journal: self.journal.is_some(),
        };
        launch.start(self.trace)
    }

    fn wait_ready(&self, program: &mut Program) -> bool {
        program.wait_until(DEADLINE, || count(&self.manager, "READY=1") > 0)
    }

    /// Sends SIGHUP.
    fn reload(&self, program: &mut Program) {
        program.signal("HUP");
    }

    /// Waits until the service manager knows that reload `number` is complete.
    fn wait_reloaded(&self, number: usize, program: &mut Program) {
        program.wait_until(RELOAD_TIME, || {
            count(&self.manager, "RELOADING=1") >= number
                && count(&self.manager, "READY=1") > number
        });
    }

    /// Sends SIGTERM while greeter waits for a client that does not read.
    fn stop(&self, program: &mut Program) {
        program.signal("TERM");
        program.wait_until(STOP_TIME, || count(&self.manager, "STOPPING=1") > 0);
    }

    /// A client that reads to the end; it stays open.
    fn client(&mut self, client: Client, program: &mut Program) {
        let mut client = client;
        client.read_to_end(program);
        self.clients.push(client);
    }

    /// A client that closes after the end.
    fn passing_client(&mut self, client: Client, program: &mut Program) {
        let mut client = client;
        client.read_to_end(program);
        client.close();
        self.clients.push(client);
    }

    /// Waits for the end and collects everything.
    fn finish(self, program: Program) -> Observation {
        let (status, cpu, log) = program.end();
        let directory = self.directory.path("").display().to_string();
        let read = |name| fs::read(self.directory.path(name)).unwrap_or_default();
        let mut stderr = read("stderr");
        if let Some((own, mut reader)) = self.stderr {
            drop(own);
            reader.read_to_end(&mut stderr).unwrap();
        }
        let entries = self.journal.map_or_else(Vec::new, Inbox::close);
        Observation {
            status,
            cpu,
            // Without the path that differs in each run.
            stdout: String::from_utf8_lossy(&read("stdout")).replace(&directory, ""),
            clients: self.clients,
            notifications: lines(&self.manager.close().join(&b'\n')),
            lines: lines(&stderr),
            entries: entries.iter().map(|entry| journal_fields(entry)).collect(),
            is_path_left: self.directory.path("socket").exists(),
            log,
        }
    }
}

fn lines(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::to_owned).collect()
}

fn count(inbox: &Inbox, line: &str) -> usize {
    inbox.lines().iter().filter(|own| *own == line).count()
}

/// A listening TCP socket, and its address. Accepted connections have the size of the
/// send buffer, if it is not the default.
fn listener(send_buffer: Option<usize>) -> (Socket, SockAddr) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any_port: SocketAddr = ([127, 0, 0, 1], 0).into();
    listener.bind(&any_port.into()).unwrap();
    if let Some(size) = send_buffer {
        listener.set_send_buffer_size(size).unwrap();
    }
    listener.listen(128).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Device and inode, as `JOURNAL_STREAM` has them.
fn identity(stderr: &UnixStream) -> String {
    let file = fs::File::from(OwnedFd::from(stderr.try_clone().unwrap()));
    let metadata = file.metadata().unwrap();
    format!("{}:{}", metadata.dev(), metadata.ino())
}

/// A listening socket; reloads with valid and with invalid settings; SIGTERM.
fn accept(mut run: Run<'_>) -> Observation {
    let (listener, address) = listener(None);
    // The client that systemd has started the service for.
    let early = Client::connect(&address, None).expect(b"first\n");
    let settings = run.write_settings("message_file = \"greeting.txt\"\n");
    run.directory.write("greeting.txt", "first\n");
    fs::create_dir(run.directory.path("greeter.toml.d")).unwrap();
    run.directory.write("greeter.toml.d/limits.toml", LIMITS);
    let socket = PassedSocket::Descriptor(listener.try_clone().unwrap().into());
    let mut program = run.start(&["--config", &settings], socket);
    let is_ready = run.wait_ready(&mut program);
    run.passing_client(early, &mut program);
    if is_ready {
        serve_and_reload(&mut run, &address, &mut program);
        program.signal("TERM");
    }
    let observation = run.finish(program);
    drop(listener);
    observation
}

fn serve_and_reload(run: &mut Run<'_>, address: &SockAddr, program: &mut Program) {
    let silent = Client::connect(address, None).expect(b"first\n");
    run.passing_client(silent, program);
    let mut talking = Client::connect(address, None).expect(b"first\n");
    talking.send(b"hello\r\n");
    run.passing_client(talking, program);
    let holding = Client::connect(address, None).expect(b"first\n");
    run.client(holding, program);

    run.write_settings("message = \"second\"\n");
    run.reload(program);
    run.wait_reloaded(1, program);
    let client = Client::connect(address, None).expect(b"second\n");
    run.passing_client(client.instead_of(b"first\n"), program);

    run.write_settings("mesage = \"third\"\n");
    run.reload(program);
    let client = Client::connect(address, None).expect(b"second\n");
    run.passing_client(client.instead_of(b"first\n"), program);
    run.wait_reloaded(2, program);
}

/// A text of 300 KB without an end of line.
fn large() -> String {
    "0123456789abcdef".repeat(18 * 1024)
}

fn accept_large(mut run: Run<'_>) -> Observation {
    run.use_abstract_name();
    let (listener, address) = listener(Some(SMALL_BUFFER));
    let message = large();
    let greeting = large() + "\n";
    let settings = run.write_settings(&format!("message = \"{message}\"\n{LIMITS}"));
    let connect = || Client::connect(&address, Some(SMALL_BUFFER)).expect(greeting.as_bytes());
    let mut early = connect();
    let socket = PassedSocket::Descriptor(listener.try_clone().unwrap().into());
    let mut program = run.start(&["--config", &settings], socket);
    let is_ready = run.wait_ready(&mut program);
    early.read_slowly(16 * 1024, Duration::from_millis(3), &mut program);
    early.close();
    run.clients.push(early);
    if is_ready {
        let fast = Client::connect(&address, None).expect(greeting.as_bytes());
        run.passing_client(fast, &mut program);
        let mut last = connect();
        last.send(b"hello\r\n");
        last.read_at_least(4096, &mut program);
        run.stop(&mut program);
        run.passing_client(last, &mut program);
    }
    let observation = run.finish(program);
    drop(listener);
    observation
}

/// The header has no addresses, so that lines have the ports of the clients.
fn accept_proxied(mut run: Run<'_>) -> Observation {
    const HEADER: &[u8] = b"PROXY UNKNOWN\r\n";
    let (listener, address) = listener(None);
    let settings = run.write_settings(&format!(
        "message = \"first\"\nproxy_protocol = \"required\"\n{LIMITS}"
    ));
    let connect = || Client::connect(&address, None).expect(b"first\n");
    let mut early = connect();
    early.send(HEADER);
    let socket = PassedSocket::Descriptor(listener.try_clone().unwrap().into());
    let mut program = run.start(&["--config", &settings], socket);
    let is_ready = run.wait_ready(&mut program);
    run.passing_client(early, &mut program);
    if is_ready {
        let (mut whole, mut parts) = (connect(), connect());
        let (first, second) = HEADER.split_at(8);
        parts.send(first);
        whole.send(HEADER);
        run.passing_client(whole, &mut program);
        parts.send(second);
        run.client(parts, &mut program);
        program.signal("TERM");
    }
    let observation = run.finish(program);
    drop(listener);
    observation
}

fn accept_invalid(mut run: Run<'_>) -> Observation {
    let (listener, address) = listener(None);
    let settings = run.write_settings("mesage = \"first\"\n");
    let early = Client::connect(&address, None);
    let socket = PassedSocket::Descriptor(listener.try_clone().unwrap().into());
    let mut program = run.start(&["--config", &settings], socket);
    run.client(early, &mut program);
    let observation = run.finish(program);
    drop(listener);
    observation
}

fn listen(mut run: Run<'_>) -> Observation {
    run.use_abstract_name();
    let settings = run.write_settings(&format!("message = \"first\"\n{LIMITS}"));
    // An address of its own for each run, as several take place at the same time.
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let [third, fourth] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let second = 1 + std::process::id().to_le_bytes()[0] / 2;
    let tcp = SocketAddr::from(([127, second, third, fourth], 4000));
    let path = run.directory.path("socket");
    let arguments = [
        "--config",
        &settings,
        "--listen",
        &tcp.to_string(),
        "--listen",
        path.to_str().unwrap(),
    ];
    let mut program = run.start(&arguments, PassedSocket::None);
    if run.wait_ready(&mut program) {
        let unix = SockAddr::unix(&path).unwrap();
        for address in [&tcp.into(), &unix] {
            let silent = Client::connect(address, None).expect(b"first\n");
            run.passing_client(silent, &mut program);
            let mut talking = Client::connect(address, None).expect(b"first\n");
            talking.send(b"hello\r\n");
            run.client(talking, &mut program);
        }
        program.signal("TERM");
    }
    run.finish(program)
}

/// The variants of a process for one connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Instance {
    Accepted,
    Stopped,
    Invalid,
    Inet,
}

fn instance(mut run: Run<'_>, variant: Instance) -> Observation {
    let (text, greeting) = match variant {
        Instance::Stopped => (large(), large() + "\n"),
        Instance::Invalid => (String::new(), String::new()),
        Instance::Accepted | Instance::Inet => ("first".to_owned(), "first\n".to_owned()),
    };
    if variant != Instance::Inet {
        run.use_journal_stream();
    }
    let key = if variant == Instance::Invalid {
        "mesage"
    } else {
        "message"
    };
    let settings = run.write_settings(&format!("{key} = \"{text}\"\n{LIMITS}"));
    let buffer = (variant == Instance::Stopped).then_some(SMALL_BUFFER);
    let (listener, address) = listener(buffer);
    let mut client = Client::connect(&address, buffer).expect(greeting.as_bytes());
    client.send(b"hello\r\n");
    let socket = OwnedFd::from(listener.accept().unwrap().0);
    let socket = if variant == Instance::Inet {
        PassedSocket::Stdio(socket)
    } else {
        PassedSocket::Descriptor(socket)
    };
    let mut program = run.start(&["--config", &settings], socket);
    if variant == Instance::Stopped {
        client.read_at_least(4096, &mut program);
        run.stop(&mut program);
    }
    run.passing_client(client, &mut program);
    run.finish(program)
}

fn check(mut run: Run<'_>, is_valid: bool) -> Observation {
    let key = if is_valid {
        "message_file"
    } else {
        "mesage_file"
    };
    let settings = run.write_settings(&format!("{key} = \"greeting.txt\"\n"));
    run.directory.write("greeting.txt", "first\n");
    fs::create_dir(run.directory.path("greeter.toml.d")).unwrap();
    run.directory.write("greeter.toml.d/limits.toml", LIMITS);
    let program = run.start(&["--config", &settings, "--check"], PassedSocket::None);
    run.finish(program)
}

fn version(mut run: Run<'_>) -> Observation {
    let program = run.start(&["--version"], PassedSocket::None);
    run.finish(program)
}
