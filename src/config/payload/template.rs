//! `template`: read, and tried with a made-up reading.

use std::collections::BTreeMap;

use super::{Format, FormatInfo, PayloadShape, only_for};
use crate::options::Options;
use crate::template::{Template, Value, Wrong};

/// What a template may use.
const TEMPLATE_NAMES: [&str; 20] = [
    "id",
    "time",
    "gateway",
    "site",
    "room",
    "room_label",
    "sensor",
    "label",
    "quantity",
    "value",
    "values",
    "unit",
    "units",
    "content_type",
    "clock",
    "boot",
    "uptime",
    "backlog",
    "location",
    "tags",
];

pub(super) fn template(options: &Options<'_>, info: &FormatInfo, shape: PayloadShape) -> Option<Template> {
    if info.format != Format::Template {
        only_for(options, "template", "template", info);
        return None;
    }
    let source: String = options.required("template")?;
    let checked = Template::parse(&source, &TEMPLATE_NAMES).and_then(|template| {
        match template.render(sample(shape), &mut Vec::new()) {
            // The quantities of the sensors are others than those of the sample.
            Err(wrong) if !(wrong.by_values && shape == PayloadShape::Sensor) => Err(wrong),
            _ => Ok(template),
        }
    });
    match checked {
        Ok(template) => Some(template),
        Err(Wrong { what, .. }) => {
            options.problem(
                "template",
                format!("the template of {} cannot be used: {what}", options.what()),
                Some("expected a template in the language of Jinja, such as \"{{ value }}\"".to_owned()),
            );
            None
        }
    }
}

/// A reading with everything that one can have, to try a template with.
fn sample(shape: PayloadShape) -> Value {
    let text = |text: &str| Value::from(text);
    let place = [("latitude", 47.5921), ("longitude", 0.9117), ("altitude", 85.0)];
    let mut fields: BTreeMap<&str, Value> = BTreeMap::from([
        ("id", text("17-1042")),
        ("time", text("2026-11-21T10:15:30.123Z")),
        ("gateway", text("gateway")),
        ("site", text("site")),
        ("room", text("room")),
        ("room_label", text("Room")),
        ("sensor", text("sensor")),
        ("label", text("Sensor")),
        ("clock", text("set")),
        ("backlog", Value::from(false)),
        ("location", BTreeMap::from(place).into()),
        ("tags", BTreeMap::from([("tag", "text")]).into()),
    ]);
    match shape {
        PayloadShape::Quantity => {
            fields.extend([("quantity", text("temperature")), ("value", Value::from(21.53)), ("unit", text("°C"))]);
        }
        PayloadShape::Sensor => fields.extend([
            ("values", BTreeMap::from([("temperature", 21.53)]).into()),
            ("units", BTreeMap::from([("temperature", "°C")]).into()),
        ]),
    }
    fields.into()
}
