//! Sensors that speak by themselves: serial links and GPIO lines.

use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info};

use super::due::Due;
use super::endless::Endless;
use super::orders::Orders;
use super::port::{self, Kernel};
use super::power::Power;
use super::{BackOff, Batch, Context, Sampler, stopped};
use crate::drivers::{ByteDecoder, Decoded, LineSource, Source};
use crate::hardware::{Edge, InputLine, PortName, SerialSettings};
use crate::reading::{Fault, Observation, SensorIndex};

/// A port that went away is looked for this often at least, so that a replugged device is back within two seconds.
const REOPEN_MOST: Duration = Duration::from_millis(1500);

/// After edges have come, further ones are left to gather in the kernel for so long: a train of pulses then costs one
/// wake-up for many, and one at 40 kHz still fits the kernel's buffer of 1024.
const GATHER: Duration = Duration::from_millis(20);

/// A port from which nothing has come for so long since it was opened is spoken of; most devices speak each second.
const SILENCE: Duration = Duration::from_secs(60);

/// Bytes read at once; a pty gives 4095 at most, a USB serial driver less.
const READ: usize = 8 * 1024;

pub(super) async fn serial(
    sampler: &Sampler,
    settings: &SerialSettings,
    decoder: &(dyn Fn() -> Box<dyn ByteDecoder> + Send),
    mut context: Context,
) {
    let mut attempts = Attempts::of(sampler, &context);
    let mut orders = Orders::default();
    loop {
        let Some(end) = follow_port(sampler, settings, decoder, &mut attempts, &mut orders, &mut context).await else {
            return orders.lost("the sensor is paused, or vigie ends");
        };
        orders.lost(&end.detail);
        let why = format!("the sensor has a fault: {}", end.detail);
        if !refusing(sampler, &why, attempts.failed(end, sampler, &mut context)).await {
            return;
        }
    }
}

/// Waits, and refuses the commands that come meanwhile.
pub(super) async fn refusing<T>(sampler: &Sampler, why: &str, wait: impl Future<Output = T>) -> T {
    let mut wait = pin!(wait);
    loop {
        tokio::select! {
            biased;
            done = &mut wait => return done,
            order = sampler.reins.order() => {
                // Whoever has sent it may have gone.
                let _ = order.done.send(Err(why.to_owned()));
            }
        }
    }
}

/// Follows a port until it fails; `None` when it is time to end.
async fn follow_port(
    sampler: &Sampler,
    settings: &SerialSettings,
    decoder: &(dyn Fn() -> Box<dyn ByteDecoder> + Send),
    attempts: &mut Attempts,
    orders: &mut Orders,
    context: &mut Context,
) -> Option<Fault> {
    if let Err(fault) = refusing(sampler, "the sensor is being started", attempts.power.ready(sampler, context)).await?
    {
        return Some(fault);
    }
    let opening = refusing(sampler, "the sensor's port is being opened", port::open(sampler, settings, context));
    let port = match opening.await? {
        Ok(port) => port,
        Err(fault) => return Some(fault),
    };
    let mut kernel = Kernel::opened(&*port);
    attempts.back_off.success();
    let (mut from_device, mut to_device) = tokio::io::split(port);
    let mut decoder = decoder();
    let mut endless = Endless::default();
    let mut silence = pin!(sleep(SILENCE));
    let mut heard = false;
    let mut buffer = vec![0; READ];
    loop {
        let now = context.clock.boot();
        orders.expire(&mut *decoder, now);
        orders.ask(&mut *decoder, now);
        let patience = orders.due().map(|due| due.since(now));
        let read = tokio::select! {
            read = from_device.read(&mut buffer) => read,
            written = to_device.write(orders.bytes()), if !orders.bytes().is_empty() => match written {
                Ok(count) => {
                    orders.wrote(count, context.clock.boot());
                    continue;
                }
                Err(error) => Err(error),
            },
            order = sampler.reins.order(), if orders.has_room() => {
                orders.begin(order, sampler.reins.next_number(), &mut *decoder, context.clock.boot());
                continue;
            }
            () = sleep(patience.unwrap_or_default()), if patience.is_some() => continue,
            () = &mut silence, if !heard => {
                heard = true;
                info!(
                    port = %settings.port,
                    "nothing has come in the first minute: has the device power, does it send by itself, are its TX and \
                     our RX joined, and is `baud` = {} its own?",
                    settings.baud
                );
                continue;
            }
            fault = attempts.power.lost() => return Some(fault),
            () = stopped(&mut context.stop) => return None,
        };
        let bytes = match read {
            Ok(0) => return Some(settings.read_fault(None)),
            Ok(count) => &buffer[..count],
            Err(error) => return Some(settings.read_fault(Some(&error))),
        };
        heard = true;
        attempts.power.success();
        let mut decoded = Vec::new();
        decoder.feed(bytes, context.clock.boot(), &mut decoded);
        sampler.lost.borrow_mut().observe(&mut kernel, Instant::now(), &mut decoded);
        if let Some(fault) = endless.observe(Instant::now(), bytes, decoder.unfinished(), settings) {
            decoded.push((context.clock.boot(), Err(fault)));
        }
        orders.answered(decoder.answers());
        if !send(sampler.index, decoded, None, context).await {
            return None;
        }
    }
}

