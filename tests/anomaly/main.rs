//! Fault injection: one error at one system call of greeter, in each mode.
//!
//! `cargo test --test anomaly -- [--quick | --full] [--greeter PATH] [WORD...]`
//!
//! A run without an injection lists the system calls of a scenario. Then each of them
//! is made to fail, one a run, with each error that it can return: the first and the
//! last calls of each kind with `--full`, a sample of at most a minute with `--quick`,
//! which is the default. Every run must lead to what greeter promises (`outcome`), or
//! to what the error may lead to (`allowed`). Words select the injections whose names,
//! such as `accept/main/sendto#6/ENOBUFS`, contain all of them.
//!
//! strace(1) injects the errors; where ptrace(2) is forbidden, the program fails.

mod allowed;
mod client;
mod inject;
mod manager;
mod outcome;
mod program;
mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use allowed::ALLOWED;
use inject::{Call, Injection, Trace};
use outcome::{Baseline, Deviation, deviations};
use scenario::Scenario;

/// How many runs take place at the same time.
const PARALLEL_RUNS: usize = 2;
/// The sample of `--quick`: one of so many injections, for at most so long.
const QUICK_SHARE: usize = 5;
const QUICK_TIME: Duration = Duration::from_secs(50);

fn main() -> ExitCode {
    let arguments = match Arguments::parse(env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}; see tests/anomaly/main.rs");
            return ExitCode::from(2);
        }
    };
    if let Err(error) = check_ptrace() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
    let begun = Instant::now();
    let mut summary = Summary::default();
    let cases = list_cases(&arguments, &mut summary);
    run_cases(&cases, &arguments, begun, &mut summary);
    summary.print(&arguments, begun.elapsed());
    if summary.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The command line.
struct Arguments {
    is_full: bool,
    greeter: PathBuf,
    words: Vec<String>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            is_full: false,
            greeter: env!("CARGO_BIN_EXE_greeter").into(),
            words: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => parsed.is_full = false,
                "--full" => parsed.is_full = true,
                "--greeter" => {
                    let path = arguments.next().ok_or("--greeter needs a path")?;
                    parsed.greeter =
                        std::path::absolute(path).map_err(|error| error.to_string())?;
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option}"));
                }
                word => parsed.words.push(word.to_owned()),
            }
        }
        Ok(parsed)
    }
}

/// Whether strace(1) works here.
fn check_ptrace() -> Result<(), String> {
    let traced = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run strace: {error}; install it"))?;
    if traced.status.success() {
        return Ok(());
    }
    let reason = String::from_utf8_lossy(&traced.stderr);
    Err(format!(
        "no fault can be injected: ptrace(2) is forbidden here ({})",
        reason.trim()
    ))
}

/// One injection in one scenario.
struct Case<'a> {
    scenario: Scenario,
    injection: Injection,
    baseline: &'a Baseline,
}

impl Case<'_> {
    fn name(&self) -> String {
        format!("{}/{}", self.scenario.name(), self.injection)
    }
}

/// Runs each scenario without an injection and lists the injections.
fn list_cases(arguments: &Arguments, summary: &mut Summary) -> Vec<Case<'static>> {
    let mut cases = Vec::new();
    for scenario in Scenario::ALL {
        let run = scenario.run(&arguments.greeter, &Trace::List);
        let baseline: &'static Baseline = Box::leak(Box::new(Baseline::new(&run)));
        for deviation in deviations(scenario, &run, baseline) {
            let name = scenario.name();
            summary.fail(&format!("{name} without an injection: {deviation}"));
        }
        let calls = inject::parse_list(&run.log);
        match inject::injections(inject::without_startup(&calls)) {
            Ok(injections) if injections.is_empty() => {
                summary.fail(&format!("{}: no system call was seen", scenario.name()));
            }
            Ok(injections) => cases.extend(injections.into_iter().map(|injection| Case {
                scenario,
                injection,
                baseline,
            })),
            Err(call) => summary.fail(&format!(
                "{}: the errors of {call}(2) are not listed in tests/anomaly/inject.rs",
                scenario.name()
            )),
        }
    }
    cases.retain(|case| {
        let name = case.name();
        arguments.words.iter().all(|word| name.contains(word))
    });
    if !arguments.is_full {
        sample(&mut cases, arguments.words.is_empty());
    }
    cases
}

