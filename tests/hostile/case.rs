//! One row of the tables: a shell hands over what the row says and becomes
//! greeter; then every client, every line of stderr and the status are looked at.

use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::handed::{Handed, Sockets, connect, managers};
use crate::support::{Folder, GREETER, PATIENCE};

/// What must come of it.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// This status, one line of stderr with these words, nothing to any client.
    Fails(i32, &'static str),
    /// This status, and nobody is told anything.
    Silent(i32),
    /// Every client reads exactly this, and the status is 0.
    Greets(&'static str),
    /// The same, and stderr holds these words.
    Says(&'static str, &'static str),
}

#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub handed: Handed,
    /// Shell, run in a folder of its own.
    pub setup: &'static str,
    /// Variables, as the shell's `export` takes them: what systemd says of the
    /// sockets, and all others.
    pub listen: &'static str,
    pub environment: &'static str,
    pub arguments: &'static str,
    pub redirect: &'static str,
    /// Shell, run when everybody is greeted, before a SIGHUP.
    pub change: &'static str,
    pub end: End,
}

/// A listening socket as a socket unit hands it over.
pub const LISTENING: Case = Case {
    handed: Handed::Listener,
    setup: ": >greeter.toml",
    listen: "LISTEN_PID=$$ LISTEN_FDS=1",
    environment: "GREETER=",
    arguments: "--config ./greeter.toml",
    redirect: "3<&0 0</dev/null",
    change: "",
    end: End::Greets(ACCEPT),
};

/// What the modes say where nothing else is set.
pub const ACCEPT: &str = "This is a test\n";
pub const ACCEPTED: &str = "This socket was already accepted\n";
pub const INET: &str = "This socket was passed on stdin/stdout\n";

/// Checks every row and tells of all that are not as they must be.
pub fn check_all<Row>(table: &[Row], case: impl Fn(&Row) -> Case) {
    let wrong = |row: &Row| {
        let case = case(row);
        check(&case).err().map(|why| format!("{case:#?}\n{why}\n"))
    };
    let wrong: Vec<String> = table.iter().filter_map(wrong).collect();
    assert!(
        wrong.is_empty(),
        "{} rows:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn check(case: &Case) -> Result<(), String> {
    let folder = Folder::new();
    let _managers = managers(&folder);
    let mut sockets = Sockets::new(case.handed, &folder.path("socket"));
    let log = folder.path("stderr");
    let mut command = shell(&script(case), &folder);
    command.stdin(sockets.stdin.take().unwrap());
    command.stdout(sockets.stdout.take().unwrap());
    command.stderr(fs::File::create(&log).unwrap());
    let mut program = Program(command.spawn().unwrap());
    // With our copies of what the program has: it alone shall have them.
    drop(command);

    let said = || fs::read_to_string(&log).unwrap_or_else(|error| error.to_string());
    let told = |why: String| format!("{why}\nstderr:\n{}", said());
    let (status, greeting, words) = match case.end {
        End::Fails(status, words) => (status, "", words),
        End::Silent(status) => (status, "", ""),
        End::Greets(greeting) => (0, greeting, ""),
        End::Says(greeting, words) => (0, greeting, words),
    };
    // All but those in the queue of a program that must fail.
    if status == 0 || sockets.listener.is_none() {
        for mut client in std::mem::take(&mut sockets.clients) {
            read(&mut client, greeting).map_err(told)?;
        }
    }
    if let (Some(listener), 0) = (&sockets.listener, status) {
        if !case.change.is_empty() {
            assert!(shell(case.change, &folder).status().unwrap().success());
            program.signal("-HUP");
            until(|| said().contains(words)).map_err(told)?;
            read(&mut connect(listener), greeting).map_err(told)?;
        }
        program.signal("-TERM");
    }
    let ended = program.end().map_err(told)?;
    if ended != Some(status) {
        return Err(told(format!("ended with {ended:?}")));
    }
    for client in &mut sockets.clients {
        waits(client).map_err(told)?;
    }
    judge(case.end, words, &(said() + &sockets.told()))
}

/// Looks at all that was said.
fn judge(end: End, words: &str, said: &str) -> Result<(), String> {
    let one_line = said.lines().count() == 1 && said.ends_with('\n');
    let plain = !said.replace('\n', "").contains(char::is_control);
    let why = match end {
        End::Fails(..) if !one_line => "not one line",
        End::Silent(_) if !said.is_empty() => "not silent",
        _ if said.contains("panicked") => "a panic",
        _ if said.contains("secret") => "a client's words",
        _ if !plain => "control characters",
        _ if !said.contains(words) => "not the words",
        _ => return Ok(()),
    };
    Err(format!("{why}:\n{said}"))
}

fn shell(script: &str, folder: &Folder) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script])
        .current_dir(folder.path(""))
        .env("PATH", path());
    shell
}

fn script(case: &Case) -> String {
    // root may read everything, unless it gives that up.
    let by = if fs::metadata("/proc/self").unwrap().uid() == 0 {
        "setpriv --bounding-set=-dac_override,-dac_read_search"
    } else {
        ""
    };
    let (environment, listen) = (case.environment, case.listen);
    let (setup, arguments, redirect) = (case.setup, case.arguments, case.redirect);
    // Whoever runs the tests may have left descriptors open.
    format!(
        "set -e; exec 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-
        {setup}
        export {environment} {listen}
        exec {by} greeter {arguments} {redirect}"
    )
}

/// The program under test is what the scripts call `greeter`.
fn path() -> String {
    let folder = Path::new(GREETER).parent().unwrap().display().to_string();
    format!("{folder}:{}", std::env::var("PATH").unwrap_or_default())
}

/// The client reads exactly `greeting`, and then a clean end.
fn read(client: &mut Socket, greeting: &str) -> Result<(), String> {
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let end = client.read_to_end(&mut bytes);
    if end.is_err() || !same(&bytes, greeting) {
        return Err(format!(
            "a client met {end:?} after {:?}",
            String::from_utf8_lossy(&bytes)
        ));
    }
    Ok(())
}

/// Whether these are the bytes of `greeting`; a star in it is any text.
fn same(bytes: &[u8], greeting: &str) -> bool {
    match greeting.split_once('*') {
        Some((front, back)) => {
            bytes.starts_with(front.as_bytes()) && bytes.ends_with(back.as_bytes())
        }
        None => bytes == greeting.as_bytes(),
    }
}

/// The client was sent nothing and still waits in the queue, which is ours as well.
fn waits(client: &mut Socket) -> Result<(), String> {
    client.set_nonblocking(true).unwrap();
    match client.read(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
        other => Err(format!("a client met {other:?}")),
    }
}

/// Waits for what must come to pass.
fn until(mut passed: impl FnMut() -> bool) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    while !passed() {
        if Instant::now() > end {
            return Err("it hangs".to_owned());
        }
        sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Killed when dropped, should it still run.
struct Program(Child);

impl Program {
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.unwrap().success());
    }

    fn end(&mut self) -> Result<Option<i32>, String> {
        let mut status = None;
        until(|| {
            status = self.0.try_wait().unwrap();
            status.is_some()
        })?;
        Ok(status.and_then(|status| status.code()))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It has ended by itself wherever all is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
