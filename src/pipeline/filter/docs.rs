//! `docs/filters.md`, made from the registry, with each filter shown at work.

use std::fmt::Write;

use toml::de::DeTable;

use super::{Example, FILTERS, FilterType, MAX_FILTERS, Part, given};
use crate::clock::BootTime;
use crate::options::Problems;
use crate::pipeline::chain::{Chain, Link, Origin, Released, Taken};
use crate::reading::Value;

const HEAD: &str = "\
# Filters

<!-- Made from the registry in src/pipeline/filter.rs by `UPDATE_DOCS=1 cargo test --lib filter`: change it there. -->

What stands between a measured value and what is published of it. A filter sees the value and the time at which it was
measured, and nothing else. Filters are a list for a quantity, and work in the order in which they are written:

```toml
[[sensor]]
name = \"meteo\"
driver = \"bme280\"
filters = { temperature = [{ offset = -0.5 }, { median = 5 }, { throttle = \"10s\" }, { delta = 0.1 }] }

[sensor.quantity.pressure]                    # the same, where a quantity has a table of its own
filters = [
    { clamp = { min = 800, max = 1100, ignore_out_of_range = true } },
    { aggregate = \"5m\" },
]

[room.salon]                                  # for all sensors of a room that have such a quantity
filters = { humidity = [{ delta = { absolute = 2, heartbeat = \"10m\" } }] }
```

In a sensor and in a room the names are those under which quantities are published. A sensor's list for a quantity takes
the place of the room's; an empty one, `[]`, means none. A value alone stands for a filter's main option: `median = 5` is
`median = { window = 5 }`.

A quantity may be published in several forms: with `of`, another one takes its values and has filters of its own.

```toml
[sensor.quantity.frost]                       # beside `temperature` itself
of = \"temperature\"
filters = [{ multiply = -1 }, { hysteresis = { upper = 0, lower = -1 } }, { delta = 0 }]
```

- **Order.** The keys `multiply`, `offset`, `round`, `change` and `heartbeat` are short forms of filters. The whole chain
  is: `multiply`, `offset`, those in `filters`, `round`, `change` with `heartbeat`. `vigie explain FILE` prints it.
- **Times.** A value that is held back and goes out later keeps the time at which it was measured; what sums up a window
  has the time of its end. Nothing is dated anew.
