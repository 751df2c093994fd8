//! Sensors that speak by themselves: serial links and GPIO lines.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info};

use super::{BackOff, Batch, Context, Sampler, stopped};
use crate::drivers::{ByteDecoder, Decoded, LineDecoder};
use crate::hardware::{LineSettings, SerialSettings};
use crate::reading::{Fault, Observation, SensorIndex};

/// A port that went away is looked for this often at least, so that a replugged device is back within two seconds.
const REOPEN_MOST: Duration = Duration::from_millis(1500);

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
                    if !send(sampler.index, decoded, &context).await {
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

pub(super) async fn line(
    sampler: &Sampler,
    settings: &LineSettings,
    decoder: &(dyn Fn() -> Box<dyn LineDecoder> + Send),
    mut context: Context,
) {
    let mut back_off = BackOff::default();
    loop {
        let end = match watch_line(sampler, settings, decoder, &mut context).await {
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
    settings: &LineSettings,
    decoder: &(dyn Fn() -> Box<dyn LineDecoder> + Send),
    context: &mut Context,
) -> Result<(), Fault> {
    let mut line = context.hardware.input_line(settings)?;
    info!(line = %settings.line, "taken");
    let mut decoder = decoder();
    let mut look = interval(sampler.every);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        let mut decoded = Vec::new();
        tokio::select! {
            edges = line.edges() => {
                for edge in edges? {
                    decoder.edge(edge, &mut decoded);
                }
            }
            _ = look.tick() => {
                let active = line.level()?;
                decoder.level(active, context.clock.boot(), &mut decoded);
            }
            () = stopped(&mut context.stop) => return Ok(()),
        }
        if !send(sampler.index, decoded, context).await {
            return Ok(());
        }
    }
}

/// Hands on what was decoded, waiting for room; false when nobody listens any more.
async fn send(sensor: SensorIndex, decoded: Vec<Decoded>, context: &Context) -> bool {
    if decoded.is_empty() {
        return true;
    }
    let batch: Batch = decoded.into_iter().map(|(at, outcome)| Observation { sensor, at, outcome }).collect();
    context.out.send(batch).await.is_ok()
}

/// Reports the fault and waits before the next attempt; false when it is time to end.
async fn after_fault(sampler: &Sampler, fault: Fault, back_off: &mut BackOff, context: &mut Context) -> bool {
    debug!(fault = fault.code.as_str(), "{fault}");
    let batch = context.observe_fault(sampler.index, fault);
    context.out.send(batch).await.is_ok() && context.pause(back_off.failure(REOPEN_MOST)).await
}
