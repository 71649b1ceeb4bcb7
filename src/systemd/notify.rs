//! Notifies the service manager of state changes (sd_notify(3)).
//!
//! Sending never blocks: what the service manager does not accept at once is kept and
//! sent again. PID 1 drops datagrams of more than 4,096 bytes, so a state and a status
//! text never share one, and the text is bounded.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::{Duration, Instant};

use libsystemd::daemon;

use crate::error::{escape_control, os_message};
use crate::event;
use crate::socket::DatagramSocket;
use crate::sys;

/// The longest status text, in bytes.
const MAX_STATUS_LENGTH: usize = 1024;
/// How long to wait before a notification is sent again; doubled at each failure.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// The longest of these delays.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);
/// How long the exit waits for unsent states.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(100);
/// How often they are tried meanwhile.
const FLUSH_INTERVAL: Duration = Duration::from_millis(5);

/// Sends notifications to `$NOTIFY_SOCKET`; does nothing without it.
#[derive(Debug)]
pub struct Notifier {
    address: Option<OsString>,
    /// `None` until the first connect(2) has succeeded, and after a failed send(2).
    socket: Option<DatagramSocket>,
    /// States that were not sent yet, in order; at most one of each kind.
    states: VecDeque<String>,
    /// The newest status text, if it was not sent yet.
    status: Option<String>,
    retry_delay: Duration,
    retry_at: Option<Instant>,
    /// Whether the last notification failed: only the first failure is logged.
    failed: bool,
}

