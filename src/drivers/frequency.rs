//! The frequency of a signal on a GPIO line.

use std::time::Duration;

use super::support::gpio::{self, Sequence, number};
use super::support::pulses::Rate;
use super::{Connection, Decoded, Driver, LineDecoder, LineSource, Parsed, QuantityInfo, Source};
use crate::clock::BootTime;
use crate::hardware::{Edge, Edges, LineSettings};
use crate::options::Options;
use crate::reading::Kind;

const FREQUENCY: &str = "frequency";
const LOWEST: &str = "frequency_min";
const HIGHEST: &str = "frequency_max";

pub(crate) static DRIVER: Driver = Driver {
    name: "frequency",
    summary: "The frequency of a signal on a GPIO line: a fan, a tachometer, a frequency output",
    notes: r#"
Each `every` the sensor gives the mean frequency since the last look, from the kernel's times of the rising edges, and
the lowest and highest one that a single period had. A mean of many periods is as good as the machine's clock; a single
period is some 10 µs uncertain, which is how soon a Pi notices an edge. Up to some 10 kHz can be measured on a Pi.

A fan that gives two pulses a turn, in turns a minute:

```toml
[[sensor]]
name = "fan"
driver = "frequency"
pin = 24
bias = "pull-up"
every = "5s"

[sensor.quantity.frequency]
as = "speed"
unit = "1/min"
multiply = 30
```"#,
    sample: r#"[[sensor]]
name = "tachometer"
driver = "frequency"
pin = 23
every = "5s"
"#,
    connection: Connection::Line,
    options: &[gpio::standstill_option("\"10s\"")],
    quantities: &[
        QuantityInfo {
            name: FREQUENCY,
            unit: Some("Hz"),
            kind: Kind::Number,
            help: "The mean since the last look; 0 where no pulse came for `standstill`.",
        },
        QuantityInfo {
            name: LOWEST,
            unit: Some("Hz"),
            kind: Kind::Number,
            help: "Of the longest period since the last look, if there was one.",
        },
        QuantityInfo {
            name: HIGHEST,
            unit: Some("Hz"),
            kind: Kind::Number,
            help: "Of the shortest period since the last look, if there was one.",
        },
        gpio::EDGES_LOST,
    ],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let line = gpio::parse(options);
    let standstill = gpio::standstill(options, Duration::from_secs(10));
    let settings = LineSettings { edges: Edges::Rising, ..line? };
    Some(Parsed {
        claims: gpio::claims(&settings),
        source: Source::Line(LineSource {
            settings,
            units: Vec::new(),
            decoder: Box::new(move |_| {
                Box::new(Frequency {
                    rate: Rate::new(standstill),
                    sequence: Sequence::default(),
                    last: None,
                    periods: None,
                })
            }),
        }),
    })
}

/// The decoder: edges in, frequencies out.
struct Frequency {
    rate: Rate,
    sequence: Sequence,
    /// The last pulse.
    last: Option<BootTime>,
    /// The shortest and the longest period since the last look.
    periods: Option<(Duration, Duration)>,
}

impl LineDecoder for Frequency {
    fn edge(&mut self, edge: Edge, _out: &mut Vec<Decoded>) {
        let missing = self.sequence.missing_before(&edge);
        self.rate.add(edge.at, u64::from(missing) + 1);
        if let Some(last) = self.last.replace(edge.at).filter(|_| missing == 0) {
            let period = edge.at.since(last);
            let (shortest, longest) = self.periods.unwrap_or((period, period));
            self.periods = Some((shortest.min(period), longest.max(period)));
        }
    }

    fn level(&mut self, _active: bool, at: BootTime, out: &mut Vec<Decoded>) {
        let periods = self.periods.take();
        let samples = [
            self.rate.look(at).and_then(|hertz| number(FREQUENCY, hertz)),
            periods.and_then(|(_, longest)| number(LOWEST, longest.as_secs_f64().recip())),
            periods.and_then(|(shortest, _)| number(HIGHEST, shortest.as_secs_f64().recip())),
            gpio::edges_lost(&self.sequence),
        ];
        out.push((at, Ok(samples.into_iter().flatten().collect())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Sample, Value};

    const MILLISECOND: u64 = 1_000_000;

    fn decoder() -> Frequency {
        let rate = Rate::new(Duration::from_secs(10));
        Frequency { rate, sequence: Sequence::default(), last: None, periods: None }
    }

    fn look(decoder: &mut Frequency, at: u64) -> Vec<Sample> {
        let mut out = Vec::new();
        decoder.level(false, BootTime(at), &mut out);
        out.pop().expect("one observation").1.expect("samples")
    }

    fn number(name: &'static str, number: f64) -> Sample {
        Sample::new(name, Value::number(number).expect("finite"))
    }

    #[test]
    fn the_mean_the_lowest_and_the_highest() {
        let mut decoder = decoder();
        assert_eq!(look(&mut decoder, 0), [], "nothing is known yet");
        let mut at = 0;
        for (sequence, period) in (1..).zip([4, 4, 4, 8, 4, 2, 2]) {
            at += period * MILLISECOND;
            decoder.edge(Edge { at: BootTime(at), active: true, sequence }, &mut Vec::new());
        }
        // Seven periods in 28 ms, six of which lie between pulses; the window has the first one besides.
        assert_eq!(look(&mut decoder, at), [number(FREQUENCY, 250.0), number(LOWEST, 125.0), number(HIGHEST, 500.0)]);
        for sequence in 8..=11 {
            at += 5 * MILLISECOND;
            decoder.edge(Edge { at: BootTime(at), active: true, sequence }, &mut Vec::new());
        }
        assert_eq!(
            look(&mut decoder, at + 1),
            [number(FREQUENCY, 200.0), number(LOWEST, 200.0), number(HIGHEST, 200.0)]
        );
    }

    #[test]
    fn lost_edges_count_but_make_no_long_period() {
        let mut decoder = decoder();
        look(&mut decoder, 0);
        for (at, sequence) in [(10, 1), (20, 2), (60, 6), (70, 7)] {
            decoder.edge(Edge { at: BootTime(at * MILLISECOND), active: true, sequence }, &mut Vec::new());
        }
        let samples = look(&mut decoder, 70 * MILLISECOND);
        assert_eq!(samples[1..], [number(LOWEST, 100.0), number(HIGHEST, 100.0), number("edges_lost", 3.0)]);
        assert_eq!(samples[0], number(FREQUENCY, 100.0));
    }
}
