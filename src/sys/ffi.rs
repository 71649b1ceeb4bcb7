//! System calls that neither std nor a crate in Debian wraps safely; wraps libc.
//! The only file that contains `unsafe`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

/// Error numbers of errno(3); some differ between architectures.
pub mod errno {
    pub use libc::{
        EBADF, ECONNABORTED, ECONNRESET, EHOSTDOWN, EHOSTUNREACH, EINTR, EMFILE, ENETDOWN,
        ENETUNREACH, ENFILE, ENOBUFS, ENOMEM, ENONET, ENOPROTOOPT, ENOSPC, ENOTSOCK, EOPNOTSUPP,
        EPERM, EPROTO, ETIMEDOUT,
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
