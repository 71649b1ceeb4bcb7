//! The programs of docs/tutorial.md under `systemd-socket-activate`, as the tutorial
//! runs them, and the names and code blocks of the tutorial against the files.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;

use support::{Process, TempDir, activate_by, activator, example, free_port, read_tcp};

/// The options of `systemd-socket-activate` for each program, and its greeting.
const EXAMPLES: [(&str, &[&str], &str); 3] = [
    ("accept", &[], "This is a test\n"),
    ("accepted", &["-a"], "This socket was already accepted\n"),
    (
        "inet",
        &["-a", "--inetd"],
        "This socket was passed on stdin/stdout\n",
    ),
];

const THREADS: usize = 8;
const CLIENTS_PER_THREAD: usize = 125;

/// Starts an example on a free port, without a journal.
fn activate_example(options: &[&str], name: &str) -> (Process, u16) {
    let port = free_port();
    let address = format!("127.0.0.1:{port}");
    let process = activate_by(&activator(), options, &address, &[&example(name)]);
    (process, port)
}

#[test]
fn examples_greet_a_thousand_clients_each() {
    for (name, options, greeting) in EXAMPLES {
        let (process, port) = activate_example(options, name);
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                thread::spawn(move || {
                    (0..CLIENTS_PER_THREAD)
                        .filter(|_| read_tcp(port, b"").unwrap() == greeting.as_bytes())
                        .count()
                })
            })
            .collect();
        let greeted: usize = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .sum();
        let stderr = process.stderr();
        assert_eq!(greeted, THREADS * CLIENTS_PER_THREAD, "{name}: {stderr}");
    }
}

#[test]
fn examples_refuse_sockets_of_another_kind() {
    for (name, options, expected) in [
        ("accept", &["-a"][..], "does not listen"),
        ("accepted", &[], "NotConnected"),
        ("accept", &["-d"], "not a TCP socket"),
        ("accepted", &["-d"], "not a TCP socket"),
    ] {
        let port = free_port();
        let path = std::env::temp_dir().join(format!("greeter-tutorial-{port}"));
        let address = if options == ["-d"] {
            path.to_str().unwrap().to_owned()
        } else {
            format!("127.0.0.1:{port}")
        };
        let process = activate_by(&activator(), options, &address, &[&example(name)]);
        if options == ["-d"] {
            let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
            socket.send_to(b"x", &path).unwrap();
            fs::remove_file(&path).unwrap();
        } else {
            // The client is reset, or receives EOF.
            let _ = read_tcp(port, b"");
        }
        process.expect_stderr(expected);
    }
}

#[test]
fn examples_without_a_socket_exit_with_a_reason() {
    let no_socket = [
        "expected one socket from systemd",
        // What libsystemd itself returned before 0.6.
        "failed to get LISTEN_PID",
    ];
    for (name, expected) in [
        ("accept", &no_socket[..]),
        ("accepted", &no_socket),
        ("inet", &["Socket operation on non-socket"]),
    ] {
        let output = Command::new(example(name)).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {stderr}");
        let has_reason = expected.iter().any(|reason| stderr.contains(reason));
        assert!(has_reason, "{name}: {stderr}");
    }
}

const TUTORIAL: &str = "docs/tutorial.md";

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn code_blocks_are_the_example_files() {
    let tutorial = read(TUTORIAL);
    for (name, _, _) in EXAMPLES {
        let path = format!("examples/{name}.rs");
        let block = format!("\n`{path}`:\n```rust\n{}```\n", read(&path));
        assert!(
            tutorial.contains(&block),
            "{TUTORIAL} does not contain {path} as it is"
        );
    }
    assert_eq!(tutorial.matches("\n```rust\n").count(), EXAMPLES.len());
}

#[test]
fn examples_fit_on_a_page() {
    for (name, _, _) in EXAMPLES {
        let lines = read(&format!("examples/{name}.rs")).lines().count();
        assert!(lines <= 50, "examples/{name}.rs has {lines} lines");
    }
}

