//! Many clients at once, from one thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use slab::Slab;

use crate::client::{Client, Outcome};
use crate::report::Report;
use crate::target::Target;

/// How often clients whose time is over are looked for.
const SWEEP: Duration = Duration::from_millis(50);
/// How long after a refusal, or a full queue, a client tries again.
const RETRY: Duration = Duration::from_millis(5);

/// What is to be done to the server.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Visited in turn.
    pub targets: Vec<Target>,
    /// How many clients in all; `None`: as many as fit into `lasting`.
    pub clients: Option<u64>,
    pub at_once: usize,
    /// What each client sends as soon as it is connected.
    pub speech: Vec<u8>,
    /// Connect, and then neither read nor close.
    pub hold: bool,
    /// The greeting; `None`: anything but nothing.
    pub expected: Option<Vec<u8>>,
    /// Clients a second.
    pub rate: Option<f64>,
    /// No new clients, and no more holding, after this time.
    pub lasting: Option<Duration>,
    /// Time of one client, from its first attempt to its end.
    pub timeout: Duration,
    pub retry_refused: bool,
}

/// Runs the plan to its end, or until `stop` is set; `holding` is called once
/// with the number of clients when a holding load has got hold of them all.
///
/// # Errors
///
/// What keeps the load itself from running, such as too few descriptors; what
/// befalls its clients is counted in the report.
pub fn run(plan: &Plan, stop: &AtomicBool, holding: impl FnOnce(u64)) -> io::Result<Report> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut load = Load::new(plan);
    let mut holding = Some(holding);
    let mut next_sweep = load.begun + SWEEP;

    loop {
        let stopping = stop.load(Ordering::Relaxed) || load.is_time_over();
        if !stopping {
            load.start_all_due(&poll)?;
        }
        let all_started = stopping || load.all_started();
        if all_started && load.in_flight() == 0 {
            if !plan.hold || stopping {
                break;
            }
            if let Some(holding) = holding.take() {
                holding(load.report.held);
            }
        }
        match poll.poll(&mut events, Some(load.patience())) {
            Err(e) if e.kind() != ErrorKind::Interrupted => return Err(e),
            _ => {}
        }
        for event in &events {
            load.step(&poll, event.token().0)?;
        }
        if Instant::now() >= next_sweep {
            load.expire();
            next_sweep = Instant::now() + SWEEP;
        }
        load.retry(&poll)?;
    }
    let wall = load.last_end.unwrap_or_else(Instant::now) - load.begun;
    load.report.finish(wall);
    Ok(load.report)
}

/// Lets this process open as many descriptors as it may.
///
/// # Errors
///
/// The kernel refuses, which it has no reason to.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    Ok(setrlimit(Resource::Nofile, limit)?)
}

struct Load<'a> {
    plan: &'a Plan,
    begun: Instant,
    last_end: Option<Instant>,
    clients: Slab<Client>,
    waiting: VecDeque<Waiting>,
    held: Vec<Client>,
    /// How many addresses of our own are out of ports.
    sources_used_up: u16,
    buffer: Vec<u8>,
    report: Report,
}

/// A client without a connection, and why it has none.
struct Waiting {
    target: usize,
    started: Instant,
    again: Instant,
    reason: io::Error,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> Self {
        Load {
            plan,
            begun: Instant::now(),
            last_end: None,
            clients: Slab::new(),
            waiting: VecDeque::new(),
            held: Vec::new(),
            sources_used_up: 0,
            buffer: vec![0; 64 * 1024],
            report: Report::default(),
        }
    }

    fn in_flight(&self) -> usize {
        self.clients.len() + self.waiting.len()
    }

    fn all_started(&self) -> bool {
        self.plan.clients.is_some_and(|n| self.report.started >= n)
    }

    fn is_time_over(&self) -> bool {
        self.plan.lasting.is_some_and(|l| self.begun.elapsed() >= l)
    }

