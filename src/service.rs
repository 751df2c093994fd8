//! Talks to the service manager (sd_notify(3)): ready, status, watchdog, stopping.
//!
//! Outside of a unit with `Type=notify` there is no `$NOTIFY_SOCKET`, and every function here does nothing. Whether
//! the agent is well enough to say so is the agent's decision; these functions only pass it on.

use std::time::Duration;

use sd_notify::NotifyState;

/// The agent samples, and its outbox takes records: what `systemctl start` waits for.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
}

/// The configuration is being read anew, until [`ready`] is called again. The manager wants to know since when: it may
/// know of another reload as well (sd_notify(3), `RELOADING=1`).
pub fn reloading() {
    let since = NotifyState::monotonic_usec_now();
    let since = since.inspect_err(|error| tracing::warn!(%error, "the monotonic clock cannot be read"));
    send(&[NotifyState::Reloading, NotifyState::Status("reloading")].into_iter().chain(since.ok()).collect::<Vec<_>>());
}

/// One line for `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(&one_line(status))]);
}

/// The agent answers: postpones the manager's watchdog.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// The agent has begun to shut down.
pub fn stopping() {
    send(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// How often to call [`watchdog`]: half of `WatchdogSec=`, as sd_watchdog_enabled(3) recommends. `None`: the manager
/// watches nothing.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|timeout| timeout / 2)
}

/// A line break would end the field and begin another one.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        // Without READY or WATCHDOG the manager will end the service: its user must be able to find out why.
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_cannot_smuggle_in_another_field() {
        assert_eq!(one_line("3 sensors\nREADY=1\r"), "3 sensors READY=1 ");
    }
}
