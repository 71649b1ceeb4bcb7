//! What a machine permits: `tools/permits`, which finds it out, the steps that `tools/check`
//! skips because of it, and what replaces a missing program.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use support::{GREETER, MODES, TempDir, activate_by, example, free_port, read_tcp};

/// A command of the source tree.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    // These decide what a skipped step means.
    command.env_remove("CI").env_remove("REQUIRE");
    command
}

/// A command that may not mount, as in a container without privileges.
fn without_privileges(program: &str) -> Command {
    let mut restricted = command("setpriv");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        restricted.args(["--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]);
    } else {
        // With it sudo does not work.
        restricted.arg("--no-new-privs");
    }
    restricted.arg(program);
    // Set if `make check` runs this test; another make would print its directory.
    restricted.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    restricted
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn what_is_permitted_is_not_listed() {
    let output = command("tools/permits")
        .args(["packages:rust", "crates:."])
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn what_is_forbidden_is_listed_with_what_would_provide_it() {
    let output = without_privileges("tools/permits")
        .args(["packages:rust", "containers", "image:tools/lint-scripts"])
        .output()
        .unwrap();
    let stdout = stdout(&output);
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(lines.len(), 2, "{stdout}");
    for (line, need) in lines.iter().zip(["containers", "image:tools/lint-scripts"]) {
        let (name, reason) = line.split_once('\t').unwrap();
        assert_eq!(name, need);
        let remedies = ["docker run --privileged", "run it as root"];
        assert!(
            remedies.iter().any(|remedy| reason.contains(remedy)),
            "{reason}"
        );
    }
}

#[test]
fn tracing_needs_strace() {
    let directory = TempDir::new();
    let path = std::env::var_os("PATH").unwrap();
    for program in std::env::split_paths(&path).flat_map(|path| fs::read_dir(path).into_iter()) {
        for program in program.flatten() {
            // The first one of a name counts, as in PATH.
            let _ = symlink(
                program.path(),
                directory.path(program.file_name().to_str().unwrap()),
            );
        }
    }
    let _ = fs::remove_file(directory.path("strace"));
    let output = command("bash")
        .args(["tools/permits", "ptrace"])
        .env("PATH", directory.path(""))
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "ptrace\tstrace is missing; install it\n");
    assert_eq!(output.status.code(), Some(1));
}

/// The closing line of a run of two steps, one of which is not permitted, and its status.
fn closing_line(mut command: Command) -> (String, Option<i32>) {
    let output = command.output().unwrap();
    let stdout = stdout(&output);
    let step = "skipped          scripts: shellcheck: ";
    assert!(
        stdout.lines().any(|line| line.starts_with(step)),
        "{stdout}"
    );
    (
        stdout.lines().last().unwrap().to_owned(),
        output.status.code(),
    )
}

#[test]
fn skipped_step_is_a_failure_only_where_all_are_required() {
    for (variable, status) in [
        (None, 0),
        (Some(("CI", "true")), 1),
        (Some(("REQUIRE", "all")), 1),
        (Some(("REQUIRE", "")), 0),
    ] {
        let mut command = without_privileges("tools/check");
        command.args(["format", "scripts"]).envs(variable);
        assert_eq!(
            closing_line(command),
            ("1 passed, 0 failed, 1 skipped".to_owned(), Some(status)),
            "{variable:?}"
        );
    }
}

#[test]
fn continuous_integration_fails_if_a_step_is_skipped() {
    let mut command = without_privileges(".ci/run");
    command.env("STEPS", "format scripts");
    let (line, status) = closing_line(command);
    assert_eq!(line, "1 passed, 0 failed, 1 skipped");
    // That of make.
    assert_eq!(status, Some(2));
}

/// Where `systemd-socket-activate` is missing, an example passes sockets in the same ways.
#[test]
fn example_activates_every_mode() {
    for (options, greeting) in MODES {
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let activator = example("activate");
        let process = activate_by(&activator, options, &listen, &[GREETER]);
        for _ in 0..10 {
            let received = read_tcp(port, &[b'x'; 20_000])
                .unwrap_or_else(|error| panic!("{options:?}: {error}\n{}", process.stderr()));
            assert_eq!(String::from_utf8_lossy(&received), greeting);
        }
    }
}

#[test]
fn progress_is_reported_within_ten_seconds() {
    let output = command("tools/progress")
        .args(["sleeping", "sh", "-c", "sleep 11; echo done; exit 3"])
        .env_remove("PROGRESS")
        .output()
        .unwrap();
    assert_eq!(stdout(&output), "done\n");
    // The script counts whole seconds, of which the first can be short.
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        ["9 s", "10 s"]
            .map(|time| format!("sleeping\nsleeping ... {time}\n"))
            .contains(&stderr),
        "{stderr}"
    );
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn progress_can_be_off() {
    let directory = TempDir::new();
    let log = directory.path("log");
    let output = command("tools/progress")
        .arg("--log")
        .arg(&log)
        .args(["sleeping", "sh", "-c", "echo text; echo error >&2"])
        .env("PROGRESS", "off")
        .output()
        .unwrap();
    assert_eq!(
        (stdout(&output).as_str(), output.stderr.len()),
        ("text\n", 0)
    );
    assert_eq!(fs::read_to_string(Path::new(&log)).unwrap(), "error\n");
}
