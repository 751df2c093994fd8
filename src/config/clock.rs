//! `[clock]`

use std::ops::Range;

use toml::Spanned;

use super::read;
use super::sensor::Placed;
use crate::clock::Trust;
use crate::options::{Options, Problem, Problems, did_you_mean};
use crate::reading::SensorIndex;

/// What a driver must give for its sensor to be a clock: whether it has a fix, and the time.
pub(super) const FIX: [&str; 2] = ["fix", "utc"];

/// `[clock]`
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) trust: Trust,
    /// The sensor's name, and where it stands.
    gps: Option<(String, Range<usize>)>,
}

pub(super) fn clock(options: &Options<'_>) -> Clock {
    let words = &[("kernel", Trust::Kernel), ("always", Trust::Always)];
    let gps = read::name(options, "gps");
    let at = options.raw("gps").map(Spanned::span);
    Clock { trust: options.optional_word("trust", words).unwrap_or_default(), gps: gps.zip(at) }
}

/// The sensor that `gps` names.
pub(super) fn gps(clock: Clock, sensors: &[Placed], problems: &Problems) -> Option<SensorIndex> {
    let (name, at) = clock.gps?;
    let receivers = || sensors.iter().filter(|placed| tells_time(placed)).map(|placed| &*placed.sensor.name);
    let found = sensors.iter().zip(0..).find(|(placed, _)| placed.sensor.name == name);
    let problem = match found {
        Some((placed, index)) if tells_time(placed) => return Some(SensorIndex(index)),
        Some((placed, _)) => {
            let driver = placed.sensor.driver.name;
            Problem::new(at, format!("`gps` of [clock] names the sensor `{name}`, whose driver {driver} gives no time"))
        }
        None => Problem::new(at, format!("`gps` of [clock] names the unknown sensor `{name}`")),
    };
    let known: Vec<&str> = receivers().collect();
    problems.push(match did_you_mean(&name, &known) {
        Some(word) => problem.help(format!("did you mean \"{word}\"?")),
        None if known.is_empty() => problem.help("add a sensor with driver = \"nmea\", or leave `gps` out"),
        None => problem.help(format!("these give the time: {}", known.join(", "))),
    });
    None
}

fn tells_time(placed: &Placed) -> bool {
    FIX.iter().all(|name| placed.sensor.driver.quantities.iter().any(|quantity| quantity.name == *name))
}
