//! What can only be seen with all sensors at hand: names, claims and topics that two of them share.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::sensor::Placed;
use super::{Gateway, PayloadShape};
use crate::drivers::Claim;
use crate::hardware::header::{Function, Line};
use crate::hardware::{LineId, PortName};
use crate::options::{Problem, Problems};
use crate::reading::{Descriptor, Quantity};
use crate::topic;

/// Two sensors under one name.
pub(super) fn names(sensors: &[Placed], problems: &Problems) {
    let mut seen: HashMap<&str, &Placed> = HashMap::new();
    for placed in sensors {
        let name = placed.sensor.name.as_str();
        if let Some(first) = seen.get(name) {
            problems.push(
                Problem::new(placed.at.clone(), format!("two sensors have the name `{name}`"))
                    .expected("second sensor")
                    .related(first.at.clone(), "first sensor")
                    .help("give one of them another name"),
            );
        } else {
            seen.insert(name, placed);
        }
    }
}

/// Two sensors on one line, address or port.
pub(super) fn claims(sensors: &[Placed], problems: &Problems) {
    let mut seen: HashMap<Claim, &Placed> = HashMap::new();
    for placed in sensors {
        for claim in &placed.claims {
            match seen.entry(plain(claim)) {
                // A bus is for all who ask on it in the same way.
                Entry::Occupied(first) if shared(claim, first.get()) => {}
                Entry::Occupied(first) if !std::ptr::eq(*first.get(), placed) => {
                    let (a, b) = (&first.get().sensor.name, &placed.sensor.name);
                    let message = format!("sensors `{a}` and `{b}` both use {}", first.key());
                    problems.push(both(message, first.get(), placed));
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(free) => {
                    free.insert(placed);
                }
            }
        }
    }
    for placed in sensors {
        for claim in &placed.claims {
            if let Claim::Line(id) = claim
                && let Some(line) = id.on_header()
            {
                wire_of_a_bus(placed, id, line, sensors, problems);
            }
        }
    }
}

/// A line of the header has one name, however it was given.
pub(super) fn plain(claim: &Claim) -> Claim {
    match claim {
        Claim::Line(line) => match line.on_header() {
            Some(found) => Claim::Line(LineId::Name(format!("GPIO{}", found.bcm))),
            None => claim.clone(),
        },
        Claim::SharedPort(settings) => Claim::Port(settings.port.clone()),
        other => other.clone(),
    }
}

/// May both sensors use that port?
fn shared(claim: &Claim, other: &Placed) -> bool {
    matches!(claim, Claim::SharedPort(_)) && other.claims.contains(claim)
}

/// A line that is a wire of the bus or port on which another sensor is: taking it would cut the other one off.
fn wire_of_a_bus(placed: &Placed, id: &LineId, line: &Line, sensors: &[Placed], problems: &Problems) {
    let needs = |claim: &Claim| functions(claim).into_iter().find_map(|function| line.in_function(function));
    let other = sensors.iter().find_map(|other| Some((other, other.claims.iter().find_map(needs)?)));
    if let Some((other, wire)) = other.filter(|(other, _)| !std::ptr::eq(*other, placed)) {
        let (a, b) = (&placed.sensor.name, &other.sensor.name);
        let message = format!("sensor `{a}` uses {line}, the wire {wire} of sensor `{b}`");
        let problem = both(message, other, placed);
        problems.push(match id {
            LineId::Name(_) => problem,
            LineId::Offset { .. } => problem.help(
                "correct one of them, or take it out; on a board that is no Raspberry Pi, give the line by its name (`pin`)",
            ),
        });
    }
}

/// What the header's lines are used as where something is claimed.
pub(super) fn functions(claim: &Claim) -> Vec<Function> {
    match &plain(claim) {
        Claim::I2c { path, .. } => vec![Function::I2c(path.bus)],
        Claim::Spi(place) => vec![Function::Spi(place.bus), Function::SpiSelect(place.bus, place.chip_select)],
        Claim::Port(PortName::Path(port)) if HEADER_PORTS.iter().any(|name| port == Path::new(name)) => {
            vec![Function::Uart]
        }
        // The 1-Wire bus may be on any line; the kernel holds the one that it is on.
        Claim::Port(_) | Claim::SharedPort(_) | Claim::Line(_) | Claim::OneWire(_) => Vec::new(),
    }
}

/// The serial port on the header, by its names on the various models.
const HEADER_PORTS: [&str; 3] = ["/dev/serial0", "/dev/ttyAMA0", "/dev/ttyS0"];

fn both(message: String, first: &Placed, second: &Placed) -> Problem {
    Problem::new(second.at.clone(), message)
        .expected(format!("sensor `{}`", second.sensor.name))
        .related(first.at.clone(), format!("sensor `{}`", first.sensor.name))
        .help("correct one of them, or take it out")
}

/// Topics that two publish on, or that cannot be published on.
pub(super) fn topics(sensors: &[Placed], gateway: &Gateway, shapes: &[PayloadShape], problems: &Problems) {
    let described: Vec<(&Placed, Descriptor)> =
        sensors.iter().map(|placed| (placed, placed.sensor.known_descriptor(gateway))).collect();
    for (placed, descriptor) in &described {
        published_names(placed, descriptor, problems);
        usable(placed, descriptor, gateway, problems);
    }
    // The availability topics stand below the sensors' own, so those must differ whatever the payloads are.
    collisions(
        described.iter().map(|(placed, descriptor)| (*placed, None, gateway.topic.sensor_topic(descriptor))),
        gateway,
        problems,
    );
    gateways_own(&described, gateway, problems);
    if shapes.contains(&PayloadShape::Quantity) {
        let all = described.iter().flat_map(|(placed, descriptor)| {
            distinct(&descriptor.quantities)
                .map(|quantity| (*placed, Some(&*quantity.name), gateway.topic.quantity_topic(descriptor, quantity)))
        });
        collisions(all, gateway, problems);
    }
}

/// A sensor whose topics would mix with those about the gateway itself, below `{site}/{gateway}`.
fn gateways_own(described: &[(&Placed, Descriptor)], gateway: &Gateway, problems: &Problems) {
    let own = match &gateway.site {
        Some(site) => format!("{site}/{}", gateway.name),
        None => gateway.name.clone(),
    };
    for (placed, descriptor) in described {
        if gateway.topic.sensor_topic(descriptor) == own {
            let message =
                format!("sensor `{}` and the gateway itself share the topic `{own}/availability`", descriptor.sensor);
            problems.push(Problem::new(placed.at.clone(), message).help("give the sensor another name, or a room"));
        }
    }
}

/// The quantities without those whose name was there before: that is a problem of its own.
fn distinct(quantities: &[Quantity]) -> impl Iterator<Item = &Quantity> {
    quantities
        .iter()
        .enumerate()
        .filter(|(index, quantity)| quantities[..*index].iter().all(|other| other.name != quantity.name))
        .map(|(_, quantity)| quantity)
}

/// Two quantities of a sensor under one name.
fn published_names(placed: &Placed, descriptor: &Descriptor, problems: &Problems) {
    for (index, quantity) in descriptor.quantities.iter().enumerate() {
        if descriptor.quantities[..index].iter().any(|other| other.name == quantity.name) {
            let message = format!("sensor `{}` would have two quantities `{}`", descriptor.sensor, quantity.name);
            problems.push(Problem::new(placed.at.clone(), message).help("give one of them another name with `as`"));
        }
    }
}

/// Names and templates were checked already, so that only a tag's value can spoil a topic.
fn usable(placed: &Placed, descriptor: &Descriptor, gateway: &Gateway, problems: &Problems) {
    let topic = gateway.topic.sensor_topic(descriptor);
    if let Err(why) = topic::check(&topic) {
        problems.push(
            Problem::new(placed.at.clone(), format!("the topic `{topic}` of sensor `{}` {why}", descriptor.sensor))
                .help("change the tag that the template of [gateway] puts into it"),
        );
    }
}

/// Notes each pair of sensors that share topics once, with the first of the topics.
fn collisions<'a>(
    all: impl Iterator<Item = (&'a Placed, Option<&'a str>, String)>,
    gateway: &Gateway,
    problems: &Problems,
) {
    let mut seen: HashMap<String, (&Placed, Option<&str>)> = HashMap::new();
    let mut pairs: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let mut found: Vec<Collision<'_>> = Vec::new();
    for (placed, quantity, topic) in all {
        let Some(first) = seen.get(&topic) else {
            seen.insert(topic, (placed, quantity));
            continue;
        };
        match pairs.get(&(first.0.at.start, placed.at.start)) {
            Some(index) => found[*index].more += 1,
            None => {
                pairs.insert((first.0.at.start, placed.at.start), found.len());
                found.push(Collision { first: *first, second: (placed, quantity), topic, more: 0 });
            }
        }
    }
    for collision in found {
        problems.push(collision.problem(gateway));
    }
}

