//! Sensors that speak by themselves: serial links and GPIO lines.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tracing::{debug, info};

use super::{BackOff, Batch, Context, Sampler, stopped};
use crate::drivers::{ByteDecoder, Decoded, LineSource};
use crate::hardware::{Edge, InputLine, SerialSettings};
use crate::reading::{Fault, Observation, SensorIndex};

/// A port that went away is looked for this often at least, so that a replugged device is back within two seconds.
const REOPEN_MOST: Duration = Duration::from_millis(1500);

/// After edges have come, further ones are left to gather in the kernel for so long: a train of pulses then costs one
/// wake-up for many, and one at 40 kHz still fits the kernel's buffer of 1024.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes read at once; a pty gives 4095 at most, a USB serial driver less.
const READ: usize = 8 * 1024;

pub(super) async fn serial(
    sampler: &Sampler,
    settings: &SerialSettings,
    decoder: &(dyn Fn() -> Box<dyn ByteDecoder> + Send),
    mut context: Context,
) {
    let mut back_off = BackOff::default();
    loop {
        let end = match context.hardware.serial(settings) {
            Ok(mut port) => {
                info!(port = %settings.port.display(), "opened");
                back_off.success();
                let mut decoder = decoder();
                let mut buffer = vec![0; READ];
                loop {
                    let read = tokio::select! {
                        read = port.read(&mut buffer) => read,
                        () = stopped(&mut context.stop) => return,
                    };
                    let bytes = match read {
                        Ok(0) => break settings.read_fault(None),
                        Ok(count) => &buffer[..count],
                        Err(error) => break settings.read_fault(Some(&error)),
                    };
                    let mut decoded = Vec::new();
                    decoder.feed(bytes, context.clock.boot(), &mut decoded);
                    if !send(sampler.index, decoded, None, &context).await {
                        return;
                    }
                }
            }
            Err(fault) => fault,
        };
        if !after_fault(sampler, end, &mut back_off, &mut context).await {
            return;
        }
    }
}

pub(super) async fn line(sampler: &Sampler, source: &LineSource, mut context: Context) {
    let mut back_off = BackOff::default();
    loop {
        let end = match watch_line(sampler, source, &mut back_off, &mut context).await {
            Ok(()) => return,
            Err(fault) => fault,
        };
        if !after_fault(sampler, end, &mut back_off, &mut context).await {
            return;
        }
    }
}

/// Follows a line until the agent stops (then `Ok`) or the line fails.
async fn watch_line(
    sampler: &Sampler,
    source: &LineSource,
    back_off: &mut BackOff,
    context: &mut Context,
) -> Result<(), Fault> {
    let mut line = context.hardware.input_line(&source.settings)?;
    info!(line = %source.settings.line, "taken");
    back_off.success();
    let mut decoder = (source.decoder)(sampler.kept.borrow().as_deref());
    let mut look = interval(sampler.every);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut not_before = Instant::now();
    let mut running = true;
    while running {
        let mut decoded = Vec::new();
        tokio::select! {
            edges = edges_from(&mut *line, not_before) => {
                for edge in edges? {
                    decoder.edge(edge, &mut decoded);
                }
                not_before = Instant::now() + GATHER;
            }
            _ = look.tick() => {
                // What has come before this moment is looked at before it.
                for edge in waiting(&mut *line).await? {
                    decoder.edge(edge, &mut decoded);
                }
                let active = line.level()?;
                decoder.level(active, context.clock.boot(), &mut decoded);
            }
            () = stopped(&mut context.stop) => {
                for edge in waiting(&mut *line).await? {
                    decoder.edge(edge, &mut decoded);
                }
                running = false;
            }
        }
        let keep = decoder.keep();
        if let Some(keep) = &keep {
            sampler.kept.replace(Some(keep.clone()));
        }
        running &= send(sampler.index, decoded, keep, context).await;
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
async fn send(sensor: SensorIndex, decoded: Vec<Decoded>, keep: Option<Box<[u8]>>, context: &Context) -> bool {
    let mut batch: Batch =
        decoded.into_iter().map(|(at, outcome)| Observation { sensor, at, outcome, keep: None }).collect();
    if keep.is_some() && batch.is_empty() {
        batch.push(Observation { sensor, at: context.clock.boot(), outcome: Ok(Vec::new()), keep: None });
    }
    let Some(last) = batch.last_mut() else { return true };
    last.keep = keep;
    context.out.send(batch).await.is_ok()
}

/// Reports the fault and waits before the next attempt; false when it is time to end.
async fn after_fault(sampler: &Sampler, fault: Fault, back_off: &mut BackOff, context: &mut Context) -> bool {
    debug!(fault = fault.code.as_str(), "{fault}");
    let batch = context.observe_fault(sampler.index, fault);
    context.out.send(batch).await.is_ok() && context.pause(back_off.failure(REOPEN_MOST)).await
}
