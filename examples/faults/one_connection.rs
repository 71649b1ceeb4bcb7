//! Fault: greets one client, and exits.

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};

use libsystemd::activation::{FileDescriptor, receive_descriptors};
use libsystemd::daemon::{NotifyState, notify};

fn main() -> Result<(), Box<dyn Error>> {
    let [socket]: [FileDescriptor; 1] = receive_descriptors(true)?
        .try_into()
        .map_err(|_| "expected one socket from systemd")?;
    // SAFETY: the descriptor is open, and the value that owned it is consumed here.
    let listener = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
    notify(false, &[NotifyState::Ready])?;
    let (mut client, _) = listener.accept()?;
    client.write_all(b"This is a test\n")?;
    Ok(())
}
