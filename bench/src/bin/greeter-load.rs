//! `greeter-load`: generates load with many clients, each of which reads until EOF
//! and compares every byte.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use greeter_bench::load::{self, Plan};
use greeter_bench::report::Report;
use greeter_bench::target::Target;

/// Connects to ADDR, reads each connection until EOF, and reports the outcomes.
///
/// Exits with 0 if every client received exactly the greeting (with --hold: was
/// connected), with 1 if one did not, with 2 if the load could not run.
#[derive(Parser)]
#[command(version)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
struct Arguments {
    /// IP:PORT, [IPV6]:PORT or /path; several are used in turn
    #[arg(required = true, value_name = "ADDR")]
    targets: Vec<Target>,
    /// Number of clients in total [default: 1, or unlimited with --for]
    #[arg(long, value_name = "N")]
    clients: Option<u64>,
    /// Maximum number of concurrent clients
    #[arg(long, value_name = "N", default_value_t = 64)]
    at_once: usize,
    /// Send this number of bytes on each connection before reading
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    talk: usize,
    /// Connect, then neither read nor close until SIGTERM or the end of --for
    #[arg(long)]
    hold: bool,
    /// Connect, and close after this time without having read
    #[arg(long, value_name = "SECONDS", value_parser = seconds_or_zero)]
    abandon: Option<Duration>,
    /// Connect from IP; several are used in turn
    #[arg(long, value_name = "IP")]
    source: Vec<IpAddr>,
    /// Send this text first; escapes as in --expect
    #[arg(long, value_name = "TEXT", value_parser = unescape, conflicts_with = "talk")]
    send: Option<Text>,
    /// The expected greeting; escapes are \n \r \t \0 \\ and \xHH, nothing is added
    #[arg(long, value_name = "TEXT", value_parser = unescape)]
    expect: Option<Text>,
    /// A file that contains the expected greeting
    #[arg(long, value_name = "FILE", conflicts_with = "expect")]
    expect_file: Option<PathBuf>,
    /// Maximum number of new clients per second
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// Start clients for this time (SIGTERM ends it early)
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,
    /// Timeout of each client
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "30")]
    timeout: Duration,
    /// Retry refused connections until the client's timeout
    #[arg(long)]
    retry_refused: bool,
    /// EOF without a byte is not a failure
    #[arg(long)]
    allow_empty: bool,
    /// A reset is not a failure
    #[arg(long)]
    allow_reset: bool,
    /// Print the report as one line of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone)]
struct Text(Vec<u8>);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(report) if is_success(&report, &arguments) => ExitCode::SUCCESS,
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
    let report = load::run(&plan, &stop, |count| println!("holding {count}"))?;
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
            std::fs::read(path)
                .map_err(|error| format!("cannot read '{}': {error}", path.display()))?,
        ),
        (None, None) => None,
    };
    let is_unlimited = arguments.duration.is_some() && !arguments.hold;
    let talk = b"GET / HTTP/1.0\r\n\r\n"
        .iter()
        .copied()
        .cycle()
        .take(arguments.talk);
    let default_clients = if is_unlimited { None } else { Some(1) };
    Ok(Plan {
        targets: arguments.targets.clone(),
        clients: arguments.clients.or(default_clients),
        concurrency: arguments.at_once.max(1),
        request: match &arguments.send {
            Some(Text(text)) => text.clone(),
            None => talk.collect(),
        },
        hold: arguments.hold || arguments.abandon.is_some(),
        abandon: arguments.abandon,
        sources: arguments.source.clone(),
        expected,
        rate: arguments.rate,
        duration: arguments.duration,
        timeout: arguments.timeout,
        retry_refused: arguments.retry_refused,
    })
}

fn is_success(report: &Report, arguments: &Arguments) -> bool {
    let mut successful = report.greeted + report.held;
    if arguments.allow_empty {
        successful += report.empty;
    }
    if arguments.allow_reset {
        successful += report.reset_before + report.reset_after;
    }
    successful == report.started && successful > 0
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("expected a positive number".to_owned()),
    }
}

fn seconds_or_zero(text: &str) -> Result<Duration, String> {
    match text {
        "0" => Ok(Duration::ZERO),
        _ => seconds(text),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    Duration::try_from_secs_f64(positive(text)?).map_err(|error| error.to_string())
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
            Some(b'x') => match (hex_digit(rest.next()), hex_digit(rest.next())) {
                (Some(high), Some(low)) => high * 16 + low,
                _ => return Err("expected two hexadecimal digits after \\x".to_owned()),
            },
            _ => return Err("unknown escape; expected \\n \\r \\t \\0 \\\\ or \\xHH".to_owned()),
        });
    }
    Ok(Text(bytes))
}

fn hex_digit(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}