/// Orders the injections so that any first part of them is spread over all, and keeps
/// the sample of `--quick`.
fn sample(cases: &mut Vec<Case<'_>>, is_reduced: bool) {
    let mut keyed: Vec<(u32, Case<'_>)> = Vec::new();
    for (number, case) in cases.drain(..).enumerate() {
        // Multiples of the golden ratio are spread evenly.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        keyed.push((number.wrapping_mul(2_654_435_769), case));
    }
    keyed.sort_by_key(|(key, _)| *key);
    if is_reduced {
        keyed.truncate(keyed.len() / QUICK_SHARE);
    }
    cases.extend(keyed.into_iter().map(|(_, case)| case));
}

fn run_cases(cases: &[Case<'_>], arguments: &Arguments, begun: Instant, summary: &mut Summary) {
    let next = Mutex::new(cases.iter());
    let summary = Mutex::new(summary);
    thread::scope(|scope| {
        for _ in 0..PARALLEL_RUNS {
            scope.spawn(|| {
                loop {
                    let Some(case) = next.lock().unwrap().next() else {
                        break;
                    };
                    if !arguments.is_full && begun.elapsed() > QUICK_TIME {
                        summary.lock().unwrap().skipped += 1;
                        continue;
                    }
                    let result = run_case(case, arguments);
                    summary.lock().unwrap().add(case, result);
                }
            });
        }
    });
}

/// What an injection has led to.
struct CaseResult {
    /// The call that failed, if the run has reached it.
    call: Option<Call>,
    /// What differs and is not allowed.
    deviations: Vec<Deviation>,
    /// The rows of the table that were needed.
    rows: Vec<usize>,
}

fn run_case(case: &Case<'_>, arguments: &Arguments) -> CaseResult {
    let trace = Trace::Inject(&case.injection);
    let run = case.scenario.run(&arguments.greeter, &trace);
    let call = inject::parse_injected(&run.log, &case.injection);
    let mut rows = Vec::new();
    let mut result = deviations(case.scenario, &run, case.baseline);
    if call
        .as_ref()
        .is_some_and(|call| !inject::is_plausible(call, case.injection.error))
    {
        return CaseResult {
            call: None,
            deviations: Vec::new(),
            rows,
        };
    }
    if let Some(call) = &call {
        result.retain(|deviation| {
            let row = ALLOWED.iter().position(|row| {
                row.matches(case.scenario, call, case.injection.error)
                    && row.outcomes.contains(&deviation.outcome)
            });
            rows.extend(row);
            row.is_none()
        });
    }
    CaseResult {
        call,
        deviations: result,
        rows,
    }
}

/// The counts, and what failed.
#[derive(Default)]
struct Summary {
    passed: usize,
    failed: usize,
    /// Injections whose call was not reached.
    unreached: usize,
    /// Injections for which `--quick` had no time.
    skipped: usize,
    used_rows: BTreeSet<usize>,
    /// The failed injections by kind: how many there are, and one of them.
    groups: BTreeMap<String, (usize, String)>,
}

impl Summary {
    fn fail(&mut self, text: &str) {
        println!("FAILED {text}");
        self.failed += 1;
    }

    fn add(&mut self, case: &Case<'_>, result: CaseResult) {
        self.used_rows.extend(result.rows);
        if result.call.is_none() {
            self.unreached += 1;
        }
        if result.deviations.is_empty() {
            self.passed += 1;
            return;
        }
        let name = case.name();
        let (target, text) = match &result.call {
            Some(call) => (format!("{:?}", call.target), call.text.as_str()),
            None => ("not reached".to_owned(), "no call was made to fail"),
        };
        let outcomes: BTreeSet<String> = result
            .deviations
            .iter()
            .map(|deviation| format!("{:?}", deviation.outcome))
            .collect();
        let outcomes: Vec<String> = outcomes.into_iter().collect();
        let injection = &case.injection;
        let group = format!(
            "{} {} of {target}, {}: {}",
            case.scenario.name(),
            injection.call,
            injection.error,
            outcomes.join(" ")
        );
        self.groups.entry(group).or_insert((0, name.clone())).0 += 1;
        let details: Vec<String> = result.deviations.iter().map(ToString::to_string).collect();
        self.fail(&format!("{name}: {}\n    {text}", details.join(", ")));
    }

    fn print(&self, arguments: &Arguments, elapsed: Duration) {
        if !self.groups.is_empty() {
            println!("\nBy kind, each with its number and the name of one:");
        }
        for (group, (count, name)) in &self.groups {
            println!("{count:4}  {group}  ({name})");
        }
        if arguments.is_full && arguments.words.is_empty() {
            for (number, row) in ALLOWED.iter().enumerate() {
                if !self.used_rows.contains(&number) {
                    println!(
                        "not needed: {} of {:?} ({})",
                        row.call, row.target, row.promise
                    );
                }
            }
        }
        println!(
            "\n{} injections, {} of them not reached, {} skipped, {} s",
            self.passed + self.failed,
            self.unreached,
            self.skipped,
            elapsed.as_secs()
        );
        println!("{} passed, {} failed", self.passed, self.failed);
    }
}