    /// How many clients a second's rate allows up to now.
    fn due(&self) -> u64 {
        let all = self.plan.clients.unwrap_or(u64::MAX);
        let Some(rate) = self.plan.rate else {
            return all;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive count; more than u64 holds are cut to its maximum"
        )]
        let due = (self.begun.elapsed().as_secs_f64() * rate) as u64 + 1;
        due.min(all)
    }

    /// How long the loop may sleep when nothing happens.
    fn patience(&self) -> Duration {
        let now = Instant::now();
        let retry = self.waiting.front().map_or(SWEEP, |w| w.again - now);
        let rate = self.plan.rate.filter(|_| !self.all_started());
        let next = rate.map_or(SWEEP, |r| Duration::from_secs_f64((1.0 / r).min(1.0)));
        SWEEP.min(retry).min(next)
    }

    fn start_all_due(&mut self, poll: &Poll) -> io::Result<()> {
        let due = self.due();
        while self.report.started < due && self.in_flight() < self.plan.at_once {
            let target =
                usize::try_from(self.report.started).unwrap_or(0) % self.plan.targets.len();
            self.report.started += 1;
            self.connect(poll, target, Instant::now())?;
        }
        Ok(())
    }

    fn connect(&mut self, poll: &Poll, target: usize, started: Instant) -> io::Result<()> {
        let to = &self.plan.targets[target];
        let source = match self.sources_used_up {
            0 => None,
            n => to.spare_source(n),
        };
        match to.connect(source) {
            Ok(socket) => {
                let mut client = Client::new(socket, target, started);
                let done = client.talk(&self.plan.speech);
                let interest = if done && !self.plan.hold {
                    Interest::READABLE
                } else {
                    Interest::READABLE | Interest::WRITABLE
                };
                let fd = client.socket.as_raw_fd();
                let token = Token(self.clients.insert(client));
                poll.registry()
                    .register(&mut SourceFd(&fd), token, interest)?;
                Ok(())
            }
            Err(e) if is_ours(&e) => Err(e),
            Err(reason) => {
                if is_out_of_ports(&reason) {
                    self.sources_used_up = self.sources_used_up.wrapping_add(1);
                }
                self.wait_or_give_up(target, started, reason);
                Ok(())
            }
        }
    }

    /// Something happened to one client.
    fn step(&mut self, poll: &Poll, key: usize) -> io::Result<()> {
        // Its slot may be empty by now: a client's last event can come along
        // with one that already ended it.
        let Some(client) = self.clients.get_mut(key) else {
            return Ok(());
        };
        client.talk(&self.plan.speech);
        if self.plan.hold {
            let error = client.socket.take_error()?;
            if error.is_none() && !client.is_connected() {
                return Ok(());
            }
            let client = self.clients.remove(key);
            if let Some(reason) = error {
                self.wait_or_give_up(client.target, client.started, reason);
                return Ok(());
            }
            let fd = client.socket.as_raw_fd();
            poll.registry().deregister(&mut SourceFd(&fd))?;
            self.report.connected += 1;
            self.report.held += 1;
            self.held.push(client);
            return Ok(());
        }
        let expected = self.plan.expected.as_deref();
        if let Some(outcome) = client.listen(&mut self.buffer, expected) {
            let client = self.clients.remove(key);
            if matches!(outcome, Outcome::Refused) {
                let reason = ErrorKind::ConnectionRefused.into();
                self.wait_or_give_up(client.target, client.started, reason);
            } else {
                self.end(&client, outcome);
            }
        }
        Ok(())
    }

    fn end(&mut self, client: &Client, outcome: Outcome) {
        self.last_end = Some(Instant::now());
        self.report.count(client, outcome);
    }

    /// A client without a connection tries again where that may help.
    fn wait_or_give_up(&mut self, target: usize, started: Instant, reason: io::Error) {
        let may_retry = if is_refusal(&reason) {
            self.plan.retry_refused
        } else {
            // No port of our own left, or a Unix socket's queue is full.
            is_out_of_ports(&reason) || is(&reason, Errno::AGAIN)
        };
        let now = Instant::now();
        if may_retry && now - started < self.plan.timeout {
            self.report.retried += 1;
            self.waiting.push_back(Waiting {
                target,
                started,
                again: now + RETRY,
                reason,
            });
        } else {
            self.last_end = Some(now);
            if is_refusal(&reason) {
                self.report.refused += 1;
            } else {
                self.report.fail(&reason);
            }
        }
    }

    fn retry(&mut self, poll: &Poll) -> io::Result<()> {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|w| w.again <= now) {
            let Some(waiting) = self.waiting.pop_front() else {
                break;
            };
            if now - waiting.started < self.plan.timeout {
                self.connect(poll, waiting.target, waiting.started)?;
            } else {
                self.wait_or_give_up(waiting.target, waiting.started, waiting.reason);
            }
        }
        Ok(())
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let late: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, c)| now - c.started >= self.plan.timeout)
            .map(|(key, _)| key)
            .collect();
        for key in late {
            let client = self.clients.remove(key);
            self.end(&client, Outcome::Timeout);
        }
    }
}

/// Nobody listens, or the path of a Unix socket is not there (yet).
fn is_refusal(error: &io::Error) -> bool {
    is(error, Errno::CONNREFUSED)
        || is(error, Errno::NOENT)
        || error.kind() == ErrorKind::ConnectionRefused
}

/// Said by connect(2), or by bind(2) where we bind first.
fn is_out_of_ports(error: &io::Error) -> bool {
    is(error, Errno::ADDRNOTAVAIL) || is(error, Errno::ADDRINUSE)
}

/// Our own limits are hit: no fault of the server, and no result.
fn is_ours(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS]
        .iter()
        .any(|e| is(error, *e))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
