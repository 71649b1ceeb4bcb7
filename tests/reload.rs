//! `--reload PID`, as `ExecReload=` calls it: the status of a reload, and its log.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use support::{GREETER, Standalone, TempDir};

/// greeter with `--listen` and a settings file.
struct Service {
    server: Standalone,
    directory: TempDir,
    settings: String,
}

impl Service {
    fn start(text: &str) -> Self {
        let directory = TempDir::new();
        let settings = directory.write("greeter.toml", text);
        Self {
            server: Standalone::start(&settings),
            directory,
            settings,
        }
    }

    fn write_settings(&self, text: &str) {
        self.directory.write("greeter.toml", text);
    }

    fn reload(&self) -> Output {
        reload(&self.server.process.pid().to_string(), &self.settings)
    }

    /// Reloads as `ExecReload=` does, and waits for the end: a signal that is sent while
    /// another one is pending is lost (signal(7)), and a client gets its greeting after
    /// the reload.
    fn reload_and_wait(&self) {
        self.reload();
        self.server.read();
    }

    /// The same by SIGHUP alone, as systemd sends it (`Type=notify-reload`).
    fn signal_and_wait(&self) {
        // SAFETY: the call takes two numbers, and touches no memory.
        let result = unsafe { libc::kill(self.server.process.pid(), libc::SIGHUP) };
        assert_eq!(result, 0);
        self.server.read();
    }
}

/// Within a second, the same result is not logged again: it is that of the other signal of
/// one `systemctl reload`.
fn wait_for_another_reload() {
    thread::sleep(Duration::from_millis(1100));
}

fn reload(pid: &str, settings: &str) -> Output {
    Command::new(GREETER)
        .args(["--reload", pid, "--config", settings])
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn client_after_a_reload_gets_the_new_greeting() {
    let service = Service::start("message = 'old'");
    for number in 0..50 {
        service.write_settings(&format!("message = '{number}'"));
        let output = service.reload();
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
        assert!(output.stdout.is_empty());
        assert_eq!(service.server.read(), format!("{number}\n"));
    }
}

#[test]
fn reload_with_invalid_settings_fails_and_changes_nothing() {
    let service = Service::start("message = 'old'");
    service.write_settings("message = 'new'\nmesage = 'x'\n");
    let output = service.reload();
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("greeter.toml:2:1: unknown key 'mesage'"));
    service
        .server
        .process
        .expect_stderr("reload failed, keeping the current settings: ");
    assert_eq!(service.server.read(), "old\n");
}

#[test]
fn two_signals_of_one_reload_are_logged_once() {
    let service = Service::start("message = 'old'");
    let mut reloads = 0;
    for (number, text) in ["message = 'a'", "message = 'a'", "x = 1", "message = 'b'"]
        .into_iter()
        .enumerate()
    {
        service.write_settings(text);
        wait_for_another_reload();
        // systemd 259 and newer signals last, older ones first.
        if number % 2 == 0 {
            service.reload_and_wait();
            service.signal_and_wait();
        } else {
            service.signal_and_wait();
            service.reload_and_wait();
        }
        reloads += usize::from(!text.starts_with('x'));
    }
    service.server.process.signal("-TERM");
    let (status, log) = service.server.process.wait();
    assert!(status.success());
    assert_eq!(log.matches("settings reloaded").count(), reloads, "{log}");
    assert_eq!(log.matches("reload failed").count(), 1, "{log}");
}

#[test]
fn each_reload_is_logged() {
    let service = Service::start("message = 'old'");
    for _ in 0..3 {
        service.reload_and_wait();
        wait_for_another_reload();
        service.signal_and_wait();
        wait_for_another_reload();
    }
    service.server.process.signal("-TERM");
    let (_, log) = service.server.process.wait();
    assert_eq!(log.matches("settings reloaded").count(), 6, "{log}");
}

/// The two signals are those of one `systemctl reload`, but what is loaded differs.
#[test]
fn second_signal_is_logged_if_the_settings_have_changed() {
    let service = Service::start("message = 'old'");
    service.write_settings("message = 'a'");
    service.reload_and_wait();
    service.write_settings("message = 'b'");
    service.signal_and_wait();
    assert_eq!(service.server.read(), "b\n");
    let log = service.server.stop();
    assert_eq!(log.matches("settings reloaded").count(), 2, "{log}");
}

#[test]
fn each_failed_reload_is_logged() {
    let service = Service::start("message = 'old'");
    service.write_settings("x = 1");
    for _ in 0..2 {
        service.reload_and_wait();
        wait_for_another_reload();
    }
    let log = service.server.stop();
    assert_eq!(log.matches("reload failed").count(), 2, "{log}");
}

#[test]
fn reload_of_a_process_that_does_not_exist_fails() {
    // Larger than any process ID (proc(5), /proc/sys/kernel/pid_max).
    let output = reload("2147483647", "/dev/null");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "greeter: cannot signal process '2147483647': no such process\n"
    );
    assert_eq!(reload("0", "/dev/null").status.code(), Some(2));
}

#[test]
fn reload_does_not_end_a_process_that_is_not_greeter() {
    let mut other = Command::new("sleep").arg("600").spawn().unwrap();
    let output = reload(&other.id().to_string(), "/dev/null");
    let ended = other.try_wait();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(ended.unwrap().is_none(), "it was ended");
    assert_eq!(output.status.code(), Some(1));
    let expected = "it does not handle SIGHUP, so it is not a greeter service\n";
    assert!(stderr(&output).ends_with(expected), "{}", stderr(&output));
}

/// In the journal, where the errors of `ExecReload=` stand beside those of the service.
#[test]
fn reload_in_the_journal_reports_only_what_the_service_does_not() {
    let service = Service::start("message = 'old'");
    service.write_settings("x = 1");
    let logged = |pid: &str| {
        let path = service.directory.path("journal");
        let journal = File::create(&path).unwrap();
        let metadata = journal.metadata().unwrap();
        let status = Command::new(GREETER)
            .args(["--reload", pid, "--config", &service.settings])
            .env(
                "JOURNAL_STREAM",
                format!("{}:{}", metadata.dev(), metadata.ino()),
            )
            .stderr(journal)
            .status()
            .unwrap();
        (status.code(), fs::read_to_string(path).unwrap())
    };
    let pid = service.server.process.pid().to_string();
    assert_eq!(logged(&pid), (Some(78), String::new()));
    let (status, text) = logged("2147483647");
    assert_eq!(status, Some(1));
    assert!(text.contains("cannot signal process"), "{text}");
}

#[test]
fn quiet_check_prints_only_errors() {
    let directory = TempDir::new();
    let valid = directory.write("valid.toml", "message = 'x'");
    let invalid = directory.write("invalid.toml", "x = 1");
    let check = |settings: &str| {
        Command::new(GREETER)
            .args(["--check", "--quiet", "--config", settings])
            .output()
            .unwrap()
    };
    let output = check(&valid);
    assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""));
    assert!(output.stdout.is_empty());
    let output = check(&invalid);
    assert_eq!(output.status.code(), Some(78));
    assert!(stderr(&output).contains("unknown key 'x'"));
    assert!(output.stdout.is_empty());
}