/// The text outside of code blocks, as one line.
fn prose(tutorial: &str) -> String {
    let parts = tutorial.split("\n```").step_by(2);
    // The first line of every part but the first one ends the fence.
    let text: String = parts.map(|part| format!("{part}\n")).collect();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn is_path(word: &str) -> bool {
    const DIRECTORIES: [&str; 9] = [
        "bench/",
        "debian/",
        "docs/",
        "examples/",
        "rpm/",
        "src/",
        "systemd/",
        "tests/",
        "tools/",
    ];
    let is_plain = word
        .chars()
        .all(|c| c.is_alphanumeric() || "/._-@".contains(c));
    is_plain && DIRECTORIES.iter().any(|prefix| word.starts_with(prefix))
}

/// Whether a file has this function, constant, type, line or title.
fn has_item(text: &str, path: &str, item: &str) -> bool {
    if path.ends_with(".rs") {
        ["fn", "const", "enum", "struct"].iter().any(|keyword| {
            ["(", "<", ":", " "]
                .iter()
                .any(|end| text.contains(&format!("{keyword} {item}{end}")))
        })
    } else if path.ends_with(".sh") {
        text.lines()
            .any(|line| line.starts_with("check \"") && line.contains(item))
    } else {
        text.lines()
            .any(|line| line == item || line.starts_with(&format!("{item}:")))
    }
}

/// Every path in backquotes exists. What follows in parentheses, also in backquotes, is
/// in the file: `src/a.rs` (`f`, `g`).
#[test]
fn references_of_the_tutorial_exist() {
    let prose = prose(&read(TUTORIAL));
    let parts: Vec<&str> = prose.split('`').collect();
    let (mut files, mut items) = (0, 0);
    // The file whose items are listed, and whether its list has begun.
    let mut list: Option<(&str, bool)> = None;
    for index in (1..parts.len()).step_by(2) {
        let (before, part) = (parts[index - 1], parts[index]);
        if is_path(part) {
            let exists = Path::new(env!("CARGO_MANIFEST_DIR")).join(part).exists();
            assert!(exists, "{TUTORIAL} names '{part}', which does not exist");
            files += 1;
            list = Some((part, false));
            continue;
        }
        list = match (list, before) {
            (Some((path, false)), " (") | (Some((path, true)), ", ") => {
                assert!(
                    has_item(&read(path), path, part),
                    "{TUTORIAL}: '{path}' has no '{part}'"
                );
                items += 1;
                Some((path, true))
            }
            _ => None,
        };
    }
    assert!(
        files > 60 && items > 60,
        "only {files} files and {items} items were understood"
    );
}

/// The commands of "Make it your own" up to the build, in a copy of the source code.
#[test]
fn own_service_is_valid_after_the_steps_of_the_tutorial() {
    let tutorial = read(TUTORIAL);
    let (_, page) = tutorial.split_once("\n## Make it your own\n").unwrap();
    let script: String = page
        .split("\n```sh\n")
        .skip(1)
        .map(|rest| rest.split("\n```").next().unwrap())
        .filter(|block| !block.contains("tools/build-deb\n"))
        .map(|block| format!("{block}\n"))
        .collect();
    let directory = TempDir::new();
    let source = directory.path("greeter");
    fs::create_dir_all(&source).unwrap();
    let run = |command: &str| {
        let output = Command::new("bash")
            .args(["-euc", command])
            .current_dir(&source)
            .env("SOURCE", env!("CARGO_MANIFEST_DIR"))
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{command}: {stderr}");
    };
    run(
        "cp -r $SOURCE/{examples,systemd,tools,debian} . && cp $SOURCE/{Cargo.*,.gitattributes,.gitignore,LICENSE-*} .",
    );
    run(&script);
    run("cd ../hourly && ! grep -rI greeter . && make -s install DESTDIR=stage PROGRAM=/bin/true");
    let units = directory.path("hourly/stage/usr/local/lib/systemd/system");
    let service = fs::read_to_string(units.join("hourly.service")).unwrap();
    assert!(
        service.contains("\nExecStart=/usr/local/bin/hourly\n"),
        "{service}"
    );
    // The small program accepts from one socket.
    let socket = fs::read_to_string(units.join("hourly.socket")).unwrap();
    assert_eq!(
        socket.matches("\nListenStream=").count(),
        1,
        "hourly.socket"
    );
    let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/hourly");
    let cargo = env!("CARGO");
    run(&format!(
        "cd ../hourly && {cargo} check --quiet --offline --target-dir '{target}'"
    ));
}

/// The rows of the table of figures are those that the script measures, in its order.
#[test]
fn table_of_figures_has_the_rows_of_the_script() {
    let tutorial = read(TUTORIAL);
    let (_, section) = tutorial
        .split_once("\n### Both sides in figures\n")
        .unwrap();
    let rows: Vec<&str> = section
        .split("\n#")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .skip(1)
        .collect();
    let script = read("tests/container/test-tutorial.sh");
    let measured: Vec<&str> = script
        .lines()
        .filter_map(|line| line.trim().strip_prefix("figure \"")?.split('"').next())
        .collect();
    assert_eq!(rows, measured);
    assert!(rows.len() > 12, "{rows:?}");
}
