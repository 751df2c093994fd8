//! Values that the configuration describes: a table `[[sensor.value]]` each, with a name, a scale, a unit and a range.

use super::gpio::tidy;
use crate::options::{Options, unit};
use crate::reading::{Fault, FaultCode, Sample, Value};
use crate::topic;

/// Most values of one device.
const MAX_VALUES: usize = 64;

/// How a number of the device becomes a value.
#[derive(Clone, Debug)]
pub(crate) struct Scaled {
    /// What it is called.
    pub(crate) quantity: String,
    unit: Option<String>,
    scale: f64,
    offset: f64,
    range: Option<(f64, f64)>,
}

/// What has the name of a quantity.
pub(crate) trait Named {
    /// The name.
    fn name(&self) -> &str;
}

/// Reads `[[sensor.value]]`, or a list of tables; `read` is given each, and the names of those before.
pub(crate) fn tables<T: Named>(
    options: &Options<'_>,
    mut read: impl FnMut(&Options<'_>, &[&str]) -> Option<T>,
) -> Option<Vec<T>> {
    let expected = || Some("expected [[sensor.value]] tables, one a value that the device gives".to_owned());
    let Some(list) = options.raw("value") else {
        if !options.problems().is_partial() {
            options.problem("value", format!("{} lacks the key `value`", options.what()), expected());
        }
        return None;
    };
    let Some(items) = list.get_ref().as_array().filter(|items| (1..=MAX_VALUES).contains(&items.len())) else {
        let message = format!("`value` of {} is no list of 1 to {MAX_VALUES} tables", options.what());
        options.problem("value", message, expected());
        return None;
    };
    let mut values: Vec<T> = Vec::new();
    for (number, item) in items.iter().enumerate() {
        let what = format!("value {} of {}", number + 1, options.what());
        let Some(table) = Options::table(item, what, options.problems()) else { continue };
        let names: Vec<&str> = values.iter().map(Named::name).collect();
        let value = read(&table, &names);
        values.extend(value);
    }
    Some(values)
}

impl Scaled {
    /// Reads `quantity`, `unit`, `scale`, `offset` and `range`; problems are noted there.
    pub(crate) fn parse(options: &Options<'_>, names: &[&str]) -> Option<Self> {
        let quantity = options.required::<String>("quantity").and_then(|name| name_of(options, name, names));
        let unit = unit(options);
        let scale = options.optional::<f64>("scale").unwrap_or(1.0);
        let offset = options.optional::<f64>("offset").unwrap_or(0.0);
        let range = range(options);
        Some(Self { quantity: quantity?, unit, scale, offset, range })
    }

    /// The quantity and its unit, if it has one.
    pub(crate) fn unit(&self) -> Option<(String, String)> {
        Some((self.quantity.clone(), self.unit.clone()?))
    }

    /// Does a value tell the device's number?
    pub(crate) fn can_be_reversed(&self) -> bool {
        self.scale != 0.0
    }

    /// The number as the device would give it for a value that is to be written.
    ///
    /// # Errors
    /// The value is outside of its range; to be read behind its name.
    pub(crate) fn raw(&self, value: f64) -> Result<f64, String> {
        match self.range {
            Some((min, max)) if !(min..=max).contains(&value) => {
                Err(format!("= {value} is outside of its `range` ({min} to {max})"))
            }
            _ => Some(tidy((value - self.offset) / self.scale))
                .filter(|raw| raw.is_finite())
                .ok_or_else(|| format!("= {value} is no number that can be written")),
        }
    }

    /// The value of a number as the device gives it.
    ///
    /// # Errors
    /// It is outside of its range, or no number.
    pub(crate) fn sample(&self, raw: f64) -> Result<Sample, Fault> {
        let Self { quantity, scale, offset, range, .. } = self;
        let number = tidy(raw * scale + offset);
        let unit = self.unit.as_deref().unwrap_or_default();
        let sample = Value::number(number).map(|value| Sample::new(quantity.clone(), value));
        match (sample, range) {
            (Some(sample), None) => Ok(sample),
            (Some(sample), Some((min, max))) if (*min..=*max).contains(&number) => Ok(sample),
            _ => {
                let (min, max) = range.unwrap_or((f64::MIN, f64::MAX));
                let detail = format!("{quantity} is {number} {unit}, outside of its `range` ({min} to {max} {unit})");
                Err(Fault::new(FaultCode::Impossible, detail))
            }
        }
    }
}

fn name_of(options: &Options<'_>, name: String, others: &[&str]) -> Option<String> {
    let why = match topic::check_name(&name) {
        Err(why) => why,
        Ok(()) if topic::RESERVED.contains(&name.as_str()) => "is one of vigie's own topics".to_owned(),
        Ok(()) if others.contains(&name.as_str()) => "is another value's already".to_owned(),
        Ok(()) => return Some(name),
    };
    let message = format!("`quantity` of {}: \"{name}\" {why}", options.what());
    options.problem("quantity", message, Some("expected a name such as \"temperature\"".to_owned()));
    None
}

fn range(options: &Options<'_>) -> Option<(f64, f64)> {
    let range = options.optional::<Vec<f64>>("range")?;
    match *range.as_slice() {
        [min, max] if min < max => Some((min, max)),
        _ => {
            let message = format!("`range` of {} is no range", options.what());
            options.problem("range", message, Some("expected the lowest and the highest value: [-40, 125]".to_owned()));
            None
        }
    }
}
