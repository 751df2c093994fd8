//! Commands: which values are to be written, and what that is on the line.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::value::{Plan, TableValue};
use crate::reading::{Sample, Value};

/// The values that a command is to write, in the order of the configuration, each with its data.
///
/// # Errors
/// Why nothing of it is written, for whoever sent it.
pub(super) fn parse<'a>(plan: &'a Plan, payload: &[u8]) -> Result<Vec<(&'a TableValue, Vec<u8>)>, String> {
    let names: Vec<&str> = plan.values().filter(|value| value.can_be_written()).map(TableValue::name).collect();
    let example = names.first().copied().unwrap_or_default();
    let mut wanted: BTreeMap<String, Json> = serde_json::from_slice(payload)
        .map_err(|error| format!("the command must be one JSON object, such as {{\"{example}\":1}}: {error}"))?;
    let found = plan.values().filter(|value| value.can_be_written());
    let writes = found
        .filter_map(|value| Some((value, wanted.remove(value.name())?)))
        .map(|(value, json)| {
            let data = value.encode(&json).map_err(|why| format!("`{}` {why}", value.name()))?;
            Ok((value, data))
        })
        .collect::<Result<Vec<_>, String>>()?;
    if let Some(other) = wanted.keys().next() {
        return Err(format!("no value `{other}` can be written; those with `write = true` are: {}", names.join(", ")));
    }
    if writes.is_empty() {
        return Err(format!("there is nothing to write: name a value, such as {{\"{example}\":1}}"));
    }
    Ok(writes)
}

/// A value for messages.
pub(super) fn told(sample: &Sample) -> String {
    match &sample.value {
        Value::Number(number) => number.to_string(),
        Value::Switch(on) => on.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::Bytes(bytes) => format!("{bytes:02x?}"),
    }
}
