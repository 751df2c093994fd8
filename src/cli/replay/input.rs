//! Recorded readings, line by line: what vigie publishes, what it exports, or the same written by hand.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use serde_json::{Map, Value as Json};

use crate::export::{Day, parse_time};
use crate::reading::Value;

/// The longest line: a picture in base64 and what stands around it.
const MAX_LINE: u64 = 1 << 20;

/// When something was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    /// Nanoseconds since 1970.
    Wall(u64),
    /// Nanoseconds since some boot.
    Uptime(u64),
}

impl When {
    pub(super) fn nanos(self) -> u64 {
        match self {
            Self::Wall(nanos) | Self::Uptime(nanos) => nanos,
        }
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) when: When,
    pub(super) sensor: String,
    /// Name, value and unit of each quantity.
    pub(super) values: Vec<(String, Value, Option<String>)>,
}

/// Reads lines of JSON, or a table as `vigie export` writes it.
pub(super) struct Lines<R> {
    from: R,
    number: u64,
    /// The columns of a table, by name.
    columns: Option<HashMap<String, usize>>,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from, number: 0, columns: None }
    }

    /// The next line that is not empty; `None` at the end.
    ///
    /// # Errors
    /// What is wrong with it, with its number.
    pub(super) fn next(&mut self) -> Result<Option<Line>, String> {
        loop {
            self.number += 1;
            let number = self.number;
            let at = |why: String| format!("line {number}: {why}");
            let mut bytes = Vec::new();
            let length = (&mut self.from).take(MAX_LINE + 1).read_until(b'\n', &mut bytes);
            match length {
                Err(error) => return Err(at(format!("cannot be read: {error}"))),
                Ok(0) => return Ok(None),
                Ok(length) if length as u64 > MAX_LINE => {
                    return Err(at(format!("is longer than {MAX_LINE} bytes")));
                }
                Ok(_) => {}
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| at("is not UTF-8".to_owned()))?;
            let text = text.trim_start_matches('\u{feff}').trim();
            if text.is_empty() {
                continue;
            }
            let line = if text.starts_with('{') { json(text) } else { self.table(text) };
            if let Some(line) = line.map_err(at)? {
                return Ok(Some(Line { number, ..line }));
            }
        }
    }

    /// A line of a table; `None` for its head.
    fn table(&mut self, text: &str) -> Result<Option<Line>, String> {
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let record = reader.records().next().and_then(Result::ok).ok_or("is neither JSON nor a line of a table")?;
        let Some(columns) = &self.columns else {
            let columns: HashMap<String, usize> =
                record.iter().enumerate().map(|(index, name)| (name.to_owned(), index)).collect();
            if let Some(missing) =
                ["time", "sensor", "quantity", "value"].iter().find(|name| !columns.contains_key(**name))
            {
                return Err(format!(
                    "is neither JSON nor the head of a table: no column `{missing}` (vigie reads what `vigie export` writes)"
                ));
            }
            self.columns = Some(columns);
            return Ok(None);
        };
        let cell = |name: &str| {
            let cell = columns.get(name).and_then(|index| record.get(*index)).unwrap_or_default();
            (!cell.is_empty()).then_some(cell)
        };
        let when = when(cell("time"), cell("uptime").map(|text| text.parse().map_err(|_| text.to_owned())))?;
        let missing = |name: &str| format!("has no {name}");
        let text = cell("value").unwrap_or_default();
        let value = match text {
            "true" => Value::Switch(true),
            "false" => Value::Switch(false),
            _ => text.parse().ok().and_then(Value::number).unwrap_or_else(|| Value::Text(text.into())),
        };
        let quantity = cell("quantity").ok_or_else(|| missing("quantity"))?;
        let sensor = cell("sensor").ok_or_else(|| missing("sensor"))?.to_owned();
        let values = vec![(quantity.to_owned(), value, cell("unit").map(str::to_owned))];
        Ok(Some(Line { number: 0, when, sensor, values }))
    }
}

/// A line of JSON, as messages have it with one quantity or several, and as `vigie export --json` writes it.
fn json(text: &str) -> Result<Option<Line>, String> {
    let object: Map<String, Json> = serde_json::from_str(text).map_err(|error| {
        // It counts lines of its own.
        let why = error.to_string();
        format!("is no JSON: {}", why.split(" at line ").next().unwrap_or(&why))
    })?;
    let text = |key: &str| object.get(key).and_then(Json::as_str);
    let uptime = object.get("uptime").map(|uptime| uptime.as_f64().ok_or_else(|| uptime.to_string()));
    let when = when(text("time"), uptime)?;
    let sensor = text("sensor").ok_or("has no `sensor`")?.to_owned();
    let mut values = Vec::new();
    if let Some(all) = object.get("values") {
        let all = all.as_object().ok_or("has `values` that are no table")?;
        let units = object.get("units").and_then(Json::as_object);
        for (name, found) in all {
            let unit = units.and_then(|units| units.get(name)).and_then(Json::as_str);
            values.push((name.clone(), value(name, found)?, unit.map(str::to_owned)));
        }
    } else {
        let name = text("quantity").ok_or("has neither `quantity` nor `values`")?;
        let found = object.get("value").ok_or("has no `value`")?;
        values.push((name.to_owned(), value(name, found)?, text("unit").map(str::to_owned)));
    }
    Ok(Some(Line { number: 0, when, sensor, values }))
}

