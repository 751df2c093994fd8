//! What sensors and their filters keep across restarts: small values in the outbox's state, where they change with the
//! same commit as the records of the observation that they came with.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::BootId;
use crate::drivers::MAX_KEPT;
use crate::outbox::Outbox;

mod lan;

pub(super) use lan::{keep_filters_of_lan, of_filters_of_lan};

/// Before a sensor's name: the key of what it keeps.
const PREFIX: &str = "sensor/";

/// Before a sensor's name: the key of what its filters keep, behind the id of the boot in which they did.
const FILTERS_PREFIX: &str = "filters/";

/// The most bytes that the filters of a sensor keep: 64 filters of quantities with names of usual length.
const MAX_FILTERS_KEPT: usize = 8 * 1024;

/// The key under which it is noted how many starts in a row a sensor that kept something was not configured.
const FORMER_KEY: &str = "former-sensors";

/// At this start in a row without the sensor, what it kept is forgotten. Until then it can be put back as it was: a
/// sensor that is commented out for a while does not lose its total.
const FORGOTTEN_AT: u8 = 20;

/// So many sensors that are no longer configured are remembered; of more, those that were gone the longest are
/// forgotten.
const MAX_FORMER: usize = 64;

/// What the sensor kept in an earlier run.
pub(super) fn of(outbox: &Outbox, sensor: &str) -> Option<Box<[u8]>> {
    outbox.state(&format!("{PREFIX}{sensor}")).map(Into::into)
}

/// Keeps what a sensor gave, from the next commit on.
///
/// # Errors
/// It is too large, and nothing is changed.
pub(super) fn keep(outbox: &mut Outbox, sensor: &str, kept: Box<[u8]>) -> Result<(), String> {
    if kept.len() > MAX_KEPT {
        return Err(format!("{} bytes cannot be kept, {MAX_KEPT} at most", kept.len()));
    }
    outbox.put_state(&format!("{PREFIX}{sensor}"), Some(kept.into()));
    Ok(())
}

/// What the sensor's filters kept in an earlier run, and whether that was in this boot.
pub(super) fn of_filters(outbox: &Outbox, sensor: &str, boot: BootId) -> Option<(Box<[u8]>, bool)> {
    let (id, kept) = outbox.state(&format!("{FILTERS_PREFIX}{sensor}"))?.split_first_chunk()?;
    Some((kept.into(), BootId(*id) == boot))
}

/// Keeps what a sensor's filters gave, from the next commit on.
///
/// # Errors
/// It is too large, and nothing is changed.
pub(super) fn keep_filters(outbox: &mut Outbox, sensor: &str, boot: BootId, kept: &[u8]) -> Result<(), String> {
    if kept.len() > MAX_FILTERS_KEPT {
        let size = kept.len();
        return Err(format!(
            "its filters' {size} bytes cannot be kept, {MAX_FILTERS_KEPT} at most: they would start anew"
        ));
    }
    outbox.put_state(&format!("{FILTERS_PREFIX}{sensor}"), Some([&boot.0, kept].concat()));
    Ok(())
}

