//! How long a signal on a GPIO line is active: pulse width and duty cycle.

use std::time::Duration;

use super::support::gpio::{self, Sequence, number};
use super::{Connection, Decoded, Driver, LineDecoder, LineSource, Parsed, QuantityInfo, Source};
use crate::clock::BootTime;
use crate::hardware::Edge;
use crate::options::Options;
use crate::reading::Kind;

const WIDTH: &str = "width";
const SHORTEST: &str = "width_min";
const LONGEST: &str = "width_max";
const DUTY: &str = "duty";

pub(crate) static DRIVER: Driver = Driver {
    name: "pulse-width",
    summary: "How long a signal on a GPIO line is high, and for which part of the time: PWM outputs, pulse-width sensors",
    notes: r#"
Each `every` the sensor gives the mean, the shortest and the longest width of the pulses since the last look, and the
duty cycle over the whole periods among them, from the kernel's times of the edges. A time is some 10 µs uncertain,
which is how soon a Pi notices an edge. With `invert = true` it is the low time that is measured.

`every` should be longer than a period: a line without an edge since the last look has a duty cycle of 0 or 100 % and
no width. Pulses of which an edge was lost are left out."#,
    sample: r#"[[sensor]]
name = "ventilation"
driver = "pulse-width"
pin = 23
every = "10s"
"#,
    connection: Connection::Line,
    options: &[],
    quantities: &[
        QuantityInfo {
            name: WIDTH,
            unit: Some("ms"),
            kind: Kind::Number,
            help: "How long the line was active, mean of the pulses that ended since the last look.",
        },
        QuantityInfo { name: SHORTEST, unit: Some("ms"), kind: Kind::Number, help: "The shortest of them." },
        QuantityInfo { name: LONGEST, unit: Some("ms"), kind: Kind::Number, help: "The longest of them." },
        QuantityInfo { name: DUTY, unit: Some("%"), kind: Kind::Number, help: "Active time, of the periods." },
        gpio::EDGES_LOST,
    ],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = gpio::parse(options)?;
    Some(Parsed {
        claims: gpio::claims(&settings),
        source: Source::Line(LineSource {
            settings,
            units: Vec::new(),
            decoder: Box::new(|_| Box::<PulseWidth>::default()),
        }),
    })
}

/// The decoder: edges in, widths out.
#[derive(Default)]
struct PulseWidth {
    sequence: Sequence,
    /// When the pulse that is on now, or was the last one, began.
    rose: Option<BootTime>,
    /// How long that was, once it has ended.
    width: Option<Duration>,
    seen: Seen,
    /// It was looked before.
    looked: bool,
}

/// What came since the last look.
#[derive(Default)]
struct Seen {
    edges: bool,
    pulses: u32,
    active: Duration,
    shortest: Option<Duration>,
    longest: Duration,
    /// The whole periods, and for how long the line was active in them.
    periods: Duration,
    active_in_periods: Duration,
}

impl LineDecoder for PulseWidth {
    fn edge(&mut self, edge: Edge, _out: &mut Vec<Decoded>) {
        self.seen.edges = true;
        if self.sequence.missing_before(&edge) > 0 {
            (self.rose, self.width) = (None, None);
        }
        if edge.active {
            if let (Some(rose), Some(width)) = (self.rose, self.width) {
                self.seen.periods += edge.at.since(rose);
                self.seen.active_in_periods += width;
            }
            (self.rose, self.width) = (Some(edge.at), None);
        } else if let (Some(rose), None) = (self.rose, self.width) {
            let width = edge.at.since(rose);
            self.width = Some(width);
            self.seen.pulses = self.seen.pulses.saturating_add(1);
            self.seen.active += width;
            self.seen.shortest = Some(self.seen.shortest.map_or(width, |shortest| shortest.min(width)));
            self.seen.longest = self.seen.longest.max(width);
        }
    }

    fn level(&mut self, active: bool, at: BootTime, out: &mut Vec<Decoded>) {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let seen = std::mem::take(&mut self.seen);
        let duty = if !seen.periods.is_zero() {
            Some(100.0 * seen.active_in_periods.as_secs_f64() / seen.periods.as_secs_f64())
        } else if self.looked && !seen.edges {
            Some(if active { 100.0 } else { 0.0 })
        } else {
            None
        };
        self.looked = true;
        let samples = [
            seen.active.checked_div(seen.pulses).and_then(|mean| number(WIDTH, millis(mean))),
            seen.shortest.and_then(|shortest| number(SHORTEST, millis(shortest))),
            seen.shortest.and_then(|_| number(LONGEST, millis(seen.longest))),
            duty.and_then(|duty| number(DUTY, duty)),
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

    /// Edges at these times in ms, rising and falling in turn, numbered from 1.
    fn feed(decoder: &mut PulseWidth, edges: &[(u64, u32)]) {
        for (at, sequence) in edges {
            let edge = Edge { at: BootTime(at * MILLISECOND), active: sequence % 2 == 1, sequence: *sequence };
            decoder.edge(edge, &mut Vec::new());
        }
    }

    fn look(decoder: &mut PulseWidth, active: bool) -> Vec<(String, f64)> {
        let mut out = Vec::new();
        decoder.level(active, BootTime(0), &mut out);
        let samples = out.pop().expect("one observation").1.expect("samples");
        let number = |sample: Sample| match sample.value {
            Value::Number(number) => (sample.quantity.into_owned(), number.get()),
            other => panic!("{other:?}"),
        };
        samples.into_iter().map(number).collect()
    }

    fn expected(list: &[(&str, f64)]) -> Vec<(String, f64)> {
        list.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn widths_are_those_of_whole_pulses_and_the_duty_is_that_of_whole_periods() {
        let mut decoder = PulseWidth::default();
        assert_eq!(look(&mut decoder, false), [], "nothing is known yet");
        // 2 of 8 ms, 4 of 12 ms, and a pulse that is still on.
        feed(&mut decoder, &[(100, 1), (102, 2), (108, 3), (112, 4), (120, 5)]);
        let found = look(&mut decoder, true);
        assert_eq!(found, expected(&[(WIDTH, 3.0), (SHORTEST, 2.0), (LONGEST, 4.0), (DUTY, 30.0)]));
        feed(&mut decoder, &[(126, 6), (130, 7)]);
        let found = look(&mut decoder, true);
        assert_eq!(found, expected(&[(WIDTH, 6.0), (SHORTEST, 6.0), (LONGEST, 6.0), (DUTY, 60.0)]));
    }

    #[test]
    fn a_line_that_stands_still_is_on_or_off_all_the_time() {
        let mut decoder = PulseWidth::default();
        look(&mut decoder, false);
        assert_eq!(look(&mut decoder, false), expected(&[(DUTY, 0.0)]));
        feed(&mut decoder, &[(10, 1)]);
        assert_eq!(look(&mut decoder, true), [], "it has only just begun");
        assert_eq!(look(&mut decoder, true), expected(&[(DUTY, 100.0)]));
    }

    #[test]
    fn pulses_of_which_an_edge_was_lost_are_left_out() {
        let mut decoder = PulseWidth::default();
        // The fall of the first pulse and the rise of the second are missing.
        feed(&mut decoder, &[(10, 1), (30, 4), (40, 5), (41, 6)]);
        let found = look(&mut decoder, false);
        assert_eq!(found, expected(&[(WIDTH, 1.0), (SHORTEST, 1.0), (LONGEST, 1.0), ("edges_lost", 2.0)]));
    }
}
