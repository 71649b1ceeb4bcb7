//! The other ends of greeter's datagrams: the service manager and the journal.

use std::collections::HashMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Receives datagrams until it is closed.
pub struct Inbox {
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    is_closing: Arc<AtomicBool>,
    reader: JoinHandle<()>,
}

impl Inbox {
    pub fn at_path(path: &Path) -> Self {
        Self::new(UnixDatagram::bind(path).unwrap())
    }

    pub fn at_abstract_name(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        Self::new(UnixDatagram::bind_addr(&address).unwrap())
    }

    fn new(socket: UnixDatagram) -> Self {
        let received = Arc::default();
        let is_closing = Arc::default();
        let reader = thread::spawn({
            let (received, is_closing) = (Arc::clone(&received), Arc::clone(&is_closing));
            move || receive(&socket, &received, &is_closing)
        });
        Self {
            received,
            is_closing,
            reader,
        }
    }

    /// The lines of all datagrams, in order.
    pub fn lines(&self) -> Vec<String> {
        let received = self.received.lock().unwrap();
        let lines = received.iter().flat_map(|datagram| {
            let text = String::from_utf8_lossy(datagram).into_owned();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        });
        lines.collect()
    }

    /// All datagrams that were sent until now.
    pub fn close(self) -> Vec<Vec<u8>> {
        self.is_closing.store(true, Ordering::Release);
        self.reader.join().unwrap();
        std::mem::take(&mut self.received.lock().unwrap())
    }
}

fn receive(socket: &UnixDatagram, received: &Mutex<Vec<Vec<u8>>>, is_closing: &AtomicBool) {
    socket
        .set_read_timeout(Some(Duration::from_millis(5)))
        .unwrap();
    let mut buffer = vec![0; 65536];
    loop {
        // Read before the receive: nothing is sent after the end of the program.
        let is_last = is_closing.load(Ordering::Acquire);
        match socket.recv(&mut buffer) {
            Ok(length) => received.lock().unwrap().push(buffer[..length].to_vec()),
            Err(_) if is_last => return,
            Err(_) => {}
        }
    }
}

/// The fields of an entry in the journal's native protocol.
pub fn journal_fields(datagram: &[u8]) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    let mut rest = datagram;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 1..];
        if let Some((name, value)) = line.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
        } else if let Some((length, data)) = rest.split_first_chunk() {
            // A name alone: length in eight bytes, value, newline.
            let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
            let length = length.min(data.len());
            fields.insert(line, String::from_utf8_lossy(&data[..length]).into_owned());
            rest = data.get(length + 1..).unwrap_or_default();
        }
    }
    fields
}
