//! `location`: coordinates, or the sensor whose fixes say where it is.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;

use super::read;
use super::sensor::Placed;
use crate::options::{Options, Problem, Problems, did_you_mean};
use crate::reading::{Location, SensorIndex};

/// What a driver must give for its sensor to say where it is.
const POSITION: [&str; 3] = ["latitude", "longitude", "fix"];

/// `max_age` where it is not given.
const DEFAULT_MAX_AGE: Duration = Duration::from_secs(60);

/// A receiver gives a fix each second.
const MAX_AGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// Where something is, as the configuration says.
#[derive(Clone, Debug)]
pub enum Place {
    /// There.
    Fixed(Location),
    /// Where a receiver is.
    Follows(Receiver),
}

impl Place {
    /// The coordinates, where they are fixed.
    pub(super) fn fixed(&self) -> Option<Location> {
        match self {
            Self::Fixed(location) => Some(*location),
            Self::Follows(_) => None,
        }
    }
}

/// The receiver as it is named.
#[derive(Clone, Debug)]
pub struct Receiver {
    name: String,
    /// Where the name stands.
    at: Range<usize>,
    max_age: Duration,
}

/// The receiver that says where a sensor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follows {
    /// Which sensor it is.
    pub receiver: SensorIndex,
    /// A fix that is further than this from the measurement says nothing of its place.
    pub max_age: Duration,
}

/// `location = { latitude = …, longitude = …, altitude = … }` or `location = { sensor = "…", max_age = "…" }`
pub(super) fn location(options: &Options<'_>) -> Option<Place> {
    let keys = options.section("location")?;
    let place = place_of(&keys);
    keys.finish();
    place
}

/// The keys of a `location`.
pub(super) fn place_of(keys: &Options<'_>) -> Option<Place> {
    let name = read::name(keys, "sensor");
    let max_age = keys.optional_in("max_age", MAX_AGE);
    let coordinates = ["latitude", "longitude", "altitude"].map(|key| keys.raw(key).is_some().then_some(key));
    let Some(at) = keys.raw("sensor").map(Spanned::span) else {
        if keys.raw("max_age").is_some() {
            let what = format!("`max_age` of {} is for the fixes of a receiver", keys.what());
            keys.problem_with_help("max_age", what, None, Some("take it out, or add sensor = \"…\"".to_owned()));
        }
        return read::place_of(keys).map(Place::Fixed);
    };
    if let Some(key) = coordinates.into_iter().flatten().next() {
        let what = format!("{} has coordinates and a sensor that gives them", keys.what());
        keys.problem_with_help(key, what, None, Some("take one of the two out".to_owned()));
    }
    Some(Place::Follows(Receiver { name: name?, at, max_age: max_age.unwrap_or(DEFAULT_MAX_AGE) }))
}

/// Finds the receivers that sensors follow.
pub(super) fn fill_in(sensors: &mut [Placed], problems: &Problems) {
    let mut told: Vec<Range<usize>> = Vec::new();
    for index in 0..sensors.len() {
        let Some(receiver) = sensors[index].follows.clone() else { continue };
        match find(&receiver, sensors) {
            Ok(follows) => sensors[index].sensor.follows = Some(follows),
            // Several sensors may have it from their room, or from the gateway.
            Err(problem) if !told.contains(&receiver.at) => {
                problems.push(*problem);
                told.push(receiver.at);
            }
            Err(_) => {}
        }
    }
}

fn find(receiver: &Receiver, sensors: &[Placed]) -> Result<Follows, Box<Problem>> {
    let Receiver { name, at, max_age } = receiver;
    let problem = match (0..).zip(sensors).find(|(_, placed)| placed.sensor.name == *name) {
        Some((index, placed)) if gives_position(placed) => {
            return Ok(Follows { receiver: SensorIndex(index), max_age: *max_age });
        }
        Some((_, placed)) => {
            let driver = placed.sensor.driver.name;
            let what = format!("`location` names the sensor `{name}`, whose driver {driver} gives no position");
            Problem::new(at.clone(), what)
        }
        None => Problem::new(at.clone(), format!("`location` names the unknown sensor `{name}`")),
    };
    let known: Vec<&str> =
        sensors.iter().filter(|placed| gives_position(placed)).map(|placed| &*placed.sensor.name).collect();
    Err(Box::new(match did_you_mean(name, &known) {
        Some(word) => problem.help(format!("did you mean \"{word}\"?")),
        None if known.is_empty() => problem.help("add a sensor with driver = \"nmea\", or give the coordinates"),
        None => problem.help(format!("these give a position: {}", known.join(", "))),
    }))
}

fn gives_position(placed: &Placed) -> bool {
    let quantities = placed.sensor.driver.quantities;
    POSITION.iter().all(|name| quantities.iter().any(|quantity| quantity.name == *name))
}
