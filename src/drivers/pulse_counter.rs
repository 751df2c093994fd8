//! Counts pulses on a GPIO line: a meter's total, and how fast it grows.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::support::gpio::{self, Sequence, number, tidy, whole};
use super::support::pulses::Rate;
use super::{Connection, Decoded, Driver, LineDecoder, LineSource, OptionInfo, Parsed, QuantityInfo, Source};
use crate::clock::BootTime;
use crate::hardware::{Edge, LineSettings};
use crate::options::{self, Options};
use crate::reading::Kind;

const TOTAL: &str = "total";
const COUNT: &str = "count";
const RATE: &str = "rate";

/// More than any meter's factor, so that a total stays a number for longer than the meter lasts.
const MAX_FACTOR: f64 = 1e9;

pub(crate) static DRIVER: Driver = Driver {
    name: "pulse-counter",
    summary: "A meter with a pulse output on a GPIO line: water, gas, energy, rain, wind, flow",
    notes: r#"
Each `every` the sensor gives `total` (in your unit), `count` (pulses) and `rate`. What was counted survives a restart
and a crash of vigie exactly, because it is kept with the readings as it is counted, whether something is published or
not; after a power cut up to 5 minutes of it can be missing. Pulses that come while vigie does not run are not seen.
What a sensor has counted belongs to its name: rename it and it begins at zero. A sensor that is taken out of the
configuration can be put back within 19 starts as it was.

**Set the total**, to the reading of the meter's own dial or to 0, with `total = 1234.5` and a restart. It is set once:
when the key is new, or has another value than at the last start, so it can stay. `count` always goes on.

`rate` comes from the kernel's times of the pulses, from the last pulse before one look to the last one before the next,
so it does not depend on when it was looked. Where the pulses cease it falls to what one pulse now would mean, and is 0
after `standstill`. It is not given before two pulses have come.

A reed contact or open collector between the pin and ground wants `bias = "pull-up"` and `invert = true`. Contacts
bounce: `debounce` (by the kernel) wants the level to hold for that long, which must be less than the shortest pulse;
`dead_time` ignores what comes too soon after a pulse. The kernel keeps up to 1024 edges until they are read; the number of
those that are lost beyond that is known, is counted with the others, and is published as `edges_lost`. Only what is so
fast that the hardware does not notice it (some 10 kHz on a Pi) goes missing silently.

A flow meter YF-S201 with 450 pulses a litre (5 V: through a voltage divider):

```toml
[[sensor]]
name = "water"
driver = "pulse-counter"
pin = 24
pulses_per_unit = 450
unit = "l"
rate_per = "minute"
```

A rain gauge with 0.2794 mm a tip (reed contact), published when it rains, and each hour:

```toml
[[sensor]]
name = "rain"
driver = "pulse-counter"
pin = 6
bias = "pull-up"
invert = true
debounce = "5ms"
units_per_pulse = 0.2794
unit = "mm"
rate_per = "hour"
standstill = "15m"
change = { total = 0, rate = 0, count = 0 }
heartbeat = "1h"
```

An anemometer with 2.4 km/h at one pulse a second, which is 3600 / 2.4 = 1500 pulses a kilometre:

```toml
[[sensor]]
name = "wind"
driver = "pulse-counter"
pin = 5
bias = "pull-up"
invert = true
dead_time = "2ms"
every = "5s"
pulses_per_unit = 1500
unit = "km"
rate_per = "hour"
standstill = "10s"
```

An energy meter with an S0 output of 1000 pulses a kWh; kWh an hour are kW:

```toml
[[sensor]]
name = "energy"
driver = "pulse-counter"
pin = 22
bias = "pull-up"
invert = true
debounce = "10ms"
pulses_per_unit = 1000
unit = "kWh"
rate_per = "hour"
total = 20417.3

[sensor.quantity.rate]
as = "power"
unit = "W"
multiply = 1000
```"#,
    sample: r#"[[sensor]]
name = "water"
driver = "pulse-counter"
pin = 24
pulses_per_unit = 450
unit = "l"
rate_per = "minute"
every = "10s"
"#,
    connection: Connection::Line,
    options: &[
        gpio::EDGE,
        OptionInfo {
            name: "pulses_per_unit",
            values: "number above 0, up to 1e9",
            default: Some("1"),
            help: "How many pulses make one unit.",
        },
        OptionInfo {
            name: "units_per_pulse",
            values: "number above 0, up to 1e9",
            default: Some("1"),
            help: "The same the other way round; one of the two can stand.",
        },
        OptionInfo {
            name: "unit",
            values: "text",
            default: Some("none"),
            help: "Of `total`; the unit of `rate` follows from it.",
        },
        OptionInfo {
            name: "rate_per",
            values: "`\"second\"`, `\"minute\"` or `\"hour\"`",
            default: Some("\"second\""),
            help: "The time that `rate` refers to.",
        },
        OptionInfo {
            name: "total",
            values: "number",
            default: Some("none"),
            help: "What `total` is set to at the first start with this key or with another value of it.",
        },
        OptionInfo {
            name: "dead_time",
            values: "duration up to 1 min",
            default: Some("\"0s\""),
            help: "A pulse that comes so soon after the one before is not counted.",
        },
        gpio::standstill_option("\"5m\""),
    ],
    quantities: &[
        QuantityInfo {
            name: RATE,
            unit: None,
            kind: Kind::Number,
            help: "Units per second, minute or hour; the unit is `unit` and that, such as `l/min`.",
        },
        QuantityInfo { name: TOTAL, unit: None, kind: Kind::Number, help: "What has been counted, in `unit`." },
        QuantityInfo { name: COUNT, unit: None, kind: Kind::Number, help: "Pulses since the sensor was first used." },
        gpio::EDGES_LOST,
    ],
    parse,
};