/// When it was, from its time or else from what it says of its uptime.
fn when(time: Option<&str>, uptime: Option<Result<f64, String>>) -> Result<When, String> {
    if let Some(text) = time {
        let time = parse_time(text, Day::Begins).map_err(|why| format!("`time`: {why}"))?;
        let nanos = u64::try_from(time.0).map_err(|_| format!("`time` is before 1970: {text}"))?;
        return Ok(When::Wall(nanos));
    }
    let seconds =
        uptime.ok_or("has neither `time` nor `uptime`")?.map_err(|text| format!("`uptime` is no number: {text}"))?;
    if !(0.0..=1e9).contains(&seconds) {
        return Err(format!("`uptime` is out of range: {seconds}"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 1e18")]
    let nanos = (seconds * 1e9).round() as u64;
    Ok(When::Uptime(nanos))
}

fn value(name: &str, found: &Json) -> Result<Value, String> {
    match found {
        Json::Bool(on) => Ok(Value::Switch(*on)),
        Json::String(text) => Ok(Value::Text(text.as_str().into())),
        Json::Number(number) => {
            number.as_f64().and_then(Value::number).ok_or_else(|| format!("the value of `{name}` is no finite number"))
        }
        Json::Null | Json::Array(_) | Json::Object(_) => {
            Err(format!("the value of `{name}` is neither a number, a text, true nor false"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Result<Vec<Line>, String> {
        let mut lines = Lines::new(text);
        let mut found = Vec::new();
        while let Some(line) = lines.next()? {
            found.push(line);
        }
        Ok(found)
    }

    #[test]
    fn each_form_gives_the_same() {
        let message = r#"{"id":"3-1","time":"2026-11-21T10:00:00.5Z","room":"a","sensor":"m","quantity":"t","value":1.5,"unit":"K"}"#;
        let of_sensor = r#"{"time":"2026-11-21T10:00:00.5Z","sensor":"m","values":{"t":1.5},"units":{"t":"K"}}"#;
        let table = "time,site,room,sensor,quantity,value,unit,id\n2026-11-21T10:00:00.5Z,,a,m,t,1.5,K,3-1\n";
        let expected = all(message.as_bytes()).expect("a line");
        assert_eq!(expected[0].values, [("t".to_owned(), Value::number(1.5).expect("finite"), Some("K".to_owned()))]);
        assert_eq!(all(of_sensor.as_bytes()).expect("a line"), expected);
        let of_table = all(table.as_bytes()).expect("a line");
        assert_eq!(of_table, [Line { number: 2, ..expected[0].clone() }]);
    }

    #[test]
    fn errors_name_the_line() {
        let good = r#"{"uptime":1.5,"sensor":"m","quantity":"t","value":true}"#;
        for (line, part) in [
            ("{", "is no JSON"),
            ("nonsense", "no column `time`"),
            (r#"{"uptime":1,"quantity":"t","value":1}"#, "no `sensor`"),
            (r#"{"uptime":1,"sensor":"m","value":1}"#, "neither `quantity` nor `values`"),
            (r#"{"sensor":"m","quantity":"t","value":1}"#, "neither `time` nor `uptime`"),
            (r#"{"time":"noon","sensor":"m","quantity":"t","value":1}"#, "`noon` is not a date"),
            (r#"{"uptime":-1,"sensor":"m","quantity":"t","value":1}"#, "out of range"),
            (r#"{"uptime":1,"sensor":"m","quantity":"t","value":null}"#, "neither a number"),
        ] {
            let why = all(format!("{good}\n\n{line}\n").as_bytes()).expect_err(line);
            assert!(why.starts_with("line 3: ") && why.contains(part), "{why}");
        }
        let long = vec![b' '; usize::try_from(MAX_LINE).expect("small") + 2];
        assert!(all(&long).expect_err("too long").contains("longer than"));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes);
        }

        #[test]
        fn whatever_looks_like_it_is_read_or_refused(
            text in "(\\{\"time\":|\\{\"uptime\":|[0-9]{1,4}|,\"sensor\":\"m\"|,\"values\":\\{|\"t\":|\\}|,|\\n|time,sensor,quantity,value\\n|\"){0,20}",
        ) {
            let _ = all(text.as_bytes());
        }
    }
}
