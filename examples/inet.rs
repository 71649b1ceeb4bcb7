//! Greets the client whose connection is stdin and stdout.

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;

use systemd_journal_logger::{JournalLog, connected_to_journal};

fn main() -> Result<(), Box<dyn Error>> {
    if connected_to_journal() {
        JournalLog::new()?.install()?;
        log::set_max_level(log::LevelFilter::Info);
    }
    let mut client = TcpStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    // Fails if stdout is no connection, for example a terminal: only then may text be
    // printed, as stderr can be the connection, too.
    let peer = client.peer_addr()?;
    match client.write_all(b"This socket was passed on stdin/stdout\n") {
        Ok(()) => log::info!(PEER:% = peer; "greeted {peer}"),
        Err(error) => log::warn!(PEER:% = peer; "cannot greet {peer}: {error}"),
    }
    Ok(())
}