impl Notifier {
    /// A notifier for the service manager that `$NOTIFY_SOCKET` names.
    pub fn from_environment() -> Self {
        // An empty value, or an abstract address without a name, means none.
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| address.len() > 1);
        Self::new(address.filter(|address| match address.as_bytes() {
            [b'/' | b'@', ..] => true,
            _ => {
                log::warn!(
                    MESSAGE_ID = event::NOTIFY_FAILED;
                    "NOTIFY_SOCKET is '{}', which is not the address of a Unix socket; continuing",
                    address.to_string_lossy()
                );
                false
            }
        }))
    }

    fn new(address: Option<OsString>) -> Self {
        Self {
            address,
            socket: None,
            states: VecDeque::new(),
            status: None,
            retry_delay: MIN_RETRY_DELAY,
            retry_at: None,
            failed: false,
        }
    }

    /// `READY=1`: startup, or a reload, is complete.
    pub fn notify_ready(&mut self) {
        self.queue_state("READY=1".to_owned());
    }

    /// `STATUS=`: the text that systemctl(1) prints, shortened to
    /// [`MAX_STATUS_LENGTH`]. It replaces a text that was not sent yet.
    pub fn notify_status(&mut self, status: &str) {
        if self.address.is_some() {
            self.status = Some(format!("STATUS={}", shortened(&escape_control(status))));
            self.send_pending(Instant::now());
        }
    }

    /// `RELOADING=1`: a reload begins; [`Notifier::notify_ready`] ends it. Without
    /// the timestamp `systemctl reload` would wait until it times out.
    pub fn notify_reloading(&mut self) {
        let usec = sys::monotonic_usec();
        self.queue_state(format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// `STOPPING=1`: the service is about to exit.
    pub fn notify_stopping(&mut self) {
        self.queue_state("STOPPING=1".to_owned());
    }

    /// `WATCHDOG=1`: the serving loop runs.
    pub fn notify_watchdog(&mut self) {
        self.queue_state("WATCHDOG=1".to_owned());
    }

    /// When [`Notifier::send_pending`] has to be called; `None` if nothing waits.
    pub fn next_retry(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Sends what waits, unless a retry is not due yet. States come first, in order.
    pub fn send_pending(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|retry_at| now < retry_at) {
            return;
        }
        self.retry_at = None;
        while let Some(datagram) = self.states.front().or(self.status.as_ref()) {
            let datagram = datagram.clone();
            if let Err(error) = self.send(datagram.as_bytes()) {
                self.defer(&error, now);
                return;
            }
            if self.states.pop_front().is_none() {
                self.status = None;
            }
            self.failed = false;
            self.retry_delay = MIN_RETRY_DELAY;
        }
    }

    /// Before the exit: tries for [`FLUSH_TIMEOUT`] to send the states that wait.
    pub fn flush(&mut self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        while !self.states.is_empty() && Instant::now() < deadline {
            // The last attempt has failed just now, or a retry is due later.
            thread::sleep(FLUSH_INTERVAL);
            self.retry_at = None;
            self.send_pending(Instant::now());
        }
    }

    /// Sends a state, or keeps it in its place. An unsent state of the same kind is
    /// older, and is replaced.
    fn queue_state(&mut self, state: String) {
        if self.address.is_none() {
            return;
        }
        let kind = |state: &str| state.split('=').next().map(str::to_owned);
        self.states.retain(|waiting| kind(waiting) != kind(&state));
        self.states.push_back(state);
        self.send_pending(Instant::now());
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        let socket = match (&self.socket, &self.address) {
            (Some(socket), _) => socket,
            (None, Some(address)) => self.socket.insert(DatagramSocket::connect(address)?),
            (None, None) => return Ok(()),
        };
        socket.send(datagram)
    }

    /// A failure does not stop the service: it is logged, once, and retried.
    fn defer(&mut self, error: &io::Error, now: Instant) {
        self.retry_at = Some(now + self.retry_delay);
        self.retry_delay = (self.retry_delay * 2).min(MAX_RETRY_DELAY);
        if error.kind() == io::ErrorKind::WouldBlock {
            // The manager is busy; the socket is good.
            self.retry_delay = MIN_RETRY_DELAY;
            return;
        }
        // The manager may have been restarted at the same address.
        self.socket = None;
        if !self.failed {
            let error = os_message(error);
            log::warn!(MESSAGE_ID = event::NOTIFY_FAILED; "sd_notify failed: {error}; continuing");
        }
        self.failed = true;
    }
}

/// At most [`MAX_STATUS_LENGTH`] bytes of a text.
fn shortened(text: &str) -> String {
    if text.len() <= MAX_STATUS_LENGTH {
        return text.to_owned();
    }
    let mut end = MAX_STATUS_LENGTH - "…".len();
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

/// How often to send `WATCHDOG=1`: half of `WatchdogSec=`, as
/// sd_watchdog_enabled(3) recommends. `None` if the watchdog is off.
pub fn watchdog_interval() -> Option<Duration> {
    let interval = daemon::watchdog_enabled(false)? / 2;
    (!interval.is_zero()).then_some(interval)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    /// A notifier, and its abstract address, at which no service manager is yet.
    fn unanswered(test: &str) -> (Notifier, SocketAddr) {
        let name = format!("greeter-notify-{}-{test}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        (Notifier::new(Some(format!("@{name}").into())), address)
    }

    /// The service manager's end.
    fn manager(address: &SocketAddr) -> UnixDatagram {
        let manager = UnixDatagram::bind_addr(address).unwrap();
        manager.set_nonblocking(true).unwrap();
        manager
    }

    /// A notifier and the service manager's end.
    pub fn pair(test: &str) -> (Notifier, UnixDatagram) {
        let (notifier, address) = unanswered(test);
        (notifier, manager(&address))
    }

    pub fn receive(manager: &UnixDatagram) -> Option<String> {
        let mut buffer = [0; 8192];
        let length = manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    pub fn receive_all(manager: &UnixDatagram) -> Vec<String> {
        std::iter::from_fn(|| receive(manager)).collect()
    }

    #[test]
    fn states_and_status_are_separate_datagrams() {
        let (mut notifier, manager) = pair("separate");
        notifier.notify_reloading();
        notifier.notify_ready();
        notifier.notify_status("a\nREADY=0");
        let received = receive_all(&manager);
        assert!(received[0].starts_with("RELOADING=1\nMONOTONIC_USEC="));
        assert_eq!(received[1..], ["READY=1", "STATUS=a\\nREADY=0"]);
        assert_eq!(notifier.next_retry(), None);
    }

    #[test]
    fn status_is_bounded() {
        let (mut notifier, manager) = pair("bounded");
        notifier.notify_status(&"é".repeat(5000));
        let received = receive(&manager).unwrap();
        // As long as whole characters allow.
        let length = received.len() - "STATUS=".len();
        assert!((MAX_STATUS_LENGTH - 1..=MAX_STATUS_LENGTH).contains(&length));
        assert!(received.ends_with("é…"), "{received}");
    }

    #[test]
    fn full_queue_keeps_states_in_order_and_the_newest_status() {
        let (mut notifier, manager) = pair("full");
        // The queue of a datagram socket has room for a few datagrams only.
        while notifier.next_retry().is_none() {
            notifier.notify_watchdog();
        }
        receive_all(&manager);
        notifier.notify_reloading();
        notifier.notify_status("old");
        notifier.notify_ready();
        notifier.notify_status("new");
        let retry_at = notifier.next_retry().unwrap();
        notifier.send_pending(retry_at - Duration::from_nanos(1));
        assert_eq!(receive(&manager), None, "the retry is not due yet");
        notifier.send_pending(retry_at);
        let received = receive_all(&manager);
        assert_eq!(received[0], "WATCHDOG=1");
        assert!(received[1].starts_with("RELOADING=1\n"));
        assert_eq!(received[2..], ["READY=1", "STATUS=new"]);
    }

    #[test]
    fn failed_state_is_sent_when_the_manager_is_back() {
        // Not a socket that was just closed: the close is late while another thread, that of
        // another test, uses the descriptor in a call.
        let (mut notifier, address) = unanswered("back");
        notifier.notify_ready();
        assert!(notifier.next_retry().is_some());
        let manager = manager(&address);
        notifier.flush();
        assert_eq!(receive_all(&manager), ["READY=1"]);
    }

    #[test]
    fn delay_is_doubled_at_each_failure() {
        let (mut notifier, _address) = unanswered("doubled");
        notifier.notify_ready();
        let mut retry_at = notifier.next_retry().unwrap();
        let delays = [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(
            delays.map(|_| {
                notifier.send_pending(retry_at);
                let next = notifier.next_retry().unwrap();
                let delay = next - std::mem::replace(&mut retry_at, next);
                delay.as_millis()
            }),
            delays
        );
    }

    #[test]
    fn flush_gives_up_after_its_timeout() {
        let (mut notifier, manager) = pair("flush");
        while notifier.next_retry().is_none() {
            notifier.notify_watchdog();
        }
        let begun = Instant::now();
        notifier.notify_stopping();
        notifier.flush();
        assert!(begun.elapsed() < 5 * FLUSH_TIMEOUT);
        drop(manager);
    }
}
