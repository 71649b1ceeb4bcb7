//! Runs many concurrent clients in one thread.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
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

/// How often expired clients are closed.
const EXPIRY_INTERVAL: Duration = Duration::from_millis(50);
/// How long a client waits before it retries a failed connect(2).
const RETRY_DELAY: Duration = Duration::from_millis(5);

/// The load to generate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Used in turn.
    pub targets: Vec<Target>,
    /// Number of clients in total; `None` is unlimited within `duration`.
    pub clients: Option<u64>,
    /// Maximum number of concurrent clients.
    pub concurrency: usize,
    /// What each client sends as soon as it is connected.
    pub request: Vec<u8>,
    /// Connect, then neither read nor close.
    pub hold: bool,
    /// With `hold`: close each client after this time, without having read.
    pub abandon: Option<Duration>,
    /// The addresses that clients connect from, used in turn; if there are none, the
    /// kernel selects one.
    pub sources: Vec<IpAddr>,
    /// The greeting; `None` accepts any that is not empty.
    pub expected: Option<Vec<u8>>,
    /// Maximum number of new clients per second.
    pub rate: Option<f64>,
    /// After this time no new clients are started and none are held any longer.
    pub duration: Option<Duration>,
    /// Timeout of one client, from its first attempt to EOF.
    pub timeout: Duration,
    pub retry_refused: bool,
}

/// Runs the plan until it is complete or `stop` is set. With `Plan::hold`, `on_held`
/// is called once with the number of held clients, when all are connected.
///
/// # Errors
///
/// The load cannot run, for example for lack of descriptors. Errors of single clients
/// are counted in the report.
pub fn run(plan: &Plan, stop: &AtomicBool, on_held: impl FnOnce(u64)) -> io::Result<Report> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut load = Load::new(plan);
    let mut on_held = Some(on_held);
    let mut next_expiry_check = load.started_at + EXPIRY_INTERVAL;

    loop {
        let is_stopping = stop.load(Ordering::Relaxed) || load.is_expired();
        if !is_stopping {
            load.start_due_clients(&poll)?;
        }
        let all_started = is_stopping || load.all_started();
        if all_started && load.in_flight() == 0 {
            if !plan.hold || is_stopping {
                break;
            }
            if let Some(on_held) = on_held.take() {
                on_held(load.report.held);
            }
        }
        match poll.poll(&mut events, Some(load.poll_timeout())) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            load.handle_event(&poll, event.token().0)?;
        }
        if Instant::now() >= next_expiry_check {
            load.close_expired();
            next_expiry_check = Instant::now() + EXPIRY_INTERVAL;
        }
        load.retry_due(&poll)?;
        load.close_abandoned();
    }
    let end = load.last_outcome_at.unwrap_or_else(Instant::now);
    load.report.finish(end - load.started_at);
    Ok(load.report)
}

/// Raises the limit of open descriptors to the hard limit.
///
/// # Errors
///
/// Those of setrlimit(2).
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
    started_at: Instant,
    last_outcome_at: Option<Instant>,
    clients: Slab<Client>,
    retries: VecDeque<Retry>,
    /// The oldest first, with the time at which each was connected.
    held: VecDeque<(Instant, Client)>,
    /// The number of source addresses that have no free port left.
    exhausted_sources: u16,
    buffer: Vec<u8>,
    report: Report,
}

/// A client whose connect(2) failed and will be retried.
struct Retry {
    target: usize,
    started_at: Instant,
    due: Instant,
    cause: io::Error,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> Self {
        Load {
            plan,
            started_at: Instant::now(),
            last_outcome_at: None,
            clients: Slab::new(),
            retries: VecDeque::new(),
            held: VecDeque::new(),
            exhausted_sources: 0,
            buffer: vec![0; 64 * 1024],
            report: Report::default(),
        }
    }

    fn in_flight(&self) -> usize {
        self.clients.len() + self.retries.len()
    }

    fn all_started(&self) -> bool {
        self.plan
            .clients
            .is_some_and(|clients| self.report.started >= clients)
    }

    fn is_expired(&self) -> bool {
        self.plan
            .duration
            .is_some_and(|duration| self.started_at.elapsed() >= duration)
    }

