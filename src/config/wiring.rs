//! What more than one sensor hangs on: supplies that are switched, and GPIO expanders.

use std::collections::HashMap;
use std::ops::Range;

use super::checks::{functions, plain};
use super::hardware::PlacedExpander;
use super::sensor::Placed;
use crate::drivers::{Claim, Source};
use crate::hardware::{Bias, LineId, LineSettings, expander};
use crate::options::{Problem, Problems};

/// Somebody who uses something of the machine.
struct User<'a> {
    /// "sensor `meteo`"
    what: String,
    at: &'a Range<usize>,
    claim: Claim,
    role: Role,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Sensor,
    /// A sensor's supply, which others may share.
    Supply,
    Expander,
}

/// Supplies and expanders on what somebody else uses.
pub(super) fn claims(sensors: &[Placed], expanders: &[PlacedExpander], problems: &Problems) {
    let all: Vec<User<'_>> = expanders.iter().flat_map(of_expander).chain(sensors.iter().flat_map(of_sensor)).collect();
    for (index, second) in all.iter().enumerate() {
        // Of several that it is in the way of, the first is enough.
        if let Some((first, message)) = all[..index].iter().find_map(|first| Some((first, conflict(first, second)?))) {
            problems.push(
                Problem::new(second.at.clone(), message)
                    .expected(second.what.clone())
                    .related(first.at.clone(), first.what.clone())
                    .help("correct one of them, or take it out"),
            );
        }
    }
    polarities(sensors, problems);
}

/// What is wrong where both are used; two sensors without supplies and expanders are looked at elsewhere.
fn conflict(first: &User<'_>, second: &User<'_>) -> Option<String> {
    if first.role == Role::Sensor && second.role == Role::Sensor {
        return None;
    }
    if first.claim == second.claim && !(first.role == Role::Supply && second.role == Role::Supply) {
        return Some(format!("{} and {} both use {}", first.described(), second.described(), first.claim));
    }
    takes_a_wire(first, second).or_else(|| takes_a_wire(second, first))
}

impl User<'_> {
    fn described(&self) -> String {
        if self.role == Role::Supply { format!("the supply of {}", self.what) } else { self.what.clone() }
    }
}

/// A line that is a wire of the bus on which the other one is.
fn takes_a_wire(line: &User<'_>, other: &User<'_>) -> Option<String> {
    let Claim::Line(id) = &line.claim else { return None };
    let wire = functions(&other.claim).into_iter().find_map(|function| id.on_header()?.in_function(function))?;
    Some(format!("{} uses {id}, the wire {wire} of {}", line.described(), other.described()))
}

fn of_sensor(placed: &Placed) -> Vec<User<'_>> {
    let user = |claim: &Claim, role| User {
        what: format!("sensor `{}`", placed.sensor.name),
        at: &placed.at,
        claim: plain(claim),
        role,
    };
    let supply = placed.sensor.power.iter().map(|power| user(&Claim::Line(power.line.clone()), Role::Supply));
    placed.claims.iter().map(|claim| user(claim, Role::Sensor)).chain(supply).collect()
}

fn of_expander(placed: &PlacedExpander) -> Vec<User<'_>> {
    let settings = &placed.settings;
    let address = Claim::I2c { path: settings.path, address: settings.address };
    let interrupt = settings.interrupt.iter().map(|line| Claim::Line(line.clone()));
    let user = |claim: Claim| User {
        what: format!("expander `{}`", settings.name),
        at: &placed.at,
        claim: plain(&claim),
        role: Role::Expander,
    };
    std::iter::once(address).chain(interrupt).map(user).collect()
}

/// Sensors that share a supply but do not agree on what switches it on.
fn polarities(sensors: &[Placed], problems: &Problems) {
    let mut seen: HashMap<&LineId, &Placed> = HashMap::new();
    for placed in sensors {
        let Some(power) = &placed.sensor.power else { continue };
        let first = *seen.entry(&power.line).or_insert(placed);
        if first.sensor.power.as_ref().is_some_and(|first| first.active_low != power.active_low) {
            let (a, b) = (&first.sensor.name, &placed.sensor.name);
            let message = format!("sensors `{a}` and `{b}` share a supply, but only one of them has it `active_low`");
            problems.push(
                Problem::new(placed.at.clone(), message)
                    .expected(format!("sensor `{b}`"))
                    .related(first.at.clone(), format!("sensor `{a}`"))
                    .help("give both the same `active_low` in `power`"),
            );
        }
    }
}

/// Lines of expanders that there are not, or that cannot be as they are to be.
pub(super) fn lines(sensors: &[Placed], expanders: &[PlacedExpander], problems: &Problems) {
    for placed in sensors {
        let what = format!("sensor `{}`", placed.sensor.name);
        let input = match &placed.sensor.source {
            Source::Line(source) => Some(&source.settings),
            Source::Poller(_) | Source::Serial { .. } | Source::Process(_) => None,
        };
        let input = input.into_iter().map(|settings| (&settings.line, Some(settings)));
        let supply = placed.sensor.power.iter().map(|power| (&power.line, None));
        for (line, input) in input.chain(supply) {
            if let Some(problem) = problem_of(line, input, &what, &placed.at, expanders) {
                problems.push(problem);
            }
        }
    }
    for placed in expanders {
        let Some(line @ LineId::Offset { chip, .. }) = &placed.settings.interrupt else { continue };
        if !expander::is_kernels(chip) {
            let what = format!("expander `{}`", placed.settings.name);
            let message = format!("the interrupt of {what} is wired to {line}, which is on an expander itself");
            problems.push(Problem::new(placed.at.clone(), message).help("wire it to a line of the board"));
        }
    }
}

/// `input` is how the line is to be taken as an input, if it is.
fn problem_of(
    line: &LineId,
    input: Option<&LineSettings>,
    what: &str,
    at: &Range<usize>,
    expanders: &[PlacedExpander],
) -> Option<Problem> {
    let LineId::Offset { chip, offset } = line else { return None };
    if expander::is_kernels(chip) {
        return None;
    }
    let Some(PlacedExpander { settings, .. }) = expanders.iter().find(|placed| placed.settings.name == *chip) else {
        let known: Vec<&str> = expanders.iter().map(|placed| placed.settings.name.as_str()).collect();
        let help = if known.is_empty() {
            format!("add [expander.{chip}], or give a line of the board, such as \"gpiochip0:17\"")
        } else {
            format!("the expanders are: {}", known.join(", "))
        };
        return Some(
            Problem::new(at.clone(), format!("{what} is on the line {line}, but there is no such expander")).help(help),
        );
    };
    if *offset >= settings.chip.lines() {
        let message =
            format!("{what} is on the line {line}, but the expander has the lines 0 to {}", settings.chip.lines() - 1);
        return Some(Problem::new(at.clone(), message).help("GPA0 to GPA7 are 0 to 7, GPB0 to GPB7 are 8 to 15"));
    }
    let input = input?;
    if settings.chip.is_output_only(*offset) && !input.reserved {
        let message = format!("{what} is on the line {line}, which an MCP23017 has for outputs only (GPA7 and GPB7)");
        return Some(Problem::new(at.clone(), message).help(
            "a change of it while the chip is read can spoil what the bus carries: choose another line; if you take \
             that upon you, say `allow_reserved = true`",
        ));
    }
    (input.bias == Bias::PullDown).then(|| {
        Problem::new(at.clone(), format!("{what} is to be pulled down, but an expander has no pull-down resistors"))
            .help("wire the contact to ground, with bias = \"pull-up\" and invert = true; or use a resistor")
    })
}
