//! Serves the one client of modes accepted and inet. Floor 6.

use std::time::{Instant, SystemTime};

use crate::client::{Client, Step};
use crate::clock;
use crate::error::Error;
use crate::greeting::Facts;
use crate::kernel;
use crate::mode::Mode;
use crate::poller::Poller;
use crate::settings::values::{Limits, Settings};
use crate::socket::{Scratch, Stream};
use crate::systemd::notify::Notifier;
use crate::tally::{Outcome, Peer, Report};

/// Greets the client and waits for its end. A client that is slow or gone is no
/// failure.
///
/// # Errors
/// The kernel's, where there is nothing to wait with.
pub fn serve(stream: Stream, mode: Mode, socket: &str, settings: &Settings) -> Result<(), Error> {
    let begun = Instant::now();
    // Before the greeting: afterwards the client, and its address, can be gone.
    let (peer, local) = (stream.peer(), stream.local());
    let shown = Peer::new(&peer, settings.log_peer);
    let greeting = settings
        .template(mode, socket)
        .settle(&kernel::hostname(), socket, mode.name());
    let time = clock::rfc3339(SystemTime::now());
    let facts = Facts {
        peer: peer.ip(),
        local: local.ip(),
        path: local.path(),
        time: &time,
    };
    let mut client = Client::new(stream, greeting.render(&facts), begun, &settings.limits);
    Notifier::default().ready(&format!("Greeting {shown}"));
    let outcome = write(&mut client, &settings.limits)?;
    Report {
        mode,
        socket,
        peer: &shown,
        local: &local,
        bytes: client.bytes_sent(),
        duration: begun.elapsed(),
        outcome,
    }
    .log();
    linger(&mut client, &settings.limits)
}

/// Gives a client a clean end without a greeting: what it gets where the
/// settings are wrong.
pub fn dismiss(stream: Stream, limits: &Limits) {
    let mut client = Client::dismissed(stream, Instant::now(), limits);
    // Whatever fails here, the error that brought us here is the one to tell.
    let _ = write(&mut client, limits).and_then(|_| linger(&mut client, limits));
}

fn write(client: &mut Client, limits: &Limits) -> Result<Outcome, Error> {
    let mut scratch = Scratch::default();
    let mut poller = None;
    loop {
        let now = Instant::now();
        match client.advance(&mut scratch, now, limits) {
            Step::Sent => return Ok(Outcome::Sent),
            Step::Gone => return Ok(Outcome::Gone),
            _ if now >= client.deadline => return Ok(Outcome::Timeout),
            _ => wait(&mut poller, client)?,
        }
    }
}

fn linger(client: &mut Client, limits: &Limits) -> Result<(), Error> {
    let mut scratch = Scratch::default();
    let mut poller = None;
    while !client.is_writing() {
        let now = Instant::now();
        match client.advance(&mut scratch, now, limits) {
            Step::Over => break,
            _ if client.is_late(now) => break,
            Step::Silent => wait(&mut poller, client)?,
            _ => {}
        }
    }
    Ok(())
}

/// Waits for the client. The poller is made only for a client that keeps us
/// waiting.
fn wait(poller: &mut Option<Poller>, client: &Client) -> Result<(), Error> {
    let failed = |error| Error::os("wait for the client", error);
    let poller = match poller {
        Some(poller) => poller,
        None => {
            let new = Poller::new().map_err(failed)?;
            new.watch(&client.stream, 0, true).map_err(failed)?;
            poller.insert(new)
        }
    };
    poller.wait_until(client.deadline).map_err(failed)
}
