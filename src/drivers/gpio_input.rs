//! A GPIO line as an input: a switch's level, or its edges as events.

use super::support::gpio::{self, Sequence};
use super::{Connection, Decoded, Driver, LineDecoder, LineSource, OptionInfo, Parsed, QuantityInfo, Source};
use crate::clock::BootTime;
use crate::hardware::Edge;
use crate::options::Options;
use crate::reading::{Kind, Sample, Value};

const STATE: &str = "state";
const EDGE: &str = "edge";

pub(crate) static DRIVER: Driver = Driver {
    name: "gpio-input",
    summary: "A button, contact, motion sensor or other switch on a GPIO line",
    notes: "\
Lines are taken through the GPIO character device, on every Pi (the Pi 5 included) and any other Linux board. Give the
line by `pin` (on a Pi the BCM number; elsewhere the line's name, see `gpioinfo`) or by `line`. The user that vigie
runs as must belong to the group `gpio`.

With `report = \"level\"`, `state` is published when it changes, with the kernel's time of the change, and each `every`.
With `report = \"edges\"`, each edge is an event `edge` with the text `rising` (became active) or `falling` (became
inactive), at the kernel's time of it.

A contact between the pin and ground, which is the usual wiring, wants `bias = \"pull-up\"` and `invert = true`: closed
is then `true`. The kernel keeps up to 1024 edges until they are read; where more come, the number of lost ones is
published as `edges_lost` (a total since the line was taken), and the next look at the level puts `state` right.",
    sample: r#"[[sensor]]
name = "door"
driver = "gpio-input"
pin = 17
bias = "pull-up"
invert = true
debounce = "20ms"
every = "1m"
"#,
    connection: Connection::Line,
    options: &[OptionInfo {
        name: "report",
        values: "`\"level\"` or `\"edges\"`",
        default: Some("\"level\""),
        help: "What is published: the level when it changes, or each edge as an event.",
    }],
    quantities: &[
        QuantityInfo {
            name: STATE,
            unit: None,
            kind: Kind::Switch,
            help: "With `report = \"level\"`: is the line active?",
        },
        QuantityInfo {
            name: EDGE,
            unit: None,
            kind: Kind::Event,
            help: "With `report = \"edges\"`: `rising` or `falling`.",
        },
        gpio::EDGES_LOST,
    ],
    parse,
};

#[derive(Clone, Copy)]
enum Report {
    Level,
    Edges,
}

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = gpio::parse(options);
    let reports = [("level", Report::Level), ("edges", Report::Edges)];
    let report = options.optional_word("report", &reports).unwrap_or(Report::Level);
    let settings = settings?;
    Some(Parsed {
        claims: gpio::claims(&settings),
        source: Source::Line(LineSource {
            settings,
            units: Vec::new(),
            decoder: Box::new(move |_| Box::new(GpioInput { report, sequence: Sequence::default() })),
        }),
    })
}

/// The decoder: edges and levels in, samples out.
struct GpioInput {
    report: Report,
    sequence: Sequence,
}

impl LineDecoder for GpioInput {
    fn edge(&mut self, edge: Edge, out: &mut Vec<Decoded>) {
        let mut samples = vec![match self.report {
            Report::Level => Sample::new(STATE, Value::Switch(edge.active)),
            Report::Edges => Sample::event(EDGE, Value::Text(if edge.active { "rising" } else { "falling" }.into())),
        }];
        if self.sequence.missing_before(&edge) > 0 {
            samples.extend(gpio::edges_lost(&self.sequence));
        }
        out.push((edge.at, Ok(samples)));
    }

    fn level(&mut self, active: bool, at: BootTime, out: &mut Vec<Decoded>) {
        let samples = match self.report {
            Report::Level => vec![Sample::new(STATE, Value::Switch(active))],
            // The line answers: that is all a level tells where edges are reported.
            Report::Edges => Vec::new(),
        };
        out.push((at, Ok(samples)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Sample;

    fn decoder(report: Report) -> GpioInput {
        GpioInput { report, sequence: Sequence::default() }
    }

    fn samples(decoder: &mut GpioInput, active: bool, sequence: u32) -> Vec<Sample> {
        let mut out = Vec::new();
        decoder.edge(Edge { at: BootTime(u64::from(sequence) * 10), active, sequence }, &mut out);
        let (at, outcome) = out.pop().expect("an edge gives one observation");
        assert_eq!(at, BootTime(u64::from(sequence) * 10), "the kernel's time, not ours");
        outcome.expect("samples")
    }

    #[test]
    fn edges_are_levels_or_events() {
        let mut level = decoder(Report::Level);
        assert_eq!(samples(&mut level, true, 1), [Sample::new("state", Value::Switch(true))]);
        let mut edges = decoder(Report::Edges);
        assert_eq!(samples(&mut edges, true, 1), [Sample::event("edge", Value::Text("rising".into()))]);
        assert_eq!(samples(&mut edges, false, 2), [Sample::event("edge", Value::Text("falling".into()))]);

        let mut out = Vec::new();
        level.level(false, BootTime(7), &mut out);
        edges.level(false, BootTime(7), &mut out);
        assert_eq!(out[0], (BootTime(7), Ok(vec![Sample::new("state", Value::Switch(false))])));
        assert_eq!(out[1], (BootTime(7), Ok(vec![])), "a level is no edge");
    }

    #[test]
    fn lost_edges_are_told_with_the_next_one() {
        let lost = |total: f64| Some(Sample::new("edges_lost", Value::number(total).expect("finite")));
        let mut decoder = decoder(Report::Level);
        assert_eq!(samples(&mut decoder, true, 3).get(1).cloned(), lost(2.0), "the first two");
        assert_eq!(samples(&mut decoder, false, 4).get(1), None);
        assert_eq!(samples(&mut decoder, true, 10).get(1).cloned(), lost(7.0));
    }
}
