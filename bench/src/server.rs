//! The servers that are measured, each in its best configuration.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The greeting of every server: the default of greeter.
pub const GREETING: &str = "This is a test\n";

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ServerKind {
    Greeter,
    /// Stream `return`, one process; does not wait for the client to close.
    Nginx,
    /// A minimal loop in C that closes connections correctly.
    CEpoll,
    /// The same with greeting and FIN in one packet.
    CMerged,
    /// accept(2), send(2), close(2) in C.
    CClose,
}

impl ServerKind {
    pub const ALL: [ServerKind; 5] = [
        ServerKind::Greeter,
        ServerKind::Nginx,
        ServerKind::CEpoll,
        ServerKind::CMerged,
        ServerKind::CClose,
    ];

    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            ServerKind::Greeter => 4000,
            ServerKind::Nginx => 4001,
            ServerKind::CEpoll => 4002,
            ServerKind::CMerged => 4003,
            ServerKind::CClose => 4004,
        }
    }

    /// The port on which a PROXY header is required. The C programs have none.
    #[must_use]
    pub fn proxied_port(self) -> Option<u16> {
        match self {
            ServerKind::Greeter => Some(4010),
            ServerKind::Nginx => Some(4011),
            ServerKind::CEpoll | ServerKind::CMerged | ServerKind::CClose => None,
        }
    }
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            ServerKind::Greeter => "greeter",
            ServerKind::Nginx => "nginx",
            ServerKind::CEpoll => "C epoll",
            ServerKind::CMerged => "C epoll, merged",
            ServerKind::CClose => "C close",
        })
    }
}

/// The paths of the servers' programs, and a directory for their files.
#[derive(Debug)]
pub struct Programs {
    pub greeter: PathBuf,
    pub nginx: PathBuf,
    pub nginx_module: PathBuf,
    /// The directory of `c-epoll` and `c-close`.
    pub c: PathBuf,
    pub scratch: PathBuf,
    /// Whether journald listens at its standard path.
    pub journal: bool,
}

/// Limits beyond the default configuration.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    pub connections: usize,
    /// `linger_timeout` of greeter.
    pub linger_timeout: &'static str,
}

/// A running server, killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a server and waits until it accepts connections.
    ///
    /// # Errors
    ///
    /// It cannot be started, or does not accept within five seconds.
    pub fn start(
        kind: ServerKind,
        programs: &Programs,
        capacity: Option<Capacity>,
    ) -> io::Result<Self> {
        let mut command = command(kind, programs, capacity)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let log = programs.scratch.join(format!("{kind}.log"));
        if kind == ServerKind::Greeter && programs.journal {
            let stream = journal_stream()?;
            let metadata = stream.metadata()?;
            let id = format!("{}:{}", metadata.dev(), metadata.ino());
            command.env("JOURNAL_STREAM", id).stderr(stream);
        } else {
            command.stderr(File::create(&log)?);
        }
        let child = command
            .spawn()
            .map_err(|error| io::Error::other(format!("cannot start {kind}: {error}")))?;
        let server = Server { child };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", kind.port())).is_err() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(log).unwrap_or_default();
                let message = format!("{kind} does not accept connections: {log}");
                return Err(io::Error::other(message));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors are ignored: the server may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A stream to the journal, as the service manager opens it for
/// `StandardError=journal`.
fn journal_stream() -> io::Result<File> {
    let mut stream = UnixStream::connect("/run/systemd/journal/stdout")?;
    // The header: identifier, unit, default priority, whether lines begin with a
    // priority, and whether to forward to syslog, kmsg and the console.
    stream.write_all(b"greeter\n\n6\n1\n0\n0\n0\n")?;
    Ok(File::from(OwnedFd::from(stream)))
}

fn command(
    kind: ServerKind,
    programs: &Programs,
    capacity: Option<Capacity>,
) -> io::Result<Command> {
    let port = kind.port().to_string();
    Ok(match kind {
        ServerKind::Greeter => {
            let mut command = Command::new(&programs.greeter);
            command
                .arg("--config")
                .arg(greeter_settings(&programs.scratch, capacity)?);
            for port in [Some(kind.port()), kind.proxied_port()]
                .into_iter()
                .flatten()
            {
                command.arg("--listen").arg(format!("127.0.0.1:{port}"));
            }
            command
        }
        ServerKind::Nginx => {
            let mut command = Command::new(&programs.nginx);
            command.arg("-p").arg(&programs.scratch);
            command.arg("-c").arg(nginx_settings(programs, capacity)?);
            command
                .arg("-e")
                .arg(programs.scratch.join("nginx-error.log"));
            command
        }
        ServerKind::CEpoll | ServerKind::CMerged => {
            let mut command = Command::new(programs.c.join("c-epoll"));
            command.arg(port).arg(GREETING);
            if kind == ServerKind::CMerged {
                command.arg("merge");
            }
            command
        }
        ServerKind::CClose => {
            let mut command = Command::new(programs.c.join("c-close"));
            command.arg(port).arg(GREETING);
            command
        }
    })
}

/// The defaults of greeter except for the capacity.
fn greeter_settings(scratch: &Path, capacity: Option<Capacity>) -> io::Result<PathBuf> {
    let path = scratch.join("greeter.toml");
    let mut text = b"[limits]\n".to_vec();
    if let Some(capacity) = capacity {
        writeln!(text, "connections = {}", capacity.connections)?;
        writeln!(text, "linger_timeout = \"{}\"", capacity.linger_timeout)?;
    }
    if let Some(port) = ServerKind::Greeter.proxied_port() {
        writeln!(
            text,
            "[greeting.\"127.0.0.1:{port}\"]\nproxy_protocol = \"required\""
        )?;
    }
    fs::write(&path, text)?;
    Ok(path)
}

fn nginx_settings(programs: &Programs, capacity: Option<Capacity>) -> io::Result<PathBuf> {
    let path = programs.scratch.join("nginx.conf");
    let connections = capacity.map_or(1024, |capacity| capacity.connections);
    let module = programs.nginx_module.display();
    let port = ServerKind::Nginx.port();
    let proxied = match ServerKind::Nginx.proxied_port() {
        Some(port) => format!("listen 127.0.0.1:{port} proxy_protocol backlog=4096;"),
        None => String::new(),
    };
    let greeting = GREETING.replace('\n', "\\n");
    // One process, so that its CPU and memory use is that of the server.
    let text = format!(
        "load_module {module};\n\
         daemon off;\n\
         master_process off;\n\
         worker_processes 1;\n\
         worker_rlimit_nofile {files};\n\
         pid nginx.pid;\n\
         events {{ worker_connections {connections}; }}\n\
         stream {{\n\
         access_log off;\n\
         server {{ listen 127.0.0.1:{port} backlog=4096; {proxied} return \"{greeting}\"; }}\n\
         }}\n",
        files = connections + 64,
    );
    fs::write(&path, text)?;
    Ok(path)
}
