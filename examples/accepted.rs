//! Greets the client whose connection systemd has accepted and passed as descriptor 3.

use std::error::Error;
use std::io::Write;
use std::net::TcpStream;
use std::os::fd::{FromRawFd, IntoRawFd};

use libsystemd::activation::{FileDescriptor, IsType, receive_descriptors};
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
    let mut client = unsafe { TcpStream::from_raw_fd(socket.into_raw_fd()) };
    // Fails if the socket listens. After the greeting the client may have disconnected.
    let peer = client.peer_addr()?;
    client.write_all(b"This socket was already accepted\n")?;
    log::info!(PEER:% = peer; "greeted {peer}");
    Ok(())
}
