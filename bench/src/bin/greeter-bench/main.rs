//! `greeter-bench`: greeter beside its peers, in alternating rounds of one run.
//!
//! `bench/run` starts it in namespaces of its own, where the ports are free,
//! nobody else's traffic counts, and nothing outlives it.

mod held;
mod loss;
mod rounds;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use greeter_bench::load::raise_descriptor_limit;
use greeter_bench::peer::Programs;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Measures greeter beside nginx and C.
///
/// Without --cpu, --memory and --loss it does all three. Exits with 1 where
/// greeter lost or reset a greeting.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
struct Arguments {
    /// CPU per greeting, throughput, latency
    #[arg(long)]
    cpu: bool,
    /// Memory, idle and with clients that never read and never close
    #[arg(long)]
    memory: bool,
    /// What is lost where one packet in ten is
    #[arg(long)]
    loss: bool,
    /// Fewer of everything: figures for a first look
    #[arg(long)]
    quick: bool,
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Clients a round
    #[arg(long, value_name = "N")]
    clients: Option<u64>,
    #[arg(long, value_name = "N", default_value_t = 64)]
    at_once: usize,
    #[arg(long, hide = true)]
    greeter: PathBuf,
    #[arg(long, hide = true)]
    nginx: PathBuf,
    #[arg(long, hide = true)]
    nginx_module: PathBuf,
    #[arg(long, hide = true)]
    c: PathBuf,
    #[arg(long, hide = true)]
    scratch: PathBuf,
    #[arg(long, hide = true)]
    journal: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(lost) => {
            eprintln!("greeter lost or reset {lost} greetings");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("greeter-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs what was asked for and counts what greeter lost or reset.
fn run(arguments: Arguments) -> Result<u64, Box<dyn Error>> {
    raise_descriptor_limit()?;
    let all = !(arguments.cpu || arguments.memory || arguments.loss);
    let quick = arguments.quick;
    let programs = Programs {
        greeter: arguments.greeter,
        nginx: arguments.nginx,
        nginx_module: arguments.nginx_module,
        c: arguments.c,
        scratch: arguments.scratch,
        journal: arguments.journal,
    };
    println!(
        "greeter logs to {}.",
        if programs.journal {
            "a real journald, as in production"
        } else {
            "a file: there is no journald to start here"
        }
    );
    let mut lost = 0;
    if all || arguments.cpu {
        let size = rounds::Size {
            rounds: arguments.rounds.unwrap_or(if quick { 3 } else { 9 }),
            clients: arguments
                .clients
                .unwrap_or(if quick { 5_000 } else { 20_000 }),
            at_once: arguments.at_once,
        };
        lost += rounds::run(&programs, &size)?;
    }
    if all || arguments.memory {
        held::run(&programs, if quick { &[1_000] } else { &[1_000, 10_000] })?;
    }
    if all || arguments.loss {
        lost += loss::run(&programs, if quick { 500 } else { 2_000 })?;
    }
    Ok(lost)
}

/// Moves this thread, and what it starts from now on, to the first CPU for
/// servers or the last for clients, so that neither gets in the other's way.
fn pin(cpus: &CpuSet, server: bool) -> Result<(), rustix::io::Errno> {
    let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu));
    let chosen = if server {
        usable.next()
    } else {
        usable.next_back()
    };
    let mut set = CpuSet::new();
    set.set(chosen.unwrap_or(0));
    sched_setaffinity(None, &set)
}

/// Does something, such as starting a server, pinned to the servers' CPU, and
/// stays on the clients' from then on.
fn on_server_cpu<T>(what: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    static ALL: std::sync::OnceLock<CpuSet> = std::sync::OnceLock::new();
    let cpus = if let Some(cpus) = ALL.get() {
        cpus
    } else {
        let cpus = sched_getaffinity(None)?;
        ALL.get_or_init(|| cpus)
    };
    pin(cpus, true)?;
    let result = what();
    pin(cpus, false)?;
    result
}
