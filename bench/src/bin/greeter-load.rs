//! `greeter-load`: clients by the thousand, each read to its end and compared
//! byte for byte.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use greeter_bench::load::{self, Plan};
use greeter_bench::report::Report;
use greeter_bench::target::Target;

/// Connects to ADDR, reads each connection to its end, and says what came.
///
/// Exits with 0 where every client was greeted exactly (with --hold: was
/// connected), with 1 where one was not, with 2 where the load could not run.
#[derive(Parser)]
#[command(version)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
struct Arguments {
    /// IP:PORT, [v6]:PORT or /unix/path; several are visited in turn
    #[arg(required = true, value_name = "ADDR")]
    targets: Vec<Target>,
    /// How many clients in all [default: 1, or no end with --for]
    #[arg(long, value_name = "N")]
    clients: Option<u64>,
    /// How many of them at once
    #[arg(long, value_name = "C", default_value_t = 64)]
    at_once: usize,
    /// Each client sends so many bytes before it reads
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    talk: usize,
    /// Connect, never read, never close, until SIGTERM or the end of --for
    #[arg(long)]
    hold: bool,
    /// The greeting; \n \r \t \0 \\ and \xHH are understood, nothing is added
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    expect: Option<Text>,
    /// A file that holds the greeting
    #[arg(long, value_name = "F", conflicts_with = "expect")]
    expect_file: Option<PathBuf>,
    /// Start at most so many clients a second
    #[arg(long, value_name = "R", value_parser = positive)]
    rate: Option<f64>,
    /// Start clients for so long (SIGTERM ends it early)
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    lasting: Option<Duration>,
    /// The time that one client has
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    timeout: Duration,
    /// Who is refused tries again until its time is over
    #[arg(long)]
    retry_refused: bool,
    /// A clean end without a byte is no failure
    #[arg(long)]
    allow_empty: bool,
    /// A reset is no failure
    #[arg(long)]
    allow_reset: bool,
    /// Report as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct Text(Vec<u8>);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) if is_good(&report, &arguments) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("greeter-load: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<Report, Box<dyn std::error::Error>> {
    load::raise_descriptor_limit()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let plan = plan(arguments)?;
    let report = load::run(&plan, &stop, |n| println!("holding {n}"))?;
    if arguments.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(report)
}

fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let expected = match (&arguments.expect, &arguments.expect_file) {
        (Some(Text(text)), _) => Some(text.clone()),
        (None, Some(path)) => Some(
            std::fs::read(path).map_err(|e| format!("cannot read '{}': {e}", path.display()))?,
        ),
        (None, None) => None,
    };
    let unlimited = arguments.lasting.is_some() && !arguments.hold;
    Ok(Plan {
        targets: arguments.targets.clone(),
        clients: arguments.clients.or((!unlimited).then_some(1)),
        at_once: arguments.at_once.max(1),
        speech: b"GET / HTTP/1.0\r\n\r\n"
            .iter()
            .copied()
            .cycle()
            .take(arguments.talk)
            .collect(),
        hold: arguments.hold,
        expected,
        rate: arguments.rate,
        lasting: arguments.lasting,
        timeout: arguments.timeout,
        retry_refused: arguments.retry_refused,
    })
}

fn is_good(report: &Report, arguments: &Arguments) -> bool {
    let mut good = report.greeted + report.held;
    if arguments.allow_empty {
        good += report.empty;
    }
    if arguments.allow_reset {
        good += report.reset_before + report.reset_after;
    }
    good == report.started && good > 0
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("not a positive number".to_owned()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(positive(text)?).map_err(|e| e.to_string())
}

fn unescape(text: &str) -> Result<Text, String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        bytes.push(match rest.next() {
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => hex(rest.next()).zip(hex(rest.next())).map_or_else(
                || Err("\\x wants two hexadecimal digits".to_owned()),
                |(high, low)| Ok(high * 16 + low),
            )?,
            _ => return Err("unknown escape: \\n \\r \\t \\0 \\\\ \\xHH are known".to_owned()),
        });
    }
    Ok(Text(bytes))
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}