/// Two that publish on one topic.
struct Collision<'a> {
    first: (&'a Placed, Option<&'a str>),
    second: (&'a Placed, Option<&'a str>),
    topic: String,
    /// How many other topics the same two share.
    more: usize,
}

impl Collision<'_> {
    fn problem(&self, gateway: &Gateway) -> Problem {
        let name = |(placed, quantity): (&Placed, Option<&str>)| match quantity {
            Some(quantity) => format!("`{quantity}` of sensor `{}`", placed.sensor.name),
            None => format!("sensor `{}`", placed.sensor.name),
        };
        let (first, second) = (name(self.first), name(self.second));
        let more = match self.more {
            0 => String::new(),
            1 => " (and 1 more topic)".to_owned(),
            more => format!(" (and {more} more topics)"),
        };
        let message = format!("{first} and {second} share the topic `{}`{more}", self.topic);
        let problem = Problem::new(self.second.0.at.clone(), message).help(self.remedy(gateway));
        if std::ptr::eq(self.first.0, self.second.0) {
            return problem;
        }
        problem.expected(second).related(self.first.0.at.clone(), first)
    }

    fn remedy(&self, gateway: &Gateway) -> String {
        let template = gateway.topic.to_string();
        let missing = if std::ptr::eq(self.first.0, self.second.0) { "{quantity}" } else { "{sensor}" };
        let outright = self.second.1.map(|quantity| format!("topic = \"…\" under [sensor.quantity.{quantity}]"));
        if template.contains(missing) {
            return outright.map_or_else(
                || "put a `/` between the placeholders of `topic` in [gateway]".to_owned(),
                |own| format!("give one of them another topic: {own}"),
            );
        }
        let wider = match missing {
            "{sensor}" => template.replacen("{quantity}", "{sensor}/{quantity}", 1),
            _ => format!("{template}/{missing}"),
        };
        let add = format!("add {missing} to the topics: topic = \"{wider}\" in [gateway]");
        outright.map_or_else(|| add.clone(), |own| format!("{add}; or give one of them a topic of its own: {own}"))
    }
}
