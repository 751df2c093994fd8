//! Sensors that are programs: one that runs on, or one that is started for each sample.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tracing::{debug, info, warn};

use super::due::Due;
use super::link::{refusing, send};
use super::orders::Orders;
use super::power::Power;
use super::{BACK_OFF_MOST, BackOff, Batch, Context, Sampler, count, stopped};
use crate::drivers::{Decoded, ProcessSource};
use crate::reading::{Fault, FaultCode, Observation};

mod budget;
mod program;
mod said;

use budget::Budget;
use program::Program;

/// Bytes read at once.
const READ: usize = 8 * 1024;

/// A program that ran for so long before it ended has done well: it is started again soon.
const WELL: Duration = Duration::from_secs(60);

/// Why following a program came to an end.
enum End {
    /// It is time to end.
    Stop,
    /// What went wrong, and whether the program had done well until then.
    Fault(Fault, bool),
}

pub(super) async fn run(sampler: &Sampler, source: &ProcessSource, context: Context) {
    let power = Power::of(sampler, &context);
    let mut keeper =
        Keeper { sampler, source, power, back_off: BackOff::default(), orders: Orders::default(), context };
    match source.settings.once {
        Some(most) => keeper.again_and_again(most).await,
        None => keeper.keep_running().await,
    }
}

struct Keeper<'a> {
    sampler: &'a Sampler,
    source: &'a ProcessSource,
    power: Power,
    back_off: BackOff,
    orders: Orders,
    context: Context,
}

