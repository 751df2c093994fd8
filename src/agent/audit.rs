//! What an auditor asks for, on `…/audit`: each entry of the journal's category as a message, for uplinks with `audit`.
//!
//! `{"id":"17-1042","time":"…","event":"reload","before":"9ab3…","configuration":"c01d…","message":"reloaded: …"}`. They
//! are records: what was taken while a broker was away is sent when it is back. None is retained.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::when::When;
use crate::clock::BootTime;
use crate::config::UplinkConfig;
use crate::logging::{Fields, TRAIL, Trail};
use crate::outbox::{Body, Raw};
use crate::topic;
use crate::uplink::Hub;
use crate::uplink::dating::Date;

/// Events that are published within [`WINDOW`]. Further ones are counted, and are in the journal alone: who floods the
/// gateway with logins shall not fill its outbox.
const MAX_EVENTS: u32 = 60;

/// See [`MAX_EVENTS`].
const WINDOW: Duration = Duration::from_secs(60);

/// Does any uplink want them? A reload changes it.
pub(super) fn is_wanted(uplinks: &[UplinkConfig]) -> bool {
    uplinks.iter().any(|uplink| uplink.audit)
}

/// What is published.
#[derive(Serialize)]
struct Told {
    id: String,
    #[serde(flatten)]
    when: When,
    #[serde(flatten)]
    fields: Fields,
    /// Events before this one that are in the journal alone.
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// The stage.
struct Audit {
    hub: Rc<Hub>,
    wanted: Rc<Cell<bool>>,
    began: Option<BootTime>,
    in_window: u32,
    left_out: u64,
}

/// Publishes all events until `stop`, and then those that still wait. `strict`: they are on disk before they count as
/// taken.
pub(super) async fn run(hub: Rc<Hub>, wanted: Rc<Cell<bool>>, strict: bool, mut stop: watch::Receiver<bool>) {
    let mut audit = Audit { hub, wanted, began: None, in_window: 0, left_out: 0 };
    loop {
        let stopping = tokio::select! {
            biased;
            () = poll_fn(|context| TRAIL.poll(context)) => false,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        if audit.take_all(&TRAIL) {
            super::core::commit(&audit.hub, strict).await;
        }
        if stopping {
            return;
        }
    }
}

impl Audit {
    /// Appends what waits, as far as it is wanted. Says whether there is anything to be committed.
    fn take_all(&mut self, trail: &Trail) -> bool {
        let mut appended = false;
        while let Some((fields, lost)) = trail.take() {
            if self.wanted.get() {
                let now = self.hub.clock.boot();
                if self.may_pass(now) {
                    self.append(fields, now);
                    appended = true;
                } else {
                    self.left_out += 1;
                }
                self.left_out += lost;
            }
        }
        appended
    }

    fn may_pass(&mut self, now: BootTime) -> bool {
        if self.began.is_none_or(|began| now.since(began) >= WINDOW) {
            (self.began, self.in_window) = (Some(now), 0);
        }
        self.in_window = self.in_window.saturating_add(1);
        self.in_window <= MAX_EVENTS
    }

    fn append(&mut self, fields: Fields, now: BootTime) {
        let time = self.hub.now();
        let outbox = &mut *self.hub.outbox.borrow_mut();
        let told = Told {
            id: format!("{}-{}", outbox.run(), outbox.end()),
            when: time.map_or(Date::Uptime(self.hub.boot, now), Date::Wall).into(),
            fields,
            left_out: std::mem::take(&mut self.left_out),
        };
        let payload = serde_json::to_vec(&told).expect("texts and numbers have a form in JSON");
        outbox.append(now, time, Body::Raw(Raw::audit(&self.hub.topic(topic::AUDIT), &payload)));
    }
}

#[cfg(test)]
mod tests;
