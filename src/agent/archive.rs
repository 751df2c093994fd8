//! The archive's stage: what every uplink has acknowledged goes to the archive, in batches, away from the thread that
//! serves sensors and brokers. Whatever becomes of it, the outbox goes on.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use super::store::MEMORY;
use crate::archive::{Archive, Builder, CURSOR, Failure, Settings};
use crate::clock::WallTime;
use crate::config::ArchiveConfig;
use crate::control::status::About;
use crate::outbox::{CursorId, Entry, Seq};
use crate::uplink::Hub;
use crate::uplink::dating::Date;

/// Between two looks whether a batch is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Records that are taken from the outbox at a time.
const PIECE: usize = 64;

/// Writes a batch whenever one is due, until `stop`; then the last one.
pub(super) async fn run(
    hub: Rc<Hub>,
    config: ArchiveConfig,
    about: Rc<RefCell<About>>,
    mut stop: watch::Receiver<bool>,
) {
    let cursor = hub.outbox.borrow_mut().cursor_soft(CURSOR);
    let ArchiveConfig { path: dir, keep, max: max_bytes, batch } = config;
    let settings = Settings { dir, keep, max_bytes };
    let mut stage = Stage { hub, cursor, about, settings, archive: None, failing: false };
    let mut last = stage.hub.clock.boot();
    loop {
        let stopping = tokio::select! {
            stopped = stop.wait_for(|stop| *stop) => stopped.is_ok() || stopped.is_err(),
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = stage.hub.clock.boot();
        // What waits for the archive alone is given up when half of the memory is full.
        let urgent = !stage.failing && stage.hub.outbox.borrow().stats().memory_bytes > MEMORY / 4;
        if stopping || urgent || now.since(last) >= batch {
            stage.round().await;
            last = now;
        }
        if stopping {
            return;
        }
    }
}

struct Stage {
    hub: Rc<Hub>,
    cursor: CursorId,
    /// Says which uplinks there are.
    about: Rc<RefCell<About>>,
    settings: Settings,
    /// `None`: not opened yet, or a write was not finished.
    archive: Option<Archive>,
    failing: bool,
}

impl Stage {
    /// Archives what there is.
    async fn round(&mut self) {
        loop {
            let (batch, taken) = self.gather();
            if batch.is_empty() {
                return;
            }
            let now = self.hub.now();
            let (archive, settings) = (self.archive.take(), self.settings.clone());
            let job = tokio::task::spawn_blocking(move || write(archive, settings, &batch, now));
            let result = match job.await {
                Ok((archive, result)) => {
                    self.archive = archive;
                    result
                }
                Err(end) => {
                    warn!("writing the archive ended early: {end}");
                    return;
                }
            };
            if let Err(failure) = result {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!("nothing is archived: {failure} (it is tried again; brokers get everything all the same)");
                }
                return;
            }
            if std::mem::take(&mut self.failing) {
                info!("the archive can be written again");
            }
            let outbox = &mut *self.hub.outbox.borrow_mut();
            for seqs in taken {
                outbox.ack(self.cursor, seqs);
            }
            outbox.commit(self.hub.clock.boot());
        }
    }

    /// Takes records that every uplink has acknowledged and the archive has not, as many as a batch holds.
    fn gather(&self) -> (Builder, Vec<Range<Seq>>) {
        let outbox = &mut *self.hub.outbox.borrow_mut();
        let uplinks: Vec<CursorId> = self.about.borrow().names().map(|name| outbox.cursor(name)).collect();
        let (mut batch, mut taken) = (Builder::default(), Vec::<Range<Seq>>::new());
        let mut entries: Vec<Entry> = Vec::new();
        let mut from = 0;
        while let Some(stretch) = outbox.acked_by(&uplinks, from) {
            entries.clear();
            outbox.read(self.cursor, stretch.start, PIECE, &mut entries);
            from = stretch.end;
            for entry in &entries {
                let seqs = entry.seqs();
                if seqs.start < stretch.start {
                    continue;
                }
                if seqs.end > stretch.end {
                    break;
                }
                if !batch.has_room() {
                    return (batch, taken);
                }
                let date = self.hub.dating().date(entry);
                let time = match date {
                    Date::Wall(time) => {
                        // What is told here first is gone from the outbox by the time that this matters.
                        self.hub.tell(outbox, entry);
                        Some(time)
                    }
                    Date::Uptime(..) => None,
                };
                batch.push(entry, time);
                match taken.last_mut() {
                    Some(last) if last.end == seqs.start => last.end = seqs.end,
                    _ => taken.push(seqs.clone()),
                }
                from = seqs.end;
            }
            // A piece that was taken whole may not be all of the stretch.
            if entries.len() < PIECE && from < stretch.end {
                from = stretch.end;
            }
        }
        (batch, taken)
    }
}

/// Opens the archive if need be, and writes.
fn write(
    archive: Option<Archive>,
    settings: Settings,
    batch: &Builder,
    now: Option<WallTime>,
) -> (Option<Archive>, Result<(), Failure>) {
    let mut archive = match archive.map_or_else(|| Archive::open(settings), Ok) {
        Ok(archive) => archive,
        Err(failure) => return (None, Err(failure)),
    };
    let result = archive.write(batch, now).map(drop);
    (Some(archive), result)
}
