//! What the filters of LAN clients' sensors keep. These sensors stand in no configuration: they are met, at each start
//! anew, and what was kept of one that was not met for many starts is forgotten.

use crate::clock::BootId;
use crate::outbox::Outbox;
use crate::state::MAX_KEY;

/// Before a sensor's room and name: the key of what its filters keep, behind the number of starts since it was last kept
/// and the id of the boot.
const PREFIX: &str = "lan-filters/";

/// The most bytes that the filters of one sensor keep.
const MAX_BYTES: usize = 1024;

/// So many sensors' filters are kept.
const MAX_SENSORS: usize = 128;

/// Names have no `/`, so that no two are the same.
fn key(room: Option<&str>, sensor: &str) -> String {
    format!("{PREFIX}{}/{sensor}", room.unwrap_or_default())
}

/// What a sensor's filters kept in an earlier run, and whether that was in this boot.
pub(in super::super) fn of_filters_of_lan(
    outbox: &Outbox,
    room: Option<&str>,
    sensor: &str,
    boot: BootId,
) -> Option<(Box<[u8]>, bool)> {
    let (_, stored) = outbox.state(&key(room, sensor))?.split_first()?;
    let (id, kept) = stored.split_first_chunk()?;
    Some((kept.into(), BootId(*id) == boot))
}

/// Keeps what a sensor's filters gave, from the next commit on.
///
/// # Errors
/// There is no room for it, and nothing is changed.
pub(in super::super) fn keep_filters_of_lan(
    outbox: &mut Outbox,
    room: Option<&str>,
    sensor: &str,
    boot: BootId,
    kept: &[u8],
) -> Result<(), String> {
    let key = key(room, sensor);
    if kept.len() > MAX_BYTES {
        let size = kept.len();
        return Err(format!("its filters' {size} bytes cannot be kept, {MAX_BYTES} at most: they would start anew"));
    }
    if key.len() > MAX_KEY {
        return Err(
            "what its filters keep starts anew with each start: its name and its room's are too long".to_owned()
        );
    }
    if outbox.state(&key).is_none() && outbox.state_keys(PREFIX).count() >= MAX_SENSORS {
        return Err(format!(
            "what its filters keep starts anew with each start: {MAX_SENSORS} sensors of LAN clients have such filters"
        ));
    }
    outbox.put_state(&key, Some([&[0], &boot.0[..], kept].concat()));
    Ok(())
}

/// At a start: what was not kept anew for so many of them is forgotten.
pub(super) fn grow_older(outbox: &mut Outbox, forgotten_at: u8) {
    let keys: Vec<String> = outbox.state_keys(PREFIX).map(str::to_owned).collect();
    for key in keys {
        let older = outbox.state(&key).and_then(|stored| {
            let (starts, rest) = stored.split_first()?;
            let starts = starts.saturating_add(1);
            (starts < forgotten_at).then(|| [&[starts], rest].concat())
        });
        outbox.put_state(&key, older);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::open;
    use super::*;

    const BOOT: BootId = BootId([1; 16]);

    #[test]
    fn what_lan_sensors_filters_keep_is_theirs_bounded_and_forgotten_when_they_are_never_met() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut outbox = open(folder.path());
        let of = |outbox: &Outbox, room, boot| of_filters_of_lan(outbox, room, "esp", boot);
        keep_filters_of_lan(&mut outbox, Some("salon"), "esp", BOOT, &[7]).expect("small");
        keep_filters_of_lan(&mut outbox, None, "esp", BOOT, &[8]).expect("small");
        assert_eq!(of(&outbox, Some("salon"), BOOT), Some(([7].into(), true)));
        assert_eq!(of(&outbox, None, BootId([2; 16])), Some(([8].into(), false)));
        assert!(keep_filters_of_lan(&mut outbox, None, "esp", BOOT, &[0; MAX_BYTES + 1]).is_err());
        assert!(keep_filters_of_lan(&mut outbox, Some(&"r".repeat(128)), &"s".repeat(128), BOOT, &[0]).is_err());
        for number in 2..MAX_SENSORS {
            keep_filters_of_lan(&mut outbox, None, &format!("s{number}"), BOOT, &[0]).expect("there is room");
        }
        assert!(keep_filters_of_lan(&mut outbox, None, "one more", BOOT, &[0]).is_err());
        for _ in 0..3 {
            grow_older(&mut outbox, 4);
            keep_filters_of_lan(&mut outbox, None, "esp", BOOT, &[9]).expect("it has its place");
        }
        assert!(of(&outbox, Some("salon"), BOOT).is_some());
        grow_older(&mut outbox, 4);
        assert_eq!(of(&outbox, Some("salon"), BOOT), None);
        assert_eq!(of(&outbox, None, BOOT), Some(([9].into(), true)), "it was met each time");
    }
}
