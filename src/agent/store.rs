//! The outbox that the agent opens, and looks at without opening.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use tracing::{info, warn};

use super::{kept, places};
use crate::clock::{BootId, BootTime};
use crate::config::{Config, SensorConfig};
use crate::drivers::Source;
use crate::logging::AUDIT;
use crate::outbox::{self, Full, Outbox, RESTORED_KEY, Recovery};

/// Bytes of records that are kept in memory.
pub(super) const MEMORY: usize = 8 << 20;
/// How old small values (counter totals, the session) may be on disk.
const PERSIST: Duration = Duration::from_secs(300);

/// Settings of an outbox whose tail is in a given folder.
#[must_use]
pub fn outbox_settings_at(config: &Config, tail_dir: PathBuf) -> outbox::Settings {
    outbox::Settings {
        dir: config.outbox.path.clone(),
        tail_dir,
        flush: config.outbox.flush,
        max_bytes: config.outbox.max_bytes,
        free_share: config.outbox.free_share,
        full: if config.outbox.drop_newest { Full::DropNewest } else { Full::DropOldest },
        memory_bytes: MEMORY,
        persist: PERSIST,
        key: config.outbox.key.clone(),
    }
}

/// What the sensors on lines have kept so far, by name, as an agent that is not running left it. Nothing where there is
/// no outbox yet, or somebody has it: then the lines are taken, too.
#[must_use]
pub fn kept_so_far(config: &Config, now: BootTime) -> HashMap<String, Box<[u8]>> {
    let keeps = |sensor: &&SensorConfig| matches!(sensor.source, Source::Line(_));
    let names: Vec<&str> = config.sensors.iter().filter(keeps).map(|sensor| sensor.name.as_str()).collect();
    if names.is_empty() {
        return HashMap::new();
    }
    let tail = places::tail(config.outbox.tail.as_deref(), &config.outbox.path);
    let outbox = BootId::current()
        .and_then(|boot| Outbox::inspect(outbox_settings_at(config, tail.dir), boot, now).ok())
        .map(|(outbox, _)| outbox);
    let kept = |name: &str| Some((name.to_owned(), kept::of(outbox.as_ref()?, name)?));
    names.into_iter().filter_map(kept).collect()
}

/// Names of the outbox's cursors; any other is forgotten.
#[must_use]
pub fn cursors(config: &Config) -> Vec<&str> {
    let archive = config.archive.as_ref().map(|_| crate::archive::CURSOR);
    config.uplinks.iter().map(|uplink| uplink.name.as_str()).chain(archive).collect()
}

/// Settings of the agent's own.
pub(super) fn outbox_settings(config: &Config) -> outbox::Settings {
    let tail = places::tail(config.outbox.tail.as_deref(), &config.outbox.path);
    if !tail.in_memory {
        warn!(tail = %tail.dir.display(), "the tail is not on a tmpfs: each record is a write to the disk's cache");
    }
    outbox_settings_at(config, tail.dir)
}

/// Opens it, and says what was found.
pub(super) fn open_outbox(
    config: &Config,
    settings: outbox::Settings,
    boot: BootId,
    now: BootTime,
) -> anyhow::Result<(Outbox, Recovery)> {
    let path = &config.outbox.path;
    let (mut outbox, recovery) = Outbox::open(settings, boot, now)?;
    let Recovery { waiting, from_tail, segments, .. } = recovery;
    info!(outbox = %path.display(), waiting, from_tail, segments, "outbox opened");
    if recovery.tail_torn {
        warn!("the tail ended in the middle of a write: a reading that was not yet taken is missing");
    }
    if recovery.state_lost {
        warn!("the outbox had no readable state: counters start anew");
    }
    if recovery.sealed_from_now {
        info!("the outbox is encrypted from now on; what it held before stays in clear until it has been sent");
    }
    if !recovery.run_counted {
        warn!(run = outbox.run(), "the run could not be counted on disk: it has a random number");
    }
    for file in &recovery.set_aside {
        warn!(file = %file.display(), "damaged, and set aside; what was good in it is used");
    }
    if outbox.state(RESTORED_KEY).is_some() {
        info!(target: AUDIT, audit = "restore", "the outbox was brought back from a backup since the last start");
        outbox.put_state(RESTORED_KEY, None);
    }
    outbox.retain_cursors(&cursors(config));
    let sensors: Vec<&str> = config.sensors.iter().map(|sensor| sensor.name.as_str()).collect();
    kept::forget_former(&mut outbox, &sensors);
    Ok((outbox, recovery))
}
