//! One test case: a shell prepares what the case describes and executes greeter in
//! its place. Then what every client received, stderr and the exit status are checked.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::sockets::{Inherited, Sockets, connect, unusable_notify_sockets};
use crate::support::{GREETER, TIMEOUT, TempDir};

/// The result that a case must have.
#[derive(Debug, Clone, Copy)]
pub enum Expected {
    /// This exit status, one line on stderr that contains this text, and no byte to
    /// any client.
    Fails(i32, &'static str),
    /// This exit status, an empty stderr, and no byte to any client.
    Silent(i32),
    /// Every client receives exactly this, and the exit status is 0.
    Greets(&'static str),
    /// The same, and stderr contains this text.
    Logs(&'static str, &'static str),
}

impl Expected {
    fn status(self) -> i32 {
        match self {
            Self::Fails(status, _) | Self::Silent(status) => status,
            Self::Greets(_) | Self::Logs(..) => 0,
        }
    }

    /// What every client receives before EOF.
    fn greeting(self) -> &'static str {
        match self {
            Self::Fails(..) | Self::Silent(_) => "",
            Self::Greets(greeting) | Self::Logs(greeting, _) => greeting,
        }
    }

    /// What stderr contains.
    fn log(self) -> &'static str {
        match self {
            Self::Fails(_, log) | Self::Logs(_, log) => log,
            Self::Silent(_) | Self::Greets(_) => "",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub inherited: Inherited,
    /// Shell code, executed in an empty directory.
    pub setup: &'static str,
    /// The variables of socket activation, as arguments of the shell's `export`.
    pub listen: &'static str,
    /// All other variables.
    pub environment: &'static str,
    pub arguments: &'static str,
    pub redirect: &'static str,
    /// Shell code, executed before a SIGHUP once every client is greeted.
    pub change: &'static str,
    pub expected: Expected,
}

/// A listening socket, passed as a socket unit passes it.
pub const LISTENING: Case = Case {
    inherited: Inherited::Listener,
    setup: ": >greeter.toml",
    listen: "LISTEN_PID=$$ LISTEN_FDS=1",
    environment: "GREETER=",
    arguments: "--config ./greeter.toml",
    redirect: "3<&0 0</dev/null",
    change: "",
    expected: Expected::Greets(ACCEPT),
};

/// The default greetings of the modes.
pub const ACCEPT: &str = "This is a test\n";
pub const ACCEPTED: &str = "This socket was already accepted\n";
pub const INET: &str = "This socket was passed on stdin/stdout\n";

/// Checks every row of a table, then reports all that failed.
pub fn check_all<Row>(table: &[Row], case: impl Fn(&Row) -> Case) {
    let mut failures = Vec::new();
    for row in table {
        let case = case(row);
        if let Err(problem) = check(&case) {
            failures.push(format!("{case:#?}\n{problem}\n"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn check(case: &Case) -> Result<(), String> {
    let directory = TempDir::new();
    let _notify_sockets = unusable_notify_sockets(&directory);
    let mut sockets = Sockets::new(case.inherited, &directory.path("socket"));
    let stderr = directory.path("stderr");
    let mut command = shell(&script(case), &directory);
    command.stdin(sockets.stdin.take().unwrap());
    command.stdout(sockets.stdout.take().unwrap());
    command.stderr(File::create(&stderr).unwrap());
    let mut process = Process(command.spawn().unwrap());
    // Closes this process's copies of the descriptors: only greeter may have them.
    drop(command);
    run(case, &directory, &stderr, &mut sockets, &mut process)
        .map_err(|problem| format!("{problem}\nstderr:\n{}", read_stderr(&stderr)))?;
    check_log(
        case.expected,
        &(read_stderr(&stderr) + &sockets.read_journal()),
    )
}

/// Greets the clients of the case, changes the settings if it asks for that, and
/// waits for the exit status.
fn run(
    case: &Case,
    directory: &TempDir,
    stderr: &Path,
    sockets: &mut Sockets,
    process: &mut Process,
) -> Result<(), String> {
    let status = case.expected.status();
    let greeting = case.expected.greeting();
    // Clients in the backlog of a process that must fail receive nothing.
    if status == 0 || sockets.listener.is_none() {
        for mut client in std::mem::take(&mut sockets.clients) {
            expect_greeting(&mut client, greeting)?;
        }
    }
    if let (Some(listener), 0) = (&sockets.listener, status) {
        if !case.change.is_empty() {
            assert!(shell(case.change, directory).status().unwrap().success());
            process.signal("-HUP");
            wait_until(|| read_stderr(stderr).contains(case.expected.log()))?;
            expect_greeting(&mut connect(listener), greeting)?;
        }
        process.signal("-TERM");
    }
    let actual = process.wait()?;
    if actual != Some(status) {
        return Err(format!("exit status {actual:?}"));
    }
    for client in &mut sockets.clients {
        expect_queued(client)?;
    }
    Ok(())
}

/// Unreadable if the setup of the case has removed it.
fn read_stderr(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| error.to_string())
}

/// Checks everything that was logged.
fn check_log(expected: Expected, log: &str) -> Result<(), String> {
    let is_one_line = log.lines().count() == 1 && log.ends_with('\n');
    let has_control = log.replace('\n', "").contains(char::is_control);
    let problem = match expected {
        Expected::Fails(..) if !is_one_line => "not one line",
        Expected::Silent(_) if !log.is_empty() => "not empty",
        _ if log.contains("panicked") => "a panic",
        _ if log.contains("secret") => "client input in the log",
        _ if has_control => "control characters",
        _ if !log.contains(expected.log()) => "the expected text is missing",
        _ => return Ok(()),
    };
    Err(format!("{problem}:\n{log}"))
}

fn shell(script: &str, directory: &TempDir) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .current_dir(directory.path(""))
        .env("PATH", search_path());
    shell
}

fn script(case: &Case) -> String {
    let Case {
        setup,
        listen,
        environment,
        arguments,
        redirect,
        ..
    } = case;
    // root can read every file unless it drops these capabilities.
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let wrapper = if is_root {
        "setpriv --bounding-set=-dac_override,-dac_read_search"
    } else {
        ""
    };
    // The parent of the tests may have leaked descriptors.
    format!(
        "set -e; exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
        {setup}
        export {environment} {listen}
        exec {wrapper} greeter {arguments} {redirect}"
    )
}

/// `PATH` with the program under test as `greeter`.
fn search_path() -> String {
    let directory = Path::new(GREETER).parent().unwrap().display();
    format!("{directory}:{}", std::env::var("PATH").unwrap_or_default())
}

/// The client receives exactly `greeting`, then EOF without a reset.
fn expect_greeting(client: &mut Socket, greeting: &str) -> Result<(), String> {
    client.set_read_timeout(Some(TIMEOUT)).unwrap();
    let mut received = Vec::new();
    let result = client.read_to_end(&mut received);
    if result.is_err() || !matches_pattern(&received, greeting) {
        return Err(format!(
            "a client received {:?}, then {result:?}",
            String::from_utf8_lossy(&received)
        ));
    }
    Ok(())
}

/// Compares bytes with a pattern; one `*` in it matches anything.
fn matches_pattern(bytes: &[u8], pattern: &str) -> bool {
    match pattern.split_once('*') {
        Some((prefix, suffix)) => {
            bytes.starts_with(prefix.as_bytes()) && bytes.ends_with(suffix.as_bytes())
        }
        None => bytes == pattern.as_bytes(),
    }
}

/// The client has received nothing and is still in the backlog, which this process
/// has open, too.
fn expect_queued(client: &mut Socket) -> Result<(), String> {
    client.set_nonblocking(true).unwrap();
    match client.read(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        other => Err(format!("a client in the backlog received {other:?}")),
    }
}

/// Waits for a condition, at most [`TIMEOUT`].
fn wait_until(mut condition: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        if Instant::now() > deadline {
            return Err("timed out".to_owned());
        }
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A child process; killed when dropped.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("sh")
            .args(["-c", "kill $0 $1", signal, &pid])
            .status();
        assert!(status.unwrap().success());
    }

    /// Waits for the exit status; `None` after a signal.
    fn wait(&mut self) -> Result<Option<i32>, String> {
        let mut status = None;
        wait_until(|| {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })?;
        Ok(status.and_then(|status| status.code()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors are ignored: if the case passed, the process has exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