/// What a pulse stands for: `numerator / denominator` units.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Factor {
    numerator: f64,
    denominator: f64,
}

impl Factor {
    fn units(self, pulses: f64) -> f64 {
        tidy(pulses * self.numerator / self.denominator)
    }
}

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let line = gpio::parse(options);
    let edges = gpio::edge(options);
    let factor = factor(options);
    let unit = options::unit(options);
    let times = [("second", (1.0, "s")), ("minute", (60.0, "min")), ("hour", (3600.0, "h"))];
    let (seconds, time) = options.optional_word("rate_per", &times).unwrap_or((1.0, "s"));
    let configured = options.optional::<f64>("total");
    let dead_time = options.optional_in("dead_time", Duration::ZERO..=Duration::from_secs(60)).unwrap_or_default();
    let standstill = gpio::standstill(options, Duration::from_secs(300));
    let settings = LineSettings { edges, ..line? };
    let rate_unit = match &unit {
        Some(unit) => format!("{unit}/{time}"),
        None if seconds == 1.0 => "Hz".to_owned(),
        None => format!("1/{time}"),
    };
    Some(Parsed {
        claims: gpio::claims(&settings),
        source: Source::Line(LineSource {
            settings,
            units: unit.map(|unit| (TOTAL, unit)).into_iter().chain([(RATE, rate_unit)]).collect(),
            decoder: Box::new(move |kept| {
                Box::new(PulseCounter {
                    meter: Meter::resume(kept, factor, configured),
                    seconds,
                    dead_time,
                    rate: Rate::new(standstill),
                    sequence: Sequence::default(),
                    last: None,
                    kept: kept.map(Into::into).unwrap_or_default(),
                })
            }),
        }),
    })
}

/// What a pulse stands for, as one of two keys says it.
fn factor(options: &Options<'_>) -> Factor {
    let read = |key| {
        let number: f64 = options.optional(key)?;
        if number > 0.0 && number <= MAX_FACTOR {
            return Some(number);
        }
        let expected = format!("expected a number above 0, up to {MAX_FACTOR}");
        options.problem(key, format!("`{key}` of {} is out of range", options.what()), Some(expected));
        None
    };
    let (per_unit, per_pulse) = (read("pulses_per_unit"), read("units_per_pulse"));
    if options.raw("pulses_per_unit").is_some() && options.raw("units_per_pulse").is_some() {
        let message = "`pulses_per_unit` and `units_per_pulse` say the same: only one of them can stand";
        options.problem("units_per_pulse", message, None);
    }
    Factor { numerator: per_pulse.unwrap_or(1.0), denominator: per_unit.unwrap_or(1.0) }
}

