//! Fault: reads its text from the file that its argument names, for each client, and
//! exits if it cannot.

use std::error::Error;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::{env, fs};

use libsystemd::activation::{FileDescriptor, receive_descriptors};
use libsystemd::daemon::{NotifyState, notify};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args().nth(1).ok_or("expected the name of a file")?;
    fs::read_to_string(&file)?;
    let [socket]: [FileDescriptor; 1] = receive_descriptors(true)?
        .try_into()
        .map_err(|_| "expected one socket from systemd")?;
    // SAFETY: the descriptor is open, and the value that owned it is consumed here.
    let listener = unsafe { TcpListener::from_raw_fd(socket.into_raw_fd()) };
    notify(false, &[NotifyState::Ready])?;
    loop {
        let (mut client, _) = listener.accept()?;
        client.write_all(fs::read_to_string(&file)?.as_bytes())?;
    }
}
