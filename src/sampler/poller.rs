//! Sensors that are asked: a thread makes the calls, a task keeps the schedule and the deadline.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::due::Due;
use super::power::Power;
use super::{BACK_OFF_MOST, BackOff, Context, Sampler, count, guarded, stopped};
use crate::clock::{BootTime, Clock};
use crate::drivers::{Open, Poller};
use crate::hardware::Hardware;
use crate::reading::{Fault, FaultCode, Observation, Sample};

/// A driver needs little; 64 sensors shall not need the memory of 64 usual stacks.
const STACK: usize = 256 * 1024;

type Answer = (BootTime, Result<Vec<Sample>, Fault>);

/// The thread that may block. It ends when its task is gone and its call has returned.
pub(super) struct Worker {
    /// True: the device is to be opened anew, because it had no power.
    ask: std::sync::mpsc::SyncSender<bool>,
    answers: mpsc::Receiver<Answer>,
}

impl Worker {
    fn start(
        name: &str,
        open: Arc<dyn Open>,
        hardware: Arc<dyn Hardware>,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (ask, asked) = std::sync::mpsc::sync_channel(1);
        let (answer, answers) = mpsc::channel(1);
        std::thread::Builder::new().name(format!("s:{name}")).stack_size(STACK).spawn(move || {
            let mut device: Option<Box<dyn Poller>> = None;
            while let Ok(anew) = asked.recv() {
                if anew {
                    device = None;
                }
                let at = clock.boot();
                let outcome = guarded(|| {
                    let opened = match &mut device {
                        Some(opened) => opened,
                        none => none.insert(open.open(&*hardware)?),
                    };
                    opened.sample()
                });
                if outcome.is_err() {
                    // A device that failed is opened anew: its settings may be gone, or another one be in its place.
                    device = None;
                }
                if answer.blocking_send((at, outcome)).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { ask, answers })
    }

    /// Waits until the call that runs, if any, has ended, and the device is closed.
    pub(super) async fn end(self) {
        let Self { ask, mut answers } = self;
        drop(ask);
        while answers.recv().await.is_some() {}
    }
}

/// Samples until it is time to end; gives the thread, whose last call may still be running.
pub(super) async fn run(sampler: &Sampler, open: Arc<dyn Open>, mut context: Context) -> Option<Worker> {
    let mut worker = match Worker::start(&sampler.name, open, context.hardware.clone(), context.clock.clone()) {
        Ok(worker) => worker,
        Err(error) => {
            let fault = Fault::new(FaultCode::Io, format!("no thread can be started for this sensor: {error}"));
            let _ = context.out.send(context.observe_fault(sampler.index, fault)).await;
            return None;
        }
    };
    ask(sampler, &mut worker, &mut context).await;
    Some(worker)
}

/// Asks for samples until it is time to end.
async fn ask(sampler: &Sampler, worker: &mut Worker, context: &mut Context) {
    let mut back_off = BackOff::default();
    let mut power = Power::of(sampler, context);
    let mut due = Due::first(sampler, context);
    loop {
        tokio::select! {
            () = due.wait() => {}
            () = stopped(&mut context.stop) => return,
        }
        let (at, outcome) = match power.ready(sampler, context).await {
            Some(Ok(anew)) => {
                if worker.ask.try_send(anew).is_err() {
                    return;
                }
                let Some(answer) = answer(sampler, worker, &mut power, context).await else { return };
                answer
            }
            Some(Err(fault)) => (context.clock.boot(), Err(fault)),
            None => return,
        };
        let failed = outcome.as_ref().err().cloned();
        let pause = match &outcome {
            Ok(_) => {
                back_off.success();
                sampler.every
            }
            Err(fault) => {
                debug!(fault = fault.code.as_str(), "{fault}");
                back_off.failure(sampler.every.max(BACK_OFF_MOST)).max(sampler.every)
            }
        };
        due.next(pause);
        let batch = vec![Observation { sensor: sampler.index, at, outcome, keep: None }];
        match context.out.try_send(batch) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => count(&context.counts.queue_full),
            Err(mpsc::error::TrySendError::Closed(_)) => return,
        }
        match failed {
            None => power.success(),
            Some(fault) => match power.failed(&fault, sampler, context).await {
                Some(true) => {
                    back_off.success();
                    due.now();
                }
                Some(false) => {}
                None => return,
            },
        }
    }
}

/// Waits for the sample. Past the deadline the sensor is reported as stuck, once, and the wait goes on: the call
/// cannot be cancelled, and a second thread would only get stuck as well. What may end it is the device's losing its
/// power: each further deadline that passes counts as a fault for that.
async fn answer(sampler: &Sampler, worker: &mut Worker, power: &mut Power, context: &mut Context) -> Option<Answer> {
    if let Ok(answer) = timeout(sampler.deadline, worker.answers.recv()).await {
        return answer;
    }
    let detail = format!(
        "no answer within {}: the call to the device is still running",
        humantime::format_duration(sampler.deadline)
    );
    let fault = Fault::new(FaultCode::Stuck, detail);
    context.out.send(context.observe_fault(sampler.index, fault.clone())).await.ok()?;
    loop {
        power.failed(&fault, sampler, context).await?;
        tokio::select! {
            answer = timeout(sampler.deadline, worker.answers.recv()) => {
                if let Ok(answer) = answer {
                    return answer;
                }
            }
            () = stopped(&mut context.stop) => return None,
        }
    }
}
