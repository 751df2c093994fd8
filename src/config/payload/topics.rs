//! Topics of an uplink's own, against what its messages hold.

use std::collections::BTreeMap;
use std::ops::Range;

use super::super::{Gateway, sensor, uplink};
use super::{Format, PayloadShape};
use crate::options::{Problem, Problems};
use crate::topic;

/// Topics on which messages could not be told apart, or would never come together.
pub(in crate::config) fn check_topics(
    uplinks: &[uplink::Placed],
    sensors: &[sensor::Placed],
    gateway: &Gateway,
    problems: &Problems,
) {
    for uplink::Placed { uplink, at, .. } in uplinks {
        let (payload, name) = (&uplink.payload, &uplink.name);
        let topic = payload.topic.as_ref().unwrap_or(&gateway.topic);
        if payload.batch.is_some() && payload.shape == PayloadShape::Quantity && topic.has_quantity() {
            let message = format!(
                "[uplink.{name}] has `batch`, but each quantity has a topic of its own: no two would become one message"
            );
            let help = "give the uplink a topic for all, such as topic = \"{site}/{gateway}/readings\", or payload = \"sensor\"";
            problems.push(Problem::new(at.clone(), message).help(help));
        }
        if let Some(topic) = payload.topic.as_ref().filter(|_| payload.format == Format::Value) {
            let ours = sensors.iter().filter(|it| uplink.selection.holds(&it.sensor.name, it.sensor.room.as_deref()));
            apart(name, topic, at, ours, gateway, problems);
        }
    }
}

/// Where a message holds nothing but a value, its topic must say whose.
fn apart<'a>(
    uplink: &str,
    topic: &topic::Template,
    at: &Range<usize>,
    sensors: impl Iterator<Item = &'a sensor::Placed>,
    gateway: &Gateway,
    problems: &Problems,
) {
    let mut seen: BTreeMap<String, String> = BTreeMap::new();
    for placed in sensors {
        let descriptor = placed.sensor.known_descriptor(gateway);
        for quantity in &descriptor.quantities {
            let whose = format!("`{}` of sensor `{}`", quantity.name, descriptor.sensor);
            let filled = topic.filled(&descriptor, &quantity.name);
            let Some(first) = seen.get(&filled).filter(|first| **first != whose) else {
                seen.insert(filled, whose);
                continue;
            };
            let message = format!(
                "[uplink.{uplink}] would publish {first} and {whose} on `{filled}`: nobody could tell the values apart"
            );
            let help = "add {sensor} and {quantity} to its topic, or choose a format that says whose a value is";
            problems.push(Problem::new(at.clone(), message).help(help));
            return;
        }
    }
}
