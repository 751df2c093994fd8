//! Pauses of sensors, as the command line asks for them.

use std::time::Duration;

use super::Pause;
use crate::clock::Clock;
use crate::sampler::remote;

/// How long a sensor may take to let go of its device before the answer says that it has not.
const RELEASE: Duration = Duration::from_secs(5);

/// The longest pause: it is for a visit, not for good.
pub const MAX_PAUSE: Duration = Duration::from_secs(24 * 60 * 60);

/// All pauses there are.
pub(super) fn all(remotes: &remote::Remotes, clock: &dyn Clock) -> Vec<Pause> {
    remotes.names().iter().filter_map(|name| now(name, &remotes.get(name)?, clock)).collect()
}

/// Begins a pause, or gives it another end, and waits until the device is free.
pub(super) async fn begin(
    remotes: &remote::Remotes,
    name: &str,
    time: Duration,
    clock: &dyn Clock,
) -> Result<Vec<Pause>, String> {
    let remote = find(remotes, name)?;
    if time.is_zero() || time > MAX_PAUSE {
        return Err(format!("a pause is longer than 0 s, and at most {} h", MAX_PAUSE.as_secs() / 3600));
    }
    remote.paused.send_replace(Some(clock.boot().after(time)));
    let mut resting = remote.resting.clone();
    // Where it takes longer, the answer says so.
    let _ = tokio::time::timeout(RELEASE, resting.wait_for(|resting| *resting)).await;
    Ok(now(name, &remote, clock).into_iter().collect())
}

/// Ends a pause.
pub(super) fn end(remotes: &remote::Remotes, name: &str, clock: &dyn Clock) -> Result<Vec<Pause>, String> {
    let remote = find(remotes, name)?;
    if now(name, &remote, clock).is_none() {
        return Err(format!("`{name}` is not paused"));
    }
    remote.paused.send_replace(None);
    Ok(Vec::new())
}

fn find(remotes: &remote::Remotes, name: &str) -> Result<remote::Remote, String> {
    remotes.get(name).ok_or_else(|| format!("there is no sensor `{name}`; there are: {}", remotes.names().join(", ")))
}

fn now(name: &str, remote: &remote::Remote, clock: &dyn Clock) -> Option<Pause> {
    let until = (*remote.paused.borrow())?;
    let left = until.since(clock.boot());
    (!left.is_zero()).then(|| Pause {
        sensor: name.to_owned(),
        left: left.as_secs() + u64::from(left.subsec_nanos() > 0),
        free: *remote.resting.borrow(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::sampler::remote::{Remotes, remote};

    #[tokio::test]
    async fn a_pause_is_listed_until_its_end_and_says_whether_the_device_is_free() {
        let clock = ManualClock::new();
        let (end_of_others, reins) = remote();
        let remotes: Remotes = [("meteo".to_owned(), end_of_others)].into();
        assert_eq!(all(&remotes, &clock), []);
        reins.resting.send_replace(true);
        let pause = Pause { sensor: "meteo".to_owned(), left: 600, free: true };
        assert_eq!(begin(&remotes, "meteo", Duration::from_secs(600), &clock).await, Ok(vec![pause]));
        clock.advance(Duration::from_millis(599_500));
        reins.resting.send_replace(false);
        assert_eq!(all(&remotes, &clock), [Pause { sensor: "meteo".to_owned(), left: 1, free: false }]);
        clock.advance(Duration::from_millis(500));
        assert_eq!(all(&remotes, &clock), []);
        assert_eq!(end(&remotes, "meteo", &clock), Err("`meteo` is not paused".to_owned()));
    }

    #[tokio::test]
    async fn what_cannot_be_paused_is_told() {
        let clock = ManualClock::new();
        let (end_of_others, _reins) = remote();
        let remotes: Remotes = [("meteo".to_owned(), end_of_others)].into();
        let why = begin(&remotes, "metro", Duration::from_secs(1), &clock).await.expect_err("no such sensor");
        assert_eq!(why, "there is no sensor `metro`; there are: meteo");
        for time in [Duration::ZERO, MAX_PAUSE + Duration::from_secs(1)] {
            let why = begin(&remotes, "meteo", time, &clock).await.expect_err("too short or too long");
            assert!(why.contains("at most 24 h"), "{why}");
        }
    }
}
