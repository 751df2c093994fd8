//! Keeps the sensors going: when to sample, how long to wait, what to do when one fails.
//!
//! Each sensor is a task of its own; a poller's blocking calls run on a thread of its own besides, because an ioctl
//! cannot be cancelled. A broken sensor is reported and retried with a pause that grows; it never touches another.

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tracing::{Instrument, info_span, warn};

use crate::clock::{Clock, Offset};
use crate::drivers::Source;
use crate::hardware::{Hardware, PowerSettings};
use crate::reading::{Fault, FaultCode, Observation, SensorIndex};

mod due;
mod endless;
mod link;
mod orders;
mod pause;
mod poller;
mod port;
mod power;
mod process;
pub mod remote;

use poller::Worker;
use remote::Reins;

pub use power::Supplies;

/// Batches of observations that may wait for the pipeline. When they are full, a polled sensor skips a sample, and a
/// link is not read, so that back-pressure reaches the kernel's buffer.
pub const QUEUE: usize = 256;

/// Pause after the first fault of a sensor.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
/// The longest pause between two attempts at a polled sensor that was sampled more often before.
const BACK_OFF_MOST: Duration = Duration::from_secs(60);

/// What a sampler gives to the pipeline at once.
pub type Batch = Vec<Observation>;

/// What was not sampled, and why.
#[derive(Debug, Default)]
pub struct Counts {
    /// Samples that were due while the one before was still running.
    pub overrun: AtomicU64,
    /// Samples skipped because the queue to the pipeline was full.
    pub queue_full: AtomicU64,
}

/// One sensor to keep going.
pub struct Sampler {
    /// Its place in the pipeline.
    pub index: SensorIndex,
    /// Its name, for logs and the thread.
    pub name: String,
    /// Where samples come from.
    pub source: Source,
    /// When it is sampled; what changes holds from the next sample on.
    pub schedule: watch::Receiver<Schedule>,
    /// How its supply is switched, if it is.
    pub power: Option<PowerSettings>,
    /// What the driver last gave to keep; at first, what it gave in an earlier run.
    pub kept: RefCell<Option<Box<[u8]>>>,
    /// What was lost on its serial port, if it has one.
    pub(crate) lost: RefCell<port::Lost>,
    /// What others ask of it while it runs.
    pub reins: Reins,
}

/// When a sensor is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Between two samples.
    pub every: Duration,
    /// At multiples of that on the wall clock.
    pub align: bool,
    /// How long one sample may take.
    pub deadline: Duration,
}

impl Sampler {
    fn schedule(&self) -> Schedule {
        *self.schedule.borrow()
    }
}

/// What samplers share.
#[derive(Clone)]
pub struct Context {
    /// Buses, lines, ports.
    pub hardware: Arc<dyn Hardware>,
    /// The boot clock.
    pub clock: Arc<dyn Clock>,
    /// What the wall clock shows beyond it, if that is known.
    pub offset: watch::Receiver<Option<Offset>>,
    /// To the pipeline; a closed channel ends the sampler.
    pub out: mpsc::Sender<Batch>,
    /// True: end.
    pub stop: watch::Receiver<bool>,
    /// Of all sensors together.
    pub counts: Arc<Counts>,
    /// What can be switched.
    pub supplies: Supplies,
}

impl Context {
    fn observe_fault(&self, sensor: SensorIndex, fault: Fault) -> Batch {
        vec![Observation { sensor, at: self.clock.boot(), outcome: Err(fault), keep: None }]
    }

    /// Waits, or learns that it is time to end: then false.
    async fn pause(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(time) => true,
            () = stopped(&mut self.stop) => false,
        }
    }
}

/// Resolves once the agent stops (or is gone).
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is the end as well.
    let _ = stop.wait_for(|stop| *stop).await;
}

/// A call to a device that may still run although its sensor has been told to end: a call cannot be cancelled.
pub struct LastCall(Worker);

impl LastCall {
    /// Waits until it has ended, and the device is closed.
    pub async fn over(self) {
        self.0.end().await;
    }
}

/// Keeps one sensor going until `context.stop`. A panic in a driver is that sensor's fault alone: it is reported, and
/// the sensor starts anew after a pause.
pub async fn run(sampler: Sampler, mut context: Context) -> Option<LastCall> {
    let sampler = Rc::new(sampler);
    let span = info_span!("sensor", sensor = %sampler.name);
    async {
        let mut worker = None;
        while pause::rest(&sampler, worker.take(), &mut context).await {
            let (end, ended) = watch::channel(false);
            let mut task = tokio::task::spawn_local({
                let (sampler, context) = (sampler.clone(), Context { stop: ended, ..context.clone() });
                async move {
                    match &sampler.source {
                        Source::Poller(open) => return poller::run(&sampler, open.clone(), context).await,
                        Source::Serial { settings, decoder } => {
                            link::serial(&sampler, settings, decoder, context).await;
                        }
                        Source::Line(source) => link::line(&sampler, source, context).await,
                        Source::Process(source) => process::run(&sampler, source, context).await,
                    }
                    None
                }
                .in_current_span()
            });
            let (done, goes_on) = tokio::select! {
                done = &mut task => (done, false),
                () = pause::begins(&sampler, &*context.clock) => {
                    end.send_replace(true);
                    (task.await, true)
                }
                () = stopped(&mut context.stop) => {
                    end.send_replace(true);
                    (task.await, false)
                }
            };
            match done {
                Ok(left) if goes_on => worker = left,
                Ok(left) => return left.map(LastCall),
                Err(end) => {
                    let detail = format!("the driver panicked: {end}");
                    warn!("{detail}");
                    let batch = context.observe_fault(sampler.index, Fault::new(FaultCode::Panic, detail));
                    if context.out.send(batch).await.is_err() || !context.pause(BACK_OFF_MOST).await {
                        return None;
                    }
                }
            }
        }
        None
    }
    .instrument(span)
    .await
}

/// A pause that doubles from [`BACK_OFF_FIRST`] up to a ceiling, and starts anew after a success.
#[derive(Debug, Default)]
struct BackOff {
    failures: u32,
}

impl BackOff {
    fn success(&mut self) {
        self.failures = 0;
    }

    fn failure(&mut self, most: Duration) -> Duration {
        let pause = BACK_OFF_FIRST.saturating_mul(1 << self.failures.min(16)).min(most);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

/// Runs a driver's code; a panic in it is a fault.
fn guarded<T>(call: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    std::panic::catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(ToString::to_string)
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(Fault::new(FaultCode::Panic, format!("the driver panicked: {words}")))
    })
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
