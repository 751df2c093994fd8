//! Asks the kernel whether its clock is synchronised: the one system call that no safe crate offers.

/// Does the kernel say that its clock follows a time source (`STA_UNSYNC` not set, adjtimex(2))?
///
/// NTP clients (chrony, systemd-timesyncd, ntpd) and PTP clear that flag. Where the call is forbidden (a sandbox
/// without adjtimex), the answer is no.
#[must_use]
#[allow(unsafe_code)]
pub fn synchronised() -> bool {
    // SAFETY: all fields of `timex` are integers or padding, for which zero is a valid value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid, exclusively borrowed `timex`, and `modes` = 0 asks the kernel to change nothing.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    answer >= 0 && answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0
}
