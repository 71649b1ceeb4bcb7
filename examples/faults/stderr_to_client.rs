//! Fault: prints a warning to stderr, which is the client's connection.

use std::error::Error;
use std::io::{self, Write};

fn main() -> Result<(), Box<dyn Error>> {
    eprintln!("warning: no settings in /etc/faults.toml, using defaults");
    io::stdout().write_all(b"This socket was passed on stdin/stdout\n")?;
    Ok(())
}
