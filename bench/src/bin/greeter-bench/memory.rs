//! Memory of a server with clients that connect, then neither read nor close.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use greeter_bench::load::{self, Plan};
use greeter_bench::report::Latency;
use greeter_bench::server::{Capacity, Programs, Server, ServerKind};
use greeter_bench::usage::{self, Memory};

use crate::{base_plan, on_server_cpu};

/// Enough for all clients, and a timeout after the end of the measurement.
const CAPACITY: Capacity = Capacity {
    connections: 12_000,
    linger_timeout: "10min",
};

pub fn run(programs: &Programs, counts: &[u64]) -> Result<(), Box<dyn Error>> {
    println!(
        "\nMemory with clients that neither read nor close; KiB, and bytes per client above idle\n"
    );
    println!(
        "{:15} {:>7} {:>8} {:>8} {:>8} {:>9} {:>10} {:>21}",
        "", "clients", "open fds", "RSS", "PSS", "private", "per client", "others: p50 / p99 µs"
    );
    for kind in [ServerKind::Greeter, ServerKind::Nginx, ServerKind::CEpoll] {
        let server = on_server_cpu(|| Server::start(kind, programs, Some(CAPACITY)))?;
        let idle = settled_memory(&server)?;
        print_line(kind, 0, &server, idle, idle)?;
        let mut held = Vec::new();
        let mut previous = 0;
        for &count in counts {
            held.push(HeldClients::connect(kind, count - previous)?);
            previous = count;
            let memory = settled_memory(&server)?;
            print_line(kind, count, &server, idle, memory)?;
        }
    }
    println!(
        "\n(nginx closes at once, so clients that do not close cost it nothing; it allocates\nmemory for all permitted connections at startup.)"
    );
    Ok(())
}

fn print_line(
    kind: ServerKind,
    clients: u64,
    server: &Server,
    idle: Memory,
    memory: Memory,
) -> Result<(), Box<dyn Error>> {
    let others = measure_others(kind)?;
    let per_client = memory
        .private
        .saturating_sub(idle.private)
        .checked_div(clients);
    println!(
        "{kind:15} {clients:7} {:8} {:8} {:8} {:9} {:>10} {:>10} / {:<8}",
        usage::descriptors(server.pid())?,
        memory.rss / 1024,
        memory.pss / 1024,
        memory.private / 1024,
        per_client.map_or_else(String::new, |bytes| bytes.to_string()),
        others.p50,
        others.p99,
    );
    Ok(())
}

/// The memory after the server has accepted every client that it will accept.
fn settled_memory(server: &Server) -> Result<Memory, Box<dyn Error>> {
    let mut descriptors = usage::descriptors(server.pid())?;
    let mut changed_at = Instant::now();
    while changed_at.elapsed() < Duration::from_millis(300) {
        thread::sleep(Duration::from_millis(20));
        let now = usage::descriptors(server.pid())?;
        if now != descriptors {
            descriptors = now;
            changed_at = Instant::now();
        }
    }
    Ok(usage::memory(server.pid())?)
}

/// The latency of clients that read and close, besides the held ones.
fn measure_others(kind: ServerKind) -> Result<Latency, Box<dyn Error>> {
    let plan = Plan {
        clients: Some(1_000),
        rate: Some(2_000.0),
        ..base_plan(kind.port())?
    };
    let report = load::run(&plan, &AtomicBool::new(false), |_| ())?;
    if report.lost() > 0 {
        return Err(format!("{kind}, with held clients: {report}").into());
    }
    Ok(report.end)
}

/// Clients that a thread holds connected until this is dropped.
struct HeldClients {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl HeldClients {
    fn connect(kind: ServerKind, clients: u64) -> Result<Self, Box<dyn Error>> {
        let plan = Plan {
            clients: Some(clients),
            hold: true,
            ..base_plan(kind.port())?
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let report = load::run(&plan, &stop, |count| {
                    // An error is ignored: the receiver has timed out.
                    let _ = sender.send(count);
                });
                if let Err(error) = report {
                    eprintln!("greeter-bench: cannot hold {clients} clients: {error}");
                }
            }
        });
        let held = HeldClients {
            stop,
            thread: Some(thread),
        };
        match receiver.recv_timeout(Duration::from_secs(60)) {
            Ok(count) if count == clients => Ok(held),
            _ => Err(format!("{kind}: cannot hold {clients} clients").into()),
        }
    }
}

impl Drop for HeldClients {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // An error is ignored: a panic of the thread has been printed already.
            let _ = thread.join();
        }
    }
}