/// The form of [`Meter`] as it is kept.
const FORM: u8 = 1;

/// What is kept of a meter. Counts are whole numbers, so that nothing is lost to rounding however long it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meter {
    /// [`FORM`]
    form: u8,
    /// All pulses ever.
    count: u64,
    /// The total when the count was `from`.
    base: f64,
    from: u64,
    /// What a pulse has stood for since then.
    factor: Factor,
    /// `total` of the configuration, as it was at the last start.
    configured: Option<f64>,
}

impl Meter {
    /// The meter as it was left, or a new one.
    fn resume(kept: Option<&[u8]>, factor: Factor, configured: Option<f64>) -> Self {
        let new = Self { form: FORM, count: 0, base: 0.0, from: 0, factor, configured: None };
        let mut meter = kept.and_then(Self::read).unwrap_or(new);
        if meter.factor != factor {
            // What has been counted stays what it was.
            meter.rebase(meter.total());
            meter.factor = factor;
        }
        if meter.configured != configured {
            if let Some(total) = configured {
                meter.rebase(total);
            }
            meter.configured = configured;
        }
        meter
    }

    fn read(kept: &[u8]) -> Option<Self> {
        let meter: Self = postcard::from_bytes(kept).ok()?;
        let sound = meter.form == FORM && meter.from <= meter.count && meter.total().is_finite();
        sound.then_some(meter)
    }

    fn rebase(&mut self, total: f64) {
        self.base = total;
        self.from = self.count;
    }

    fn total(&self) -> f64 {
        tidy(self.base + self.factor.units(whole(self.count.saturating_sub(self.from))))
    }
}

/// The decoder: edges in, the meter's state out.
struct PulseCounter {
    meter: Meter,
    /// In the time that the rate refers to.
    seconds: f64,
    dead_time: Duration,
    rate: Rate,
    sequence: Sequence,
    /// The last pulse that was counted.
    last: Option<BootTime>,
    /// What was given to keep.
    kept: Box<[u8]>,
}

impl LineDecoder for PulseCounter {
    fn edge(&mut self, edge: Edge, _out: &mut Vec<Decoded>) {
        // Of the missing ones nothing is known but that they came.
        let mut pulses = u64::from(self.sequence.missing_before(&edge));
        let too_soon = self.last.is_some_and(|last| edge.at.since(last) < self.dead_time);
        if !too_soon {
            self.last = Some(edge.at);
            pulses += 1;
        }
        if pulses > 0 {
            self.meter.count = self.meter.count.saturating_add(pulses);
            self.rate.add(edge.at, pulses);
        }
    }

    fn level(&mut self, _active: bool, at: BootTime, out: &mut Vec<Decoded>) {
        let rate = self.rate.look(at).map(|hertz| self.meter.factor.units(hertz * self.seconds));
        let samples = [
            rate.and_then(|rate| number(RATE, rate)),
            number(TOTAL, self.meter.total()),
            number(COUNT, whole(self.meter.count)),
            gpio::edges_lost(&self.sequence),
        ];
        out.push((at, Ok(samples.into_iter().flatten().collect())));
    }

