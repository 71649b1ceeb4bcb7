//! Clients that speak first, where the network drops one packet in ten, both
//! ways: here a close at the wrong moment costs greetings.

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use greeter_bench::load::{self, Plan};
use greeter_bench::peer::{GREETING, Peer, Programs, Server};

use crate::on_server_cpu;

/// In the network namespace that `bench/run` made, hence gone with it.
const RULES: &str = "table inet loss {
    chain input {
        type filter hook input priority 0;
        numgen random mod 100 < 10 drop
    }
}
";

/// Measures and prints; the result counts greeter's lost or reset greetings.
pub fn run(programs: &Programs, clients: u64) -> Result<u64, Box<dyn Error>> {
    println!(
        "\nOne packet in ten is lost: {clients} clients that send 18 bytes first, all at once\n"
    );
    println!(
        "{:15} {:>8} {:>21} {:>11} {:>10} {:>7}",
        "", "greeted", "greeted, then a reset", "lost: reset", "timed out", "other"
    );
    let mut unwell = 0;
    for peer in [Peer::Greeter, Peer::Nginx] {
        let server = on_server_cpu(|| Server::start(peer, programs, None))?;
        let plan = Plan {
            targets: vec![format!("127.0.0.1:{}", peer.port()).parse()?],
            clients: Some(clients),
            at_once: usize::try_from(clients)?,
            speech: vec![b'?'; 18],
            hold: false,
            expected: Some(GREETING.as_bytes().to_vec()),
            rate: None,
            lasting: None,
            // TCP itself can take that long: it waits twice as long after each loss.
            timeout: Duration::from_secs(120),
            retry_refused: false,
        };
        nft(RULES)?;
        // All on one CPU: of two that repeat the SYN and its answer in the same
        // instant, the kernel resets one in 100,000, before any server sees it.
        let report = on_server_cpu(|| load::run(&plan, &AtomicBool::new(false), |_| ()));
        nft("delete table inet loss\n")?;
        drop(server);
        let report = report?;
        println!(
            "{peer:15} {:8} {:21} {:11} {:10} {:7}",
            report.greeted,
            report.reset_after,
            report.reset_before,
            report.timeout,
            report.lost() - report.reset_before - report.timeout,
        );
        if peer == Peer::Greeter {
            unwell = report.lost() + report.reset_after;
        }
    }
    Ok(unwell)
}

fn nft(rules: &str) -> Result<(), Box<dyn Error>> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot start nft: {e}"))?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    if nft.wait()?.success() {
        Ok(())
    } else {
        Err("nft does not take the rules".into())
    }
}
