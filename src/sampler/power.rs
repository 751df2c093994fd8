//! Supplies that can be switched: a device that does not come to its senses is switched off and on.
//!
//! Sensors that name the same line share its supply. It is on from the start; when one of them has failed so often in a
//! row as it says, it is switched off and on for all of them, and each is opened anew.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::{Context, Sampler, stopped};
use crate::hardware::{LineId, OutputLine, OutputSettings, PowerSettings};
use crate::reading::{Fault, FaultCode};

/// The shortest time from one switching off to the next. It doubles with each that has not helped.
const REST_FIRST: Duration = Duration::from_secs(60);
/// The longest such time.
const REST_MOST: Duration = Duration::from_secs(60 * 60);

/// All supplies, by their line.
#[derive(Clone, Default)]
pub struct Supplies(Rc<RefCell<HashMap<LineId, Rc<Supply>>>>);

impl Supplies {
    fn of(&self, settings: &PowerSettings) -> Rc<Supply> {
        self.0.borrow_mut().entry(settings.line.clone()).or_insert_with(|| Rc::new(Supply::new())).clone()
    }

    /// Lets go of the lines that no sensor has any more.
    pub fn retain(&self, is_used: impl Fn(&LineId) -> bool) {
        self.0.borrow_mut().retain(|line, _| is_used(line));
    }
}

struct Supply {
    line: RefCell<Option<Box<dyn OutputLine>>>,
    history: RefCell<History>,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// On; counts how often it was switched on.
    On(u64),
    /// On its way off and on.
    Switching,
    /// Nobody has taken the line yet, or it could not be driven.
    Untaken,
}

#[derive(Default)]
struct History {
    /// How often it was switched on.
    switched_on: u64,
    /// When it was last switched off, and how often since a sensor on it last gave a value.
    last: Option<Instant>,
    in_vain: u32,
}

impl History {
    /// Has the supply had its rest?
    fn may_switch(&self, now: Instant) -> bool {
        let rest = REST_FIRST.saturating_mul(1 << self.in_vain.saturating_sub(1).min(16)).min(REST_MOST);
        self.last.is_none_or(|last| now.duration_since(last) >= rest)
    }
}

impl Supply {
    fn new() -> Self {
        Self { line: RefCell::default(), history: RefCell::default(), phase: watch::Sender::new(Phase::Untaken) }
    }

    fn is_on(&self) {
        let mut history = self.history.borrow_mut();
        history.switched_on += 1;
        self.phase.send_replace(Phase::On(history.switched_on));
    }

    fn drive(&self, active: bool) -> Result<(), Fault> {
        let mut line = self.line.borrow_mut();
        let Some(taken) = line.as_mut() else { return Ok(()) };
        let done = taken.set(active);
        if done.is_err() {
            // It is taken anew before the next use.
            *line = None;
        }
        done
    }
}

/// Switches the supply on again, whatever becomes of the task that has switched it off.
struct SwitchedOff(Rc<Supply>);

impl Drop for SwitchedOff {
    fn drop(&mut self) {
        if *self.0.phase.borrow() == Phase::Switching {
            // A line that cannot be driven was let go, and is taken anew before the next use.
            let _ = self.0.drive(true);
            self.0.phase.send_replace(Phase::Untaken);
        }
    }
}

/// A sensor's view of its supply; without one, everything here does nothing.
pub(super) struct Power {
    supply: Option<(PowerSettings, Rc<Supply>, watch::Receiver<Phase>)>,
    /// Faults in a row, but those that no supply has to do with.
    faults: u32,
    /// The supply's count when the sensor was last opened.
    opened: u64,
}

impl Power {
    pub(super) fn of(sampler: &Sampler, context: &Context) -> Self {
        let supply = sampler.power.as_ref().map(|settings| {
            let supply = context.supplies.of(settings);
            let phase = supply.phase.subscribe();
            (settings.clone(), supply, phase)
        });
        Self { supply, faults: 0, opened: 0 }
    }