- **Events** (a button's press) are each published: they take only filters that change each value by itself.
- **Faults.** After a fault of the sensor the first value passes `delta`, what waited in `debounce` is dropped, and
  `rate_of_change` begins anew; the other filters go on.
- **Restarts.** What `integral` and `aggregate` know survives a restart of vigie, with the same commit as the readings.
  The other filters start anew: the first value passes, windows fill again.
- **What cannot be used**, such as a formula's division by zero, is counted, logged and not published.

`vigie replay FILE --input readings.jsonl --why` runs recorded readings through the filters of a configuration and says
why each of them would not be published.
";

/// Rows of a drawing.
const ROWS: usize = 6;
/// Columns of a second.
const COLUMNS: usize = 3;

/// `docs/filters.md`
///
/// # Errors
/// A sample that is wrong.
pub fn page() -> Result<String, String> {
    let mut page = HEAD.to_owned();
    let _ = writeln!(page, "\nA quantity has at most {MAX_FILTERS} of them in a list:\n");
    for filter in FILTERS {
        let _ = writeln!(page, "- [`{0}`](#{0}): {1}", filter.name, lower(filter.summary));
    }
    for filter in FILTERS {
        let _ = write!(page, "\n## {}\n\n{}. {}\n\n", filter.name, filter.summary, filter.notes);
        page.push_str("| Option | Values | Default | |\n|---|---|---|---|\n");
        for option in filter.options {
            let default = option.default.unwrap_or("must be given");
            let _ = writeln!(page, "| `{}` | {} | {default} | {} |", option.name, option.values, option.help);
        }
        if let Some(bare) = filter.bare {
            let _ = writeln!(page, "\nA value alone is its `{bare}`.");
        }
        let _ =
            write!(page, "\n```toml\nfilters = [{{ {} }}]\n```\n\n```text\n{}```\n", filter.sample, drawing(filter)?);
    }
    Ok(page)
}

fn lower(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// What comes out of a filter.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Point {
    seconds: f64,
    number: f64,
    mark: char,
}

/// A chain of one filter, from its sample.
fn sample(filter: &FilterType) -> Result<Chain, String> {
    let text = format!("filters = [{{ {} }}]", filter.sample);
    let table = DeTable::parse(&text).map_err(|error| error.to_string())?;
    let problems = Problems::new();
    let list = match table.get_ref().get("filters") {
        Some(value) => given::list(value, "the sample", &problems),
        None => Vec::new(),
    };
    if let Some(problem) = problems.into_sorted().first() {
        return Err(format!("{text}: {}", problem.message));
    }
    let link = |placed: given::Placed| Link { name: placed.name, filter: placed.filter, origin: Origin::Sensor };
    Ok(Chain::new(list.into_iter().map(link).collect()))
}

/// Input and output of a filter's sample over its example.
fn drawing(filter: &FilterType) -> Result<String, String> {
    let mut chain = sample(filter)?;
    let Example { every, values } = filter.example;
    let (mut came, mut out, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    let mut seconds = 0.0;
    for number in values {
        let at = BootTime(nanos(seconds));
        let mut released = Vec::new();
        chain.release(at, &mut released);
        for event in released {
            match event {
                Released::Values(at, values) => out.extend(values.iter().map(|value| point(at, value.0, &value.1))),
                Released::Absent(_, why) => absent.push(format!("at {seconds} s: fault, {why}\n")),
                Released::Held(..) | Released::Rejected(..) => {}
            }
        }
        if let Some(value) = Value::number(*number) {
            came.push(point(at, None, &value));
            if let Taken::Passed(value) = chain.take(value, at) {
                out.push(point(at, None, &value));
            }
        }
        seconds += f64::from(every);
    }
    let mut text = panel("in", &came, range(&came), seconds);
    let (inside, outside) = (range(&came), range(&out));
    let like = !is_switch(&chain)
        && outside.0 >= inside.0 - (inside.1 - inside.0) / 2.0
        && outside.1 <= inside.1 + (inside.1 - inside.0) / 2.0;
    let scale = if like { (inside.0.min(outside.0), inside.1.max(outside.1)) } else { outside };
    text.push_str(&panel("out", &out, scale, seconds));
    let mut axis = format!("{:12}", "");
    let step = if every > 1 { usize::from(every) } else { 2 };
    for second in (0..).step_by(step).take_while(|second| f64::from(*second) < seconds) {
        let _ = write!(axis, "{:<1$}", format!("{second}"), COLUMNS * step);
    }
    let _ = writeln!(text, "{}s", axis.trim_end_matches(' '));
    text.push_str(&absent.concat());
    Ok(text)
}

fn is_switch(chain: &Chain) -> bool {
    use crate::pipeline::filter::Shape;
    use crate::reading::Kind;
    let number = Shape { kind: Kind::Number, unit: None, parts: Vec::new() };
    chain.shape(number).is_ok_and(|shape| shape.kind == Kind::Switch)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of an example")]
fn nanos(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[expect(clippy::cast_precision_loss, reason = "seconds of an example")]
fn point(at: BootTime, part: Option<Part>, value: &Value) -> Point {
    let mark = match part {
        None => 'o',
        Some(Part::Min) => 'v',
        Some(Part::Mean) => '-',
        Some(Part::Max) => '^',
        Some(Part::Count) => '#',
    };
    let number = match value {
        Value::Number(number) => number.get(),
        Value::Switch(on) => f64::from(u8::from(*on)),
        Value::Text(_) | Value::Bytes(_) => 0.0,
    };
    Point { seconds: at.0 as f64 / 1e9, number, mark }
}

fn range(points: &[Point]) -> (f64, f64) {
    let of = |pick: fn(f64, f64) -> f64| points.iter().map(|point| point.number).reduce(pick);
    (of(f64::min).unwrap_or_default(), of(f64::max).unwrap_or_default())
}

/// Points over time, with the range of their values at the left.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "rows and columns of a small drawing"
)]
fn panel(name: &str, points: &[Point], (low, high): (f64, f64), seconds: f64) -> String {
    let width = (seconds * COLUMNS as f64) as usize + 1;
    let mut rows = vec![vec![' '; width]; ROWS];
    for point in points {
        let share = if high > low { (point.number - low) / (high - low) } else { 0.0 };
        let row = ROWS - 1 - (share * (ROWS - 1) as f64).round() as usize;
        let column = (point.seconds * COLUMNS as f64).round() as usize;
        if let Some(place) = rows.get_mut(row).and_then(|row| row.get_mut(column)) {
            *place = point.mark;
        }
    }
    let label = |number: f64| {
        let text = format!("{number:.2}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let name = if index == 0 { name } else { "" };
        let label = match index {
            0 if high > low => label(high),
            index if index == ROWS - 1 => label(low),
            _ => String::new(),
        };
        let row: String = row.iter().collect();
        let _ = writeln!(text, "{}", format!("{name:3} {label:>6} | {row}").trim_end());
    }
    text.push('\n');
    text
}
