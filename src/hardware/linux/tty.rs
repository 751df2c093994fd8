//! A tty that nobody else can open, and the system calls on it that no safe crate offers: modem lines, and the kernel's
//! counts of lost bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::termios::{QueueSelector, ioctl_tiocexcl, ioctl_tiocnxcl, tcflush};
use tokio::io::unix::AsyncFd;

/// An open tty, exclusive from its making to its closing.
#[derive(Debug)]
pub(super) struct Tty(OwnedFd);

impl Tty {
    /// Keeps others out (TIOCEXCL, ioctl_tty(2)), but for the superuser.
    pub(super) fn exclusive(tty: OwnedFd) -> Result<Self, Errno> {
        ioctl_tiocexcl(&tty)?;
        Ok(Self(tty))
    }

    /// Raises or lowers the line DTR (TIOCMBIS and TIOCMBIC, ioctl_tty(2)).
    ///
    /// # Errors
    /// The port has no such line (ENOTTY, EINVAL), or the device is gone.
    #[allow(unsafe_code)]
    pub(super) fn set_dtr(&self, up: bool) -> io::Result<()> {
        let request = if up { libc::TIOCMBIS } else { libc::TIOCMBIC };
        let lines = libc::TIOCM_DTR;
        // SAFETY: the descriptor is open for as long as `self` is, and the call only reads the integer `lines`.
        let answer = unsafe { libc::ioctl(self.as_raw_fd(), request, &raw const lines) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Bytes that the UART and the kernel's buffer have lost (TIOCGICOUNT, ioctl_tty(2)); wraps around.
    ///
    /// # Errors
    /// The driver does not count (ENOTTY), or the device is gone.
    #[allow(unsafe_code)]
    pub(super) fn overruns(&self) -> io::Result<u32> {
        let mut counts = Counts::default();
        // SAFETY: the descriptor is open for as long as `self` is, and `counts` is a valid, exclusively borrowed
        // structure of the kernel's layout, which the call fills in.
        let answer = unsafe { libc::ioctl(self.as_raw_fd(), libc::TIOCGICOUNT, &raw mut counts) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(counts.overrun.wrapping_add(counts.buf_overrun).cast_unsigned())
    }

    /// Registers the tty with the runtime's reactor.
    ///
    /// # Errors
    /// The reactor takes no more.
    #[allow(unsafe_code)]
    pub(super) fn register(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is owned by `self`, which never gives it away nor changes it, so that it stays open and
        // the same until the `AsyncFd` drops `self`.
        unsafe { AsyncFd::register(self) }.map_err(Into::into)
    }
}

impl AsFd for Tty {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Tty {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // What was not sent is dropped: closing would wait for it, for up to half a minute (`closing_wait`). Neither
        // call can fail but on a tty that is gone.
        let _ = tcflush(&self.0, QueueSelector::OFlush);
        // The tty would stay exclusive for as long as anybody else has it open.
        let _ = ioctl_tiocnxcl(&self.0);
    }
}

/// `struct serial_icounter_struct` of linux/serial.h.
#[repr(C)]
#[derive(Default)]
struct Counts {
    cts: libc::c_int,
    dsr: libc::c_int,
    rng: libc::c_int,
    dcd: libc::c_int,
    rx: libc::c_int,
    tx: libc::c_int,
    frame: libc::c_int,
    overrun: libc::c_int,
    parity: libc::c_int,
    brk: libc::c_int,
    buf_overrun: libc::c_int,
    reserved: [libc::c_int; 9],
}
