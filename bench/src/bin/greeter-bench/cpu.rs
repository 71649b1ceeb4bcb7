//! CPU per greeting. The servers are measured in turn, so that other activity of the
//! host affects all of them, and ratios are computed per round.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use greeter_bench::load::{self, Plan};
use greeter_bench::report::Report;
use greeter_bench::server::{Programs, Server, ServerKind};
use greeter_bench::usage::{self, Cpu};

use crate::{base_plan, on_server_cpu};

pub struct Size {
    pub rounds: usize,
    pub clients: u64,
    pub concurrency: usize,
}

/// What the clients of a measurement send.
#[derive(Clone, Copy)]
enum Clients {
    Silent,
    Talking,
    /// A header of the PROXY protocol, as a proxy in front of the server does.
    Proxied,
}

impl Clients {
    fn description(self) -> &'static str {
        match self {
            Clients::Silent => "send nothing",
            Clients::Talking => "send 18 bytes first",
            Clients::Proxied => "send a PROXY header first",
        }
    }

    fn request(self) -> Vec<u8> {
        match self {
            Clients::Silent => Vec::new(),
            Clients::Talking => vec![b'?'; 18],
            Clients::Proxied => b"PROXY TCP4 192.0.2.1 192.0.2.2 49152 4000\r\n".to_vec(),
        }
    }

    /// The port of a server for these clients; `None` if it has none.
    fn port(self, kind: ServerKind) -> Option<u16> {
        match self {
            Clients::Silent | Clients::Talking => Some(kind.port()),
            Clients::Proxied => kind.proxied_port(),
        }
    }
}

/// The result of one round of one server.
struct Round {
    /// CPU time per greeting.
    nanoseconds: f64,
    user_ticks: u64,
    system_ticks: u64,
    report: Report,
}

/// Measures and prints; returns the number of greetings that greeter lost or reset.
pub fn run(programs: &Programs, size: &Size) -> Result<u64, Box<dyn Error>> {
    let servers = ServerKind::ALL
        .iter()
        .map(|kind| on_server_cpu(|| Server::start(*kind, programs, None)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut lost = 0;
    for clients in [Clients::Silent, Clients::Talking, Clients::Proxied] {
        let results = measure_all(&servers, size, clients)?;
        println!(
            "\nClients that {}: {} alternating rounds of {} clients, {} concurrent; medians\n",
            clients.description(),
            size.rounds,
            size.clients,
            size.concurrency
        );
        print(&results);
        for Round { report, .. } in &results[0] {
            lost += report.lost() + report.reset_after;
        }
    }
    Ok(lost)
}

/// The rounds of every server, in the order of [`ServerKind::ALL`]; none of those that
/// cannot serve these clients.
fn measure_all(
    servers: &[Server],
    size: &Size,
    clients: Clients,
) -> Result<Vec<Vec<Round>>, Box<dyn Error>> {
    // A first, shorter round warms up each server and is not counted.
    for (kind, server) in ServerKind::ALL.into_iter().zip(servers) {
        if let Some(plan) = plan(kind, size, clients)? {
            let warm_up = Plan {
                clients: Some(size.clients / 10),
                ..plan
            };
            measure(&warm_up, server)?;
        }
    }
    let mut results: Vec<Vec<Round>> = servers.iter().map(|_| Vec::new()).collect();
    for round in 0..size.rounds {
        for turn in 0..servers.len() {
            let index = (turn + round) % servers.len();
            if let Some(plan) = plan(ServerKind::ALL[index], size, clients)? {
                results[index].push(measure(&plan, &servers[index])?);
            }
        }
    }
    Ok(results)
}

fn plan(kind: ServerKind, size: &Size, clients: Clients) -> Result<Option<Plan>, String> {
    let Some(port) = clients.port(kind) else {
        return Ok(None);
    };
    Ok(Some(Plan {
        clients: Some(size.clients),
        concurrency: size.concurrency,
        request: clients.request(),
        ..base_plan(port)?
    }))
}

fn measure(plan: &Plan, server: &Server) -> Result<Round, Box<dyn Error>> {
    let before = usage::cpu(server.pid())?;
    let report = load::run(plan, &AtomicBool::new(false), |_| ())?;
    // The server has yet to see the last clients close.
    sleep(Duration::from_millis(30));
    let after = usage::cpu(server.pid())?;
    Ok(Round {
        nanoseconds: per_client(before, after, report.started),
        user_ticks: after.user_ticks - before.user_ticks,
        system_ticks: after.system_ticks - before.system_ticks,
        report,
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn per_client(before: Cpu, after: Cpu, clients: u64) -> f64 {
    (after.nanoseconds - before.nanoseconds) as f64 / clients as f64
}

fn print(results: &[Vec<Round>]) {
    println!(
        "{:15} {:>6} {:>11} {:>6} {:>6} {:>8} {:>10} {:>10} {:>7} {:>7} {:>6} {:>7}",
        "",
        "ns CPU",
        "(quartiles)",
        "user",
        "system",
        "of nginx",
        "of C epoll",
        "per second",
        "p50 µs",
        "p99 µs",
        "lost",
        "reset"
    );
    for (kind, rounds) in ServerKind::ALL.iter().zip(results) {
        if rounds.is_empty() {
            continue;
        }
        let [first_quartile, nanoseconds, third_quartile] = quartiles(rounds);
        let user_share = user_share(rounds);
        println!(
            "{kind:15} {:6.0} {:>11} {:6.0} {:6.0} {:8.2} {:10.2} {:10.0} {:7.0} {:7.0} {:6} {:7}",
            nanoseconds,
            format!("{first_quartile:.0}-{third_quartile:.0}"),
            nanoseconds * user_share,
            nanoseconds * (1.0 - user_share),
            ratio(rounds, &results[1]),
            ratio(rounds, &results[2]),
            median(rounds.iter().map(|round| round.report.greetings_per_second)),
            median(rounds.iter().map(|round| to_f64(round.report.end.p50))),
            median(rounds.iter().map(|round| to_f64(round.report.end.p99))),
            rounds.iter().map(|round| round.report.lost()).sum::<u64>(),
            rounds
                .iter()
                .map(|round| round.report.reset_before + round.report.reset_after)
                .sum::<u64>(),
        );
    }
}

/// First quartile, median and third quartile of the CPU time per greeting.
fn quartiles(rounds: &[Round]) -> [f64; 3] {
    let nanoseconds = sorted(rounds.iter().map(|round| round.nanoseconds));
    [1, 2, 3].map(|quarter| nanoseconds[(nanoseconds.len() - 1) * quarter / 4])
}

/// The share of user time in the CPU time of all rounds.
fn user_share(rounds: &[Round]) -> f64 {
    let user: u64 = rounds.iter().map(|round| round.user_ticks).sum();
    let system: u64 = rounds.iter().map(|round| round.system_ticks).sum();
    to_f64(user) / to_f64(user + system).max(1.0)
}

/// The median of the ratios of the single rounds.
fn ratio(rounds: &[Round], reference: &[Round]) -> f64 {
    let pairs = rounds.iter().zip(reference);
    median(pairs.map(|(round, reference)| round.nanoseconds / reference.nanoseconds))
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let values = sorted(values);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
