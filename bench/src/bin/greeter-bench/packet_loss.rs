//! Clients that send data first, with one packet in ten lost in both directions: a
//! server that closes too early loses greetings here.

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use greeter_bench::load::{self, Plan};
use greeter_bench::server::{Programs, Server, ServerKind};

use crate::{base_plan, on_server_cpu};

/// In the network namespace that `bench/run` has created, with which they end.
const RULES: &str = "table inet loss {
    chain input {
        type filter hook input priority 0;
        numgen random mod 100 < 10 drop
    }
}
";

/// Measures and prints; returns the number of greetings that greeter lost or reset.
pub fn run(programs: &Programs, clients: u64) -> Result<u64, Box<dyn Error>> {
    println!("\n10 % packet loss: {clients} concurrent clients that send 18 bytes first\n");
    println!(
        "{:15} {:>8} {:>19} {:>11} {:>10} {:>7}",
        "", "greeted", "greeted, then reset", "lost: reset", "timed out", "other"
    );
    let mut lost = 0;
    for kind in [ServerKind::Greeter, ServerKind::Nginx] {
        let server = on_server_cpu(|| Server::start(kind, programs, None))?;
        let plan = Plan {
            clients: Some(clients),
            concurrency: usize::try_from(clients)?,
            request: vec![b'?'; 18],
            // TCP may need this long: it doubles its timeout after each loss.
            timeout: Duration::from_secs(120),
            ..base_plan(kind.port())?
        };
        nft(RULES)?;
        // Server and clients share one CPU: if a SYN and the SYN-ACK are retransmitted
        // at the same instant, the kernel resets one connection in 100,000 before any
        // server sees it.
        let report = on_server_cpu(|| load::run(&plan, &AtomicBool::new(false), |_| ()));
        nft("delete table inet loss\n")?;
        drop(server);
        let report = report?;
        println!(
            "{kind:15} {:8} {:19} {:11} {:10} {:7}",
            report.greeted,
            report.reset_after,
            report.reset_before,
            report.timeout,
            report.lost() - report.reset_before - report.timeout,
        );
        if kind == ServerKind::Greeter {
            lost = report.lost() + report.reset_after;
        }
    }
    Ok(lost)
}

/// Adds or deletes packet filter rules.
fn nft(rules: &str) -> Result<(), Box<dyn Error>> {
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start nft: {error}"))?;
    if let Some(mut stdin) = nft.stdin.take() {
        stdin.write_all(rules.as_bytes())?;
    }
    if nft.wait()?.success() {
        Ok(())
    } else {
        Err("nft rejects the rules".into())
    }
}
