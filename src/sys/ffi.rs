//! System calls that neither std nor a crate in Debian wraps safely; wraps libc.
//! The only file that contains `unsafe`.

use std::env;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::ptr;

/// Error numbers of errno(3), and flags of open(2); some differ between architectures.
pub mod errno {
    pub use libc::{
        EBADF, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN,
        ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOSPC, ENOTSOCK, ENXIO, EPERM,
        EPROTO, ETIMEDOUT, O_NONBLOCK,
    };
}

/// Calls `f` with a descriptor that is known by its number only: it has no owner
/// yet, and may not be open.
pub fn with_fd<T>(number: RawFd, f: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: the kernel reports EBADF for a number that is not open, and the
    // borrowed descriptor cannot be closed, nor be kept after `f` returns.
    f(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Takes ownership of a descriptor whose handle does not close it when dropped.
/// The handle must be the only one.
pub fn into_owned_fd(handle: impl IntoRawFd) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up the handle's ownership to the caller.
    unsafe { OwnedFd::from_raw_fd(handle.into_raw_fd()) }
}

/// Unsets a variable of the environment. Must be called before threads start.
pub fn unset_variable(name: &str) {
    // SAFETY: there is no other thread that could read the environment.
    unsafe { env::remove_var(name) };
}

/// Waits until a descriptor is readable, for at most `timeout` milliseconds; `false`
/// after that, or if poll(2) fails.
pub fn poll_readable(fd: BorrowedFd<'_>, timeout: i32) -> bool {
    poll(fd, libc::POLLIN, timeout)
}

/// Whether a write of at most `PIPE_BUF` bytes to a pipe does not block (pipe(7)).
pub fn is_writable(fd: BorrowedFd<'_>) -> bool {
    poll(fd, libc::POLLOUT, 0)
}

/// Receives what has arrived on a socket, without blocking.
///
/// # Errors
/// Those of recv(2); `WouldBlock` if nothing has arrived.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<usize> {
    let start = buffer.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most the length of the buffer to it.
    let length = unsafe { libc::recv(fd.as_raw_fd(), start, buffer.len(), libc::MSG_DONTWAIT) };
    usize::try_from(length).map_err(|_| io::Error::last_os_error())
}

fn poll(fd: BorrowedFd<'_>, events: i16, timeout: i32) -> bool {
    let mut entry = libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: the kernel reads and writes one entry, which outlives the call.
    unsafe { libc::poll(&raw mut entry, 1, timeout) == 1 }
}

/// The signals that [`ignore_signals`] ignores beside the real-time ones.
pub const IGNORED_SIGNALS: [i32; 5] = [
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGPIPE,
    libc::SIGIO,
];

/// Ignores signals whose default action ends the process although nothing is wrong
/// with it: [`IGNORED_SIGNALS`] and the real-time signals (signal(7)).
pub fn ignore_signals() {
    for signal in IGNORED_SIGNALS
        .into_iter()
        .chain(libc::SIGRTMIN()..=libc::SIGRTMAX())
    {
        // SAFETY: SIG_IGN installs no handler, so no code runs when a signal arrives.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
}

/// Sends SIGHUP to a process. The constants of rustix differ between its versions.
///
/// # Errors
/// Those of kill(2).
pub fn send_sighup(pid: i32) -> io::Result<()> {
    // SAFETY: the call takes two numbers and touches no memory of this process.
    match unsafe { libc::kill(pid, libc::SIGHUP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Blocks all signals in this thread, so that another one handles them.
pub fn block_signals() {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigfillset(3) initializes the set, and pthread_sigmask(3) reads it and
    // ignores the null pointer for the old mask. They cannot fail.
    unsafe {
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// Unblocks signals in this thread, and in the threads that it starts: the mask is
/// inherited from the parent process.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub fn unblock_signals(signals: &[i32]) -> io::Result<()> {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) initializes the set; the other calls read it or add to
    // it, and ignore the null pointer for the old mask.
    let error = unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for signal in signals {
            libc::sigaddset(set.as_mut_ptr(), *signal);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut())
    };
    match error {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The state of a TCP connection, a number of the enum in the kernel's
/// `include/net/tcp_states.h`; `None` for a socket of another family.
///
/// It is the first byte of `struct tcp_info` (tcp(7), `TCP_INFO`); the kernel
/// returns only as many bytes as requested.
pub fn tcp_state(socket: BorrowedFd<'_>) -> Option<u8> {
    let mut state: u8 = 0;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the kernel writes at most `length` bytes, one, to `state`, and the
    // number of bytes to `length`; both outlive the call, as does the borrowed
    // descriptor.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    (result == 0 && length == 1).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tcp_has_a_tcp_state() {
        use std::net::{TcpListener, TcpStream};
        use std::os::fd::AsFd;
        use std::os::unix::net::UnixStream;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        // TCP_ESTABLISHED and TCP_LISTEN.
        assert_eq!(tcp_state(client.as_fd()), Some(1));
        assert_eq!(tcp_state(listener.as_fd()), Some(10));
        assert_eq!(tcp_state(UnixStream::pair().unwrap().0.as_fd()), None);
    }
}
