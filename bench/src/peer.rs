//! The servers that are measured, each started the way that serves it best.

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

/// The greeting of them all, as greeter sends it without any settings.
pub const GREETING: &str = "This is a test\n";

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Peer {
    Greeter,
    /// Stream `return`, one process; does not wait for the client's end.
    Nginx,
    /// Our own C loop that closes correctly, and does nothing else.
    CEpoll,
    /// The same with greeting and end in one packet.
    CMerged,
    /// accept, send, close in C.
    CClose,
}

impl Peer {
    pub const ALL: [Peer; 5] = [
        Peer::Greeter,
        Peer::Nginx,
        Peer::CEpoll,
        Peer::CMerged,
        Peer::CClose,
    ];

    #[must_use]
    pub fn port(self) -> u16 {
        match self {
            Peer::Greeter => 4000,
            Peer::Nginx => 4001,
            Peer::CEpoll => 4002,
            Peer::CMerged => 4003,
            Peer::CClose => 4004,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Peer::Greeter => "greeter",
            Peer::Nginx => "nginx",
            Peer::CEpoll => "C epoll",
            Peer::CMerged => "C epoll, merged",
            Peer::CClose => "C close",
        })
    }
}

/// Where the servers' programs are, and a folder for what they write.
#[derive(Debug)]
pub struct Programs {
    pub greeter: PathBuf,
    pub nginx: PathBuf,
    pub nginx_module: PathBuf,
    /// The folder of `c-epoll` and `c-close`.
    pub c: PathBuf,
    pub scratch: PathBuf,
    /// Whether a journal listens at its usual place.
    pub journal: bool,
}

/// How much room a server gets.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub connections: usize,
    /// What greeter's settings file says beyond that.
    pub linger: Option<&'static str>,
}

/// A server that runs, until this is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
}

impl Server {
    /// Starts a server and waits until it answers.
    ///
    /// # Errors
    ///
    /// It cannot be started, or does not answer within five seconds.
    pub fn start(peer: Peer, programs: &Programs, room: Option<Room>) -> io::Result<Self> {
        let mut command = command(peer, programs, room)?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        if peer == Peer::Greeter && programs.journal {
            let stream = journal_stream()?;
            let metadata = stream.metadata()?;
            let id = format!("{}:{}", metadata.dev(), metadata.ino());
            command.env("JOURNAL_STREAM", id).stderr(stream);
        } else {
            command.stderr(File::create(programs.scratch.join(format!("{peer}.log")))?);
        }
        let child = command
            .spawn()
            .map_err(|e| io::Error::other(format!("cannot start {peer}: {e}")))?;
        let server = Server { child };
        let deadline = Instant::now() + Duration::from_secs(5);
        while TcpStream::connect(("127.0.0.1", peer.port())).is_err() {
            if Instant::now() > deadline {
                let log = fs::read_to_string(programs.scratch.join(format!("{peer}.log")));
                let log = log.unwrap_or_default();
                return Err(io::Error::other(format!("{peer} does not answer: {log}")));
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
        // It can only have ended by itself, which leaves nothing to be done.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the service manager makes of `StandardError=journal`.
fn journal_stream() -> io::Result<File> {
    let mut stream = UnixStream::connect("/run/systemd/journal/stdout")?;
    // Identifier, unit, level, whether lines bear a level of their own, and
    // that nothing is passed on.
    stream.write_all(b"greeter\n\n6\n1\n0\n0\n0\n")?;
    Ok(File::from(OwnedFd::from(stream)))
}

fn command(peer: Peer, programs: &Programs, room: Option<Room>) -> io::Result<Command> {
    let port = peer.port().to_string();
    Ok(match peer {
        Peer::Greeter => {
            let mut command = Command::new(&programs.greeter);
            command
                .arg("--config")
                .arg(greeter_settings(&programs.scratch, room)?);
            command.arg("--listen").arg(format!("127.0.0.1:{port}"));
            command
        }
        Peer::Nginx => {
            let mut command = Command::new(&programs.nginx);
            command.arg("-p").arg(&programs.scratch);
            command.arg("-c").arg(nginx_settings(programs, room)?);
            command
                .arg("-e")
                .arg(programs.scratch.join("nginx-error.log"));
            command
        }
        Peer::CEpoll | Peer::CMerged => {
            let mut command = Command::new(programs.c.join("c-epoll"));
            command.arg(port).arg(GREETING);
            command.args((peer == Peer::CMerged).then_some("merge"));
            command
        }
        Peer::CClose => {
            let mut command = Command::new(programs.c.join("c-close"));
            command.arg(port).arg(GREETING);
            command
        }
    })
}

/// greeter's defaults, but for the room.
fn greeter_settings(scratch: &Path, room: Option<Room>) -> io::Result<PathBuf> {
    let path = scratch.join("greeter.toml");
    let linger = room.and_then(|room| room.linger);
    let lines = [
        room.map(|room| format!("connections = {}\n", room.connections)),
        linger.map(|time| format!("linger_timeout = \"{time}\"\n")),
    ];
    let text = format!(
        "[limits]\n{}",
        lines.into_iter().flatten().collect::<String>()
    );
    fs::write(&path, text)?;
    Ok(path)
}

fn nginx_settings(programs: &Programs, room: Option<Room>) -> io::Result<PathBuf> {
    let path = programs.scratch.join("nginx.conf");
    let connections = room.map_or(1024, |room| room.connections);
    let module = programs.nginx_module.display();
    let port = Peer::Nginx.port();
    let greeting = GREETING.replace('\n', "\\n");
    // One process, so that its CPU and memory are all that it needs.
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
         server {{ listen 127.0.0.1:{port} backlog=4096; return \"{greeting}\"; }}\n\
         }}\n",
        files = connections + 64,
    );
    fs::write(&path, text)?;
    Ok(path)
}
