//! Sensors that let go of their devices for a while, so that somebody else can use them.

use std::future::pending;

use tokio::sync::watch;
use tracing::info;

use super::poller::Worker;
use super::{Context, Sampler, stopped};
use crate::clock::{BootTime, Clock};
use crate::reading::{Fault, FaultCode};

/// Until when the sensor is paused, if it is.
fn paused_until(sampler: &Sampler, clock: &dyn Clock) -> Option<BootTime> {
    let until = *sampler.reins.paused.borrow();
    until.filter(|until| *until > clock.boot())
}

/// Resolves when a pause begins.
pub(super) async fn begins(sampler: &Sampler, clock: &dyn Clock) {
    let mut paused = sampler.reins.paused.clone();
    while paused_until(sampler, clock).is_none() {
        changed(&mut paused).await;
    }
}

/// Never resolves once the other end is gone.
async fn changed(paused: &mut watch::Receiver<Option<BootTime>>) {
    if paused.changed().await.is_err() {
        pending::<()>().await;
    }
}

/// Waits for as long as the sensor is paused, once its last call to the device has ended. False when it is time to end.
pub(super) async fn rest(sampler: &Sampler, worker: Option<Worker>, context: &mut Context) -> bool {
    if paused_until(sampler, &*context.clock).is_none() {
        return true;
    }
    if let Some(worker) = worker {
        tokio::select! {
            () = worker.end() => {}
            () = stopped(&mut context.stop) => return false,
        }
    }
    let resting = Resting::begin(sampler);
    let mut paused = sampler.reins.paused.clone();
    let mut told = None;
    while let Some(until) = paused_until(sampler, &*context.clock) {
        paused.mark_unchanged();
        if told != Some(until) {
            let fault = fault(sampler, until, context);
            info!("{fault}");
            if context.out.send(context.observe_fault(sampler.index, fault)).await.is_err() {
                return false;
            }
            told = Some(until);
        }
        let left = until.since(context.clock.boot());
        tokio::select! {
            () = tokio::time::sleep(left) => {}
            () = changed(&mut paused) => {}
            () = stopped(&mut context.stop) => return false,
            order = sampler.reins.order() => {
                // Whoever has sent it may have gone.
                let _ = order.done.send(Err("the sensor is paused".to_owned()));
            }
        }
    }
    drop(resting);
    info!("the pause is over");
    true
}

fn fault(sampler: &Sampler, until: BootTime, context: &Context) -> Fault {
    let end = match *context.offset.borrow() {
        Some(offset) => format!("until {}", humantime::format_rfc3339_seconds(offset.wall(until).to_system())),
        None => format!("for {} s", until.since(context.clock.boot()).as_secs()),
    };
    Fault::new(FaultCode::Paused, format!("paused {end}; `vigie resume {}` ends it", sampler.name))
}

/// Says that the device is free, until it is dropped.
struct Resting<'a>(&'a Sampler);

impl<'a> Resting<'a> {
    fn begin(sampler: &'a Sampler) -> Self {
        sampler.reins.resting.send_replace(true);
        Self(sampler)
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.reins.resting.send_replace(false);
    }
}
