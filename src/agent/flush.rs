//! The flush stage: what waits too long for its acknowledgement goes to disk, away from the thread that serves
//! sensors and brokers.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, error, warn};

use super::gaps::Gaps;
use crate::uplink::Hub;

/// It is looked this often at least whether something is due.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Flushes whenever something is due, until `stop`; a flush that runs is finished first.
pub(super) async fn run(hub: Rc<Hub>, mut stop: watch::Receiver<bool>) {
    let mut gaps = Gaps::of(&hub);
    while !*stop.borrow() {
        let due = hub.outbox.borrow().flush_due();
        let wait = due.map_or(LOOK_EVERY, |due| due.since(hub.clock.boot()).min(LOOK_EVERY));
        if wait.is_zero() {
            flush_now(&hub).await;
        } else {
            tokio::select! {
                _ = stop.changed() => break,
                // What is acknowledged meanwhile need not be written: so the time is looked at again afterwards.
                () = tokio::time::sleep(wait) => {}
                // What waits already may have minutes, such as a counter's total; a new record has not.
                () = hub.flush.notified() => {}
            }
        }
        gaps.look(&hub);
    }
    gaps.close(&hub);
}

/// Writes what is due now and waits for the disk.
pub(super) async fn flush_now(hub: &Hub) {
    let job = hub.outbox.borrow_mut().begin_flush(hub.clock.boot());
    if let Some(job) = job {
        match tokio::task::spawn_blocking(move || job.run()).await {
            Ok(done) => {
                let mut outbox = hub.outbox.borrow_mut();
                outbox.finish_flush(done, hub.clock.boot());
                hub.flushed();
                debug!(run = outbox.run(), below = outbox.on_disk(), "on disk");
            }
            Err(end) => error!("a flush of the outbox ended early: {end}"),
        }
    }
    let warnings = hub.outbox.borrow_mut().take_warnings();
    for warning in warnings {
        warn!("outbox: {warning}");
    }
}
