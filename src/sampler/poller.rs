//! Sensors that are asked: a thread makes the calls, a task keeps the schedule and the deadline.
//!
//! A command is one more call, between two samples: it goes to the device even where the last sample has failed, and its
//! sender is told what came of it.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::debug;

use super::due::Due;
use super::link::refusing;
use super::port;
use super::power::Power;
use super::remote::Order;
use super::{BACK_OFF_MOST, BackOff, Context, Sampler, count, guarded, stopped};
use crate::clock::{BootTime, Clock};
use crate::command::Command;
use crate::drivers::{Carried, Open, Poller};
use crate::hardware::{Hardware, PortName};
use crate::reading::{Fault, FaultCode, Observation, Sample};

/// A driver needs little; 64 sensors shall not need the memory of 64 usual stacks.
const STACK: usize = 256 * 1024;

/// What the thread is to do.
struct Ask {
    /// The device is to be opened anew, because it had no power.
    anew: bool,
    /// `None`: take a sample.
    command: Option<Command>,
}

/// What came of it.
struct Answer {
    at: BootTime,
    /// The sample, or what was read back after a command.
    outcome: Result<Vec<Sample>, Fault>,
    /// Of a command that has reached the device: done, or why not.
    told: Option<Result<(), String>>,
}

/// The thread that may block. It ends when its task is gone and its call has returned.
pub(super) struct Worker {
    ask: std::sync::mpsc::SyncSender<Ask>,
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
            while let Ok(Ask { anew, command }) = asked.recv() {
                if anew {
                    device = None;
                }
                let at = clock.boot();
                let mut told = None;
                let outcome = guarded(|| {
                    let opened = match &mut device {
                        Some(opened) => opened,
                        none => none.insert(open.open(&*hardware)?),
                    };
                    let Some(command) = &command else { return opened.sample() };
                    let Carried { samples, outcome } = opened.command(command);
                    told = Some(outcome);
                    Ok(samples)
                });
                // What is read back is as it was after the command.
                let at = if told.is_some() { clock.boot() } else { at };
                if let Err(fault) = &outcome
                    && (fault.code == FaultCode::Panic || !device.as_ref().is_some_and(|device| device.stays_open()))
                {
                    // A device that failed is opened anew: its settings may be gone, or another one be in its place.
                    device = None;
                }
                if answer.blocking_send(Answer { at, outcome, told }).is_err() {
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
    let port = open.port().cloned();
    let mut worker = match Worker::start(&sampler.name, open, context.hardware.clone(), context.clock.clone()) {
        Ok(worker) => worker,
        Err(error) => {
            let fault = Fault::new(FaultCode::Io, format!("no thread can be started for this sensor: {error}"));
            let _ = context.out.send(context.observe_fault(sampler.index, fault)).await;
            return None;
        }
    };
    ask(sampler, port.as_ref(), &mut worker, &mut context).await;
    Some(worker)
}

/// Asks for samples until it is time to end. `port`: the device is behind it.
async fn ask(sampler: &Sampler, port: Option<&PortName>, worker: &mut Worker, context: &mut Context) {
    let mut back_off = BackOff::default();
    let mut missed: Option<&PortName> = None;
    let hardware = Arc::clone(&context.hardware);
    let mut power = Power::of(sampler, context);
    let mut due = Due::first(sampler, context);
    loop {
        tokio::select! {
            () = due.wait() => {}
            order = sampler.reins.order() => {
                match carry_out(order, sampler, worker, &mut power, context).await {
                    Some(()) => continue,
                    None => return,
                }
            }
            () = returns(missed, &*hardware) => {
                back_off.success();
                due.now();
                continue;
            }
            () = stopped(&mut context.stop) => return,
        }
        let (at, outcome) = match refusing(sampler, STARTING, power.ready(sampler, context)).await {
            Some(Ok(anew)) => {
                if worker.ask.try_send(Ask { anew, command: None }).is_err() {
                    return;
                }
                let Some(answer) = answer(sampler, worker, &mut power, context).await else { return };
                (answer.at, answer.outcome)
            }
            Some(Err(fault)) => (context.clock.boot(), Err(fault)),
            None => return,
        };
        let failed = outcome.as_ref().err().cloned();
        missed = port.filter(|_| failed.is_some());
        let pause = match &outcome {
            Ok(_) => {
                back_off.success();
                sampler.schedule().every
            }
            Err(fault) => {
                debug!(fault = fault.code.as_str(), "{fault}");
                back_off.failure(sampler.schedule().every.max(BACK_OFF_MOST)).max(sampler.schedule().every)
            }
        };
        due.next(pause);
        if !hand_on(at, outcome, sampler, context) {
            return;
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

/// Waits for the return of a port, if there is one to wait for.
async fn returns(port: Option<&PortName>, hardware: &dyn Hardware) {
    match port {
        Some(port) => port::comes_back(port, hardware).await,
        None => pending().await,
    }
}

/// Why a command is refused while a supply is being switched.
const STARTING: &str = "the sensor is being started";

/// Gives an observation to the pipeline, unless that has no room; false when nobody listens any more.
fn hand_on(at: BootTime, outcome: Result<Vec<Sample>, Fault>, sampler: &Sampler, context: &Context) -> bool {
    let batch = vec![Observation { sensor: sampler.index, at, outcome, keep: None }];
    match context.out.try_send(batch) {
        Ok(()) => true,
        Err(mpsc::error::TrySendError::Full(_)) => {
            count(&context.counts.queue_full);
            true
        }
        Err(mpsc::error::TrySendError::Closed(_)) => false,
    }
}

/// Has the device carry out a command, and tells its sender. `None` when it is time to end.
async fn carry_out(
    order: Order,
    sampler: &Sampler,
    worker: &mut Worker,
    power: &mut Power,
    context: &mut Context,
) -> Option<()> {
    let Order { payload, until, done } = order;
    // Whoever has sent it may have gone; then nobody needs to be told.
    let tell = |result| drop(done.send(result));
    if context.clock.boot() > until {
        tell(Err("it waited too long behind others, and is not carried out".to_owned()));
        return Some(());
    }
    let anew = match refusing(sampler, STARTING, power.ready(sampler, context)).await? {
        Ok(anew) => anew,
        Err(fault) => {
            tell(Err(format!("the sensor has a fault: {fault}")));
            return Some(());
        }
    };
    let command = Some(Command { id: sampler.reins.next_number(), payload });
    worker.ask.try_send(Ask { anew, command }).ok()?;
    let answer = match timeout(sampler.schedule().deadline, worker.answers.recv()).await {
        Ok(answer) => {
            let Answer { at, outcome, told } = answer?;
            tell(match (&outcome, told) {
                (_, Some(told)) => told,
                (Err(fault), None) => Err(format!("the sensor has a fault: {fault}")),
                (Ok(_), None) => Ok(()),
            });
            Answer { at, outcome, told: None }
        }
        Err(_) => {
            let within = humantime::format_duration(sampler.schedule().deadline);
            tell(Err(format!("the device has not answered within {within}; whether it was carried out is not known")));
            stuck(sampler, worker, power, context).await?
        }
    };
    match answer.outcome {
        Ok(samples) if samples.is_empty() => Some(()),
        outcome => hand_on(answer.at, outcome, sampler, context).then_some(()),
    }
}

/// Waits for the sample.
async fn answer(sampler: &Sampler, worker: &mut Worker, power: &mut Power, context: &mut Context) -> Option<Answer> {
    match timeout(sampler.schedule().deadline, worker.answers.recv()).await {
        Ok(answer) => answer,
        Err(_) => stuck(sampler, worker, power, context).await,
    }
}

/// Past the deadline the sensor is reported as stuck, once, and the wait goes on: the call cannot be cancelled, and a
/// second thread would only get stuck as well. What may end it is the device's losing its power: each further deadline
/// that passes counts as a fault for that.
async fn stuck(sampler: &Sampler, worker: &mut Worker, power: &mut Power, context: &mut Context) -> Option<Answer> {
    let detail = format!(
        "no answer within {}: the call to the device is still running",
        humantime::format_duration(sampler.schedule().deadline)
    );
    let why = format!("the sensor has a fault: {detail}");
    let fault = Fault::new(FaultCode::Stuck, detail);
    context.out.send(context.observe_fault(sampler.index, fault.clone())).await.ok()?;
    loop {
        refusing(sampler, &why, power.failed(&fault, sampler, context)).await?;
        tokio::select! {
            answer = refusing(sampler, &why, timeout(sampler.schedule().deadline, worker.answers.recv())) => {
                if let Ok(answer) = answer {
                    return answer;
                }
            }
            () = stopped(&mut context.stop) => return None,
        }
    }
}