/// At a start with these sensors: forgets what others kept that have been gone for long enough.
pub(super) fn forget_former(outbox: &mut Outbox, sensors: &[&str]) {
    let noted = outbox.state(FORMER_KEY).and_then(|stored| postcard::from_bytes::<BTreeMap<String, u8>>(stored).ok());
    let noted = noted.unwrap_or_default();
    let names_below = |prefix: &'static str| outbox.state_keys(prefix).map(|key| key[prefix.len()..].to_owned());
    let names: BTreeSet<String> = names_below(PREFIX).chain(names_below(FILTERS_PREFIX)).collect();
    let mut former: Vec<(String, u8)> = names
        .into_iter()
        .filter(|name| !sensors.contains(&name.as_str()))
        .map(|name| {
            let starts = noted.get(&name).copied().unwrap_or_default().saturating_add(1);
            (name, starts)
        })
        .collect();
    former.sort_by_key(|(_, starts)| *starts);
    let stay = former.iter().take(MAX_FORMER).take_while(|(_, starts)| *starts < FORGOTTEN_AT).count();
    for (name, _) in former.drain(stay..) {
        for prefix in [PREFIX, FILTERS_PREFIX] {
            outbox.put_state(&format!("{prefix}{name}"), None);
        }
    }
    let former: BTreeMap<String, u8> = former.into_iter().collect();
    let stored = if former.is_empty() { None } else { postcard::to_allocvec(&former).ok() };
    outbox.put_state(FORMER_KEY, stored);
    lan::grow_older(outbox, FORGOTTEN_AT);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::{BootId, BootTime};
    use crate::outbox::{Full, Settings};

    pub(super) fn open(folder: &std::path::Path) -> Outbox {
        let settings = Settings {
            dir: folder.join("outbox"),
            tail_dir: folder.join("tail"),
            flush: Duration::from_secs(1),
            max_bytes: 8 << 20,
            free_share: 100,
            full: Full::DropOldest,
            memory_bytes: 1 << 20,
            persist: Duration::from_secs(300),
            key: None,
        };
        Outbox::open(settings, BootId([1; 16]), BootTime(1)).expect("an outbox").0
    }

    #[test]
    fn what_is_kept_is_there_after_a_crash_and_is_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = open(folder.path());
        let longest = "n".repeat(crate::config::MAX_NAME_BYTES);
        for name in ["gas", &longest] {
            keep(&mut outbox, name, Box::new([7; MAX_KEPT])).expect("as much as may be");
        }
        assert!(keep(&mut outbox, "gas", Box::new([8; MAX_KEPT + 1])).is_err());
        outbox.commit(BootTime(2));
        // Neither closed nor flushed: only the tail has it.
        drop(outbox);
        let outbox = open(folder.path());
        for name in ["gas", &longest] {
            assert_eq!(of(&outbox, name).as_deref(), Some(&[7; MAX_KEPT][..]), "{name}");
        }
        assert_eq!(of(&outbox, "water"), None);
    }

    #[test]
    fn what_filters_keep_says_of_which_boot_it_is_and_goes_with_its_sensor() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = open(folder.path());
        let (this, other) = (BootId([1; 16]), BootId([2; 16]));
        keep_filters(&mut outbox, "mains", this, &[7, 8]).expect("small");
        assert!(keep_filters(&mut outbox, "mains", this, &[0; MAX_FILTERS_KEPT + 1]).is_err());
        assert_eq!(of_filters(&outbox, "mains", this), Some(([7, 8].into(), true)));
        assert_eq!(of_filters(&outbox, "mains", other), Some(([7, 8].into(), false)));
        assert_eq!((of_filters(&outbox, "gas", this), of(&outbox, "mains")), (None, None));
        for _ in 0..FORGOTTEN_AT {
            forget_former(&mut outbox, &["gas"]);
        }
        assert_eq!(of_filters(&outbox, "mains", this), None);
    }

    #[test]
    fn what_a_former_sensor_kept_is_forgotten_at_a_later_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = open(folder.path());
        for name in ["gas", "water"] {
            keep(&mut outbox, name, Box::new([1])).expect("small");
        }
        for _ in 1..FORGOTTEN_AT {
            forget_former(&mut outbox, &["water"]);
        }
        assert!(of(&outbox, "gas").is_some());
        // It is back once: that begins anew.
        forget_former(&mut outbox, &["water", "gas"]);
        assert_eq!(outbox.state(FORMER_KEY), None);
        for _ in 1..FORGOTTEN_AT {
            forget_former(&mut outbox, &["water"]);
            assert!(of(&outbox, "gas").is_some());
        }
        forget_former(&mut outbox, &["water"]);
        assert_eq!((of(&outbox, "gas"), outbox.state(FORMER_KEY)), (None, None));
        assert!(of(&outbox, "water").is_some());
    }

    #[test]
    fn former_sensors_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = open(folder.path());
        keep(&mut outbox, "oldest", Box::new([1])).expect("small");
        forget_former(&mut outbox, &[]);
        for number in 0..MAX_FORMER {
            keep(&mut outbox, &format!("s{number}"), Box::new([1])).expect("small");
        }
        forget_former(&mut outbox, &[]);
        assert_eq!(outbox.state_keys(PREFIX).count(), MAX_FORMER);
        assert_eq!(of(&outbox, "oldest"), None);
    }
}
