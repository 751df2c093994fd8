//! `vigie explain FILE [SENSOR]`: what becomes of each quantity, and where it is published.

use std::fmt::Write;
use std::path::PathBuf;

use super::table::table;
use super::{FINE, WRONG, complain, load_to_look, print};
use crate::config::{Config, KnownQuantity, PayloadShape, SensorConfig};
use crate::options::did_you_mean;
use crate::reading::{Descriptor, Kind, Quantity};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration
    #[arg(value_name = "FILE")]
    config: PathBuf,
    /// Only this sensor
    #[arg(value_name = "SENSOR")]
    sensor: Option<String>,
}

pub(super) fn explain(args: &Args) -> u8 {
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    let wanted = |sensor: &&SensorConfig| args.sensor.as_ref().is_none_or(|name| *name == sensor.name);
    let sensors: Vec<&SensorConfig> = config.sensors.iter().filter(wanted).collect();
    if let (Some(name), true) = (&args.sensor, sensors.is_empty()) {
        let known: Vec<&str> = config.sensors.iter().map(|sensor| sensor.name.as_str()).collect();
        complain(&match did_you_mean(name, &known) {
            Some(word) => format!("there is no sensor `{name}`: did you mean `{word}`?"),
            None => format!("there is no sensor `{name}`: there are {}", known.join(", ")),
        });
        return WRONG;
    }
    let fragments = super::check::fragments(&config.files);
    if !fragments.is_empty() {
        print(&format!("{}\n{fragments}\n", args.config.display()));
    }
    let texts: Vec<String> = sensors.into_iter().map(|sensor| of_sensor(&config, sensor)).collect();
    print(&texts.join("\n"));
    FINE
}

fn of_sensor(config: &Config, sensor: &SensorConfig) -> String {
    let mut text = format!("{}: {}", sensor.name, sensor.driver.name);
    if let Some(room) = &sensor.room {
        let _ = write!(text, ", in {room}");
    }
    text.push('\n');
    for quantity in sensor.known_quantities() {
        text.push_str(&of_quantity(config, sensor, &quantity));
    }
    // A device names its quantities itself: for which of them the room has filters is known, whether it has them is not.
    let known = sensor.known_quantities();
    let named = |name: &String| known.iter().any(|quantity| sensor.pipeline.name(&quantity.name) == name);
    for name in sensor.pipeline.filters.keys().filter(|name| !named(name)) {
        let quantity = KnownQuantity { name: name.clone(), kind: None, unit: None };
        text.push_str(&of_quantity(config, sensor, &quantity).replacen(
            name,
            &format!("{name}, if the device has it"),
            1,
        ));
    }
    if sensor.driver.quantities.is_empty() {
        text.push_str("  The device names its quantities; those that are not shown here pass as they are.\n");
    }
    text
}

fn of_quantity(config: &Config, sensor: &SensorConfig, quantity: &KnownQuantity) -> String {
    let KnownQuantity { name, kind, unit } = quantity;
    let mut text = format!("  {name}\n");
    // The configuration was checked: each filter fits.
    let Ok(published) = sensor.pipeline.published(name, kind.unwrap_or(Kind::Number), kind.is_some(), *unit) else {
        return text;
    };
    let links = published.chain.links().iter().zip(1_u32..);
    let mut rows: Vec<Vec<String>> =
        links.map(|(link, number)| vec![format!("    {number}"), link.to_string(), link.origin.to_string()]).collect();
    if rows.is_empty() {
        rows.push(vec!["    no filters: each value is published".to_owned()]);
    }
    text.push_str(&table(&rows));
    let descriptor = Descriptor { quantities: published.quantities, ..sensor.descriptor(&config.gateway) };
    let mut rows = Vec::new();
    for quantity in &descriptor.quantities {
        for uplink in
            config.uplinks.iter().filter(|uplink| uplink.selection.holds(&sensor.name, sensor.room.as_deref()))
        {
            let topic = match uplink.payload.shape {
                PayloadShape::Quantity => uplink.payload.quantity_topic(&config.gateway.topic, &descriptor, quantity),
                PayloadShape::Sensor => uplink.payload.sensor_topic(&config.gateway.topic, &descriptor),
            };
            let retained = if uplink.retain && quantity.kind != Kind::Event { ", retained" } else { "" };
            let how = format!("{}: QoS {}{retained}", uplink.name, uplink.qos as u8);
            rows.push(vec![format!("    -> {}", named(quantity)), topic, how]);
        }
    }
    text.push_str(&table(&rows));
    text
}

/// A quantity as it is published: its name, and its unit or kind.
fn named(quantity: &Quantity) -> String {
    let name = &quantity.name;
    match (&quantity.unit, quantity.kind) {
        (Some(unit), _) => format!("{name} [{unit}]"),
        (None, Kind::Number) => name.to_string(),
        (None, Kind::Switch) => format!("{name} (switch)"),
        (None, Kind::Text) => format!("{name} (text)"),
        (None, Kind::Event) => format!("{name} (event)"),
        (None, Kind::Bytes) => format!("{name} (bytes)"),
    }
}
