//! What neither std nor a crate that Debian has does safely; the door to libc.
//! Floor 1; the only file with `unsafe` in it.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// The numbers of errno(3), some of which differ between architectures.
pub mod errno {
    pub use libc::{
        EBADF, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN,
        ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOSPC, ENOTSOCK, EOPNOTSUPP,
        EPERM, EPROTO, ETIMEDOUT,
    };
}

/// Asks something of the descriptor of a number that we were told, which nobody
/// owns yet and which may not be open.
pub fn ask<T>(number: RawFd, question: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    // SAFETY: the kernel refuses a number behind which nothing is open, and what is
    // borrowed cannot be closed, nor kept beyond the question.
    question(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Takes a descriptor out of a handle that does not close it when dropped. The
/// handle must be the only one.
pub fn own(handle: impl IntoRawFd) -> OwnedFd {
    // SAFETY: `into_raw_fd` gives up the handle's ownership, and it becomes ours.
    unsafe { OwnedFd::from_raw_fd(handle.into_raw_fd()) }
}

/// The state of a TCP connection: a number of `enum` in the kernel's
/// `include/net/tcp_states.h`. None for a socket of another family.
///
/// It is the first byte of `struct tcp_info` (tcp(7), `TCP_INFO`), and the kernel
/// gives no more of it than is asked for.
pub fn tcp_state(socket: BorrowedFd<'_>) -> Option<u8> {
    let mut state: u8 = 0;
    let mut length: libc::socklen_t = 1;
    // SAFETY: the kernel writes at most `length` bytes, one, to `state`, and the
    // length of it to `length`; both outlive the call, as does the borrowed
    // descriptor.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut state).cast(),
            &raw mut length,
        )
    };
    (outcome == 0 && length == 1).then_some(state)
}
