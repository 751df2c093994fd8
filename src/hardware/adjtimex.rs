//! Asks the kernel whether its clock is synchronised: the one system call that no safe crate offers.

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Its clock follows a source of time.
    Yes,
    /// It does not.
    No,
    /// The call is forbidden, with this error (`errno`).
    Refused(i32),
}

/// Does the kernel say that its clock follows a time source (`STA_UNSYNC` not set, adjtimex(2))?
///
/// NTP clients (systemd-timesyncd, ntpd, chrony with `rtcsync`) and PTP clear that flag; the kernel sets it again when it
/// has not heard of them for so long that its clock may be wrong by 16 s, which takes nine hours.
#[must_use]
#[allow(unsafe_code)]
pub fn synchronised() -> Answer {
    // SAFETY: all fields of `timex` are integers or padding, for which zero is a valid value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `state` is a valid, exclusively borrowed `timex`, and `modes` = 0 asks the kernel to change nothing.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    if answer < 0 {
        let error = std::io::Error::last_os_error();
        return Answer::Refused(error.raw_os_error().unwrap_or_default());
    }
    let is_well = answer != libc::TIME_ERROR && state.status & libc::STA_UNSYNC == 0;
    if is_well { Answer::Yes } else { Answer::No }
}
