//! Feeds the service manager's watchdog, only while the core stages answer, and keeps the status line current.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::warn;

use super::summary::Summary;
use crate::control::status::About;
use crate::sampler::Batch;
use crate::service;
use crate::uplink::Hub;

/// How often the status line is made anew where there is no watchdog, or a slower one.
const STATUS_EVERY: Duration = Duration::from_secs(30);

/// Never ends by itself. An empty batch goes all the way through the core stage: when its round is counted, the
/// pipeline, the outbox and the thread that the uplinks run on are alive.
pub(super) async fn run(
    core: mpsc::Sender<Batch>,
    mut rounds: watch::Receiver<u64>,
    hub: Rc<Hub>,
    summary: Rc<RefCell<Summary>>,
    about: Rc<RefCell<About>>,
) {
    let watched = service::watchdog_interval();
    let interval = watched.map_or(STATUS_EVERY, |watched| watched.min(STATUS_EVERY));
    loop {
        tokio::time::sleep(interval).await;
        rounds.mark_unchanged();
        // The queue may be full of what a stuck stage does not take: that is no answer either.
        let mut answer = pin!(async {
            core.send(Batch::new()).await.ok()?;
            rounds.changed().await.ok()
        });
        // Told before the manager's patience ends, as it leaves no time for words. An answer that comes late counts.
        let patience = interval / 2;
        let answer = match timeout(patience, &mut answer).await {
            Ok(answer) => answer,
            Err(_) => {
                warn!("the pipeline has not answered for {}", humantime::format_duration(patience));
                answer.await
            }
        };
        if answer.is_none() {
            return;
        }
        service::watchdog();
        service::status(&status_line(&hub, &summary.borrow(), &about.borrow()));
    }
}

/// What `systemctl status` shows: rooms, faults, and how much waits for each uplink.
pub(super) fn status_line(hub: &Hub, summary: &Summary, about: &About) -> String {
    let outbox = &mut *hub.outbox.borrow_mut();
    let backlog: Vec<(&str, u64)> = about
        .names()
        .map(|name| {
            let cursor = outbox.cursor(name);
            (name, outbox.backlog(cursor))
        })
        .collect();
    summary.line(outbox.run(), &backlog)
}
