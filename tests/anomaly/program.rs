//! greeter under strace(1): starts it, sends signals, waits for its end.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::inject::{Thread, Trace};

/// How long a run may take; after that it counts as a hang.
pub const DEADLINE: Duration = Duration::from_secs(10);

const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How long the main thread is held, so that strace(1) can attach to the other one
/// before it has written anything.
const ATTACH_TIME: Duration = Duration::from_millis(200);

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("greeter-anomaly-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed is no reason to fail.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// How greeter is started.
pub struct Launch<'a> {
    pub greeter: &'a Path,
    pub directory: &'a TempDir,
    pub arguments: Vec<String>,
    pub environment: Vec<(&'static str, String)>,
    pub socket: PassedSocket,
    /// `None`: the file `stderr` of the directory.
    pub stderr: Option<OwnedFd>,
    /// Whether `journal` of the directory takes the place of /run/systemd/journal.
    pub with_journal: bool,
}

/// The socket that greeter inherits.
pub enum PassedSocket {
    None,
    /// On descriptor 3, as `LISTEN_FDS` announces.
    Descriptor(OwnedFd),
    /// On stdin and stdout.
    Stdio(OwnedFd),
}

impl Launch<'_> {
    pub fn start(self, trace: &Trace<'_>) -> Program {
        let log = self.directory.path("strace");
        let (stdin, stdout, redirection) = match self.socket {
            PassedSocket::None => (Stdio::null(), create(&self.directory.path("stdout")), ""),
            PassedSocket::Descriptor(socket) => (
                socket.into(),
                create(&self.directory.path("stdout")),
                "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=test",
            ),
            PassedSocket::Stdio(socket) => {
                let copy = socket.try_clone().unwrap();
                (socket.into(), copy.into(), "")
            }
        };
        let mount = if self.with_journal {
            "mount -t tmpfs tmpfs /run
            mkdir -p /run/systemd/journal
            mount --bind \"$journal\" /run/systemd/journal"
        } else {
            ""
        };
        // The descriptors that the caller of this program left open are closed.
        let script = format!(
            "set -e
            exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
            {mount}
            {redirection}
            exec strace \"$@\""
        );
        let mut command = if self.with_journal {
            unshare()
        } else {
            Command::new("sh")
        };
        let stderr: Stdio = match self.stderr {
            Some(stderr) => stderr.into(),
            None => create(&self.directory.path("stderr")),
        };
        command
            .args(["-c", &script, "sh"])
            .args(trace.strace_arguments(&log, ATTACH_TIME))
            .arg(self.greeter)
            .args(&self.arguments)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("JOURNAL_STREAM")
            .env("journal", self.directory.path("journal"))
            .envs(self.environment)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        let child = command.spawn().expect("cannot run sh");
        let mut program = Program {
            child,
            attached: None,
            tracer: None,
            cpu: Duration::ZERO,
            status: None,
            log,
            deadline: Instant::now() + DEADLINE,
        };
        if let Trace::Inject(injection) = trace {
            if injection.thread == Thread::Journal {
                program.attach(trace);
            }
        }
        program
    }
}

fn create(path: &Path) -> Stdio {
    fs::File::create(path).unwrap().into()
}

/// A shell with mounts of its own.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh"]);
    command
}

/// The running program; killed when dropped.
pub struct Program {
    child: Child,
    /// strace(1) of the second thread.
    attached: Option<Child>,
    /// strace(1) of the main thread, which is not a child.
    tracer: Option<u32>,
    /// The processor time used so far.
    cpu: Duration,
    status: Option<ExitStatus>,
    log: PathBuf,
    deadline: Instant,
}

impl Program {
    /// Sends a signal, unless the program has ended.
    pub fn signal(&mut self, name: &str) {
        if self.is_running() {
            let pid = self.child.id().to_string();
            let sent = Command::new("sh")
                .args(["-c", "kill -s $0 $1", name, &pid])
                .status();
            assert!(sent.unwrap().success(), "cannot send SIG{name}");
        }
    }

    pub fn is_running(&mut self) -> bool {
        if self.status.is_none() {
            self.read_proc();
            self.status = self.child.try_wait().unwrap();
        }
        self.status.is_none()
    }

    /// Whether the run has taken too long.
    pub fn is_late(&self) -> bool {
        Instant::now() > self.deadline
    }

    /// Waits until the condition holds, the program has ended, or `limit` or the
    /// deadline has expired; returns whether the condition holds.
    pub fn wait_until(&mut self, limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
        let end = self.deadline.min(Instant::now() + limit);
        loop {
            let is_last = !self.is_running() || Instant::now() > end;
            if condition() {
                return true;
            }
            if is_last {
                return false;
            }
            sleep(POLL_INTERVAL);
        }
    }

    /// Waits for the end, or kills the program at the deadline. Returns its status,
    /// its processor time, and what strace(1) has written.
    pub fn end(mut self) -> (Option<ExitStatus>, Duration, String) {
        self.wait_until(DEADLINE, || false);
        let status = self.status;
        self.kill();
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log).into_owned();
        (status, self.cpu, log)
    }

    /// Reads processor time and tracer, also of a process that has not been waited for.
    fn read_proc(&mut self) {
        let pid = self.child.id();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // After the name, which is in parentheses: state is the first field.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        // User and system time, in hundredths of a second on every architecture.
        let ticks: u64 = [11, 12]
            .iter()
            .filter_map(|index| fields.get(*index)?.parse::<u64>().ok())
            .sum();
        self.cpu = self.cpu.max(Duration::from_millis(10 * ticks));
        if self.tracer.is_none() {
            self.tracer = tracer_of(&format!("/proc/{pid}/status"));
        }
    }

    /// Starts strace(1) on the second thread and waits until it is traced.
    fn attach(&mut self, trace: &Trace<'_>) {
        let main = self.child.id();
        let mut thread = None;
        self.wait_until(DEADLINE, || {
            thread = fs::read_dir(format!("/proc/{main}/task"))
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
                .find(|id| *id != main);
            thread.is_some()
        });
        let Some(thread) = thread else {
            return;
        };
        let mut command = Command::new("strace");
        command.args(trace.attach_arguments(&self.log, thread));
        // It fails, with a message, only if the program has ended meanwhile.
        command.stdin(Stdio::null()).stderr(Stdio::null());
        self.attached = command.spawn().ok();
        let status = format!("/proc/{main}/task/{thread}/status");
        self.wait_until(DEADLINE, || tracer_of(&status).is_some());
    }

    fn kill(&mut self) {
        if self.status.is_none() {
            // It fails only if the program has ended meanwhile.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if let Some(mut attached) = self.attached.take() {
            // It ends with the thread that it traces.
            let _ = attached.wait();
        }
        if let Some(tracer) = self.tracer.take() {
            let begun = Instant::now();
            while is_strace(tracer) && begun.elapsed() < DEADLINE {
                sleep(POLL_INTERVAL);
            }
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The process that traces a thread, according to its `status` file in proc(5).
fn tracer_of(status: &str) -> Option<u32> {
    let text = fs::read_to_string(status).ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("TracerPid:"))?;
    line.trim().parse().ok().filter(|pid| *pid != 0)
}

/// Whether a process is strace(1) and has not ended.
fn is_strace(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.contains("(strace)") && !stat.contains(") Z ")
}