    /// Waits until the device has power. Says whether it must be opened anew because it had none meanwhile; `None` when
    /// it is time to end.
    pub(super) async fn ready(&mut self, sampler: &Sampler, context: &mut Context) -> Option<Result<bool, Fault>> {
        let Some((settings, supply, phase)) = &mut self.supply else { return Some(Ok(false)) };
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::On(count) => {
                    let anew = count != self.opened;
                    self.opened = count;
                    return Some(Ok(anew));
                }
                Phase::Untaken => {
                    let output =
                        OutputSettings { line: settings.line.clone(), active_low: settings.active_low, active: true };
                    let taken = supply.line.borrow().is_some();
                    if !taken {
                        match context.hardware.output_line(&output) {
                            Ok(line) => drop(supply.line.replace(Some(line))),
                            Err(fault) => {
                                let detail = format!("its supply cannot be switched on: {fault}");
                                return Some(Err(Fault::new(fault.code, detail)));
                            }
                        }
                    }
                    supply.phase.send_replace(Phase::Switching);
                    let guard = SwitchedOff(supply.clone());
                    info!(line = %settings.line, "the supply is on");
                    if !context.pause(settings.settle).await {
                        return None;
                    }
                    supply.is_on();
                    drop(guard);
                }
                Phase::Switching => {
                    // At the start there is nothing to report yet.
                    if self.opened > 0 {
                        let batch = context.observe_fault(sampler.index, without_power(settings));
                        context.out.send(batch).await.ok()?;
                    }
                    tokio::select! {
                        // An error means that the supply is gone, which is the end as well.
                        changed = phase.changed() => changed.ok()?,
                        () = stopped(&mut context.stop) => return None,
                    }
                }
            }
        }
    }

    /// Resolves when the supply is being switched off; never without one.
    pub(super) async fn lost(&mut self) -> Fault {
        let Some((settings, _, phase)) = &mut self.supply else { return std::future::pending().await };
        let opened = Phase::On(self.opened);
        match phase.wait_for(|phase| *phase != opened).await {
            Ok(_) => without_power(settings),
            Err(_) => std::future::pending().await,
        }
    }

    /// The device gave a value.
    pub(super) fn success(&mut self) {
        self.faults = 0;
        if let Some((_, supply, _)) = &self.supply {
            supply.history.borrow_mut().in_vain = 0;
        }
    }

    /// The device failed. Switches its supply off and on if that was often enough: then true. `None` when it is time to
    /// end.
    pub(super) async fn failed(&mut self, fault: &Fault, sampler: &Sampler, context: &mut Context) -> Option<bool> {
        let Some((settings, supply, _)) = &self.supply else { return Some(false) };
        if !a_supply_may_help(fault.code) {
            return Some(false);
        }
        self.faults = self.faults.saturating_add(1);
        let (now, on) = (Instant::now(), matches!(*supply.phase.borrow(), Phase::On(_)));
        if self.faults < settings.after || !on || !supply.history.borrow().may_switch(now) {
            return Some(false);
        }
        let times = {
            let mut history = supply.history.borrow_mut();
            history.last = Some(now);
            history.in_vain = history.in_vain.saturating_add(1);
            history.switched_on
        };
        let detail = format!(
            "its supply ({}) is switched off for {} after {} faults in a row ({times}. time since the start); the last: \
             {fault}",
            settings.line,
            humantime::format_duration(settings.off),
            self.faults,
        );
        self.faults = 0;
        let (settings, supply) = (settings.clone(), supply.clone());
        supply.phase.send_replace(Phase::Switching);
        let guard = SwitchedOff(supply.clone());
        let batch = context.observe_fault(sampler.index, Fault::new(FaultCode::PowerCycle, detail));
        context.out.send(batch).await.ok()?;
        if supply.drive(false).is_ok() && !context.pause(settings.off).await {
            return None;
        }
        if supply.drive(true).is_ok() {
            if !context.pause(settings.settle).await {
                return None;
            }
            supply.is_on();
        }
        // Where the line could not be driven, it is taken anew before the next attempt.
        drop(guard);
        Some(true)
    }
}

fn without_power(settings: &PowerSettings) -> Fault {
    let detail = format!("the supply that it shares ({}) is being switched off and on", settings.line);
    Fault::new(FaultCode::PowerCycle, detail)
}

/// Not where the configuration or the rights are wrong, or the bug is ours.
fn a_supply_may_help(code: FaultCode) -> bool {
    !matches!(
        code,
        FaultCode::Permission | FaultCode::Busy | FaultCode::WrongChip | FaultCode::Panic | FaultCode::PowerCycle
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supply_rests_longer_the_less_switching_helps() {
        let start = Instant::now();
        let mut history = History::default();
        assert!(history.may_switch(start));
        for (in_vain, rest) in [(0, 60), (1, 60), (2, 120), (3, 240), (7, 3600), (u32::MAX, 3600)] {
            history = History { last: Some(start), in_vain, ..History::default() };
            assert!(!history.may_switch(start + Duration::from_secs(rest - 1)), "{in_vain}");
            assert!(history.may_switch(start + Duration::from_secs(rest)), "{in_vain}");
        }
    }

    #[test]
    fn what_the_configuration_has_done_no_supply_undoes() {
        assert!(!a_supply_may_help(FaultCode::Permission) && !a_supply_may_help(FaultCode::WrongChip));
        assert!(a_supply_may_help(FaultCode::Missing) && a_supply_may_help(FaultCode::Stuck));
    }
}
