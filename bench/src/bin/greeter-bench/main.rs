//! `greeter-bench`: measures greeter beside other servers, in alternating rounds of
//! one run.
//!
//! `bench/run` starts it in new namespaces: its ports are free, there is no other
//! traffic, and every process ends with it.

mod cpu;
mod memory;
mod packet_loss;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::Parser;
use greeter_bench::load::{Plan, raise_descriptor_limit};
use greeter_bench::server::{GREETING, Programs};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Measures greeter beside nginx and C programs.
///
/// Without --cpu, --memory and --loss it measures all three. Exits with 1 if greeter
/// lost or reset a greeting.
#[derive(Parser)]
#[expect(clippy::struct_excessive_bools, reason = "one for each flag")]
struct Arguments {
    /// CPU per greeting, throughput and latency
    #[arg(long)]
    cpu: bool,
    /// Memory, idle and with clients that neither read nor close
    #[arg(long)]
    memory: bool,
    /// Lost greetings if one packet in ten is lost
    #[arg(long)]
    loss: bool,
    /// Fewer rounds and clients, for a first impression
    #[arg(long)]
    quick: bool,
    /// Rounds of the CPU measurement
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Clients per round
    #[arg(long, value_name = "N")]
    clients: Option<u64>,
    /// Concurrent clients
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

/// Runs the selected measurements; returns the number of greetings that greeter lost
/// or reset.
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
    let congestion_control = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control")?;
    println!(
        "TCP congestion control: {}; greeter logs to {}.",
        congestion_control.trim_end(),
        if programs.journal {
            "journald, as in production"
        } else {
            "a file, as journald cannot be started"
        }
    );
    let mut lost = 0;
    if all || arguments.cpu {
        let size = cpu::Size {
            rounds: arguments.rounds.unwrap_or(if quick { 3 } else { 9 }),
            clients: arguments
                .clients
                .unwrap_or(if quick { 5_000 } else { 20_000 }),
            concurrency: arguments.at_once,
        };
        lost += cpu::run(&programs, &size)?;
    }
    if all || arguments.memory {
        memory::run(&programs, if quick { &[1_000] } else { &[1_000, 10_000] })?;
    }
    if all || arguments.loss {
        lost += packet_loss::run(&programs, if quick { 500 } else { 2_000 })?;
    }
    Ok(lost)
}

/// Silent clients that expect the greeting on a port, without a limit on their number.
fn base_plan(port: u16) -> Result<Plan, String> {
    Ok(Plan {
        targets: vec![format!("127.0.0.1:{port}").parse()?],
        clients: None,
        concurrency: 64,
        request: Vec::new(),
        hold: false,
        abandon: None,
        sources: Vec::new(),
        expected: Some(GREETING.as_bytes().to_vec()),
        rate: None,
        duration: None,
        timeout: Duration::from_secs(30),
        retry_refused: false,
    })
}

/// Performs an action, such as starting a server, on the CPU for servers, which is the
/// first one. Afterwards this thread stays on the CPU for clients, the last one, so
/// that servers and clients do not compete.
fn on_server_cpu<T>(action: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    static USABLE: OnceLock<CpuSet> = OnceLock::new();
    let usable = if let Some(usable) = USABLE.get() {
        usable
    } else {
        let usable = sched_getaffinity(None)?;
        USABLE.get_or_init(|| usable)
    };
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| usable.is_set(*cpu));
    let server_cpu = cpus.next().unwrap_or(0);
    let client_cpu = cpus.next_back().unwrap_or(server_cpu);
    pin(server_cpu)?;
    let result = action();
    pin(client_cpu)?;
    result
}

/// Restricts this thread, and the processes that it starts from now on, to one CPU.
fn pin(cpu: usize) -> std::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}
