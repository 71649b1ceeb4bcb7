//! Fault: sends READY=1 only after the first client has connected.

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
    loop {
        let (mut client, _) = listener.accept()?;
        notify(false, &[NotifyState::Ready])?;
        client.write_all(b"This is a test\n")?;
    }
}