    fn keep(&mut self) -> Option<Box<[u8]>> {
        let now: Box<[u8]> = postcard::to_allocvec(&self.meter).ok()?.into();
        if now == self.kept {
            return None;
        }
        self.kept.clone_from(&now);
        Some(now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use toml::de::DeTable;

    use super::*;
    use crate::drivers::MAX_KEPT;
    use crate::options::Problems;
    use crate::reading::Value;

    const SECOND: u64 = 1_000_000_000;

    /// The source of the first `[[sensor]]`, or what is wrong with it.
    fn read(text: &str) -> Result<LineSource, Vec<String>> {
        let file = DeTable::parse(text).expect("TOML");
        let sensors = file.get_ref().get("sensor").and_then(|value| value.get_ref().as_array());
        let sensor = sensors.map_or(file.get_ref(), |sensors| sensors[0].get_ref().as_table().expect("a table"));
        let problems = Problems::new();
        let options = Options::new(sensor, 0..0, "the sensor", &problems);
        let parsed = parse(&options);
        drop(options);
        match parsed.map(|parsed| parsed.source) {
            Some(Source::Line(source)) if problems.is_empty() => Ok(source),
            _ => Err(problems.into_sorted().into_iter().map(|problem| problem.message).collect()),
        }
    }

    fn decoder(text: &str, kept: Option<&[u8]>) -> Box<dyn LineDecoder> {
        (read(&format!("pin = 17\n{text}")).unwrap_or_else(|problems| panic!("{problems:?}")).decoder)(kept)
    }

    /// Pulses at 10 Hz, numbered from `from` on.
    fn feed(decoder: &mut dyn LineDecoder, pulses: std::ops::Range<u32>) {
        for n in pulses {
            let at = BootTime(u64::from(n) * SECOND / 10);
            decoder.edge(Edge { at, active: true, sequence: n + 1 }, &mut Vec::new());
        }
    }

    fn look(decoder: &mut dyn LineDecoder, at: u64) -> Vec<(String, f64)> {
        let mut out = Vec::new();
        decoder.level(false, BootTime(at), &mut out);
        let samples = out.pop().expect("one observation").1.expect("samples");
        samples
            .into_iter()
            .map(|sample| match sample.value {
                Value::Number(number) => (sample.quantity.into_owned(), number.get()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn named(samples: &[(String, f64)], name: &str) -> Option<f64> {
        samples.iter().find(|(quantity, _)| quantity == name).map(|(_, value)| *value)
    }

    #[test]
    fn every_example_in_the_notes_is_right() {
        let mut found = 0;
        for block in DRIVER.notes.split("```toml\n").skip(1) {
            let text = block.split("```").next().expect("it ends");
            let source = read(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
            assert_eq!(source.units.len(), 2, "{text}");
            found += 1;
        }
        assert_eq!(found, 4);
    }

    #[test]
    fn one_hertz_on_the_anemometer_is_its_wind() {
        let mut wind = decoder("pulses_per_unit = 1500\nrate_per = \"hour\"", None);
        look(&mut *wind, 0);
        for n in 1..=10 {
            wind.edge(Edge { at: BootTime(u64::from(n) * SECOND), active: true, sequence: n }, &mut Vec::new());
        }
        look(&mut *wind, 10 * SECOND);
        for n in 11..=20 {
            wind.edge(Edge { at: BootTime(u64::from(n) * SECOND), active: true, sequence: n }, &mut Vec::new());
        }
        assert_eq!(named(&look(&mut *wind, 20 * SECOND), "rate"), Some(2.4));
    }

    #[test]
    fn totals_are_counted_in_whole_pulses_and_have_no_noise() {
        let mut rain = decoder("units_per_pulse = 0.2794", None);
        for (pulses, total) in [(1, 0.2794), (2, 0.5588), (3, 0.8382), (1000, 279.4)] {
            feed(&mut *rain, if pulses == 1000 { 3..1000 } else { pulses - 1..pulses });
            let samples = look(&mut *rain, 0);
            assert_eq!(named(&samples, "total"), Some(total));
            assert_eq!(named(&samples, "count"), Some(f64::from(pulses)));
        }
    }

    #[test]
    fn what_was_counted_goes_on_after_a_restart() {
        let text = "pulses_per_unit = 450\nunit = \"l\"";
        let mut first = decoder(text, None);
        feed(&mut *first, 0..451);
        let kept = first.keep().expect("something new");
        assert!(kept.len() <= MAX_KEPT);
        assert_eq!(first.keep(), None, "nothing new");
        let mut second = decoder(text, Some(&kept));
        assert_eq!(second.keep(), None, "as it was");
        feed(&mut *second, 0..449);
        let samples = look(&mut *second, 0);
        assert_eq!((named(&samples, "total"), named(&samples, "count")), (Some(2.0), Some(900.0)));
    }

    #[test]
    fn the_configured_total_is_set_once_and_again_when_it_changes() {
        let total = |text: &str, kept: &mut Option<Box<[u8]>>| {
            let mut meter = decoder(text, kept.as_deref());
            let before = named(&look(&mut *meter, 0), "total").expect("a total");
            feed(&mut *meter, 0..10);
            *kept = Some(meter.keep().expect("ten more"));
            before
        };
        let mut kept = None;
        assert_eq!(total("total = 100.5", &mut kept), 100.5);
        assert_eq!(total("total = 100.5", &mut kept), 110.5, "not again");
        assert_eq!(total("", &mut kept), 120.5, "the key can be taken out");
        assert_eq!(total("total = 100.5", &mut kept), 100.5, "and put in again");
        assert_eq!(total("total = 0", &mut kept), 0.0);
        assert_eq!(total("total = 0\nunits_per_pulse = 2", &mut kept), 10.0, "a new factor changes nothing before it");
        assert_eq!(total("total = 0\nunits_per_pulse = 2", &mut kept), 30.0);
        let meter = decoder("total = 7", kept.as_deref()).keep();
        assert!(meter.is_some(), "a total that is set is kept even before the first pulse");
    }

    #[test]
    fn lost_edges_are_counted_and_told() {
        let mut meter = decoder("", None);
        feed(&mut *meter, 0..1);
        feed(&mut *meter, 9..10);
        let samples = look(&mut *meter, 0);
        assert_eq!((named(&samples, "count"), named(&samples, "edges_lost")), (Some(10.0), Some(8.0)));
    }

    #[test]
    fn the_dead_time_begins_with_a_counted_pulse() {
        let mut meter = decoder("dead_time = \"250ms\"", None);
        // At 0, 0.3 and 0.6 s.
        feed(&mut *meter, 0..7);
        assert_eq!(named(&look(&mut *meter, 0), "count"), Some(3.0));
    }

    #[test]
    fn units_follow_from_the_options() {
        for (text, expected) in [
            ("", vec![("rate", "Hz")]),
            ("rate_per = \"minute\"", vec![("rate", "1/min")]),
            ("unit = \"l\"\nrate_per = \"hour\"", vec![("total", "l"), ("rate", "l/h")]),
        ] {
            let units = read(&format!("pin = 17\n{text}")).unwrap_or_else(|problems| panic!("{problems:?}")).units;
            let units: Vec<(&str, &str)> = units.iter().map(|(name, unit)| (*name, unit.as_str())).collect();
            assert_eq!(units, expected);
        }
    }

    #[test]
    fn wrong_options_are_told() {
        for (text, part) in [
            ("pulses_per_unit = 0", "`pulses_per_unit`"),
            ("units_per_pulse = -1", "`units_per_pulse`"),
            ("pulses_per_unit = 2\nunits_per_pulse = 0.5", "only one of them"),
            ("unit = \"\"", "`unit`"),
            ("rate_per = \"day\"", "`rate_per`"),
            ("edge = \"up\"", "`edge`"),
            ("total = inf", "`total`"),
            ("dead_time = \"2m\"", "`dead_time`"),
            ("standstill = \"1ms\"", "`standstill`"),
        ] {
            let problems = read(&format!("pin = 17\n{text}")).err().expect("a problem");
            assert!(problems.len() == 1 && problems[0].contains(part), "{text}: {problems:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_kept_a_total_is_a_number(kept: Vec<u8>) {
            let mut meter = decoder("", Some(&kept));
            prop_assert!(named(&look(&mut *meter, 0), "total").is_some());
        }

        #[test]
        fn nothing_is_lost_or_counted_twice_however_often_it_starts_anew(
            runs in proptest::collection::vec((0..50_u32, 0..50_u32), 1..20),
        ) {
            let mut kept: Option<Box<[u8]>> = None;
            let mut count = 0;
            for (kept_pulses, lost_with_the_process) in runs {
                let mut meter = decoder("", kept.as_deref());
                feed(&mut *meter, 0..kept_pulses);
                if let Some(now) = meter.keep() {
                    kept = Some(now);
                }
                count += kept_pulses;
                feed(&mut *meter, kept_pulses..kept_pulses + lost_with_the_process);
            }
            let mut meter = decoder("", kept.as_deref());
            prop_assert_eq!(named(&look(&mut *meter, 0), "count"), Some(f64::from(count)));
        }
    }
}