impl Keeper<'_> {
    /// Keeps a program going that is to run for ever.
    async fn keep_running(&mut self) {
        loop {
            let (fault, well) = match self.follow().await {
                End::Stop => return self.orders.lost("vigie ends, or the sensor is paused"),
                End::Fault(fault, well) => (fault, well),
            };
            self.orders.lost(&fault.detail);
            debug!(fault = fault.code.as_str(), "{fault}");
            if well {
                self.back_off.success();
            }
            if self.context.out.send(self.context.observe_fault(self.sampler.index, fault.clone())).await.is_err() {
                return;
            }
            let why = format!("the sensor has a fault: {fault}");
            let sampler = self.sampler;
            if !refusing(sampler, &why, self.rest(&fault)).await {
                return;
            }
        }
    }

    /// Waits before the next attempt; false when it is time to end.
    async fn rest(&mut self, fault: &Fault) -> bool {
        match self.power.failed(fault, self.sampler, &mut self.context).await {
            Some(true) => {
                self.back_off.success();
                true
            }
            Some(false) => {
                let pause = self.back_off.failure(BACK_OFF_MOST);
                self.context.pause(pause).await
            }
            None => false,
        }
    }

    /// Runs the program until it ends.
    async fn follow(&mut self) -> End {
        let ready = self.power.ready(self.sampler, &mut self.context);
        match refusing(self.sampler, "the sensor is being started", ready).await {
            Some(Ok(_)) => {}
            Some(Err(fault)) => return End::Fault(fault, false),
            None => return End::Stop,
        }
        let settings = &self.source.settings;
        let mut program = match Program::start(settings, &self.sampler.name) {
            Ok(program) => program,
            Err(fault) => return End::Fault(fault, false),
        };
        info!(program = %settings.command[0], "started");
        let start = Instant::now();
        let mut decoder = (self.source.decoder)();
        let mut buffer = vec![0; READ];
        let mut budget = Budget::new(start);
        let mut gave = false;
        loop {
            let now = self.context.clock.boot();
            self.orders.expire(&mut *decoder, now);
            if program.input.is_none() {
                self.orders.lost("the program has closed its standard input");
            }
            let patience = self.orders.due().map(|due| due.since(now));
            let read = tokio::select! {
                read = read_from(&mut program.output, &mut buffer, budget.not_before()) => read,
                written = write_to(&mut program.input, self.orders.bytes()), if !self.orders.bytes().is_empty() => {
                    match written {
                        Ok(count) => self.orders.wrote(count, self.context.clock.boot()),
                        Err(_) => program.input = None,
                    }
                    continue;
                }
                order = self.sampler.reins.order(), if self.orders.has_room() => {
                    self.orders.begin(order, self.sampler.reins.next_number(), &mut *decoder, self.context.clock.boot());
                    continue;
                }
                () = sleep(patience.unwrap_or_default()), if patience.is_some() => continue,
                fault = self.power.lost() => {
                    program.end().await;
                    return End::Fault(fault, false);
                }
                () = stopped(&mut self.context.stop) => {
                    program.end().await;
                    return End::Stop;
                }
            };
            let Ok(length @ 1..) = read else { break };
            let mut decoded = Vec::new();
            decoder.feed(&buffer[..length], self.context.clock.boot(), &mut decoded);
            self.orders.answered(decoder.answers());
            if budget.spend(length, decoded.len(), Instant::now()) {
                warn!(
                    "the program prints more than {} lines or {} bytes a second: it is made to wait",
                    budget::LINES,
                    budget::BYTES
                );
            }
            if !gave && decoded.iter().any(|(_, outcome)| outcome.is_ok()) {
                gave = true;
                self.power.success();
            }
            if !send(self.sampler.index, decoded, None, &self.context).await {
                program.end().await;
                return End::Stop;
            }
        }
        let mut decoded = Vec::new();
        decoder.end(self.context.clock.boot(), &mut decoded);
        if !send(self.sampler.index, decoded, None, &self.context).await {
            return End::Stop;
        }
        let well = gave && start.elapsed() >= WELL;
        End::Fault(program.ended().await, well)
    }

    /// Starts a program for each sample.
    async fn again_and_again(&mut self, most: usize) {
        let mut due = Due::first(self.sampler, &self.context);
        loop {
            tokio::select! {
                () = due.wait() => {}
                () = stopped(&mut self.context.stop) => return,
            }
            let observed = match self.power.ready(self.sampler, &mut self.context).await {
                Some(Ok(_)) => self.sample(most).await,
                Some(Err(fault)) => Some(vec![(self.context.clock.boot(), Err(fault))]),
                None => None,
            };
            let Some(observed) = observed else { return };
            let failed = observed.iter().find_map(|(_, outcome)| outcome.as_ref().err()).cloned();
            let every = self.sampler.schedule().every;
            let pause = match &failed {
                None => {
                    self.back_off.success();
                    every
                }
                Some(fault) => {
                    debug!(fault = fault.code.as_str(), "{fault}");
                    self.back_off.failure(every.max(BACK_OFF_MOST)).max(every)
                }
            };
            due.next(pause);
            let sensor = self.sampler.index;
            let batch: Batch =
                observed.into_iter().map(|(at, outcome)| Observation { sensor, at, outcome, keep: None }).collect();
            match self.context.out.try_send(batch) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(_)) => count(&self.context.counts.queue_full),
                Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
            match failed {
                None => self.power.success(),
                Some(fault) => match self.power.failed(&fault, self.sampler, &mut self.context).await {
                    Some(true) => {
                        self.back_off.success();
                        due.now();
                    }
                    Some(false) => {}
                    None => return,
                },
            }
        }
    }

    /// One run: what it printed, or why it counts for nothing. `None`: it is time to end.
    async fn sample(&mut self, most: usize) -> Option<Vec<Decoded>> {
        let deadline = Instant::now() + self.sampler.schedule().deadline;
        let mut program = match Program::start(&self.source.settings, &self.sampler.name) {
            Ok(program) => program,
            Err(fault) => return Some(vec![(self.context.clock.boot(), Err(fault))]),
        };
        program.input = None;
        let mut stop = self.context.stop.clone();
        let outcome = tokio::select! {
            outcome = timeout_at(deadline, self.one_run(&mut program, most)) => outcome,
            () = stopped(&mut stop) => {
                program.end().await;
                return None;
            }
        };
        let fault = match outcome {
            Ok(Ok(decoded)) => return Some(decoded),
            Ok(Err(fault)) => fault,
            Err(_) => {
                let limit = humantime::format_duration(self.sampler.schedule().deadline);
                Fault::new(FaultCode::Stuck, format!("{} ran longer than {limit} and was ended", program.name()))
            }
        };
        program.end().await;
        Some(vec![(self.context.clock.boot(), Err(fault))])
    }

    async fn one_run(&self, program: &mut Program, most: usize) -> Result<Vec<Decoded>, Fault> {
        let mut decoder = (self.source.decoder)();
        let mut buffer = vec![0; READ];
        let mut decoded = Vec::new();
        let mut total = 0;
        let mut at = self.context.clock.boot();
        while let Ok(length @ 1..) = program.output.read(&mut buffer).await {
            total += length;
            if total > most {
                let detail = format!("{} printed more than `max_bytes` ({most})", program.name());
                return Err(Fault::new(FaultCode::BadData, detail));
            }
            at = self.context.clock.boot();
            decoder.feed(&buffer[..length], at, &mut decoded);
        }
        program.succeeded().await?;
        decoder.end(at, &mut decoded);
        if decoded.is_empty() {
            return Err(Fault::new(FaultCode::BadData, format!("{} printed nothing", program.name())));
        }
        Ok(decoded)
    }
}

/// Writes to the program, as far as it takes it.
async fn write_to(input: &mut Option<ChildStdin>, bytes: &[u8]) -> std::io::Result<usize> {
    match input {
        Some(input) => input.write(bytes).await,
        None => Err(std::io::ErrorKind::BrokenPipe.into()),
    }
}

/// What the program prints next, not looked for before that time.
async fn read_from(output: &mut ChildStdout, buffer: &mut [u8], not_before: Instant) -> std::io::Result<usize> {
    sleep_until(not_before).await;
    output.read(buffer).await
}
