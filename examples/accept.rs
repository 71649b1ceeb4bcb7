//! Greets every client that connects to the listening socket passed by systemd.

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};

use libsystemd::activation::{FileDescriptor, IsType, receive_descriptors};
use libsystemd::daemon::{NotifyState, notify};
use socket2::SockRef;
use systemd_journal_logger::{JournalLog, connected_to_journal};

fn main() -> Result<(), Box<dyn Error>> {
    if connected_to_journal() {
        JournalLog::new()?.install()?;
        log::set_max_level(log::LevelFilter::Info);
    }
    let [socket]: [FileDescriptor; 1] = receive_descriptors(true)?
        .try_into()
        .map_err(|_| "expected one socket from systemd")?;
    if !socket.is_inet() {
        return Err("descriptor 3 is not a TCP socket".into());
    }
    // SAFETY: the descriptor is open, and the value that owned it is consumed here.
    let listener = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
    if !SockRef::from(&listener).is_listener()? {
        return Err("descriptor 3 does not listen: the socket unit needs Accept=no".into());
    }

    // Nothing can fail any more. Without a service manager this does nothing.
    notify(false, &[NotifyState::Ready])?;
    let mut count = 0;
    loop {
        match listener.accept() {
            Ok((mut client, peer)) => match client.write_all(b"This is a test\n") {
                Ok(()) => {
                    count += 1;
                    log::info!(PEER:% = peer; "greeted {peer}");
                    let status = NotifyState::Status(format!("clients greeted: {count}"));
                    // An error is ignored: clients matter more than the status text.
                    let _ = notify(false, &[status]);
                }
                Err(error) => log::warn!(PEER:% = peer; "cannot greet {peer}: {error}"),
            },
            Err(error) => log::warn!("cannot accept a connection: {error}"),
        }
    }
}