pub(super) async fn line(sampler: &Sampler, source: &LineSource, mut context: Context) {
    let mut attempts = Attempts::of(sampler, &context);
    loop {
        let end = match watch_line(sampler, source, &mut attempts, &mut context).await {
            Ok(()) => return,
            Err(fault) => fault,
        };
        if !attempts.failed(end, sampler, &mut context).await {
            return;
        }
    }
}

/// Follows a line until the agent stops (then `Ok`) or the line fails.
async fn watch_line(
    sampler: &Sampler,
    source: &LineSource,
    attempts: &mut Attempts,
    context: &mut Context,
) -> Result<(), Fault> {
    match attempts.power.ready(sampler, context).await {
        Some(ready) => ready?,
        None => return Ok(()),
    };
    let mut line = context.hardware.input_line(&source.settings)?;
    info!(line = %source.settings.line, "taken");
    attempts.back_off.success();
    let mut decoder = (source.decoder)(sampler.kept.borrow().as_deref());
    let mut look = Due::first(sampler, context);
    let mut not_before = Instant::now();
    let mut running = true;
    while running {
        let mut decoded = Vec::new();
        let take = |edges: Vec<Edge>| edges.into_iter().for_each(|edge| decoder.edge(edge, &mut decoded));
        let step = tokio::select! {
            edges = edges_from(&mut *line, not_before) => {
                not_before = Instant::now() + GATHER;
                edges.map(take)
            }
            () = look.wait() => {
                look.next(sampler.schedule().every);
                // What has come before this moment is looked at before it.
                let level = waiting(&mut *line).await.map(take).and_then(|()| line.level());
                level.map(|active| {
                    attempts.power.success();
                    decoder.level(active, context.clock.boot(), &mut decoded);
                })
            }
            fault = attempts.power.lost() => return Err(fault),
            () = stopped(&mut context.stop) => {
                running = false;
                waiting(&mut *line).await.map(take)
            }
        };
        let keep = decoder.keep();
        if let Some(keep) = &keep {
            sampler.kept.replace(Some(keep.clone()));
        }
        // Edges that came before the line failed have been all the same.
        running &= send(sampler.index, decoded, keep, context).await;
        step?;
    }
    Ok(())
}

/// The next edges, not looked for before that time.
async fn edges_from(line: &mut dyn InputLine, not_before: Instant) -> Result<Vec<Edge>, Fault> {
    sleep_until(not_before).await;
    line.edges().await
}

/// The edges that have come already.
async fn waiting(line: &mut dyn InputLine) -> Result<Vec<Edge>, Fault> {
    // The future is asked once before the time is looked at.
    timeout(Duration::ZERO, line.edges()).await.unwrap_or(Ok(Vec::new()))
}

/// Hands on what was decoded, waiting for room; false when nobody listens any more.
pub(super) async fn send(
    sensor: SensorIndex,
    decoded: Vec<Decoded>,
    keep: Option<Box<[u8]>>,
    context: &Context,
) -> bool {
    let mut batch: Batch =
        decoded.into_iter().map(|(at, outcome)| Observation { sensor, at, outcome, keep: None }).collect();
    if keep.is_some() && batch.is_empty() {
        batch.push(Observation { sensor, at: context.clock.boot(), outcome: Ok(Vec::new()), keep: None });
    }
    let Some(last) = batch.last_mut() else { return true };
    last.keep = keep;
    context.out.send(batch).await.is_ok()
}

/// What outlives one opening of a link: how often it has failed, and what helps.
struct Attempts {
    back_off: BackOff,
    power: Power,
    /// The port that is looked for.
    port: Option<PortName>,
}

impl Attempts {
    fn of(sampler: &Sampler, context: &Context) -> Self {
        let port = match &sampler.source {
            Source::Serial { settings, .. } => Some(settings.port.clone()),
            Source::Poller(_) | Source::Line(_) | Source::Process(_) => None,
        };
        Self { back_off: BackOff::default(), power: Power::of(sampler, context), port }
    }

    /// Reports the fault and waits before the next attempt; false when it is time to end.
    async fn failed(&mut self, fault: Fault, sampler: &Sampler, context: &mut Context) -> bool {
        debug!(fault = fault.code.as_str(), "{fault}");
        let batch = context.observe_fault(sampler.index, fault.clone());
        if context.out.send(batch).await.is_err() {
            return false;
        }
        match self.power.failed(&fault, sampler, context).await {
            Some(true) => {
                self.back_off.success();
                true
            }
            Some(false) => {
                let pause = self.back_off.failure(REOPEN_MOST);
                match &self.port {
                    Some(port) => port::wait_for(port, pause, context).await,
                    None => context.pause(pause).await,
                }
            }
            None => false,
        }
    }
}
