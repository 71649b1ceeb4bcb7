//! CPU per greeting: the peers take turns, so that whatever else the machine
//! does befalls them all, and ratios are taken round by round.

use std::error::Error;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::Duration;

use greeter_bench::load::{self, Plan};
use greeter_bench::peer::{GREETING, Peer, Programs, Server};
use greeter_bench::report::Report;
use greeter_bench::usage::{self, Cpu};

use crate::on_server_cpu;

pub struct Size {
    pub rounds: usize,
    pub clients: u64,
    pub at_once: usize,
}

struct Round {
    /// Of CPU, for one greeting.
    nanoseconds: f64,
    user_ticks: u64,
    system_ticks: u64,
    report: Report,
}

/// Measures and prints; the result counts greeter's lost or reset greetings.
pub fn run(programs: &Programs, size: &Size) -> Result<u64, Box<dyn Error>> {
    let servers = Peer::ALL
        .iter()
        .map(|peer| on_server_cpu(|| Server::start(*peer, programs, None)))
        .collect::<Result<Vec<_>, _>>()?;
    let mut unwell = 0;
    for (name, bytes) in [("say nothing", 0), ("send 18 bytes first", 18)] {
        let plan = |peer: Peer| plan(peer, size, bytes);
        // The first round of each warms its server up and is not counted.
        for (peer, server) in Peer::ALL.iter().zip(&servers) {
            let warm_up = Plan {
                clients: Some(size.clients / 10),
                ..plan(*peer)?
            };
            measure(&warm_up, server)?;
        }
        let mut results: Vec<Vec<Round>> = Peer::ALL.iter().map(|_| Vec::new()).collect();
        for round in 0..size.rounds {
            for turn in 0..servers.len() {
                let i = (turn + round) % servers.len();
                results[i].push(measure(&plan(Peer::ALL[i])?, &servers[i])?);
            }
        }
        println!(
            "\nClients that {name}: {} rounds of {} each, {} at once, in turns; medians\n",
            size.rounds, size.clients, size.at_once
        );
        print(&results);
        let greeter = &results[0];
        unwell += greeter
            .iter()
            .map(|r| r.report.lost() + r.report.reset_after)
            .sum::<u64>();
    }
    Ok(unwell)
}

fn plan(peer: Peer, size: &Size, bytes: usize) -> Result<Plan, String> {
    Ok(Plan {
        targets: vec![format!("127.0.0.1:{}", peer.port()).parse()?],
        clients: Some(size.clients),
        at_once: size.at_once,
        speech: vec![b'?'; bytes],
        hold: false,
        expected: Some(GREETING.as_bytes().to_vec()),
        rate: None,
        lasting: None,
        timeout: Duration::from_secs(30),
        retry_refused: false,
    })
}

fn measure(plan: &Plan, server: &Server) -> Result<Round, Box<dyn Error>> {
    let before = usage::cpu(server.pid())?;
    let report = load::run(plan, &AtomicBool::new(false), |_| ())?;
    // The server sees the last clients' ends after we do.
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
        "{:15} {:>6} {:>11} {:>6} {:>6} {:>8} {:>10} {:>8} {:>7} {:>7} {:>6} {:>7}",
        "",
        "ns CPU",
        "(quartiles)",
        "user",
        "system",
        "of nginx",
        "of C epoll",
        "a second",
        "p50 µs",
        "p99 µs",
        "lost",
        "reset"
    );
    for (peer, rounds) in Peer::ALL.iter().zip(results) {
        let nanoseconds = sorted(rounds.iter().map(|r| r.nanoseconds));
        let at = |quarter: usize| nanoseconds[(nanoseconds.len() - 1) * quarter / 4];
        let (user, system) = rounds.iter().fold((0, 0), |(user, system), r| {
            (user + r.user_ticks, system + r.system_ticks)
        });
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let user_share = user as f64 / ((user + system) as f64).max(1.0);
        let middle = |of: fn(&Report) -> f64| median(rounds.iter().map(|r| of(&r.report)));
        let sum = |of: fn(&Report) -> u64| rounds.iter().map(|r| of(&r.report)).sum::<u64>();
        println!(
            "{peer:15} {:6.0} {:>11} {:6.0} {:6.0} {:8.2} {:10.2} {:8.0} {:7.0} {:7.0} {:6} {:7}",
            at(2),
            format!("{:.0}-{:.0}", at(1), at(3)),
            at(2) * user_share,
            at(2) * (1.0 - user_share),
            ratio(rounds, &results[1]),
            ratio(rounds, &results[2]),
            middle(|r| r.greetings_per_second),
            middle(|r| to_f64(r.end.p50)),
            middle(|r| to_f64(r.end.p99)),
            sum(Report::lost),
            sum(|r| r.reset_before + r.reset_after),
        );
    }
}

/// The median of the ratios of each round.
fn ratio(ours: &[Round], theirs: &[Round]) -> f64 {
    let pairs = ours.iter().zip(theirs);
    median(pairs.map(|(a, b)| a.nanoseconds / b.nanoseconds))
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

#[expect(clippy::cast_precision_loss, reason = "microseconds far below 2^52")]
fn to_f64(value: u64) -> f64 {
    value as f64
}