    /// How many clients the rate allows until now.
    fn due(&self) -> u64 {
        let total = self.plan.clients.unwrap_or(u64::MAX);
        let Some(rate) = self.plan.rate else {
            return total;
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a positive count; the conversion saturates at the maximum of u64"
        )]
        let due = (self.started_at.elapsed().as_secs_f64() * rate) as u64 + 1;
        due.min(total)
    }

    /// How long the loop may block.
    fn poll_timeout(&self) -> Duration {
        let mut timeout = EXPIRY_INTERVAL;
        if let Some(retry) = self.retries.front() {
            timeout = timeout.min(retry.due - Instant::now());
        }
        if let (Some(rate), false) = (self.plan.rate, self.all_started()) {
            timeout = timeout.min(Duration::from_secs_f64((1.0 / rate).min(1.0)));
        }
        timeout
    }

    fn start_due_clients(&mut self, poll: &Poll) -> io::Result<()> {
        let due = self.due();
        while self.report.started < due && self.in_flight() < self.plan.concurrency {
            let target =
                usize::try_from(self.report.started).unwrap_or(0) % self.plan.targets.len();
            self.report.started += 1;
            self.connect(poll, target, Instant::now())?;
        }
        Ok(())
    }

    fn connect(&mut self, poll: &Poll, target: usize, started_at: Instant) -> io::Result<()> {
        let address = &self.plan.targets[target];
        let turn = usize::try_from(self.report.started).unwrap_or(0);
        let source = match (self.plan.sources.as_slice(), self.exhausted_sources) {
            ([], 0) => None,
            ([], index) => address.spare_source(index),
            (sources, _) => Some(sources[turn % sources.len()]),
        };
        match address.connect(source) {
            Ok(socket) => {
                let mut client = Client::new(socket, target, started_at);
                let is_sent = client.send(&self.plan.request);
                let interest = if is_sent && !self.plan.hold {
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
            Err(error) if is_local_shortage(&error) => Err(error),
            Err(cause) => {
                if is_out_of_ports(&cause) {
                    self.exhausted_sources = self.exhausted_sources.wrapping_add(1);
                }
                self.retry_or_fail(target, started_at, cause);
                Ok(())
            }
        }
    }

    fn handle_event(&mut self, poll: &Poll, key: usize) -> io::Result<()> {
        // The client may be gone: an earlier event of the same batch can have ended it.
        let Some(client) = self.clients.get_mut(key) else {
            return Ok(());
        };
        client.send(&self.plan.request);
        if self.plan.hold {
            return self.hold(poll, key);
        }
        let expected = self.plan.expected.as_deref();
        if let Some(outcome) = client.receive(&mut self.buffer, expected) {
            let client = self.clients.remove(key);
            if matches!(outcome, Outcome::Refused) {
                let cause = ErrorKind::ConnectionRefused.into();
                self.retry_or_fail(client.target, client.started_at, cause);
            } else {
                self.record(&client, outcome);
            }
        }
        Ok(())
    }

    /// Holds a client once it is connected.
    fn hold(&mut self, poll: &Poll, key: usize) -> io::Result<()> {
        let client = &self.clients[key];
        let error = client.socket.take_error()?;
        if error.is_none() && !client.is_connected() {
            return Ok(());
        }
        let client = self.clients.remove(key);
        if let Some(cause) = error {
            self.retry_or_fail(client.target, client.started_at, cause);
            return Ok(());
        }
        let fd = client.socket.as_raw_fd();
        poll.registry().deregister(&mut SourceFd(&fd))?;
        self.report.connected += 1;
        self.report.held += 1;
        self.held.push_back((Instant::now(), client));
        Ok(())
    }

    fn record(&mut self, client: &Client, outcome: Outcome) {
        self.last_outcome_at = Some(Instant::now());
        self.report.count(client, outcome);
    }

    /// Schedules another connect(2) if it can succeed later; else counts a failure.
    fn retry_or_fail(&mut self, target: usize, started_at: Instant, cause: io::Error) {
        let can_retry = if is_refusal(&cause) {
            self.plan.retry_refused
        } else {
            // No free port at the source, or the backlog of a Unix socket is full.
            is_out_of_ports(&cause) || is_errno(&cause, Errno::AGAIN)
        };
        let now = Instant::now();
        if can_retry && now - started_at < self.plan.timeout {
            self.report.retried += 1;
            self.retries.push_back(Retry {
                target,
                started_at,
                due: now + RETRY_DELAY,
                cause,
            });
        } else {
            self.last_outcome_at = Some(now);
            if is_refusal(&cause) {
                self.report.refused += 1;
            } else {
                self.report.fail(&cause);
            }
        }
    }

    fn retry_due(&mut self, poll: &Poll) -> io::Result<()> {
        let now = Instant::now();
        while self.retries.front().is_some_and(|retry| retry.due <= now) {
            let Some(retry) = self.retries.pop_front() else {
                break;
            };
            if now - retry.started_at < self.plan.timeout {
                self.connect(poll, retry.target, retry.started_at)?;
            } else {
                self.retry_or_fail(retry.target, retry.started_at, retry.cause);
            }
        }
        Ok(())
    }

    fn close_abandoned(&mut self) {
        let Some(time) = self.plan.abandon else {
            return;
        };
        while self
            .held
            .front()
            .is_some_and(|(since, _)| since.elapsed() >= time)
        {
            self.held.pop_front();
        }
    }

    fn close_expired(&mut self) {
        let now = Instant::now();
        let expired: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, client)| now - client.started_at >= self.plan.timeout)
            .map(|(key, _)| key)
            .collect();
        for key in expired {
            let client = self.clients.remove(key);
            self.record(&client, Outcome::Timeout);
        }
    }
}

/// No socket listens on the address, or the path of a Unix socket does not exist (yet).
fn is_refusal(error: &io::Error) -> bool {
    is_errno(error, Errno::CONNREFUSED)
        || is_errno(error, Errno::NOENT)
        || error.kind() == ErrorKind::ConnectionRefused
}

/// Reported by connect(2), or by bind(2) if a source address is bound first.
fn is_out_of_ports(error: &io::Error) -> bool {
    is_errno(error, Errno::ADDRNOTAVAIL) || is_errno(error, Errno::ADDRINUSE)
}

/// A limit of the load generator or its host, which is not a property of the server.
fn is_local_shortage(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS]
        .iter()
        .any(|errno| is_errno(error, *errno))
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}
