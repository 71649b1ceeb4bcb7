//! Memory: what a server holds for clients that connect, never read and never
//! close.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use greeter_bench::load::{self, Plan};
use greeter_bench::peer::{GREETING, Peer, Programs, Room, Server};
use greeter_bench::report::Latency;
use greeter_bench::usage::{self, Memory};

use crate::on_server_cpu;

/// Enough for all clients, and long enough that nobody is let go meanwhile.
const ROOM: Room = Room {
    connections: 12_000,
    linger: Some("10min"),
};

pub fn run(programs: &Programs, counts: &[u64]) -> Result<(), Box<dyn Error>> {
    println!(
        "\nMemory, with clients that never read and never close; KiB, and bytes a client over idle\n"
    );
    println!(
        "{:15} {:>7} {:>8} {:>8} {:>8} {:>9} {:>9} {:>21}",
        "", "clients", "open", "RSS", "PSS", "private", "a client", "others: p50 / p99 µs"
    );
    for peer in [Peer::Greeter, Peer::Nginx, Peer::CEpoll] {
        let server = on_server_cpu(|| Server::start(peer, programs, Some(ROOM)))?;
        let idle = settled(&server)?;
        line(peer, 0, &server, idle, idle, &others(peer)?)?;
        let mut held = Vec::new();
        let mut before = 0;
        for &count in counts {
            held.push(Held::connect(peer, count - before)?);
            before = count;
            let memory = settled(&server)?;
            line(peer, count, &server, idle, memory, &others(peer)?)?;
        }
    }
    println!(
        "\n(nginx closes at once, so that clients who do not close cost it nothing; its memory\nfor all connections that it may have is taken at the start.)"
    );
    Ok(())
}

fn line(
    peer: Peer,
    clients: u64,
    server: &Server,
    idle: Memory,
    memory: Memory,
    others: &Latency,
) -> Result<(), Box<dyn Error>> {
    let each = memory
        .private
        .saturating_sub(idle.private)
        .checked_div(clients);
    println!(
        "{peer:15} {clients:7} {:8} {:8} {:8} {:9} {:>9} {:>10} / {:<8}",
        usage::descriptors(server.pid())?,
        memory.rss / 1024,
        memory.pss / 1024,
        memory.private / 1024,
        each.map_or_else(String::new, |bytes| bytes.to_string()),
        others.p50,
        others.p99,
    );
    Ok(())
}

/// Waits until the server has taken in all clients that it will.
fn settled(server: &Server) -> Result<Memory, Box<dyn Error>> {
    let mut last = usage::descriptors(server.pid())?;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(300) {
        thread::sleep(Duration::from_millis(20));
        let now = usage::descriptors(server.pid())?;
        if now != last {
            last = now;
            since = Instant::now();
        }
    }
    Ok(usage::memory(server.pid())?)
}

/// How clients that behave fare meanwhile.
fn others(peer: Peer) -> Result<Latency, Box<dyn Error>> {
    let plan = Plan {
        clients: Some(1_000),
        rate: Some(2_000.0),
        ..plan(peer)?
    };
    let report = load::run(&plan, &AtomicBool::new(false), |_| ())?;
    if report.lost() > 0 {
        return Err(format!("{peer}, while clients are held: {report}").into());
    }
    Ok(report.end)
}

fn plan(peer: Peer) -> Result<Plan, String> {
    Ok(Plan {
        targets: vec![format!("127.0.0.1:{}", peer.port()).parse()?],
        clients: None,
        at_once: 64,
        speech: Vec::new(),
        hold: false,
        expected: Some(GREETING.as_bytes().to_vec()),
        rate: None,
        lasting: None,
        timeout: Duration::from_secs(30),
        retry_refused: false,
    })
}

/// Clients that are held by a thread until this is dropped.
struct Held {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Held {
    fn connect(peer: Peer, clients: u64) -> Result<Self, Box<dyn Error>> {
        let plan = Plan {
            clients: Some(clients),
            hold: true,
            ..plan(peer)?
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let report = load::run(&plan, &stop, |n| {
                    // Nobody hears it where the benchmark has given up.
                    let _ = tell.send(n);
                });
                if let Err(error) = report {
                    eprintln!("greeter-bench: cannot hold {clients} clients: {error}");
                }
            }
        });
        let held = Held {
            stop,
            thread: Some(thread),
        };
        match told.recv_timeout(Duration::from_secs(60)) {
            Ok(n) if n == clients => Ok(held),
            _ => Err(format!("{peer}: cannot hold {clients} clients").into()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed already.
            let _ = thread.join();
        }
    }
}
