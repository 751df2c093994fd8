//! A GPIO line as an input: a switch's level, or its edges as events.

use std::time::Duration;

use toml::de::DeValue;

use super::{Claim, Connection, Decoded, Driver, LineDecoder, OptionInfo, Parsed, QuantityInfo, Source};
use crate::clock::BootTime;
use crate::hardware::{Bias, Edge, LineId, LineSettings};
use crate::options::{FromToml, Options};
use crate::reading::{Kind, Sample, Value};

/// The highest BCM number on the 40-pin header.
const LAST_PIN: u8 = 27;

/// Longer than any contact bounces; the kernel takes no more than 71 minutes.
const MAX_DEBOUNCE: Duration = Duration::from_secs(60);

const STATE: &str = "state";
const EDGE: &str = "edge";
const EDGES_LOST: &str = "edges_lost";

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
    connection: Connection::Own,
    options: &[
        OptionInfo {
            name: "pin",
            values: "BCM number 0 to 27, or a line's name",
            default: Some("none; `pin` or `line` must be given"),
            help: "17 and \"GPIO17\" are the same line.",
        },
        OptionInfo {
            name: "line",
            values: "`\"gpiochip0:17\"`",
            default: Some("none; `pin` or `line` must be given"),
            help: "Chip and offset, for lines without a name.",
        },
        OptionInfo {
            name: "bias",
            values: "`\"pull-up\"`, `\"pull-down\"`, `\"none\"` or `\"as-is\"`",
            default: Some("\"as-is\""),
            help: "The resistor inside of the chip.",
        },
        OptionInfo { name: "invert", values: "true or false", default: Some("false"), help: "Low counts as active." },
        OptionInfo {
            name: "debounce",
            values: "duration up to 1 min",
            default: Some("\"0s\""),
            help: "A level must hold this long to count, so that a bouncing contact gives one edge. Done by the kernel.",
        },
        OptionInfo {
            name: "report",
            values: "`\"level\"` or `\"edges\"`",
            default: Some("\"level\""),
            help: "What is published: the level when it changes, or each edge as an event.",
        },
    ],
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
        QuantityInfo {
            name: EDGES_LOST,
            unit: None,
            kind: Kind::Number,
            help: "Only where edges were lost: how many since the line was taken.",
        },
    ],
    parse,
};

/// A line as `pin = …` gives it.
struct Pin(LineId);

impl FromToml for Pin {
    const EXPECTED: &'static str = "a BCM number from 0 to 27, or a line's name in quotes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let Some(name) = value.as_str() else {
            return match u8::from_toml(value)? {
                number @ 0..=LAST_PIN => Ok(Self::header(number)),
                _ => Err(Some(format!("the header has GPIO0 to GPIO{LAST_PIN}"))),
            };
        };
        if name.is_empty() {
            return Err(Some("the name is empty".to_owned()));
        }
        let digits = match name.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("gpio") => &name[4..],
            _ => name,
        };
        Ok(match digits.parse() {
            Ok(number @ 0..=LAST_PIN) => Self::header(number),
            _ => Self(LineId::Name(name.to_owned())),
        })
    }
}

impl Pin {
    /// One name for a line of the header, however it was written, so that two sensors on it are noticed.
    fn header(number: u8) -> Self {
        Self(LineId::Name(format!("GPIO{number}")))
    }
}

/// A line as `line = "chip:offset"` gives it.
struct ChipLine(LineId);

impl FromToml for ChipLine {
    const EXPECTED: &'static str = "a chip and an offset such as \"gpiochip0:17\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let wrong = || Some(format!("\"{text}\" is not a chip and an offset"));
        let (chip, offset) = text.split_once(':').ok_or_else(wrong)?;
        let digits = chip.strip_prefix("gpiochip").ok_or_else(wrong)?;
        let chip_is_fine = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let offset = offset.parse().map_err(|_| wrong())?;
        if chip_is_fine { Ok(Self(LineId::Offset { chip: chip.to_owned(), offset })) } else { Err(wrong()) }
    }
}

#[derive(Clone, Copy)]
enum Report {
    Level,
    Edges,
}

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let pin = options.optional::<Pin>("pin").map(|pin| pin.0);
    let chip_line = options.optional::<ChipLine>("line").map(|line| line.0);
    let biases =
        [("pull-up", Bias::PullUp), ("pull-down", Bias::PullDown), ("none", Bias::Disabled), ("as-is", Bias::AsIs)];
    let bias = options.optional_word("bias", &biases).unwrap_or_default();
    let active_low = options.optional("invert").unwrap_or(false);
    let debounce = options.optional::<Duration>("debounce").unwrap_or_default();
    if debounce > MAX_DEBOUNCE {
        options.problem("debounce", "`debounce` is too long", Some("expected up to \"1m\"".to_owned()));
    }
    let reports = [("level", Report::Level), ("edges", Report::Edges)];
    let report = options.optional_word("report", &reports).unwrap_or(Report::Level);

    match (options.raw("pin").is_some(), options.raw("line").is_some()) {
        (true, true) => {
            options.problem("line", "`pin` and `line` both say which line: only one of them can stand", None);
        }
        (false, false) => options.problem(
            "pin",
            "neither `pin` nor `line` says which line",
            Some("expected pin = 17 or line = \"gpiochip0:17\"".to_owned()),
        ),
        _ => {}
    }
    let line = pin.or(chip_line)?;
    Some(Parsed {
        claims: vec![Claim::Line(line.clone())],
        source: Source::Line {
            settings: LineSettings { line, bias, active_low, debounce },
            decoder: Box::new(move || Box::new(GpioInput::new(report))),
        },
    })
}

/// The decoder: edges and levels in, samples out.
struct GpioInput {
    report: Report,
    /// The kernel's number of the last edge; `None` before the first one.
    last: Option<u32>,
    lost: u64,
}

impl GpioInput {
    fn new(report: Report) -> Self {
        Self { report, last: None, lost: 0 }
    }

    /// Adds up the edges missing before this one. The kernel counts them from 1, and back from 0 after 2^32 - 1; a
    /// kernel that does not count says 0 each time.
    fn newly_lost(&mut self, sequence: u32) -> u32 {
        let expected = self.last.unwrap_or(0).wrapping_add(1);
        let never_counted = sequence == 0 && expected <= 1;
        self.last = Some(sequence);
        if never_counted { 0 } else { sequence.wrapping_sub(expected) }
    }
}

impl LineDecoder for GpioInput {
    fn edge(&mut self, edge: Edge, out: &mut Vec<Decoded>) {
        let mut samples = vec![match self.report {
            Report::Level => Sample::new(STATE, Value::Switch(edge.active)),
            Report::Edges => Sample::event(EDGE, Value::Text(if edge.active { "rising" } else { "falling" }.into())),
        }];
        let newly_lost = self.newly_lost(edge.sequence);
        if newly_lost > 0 {
            self.lost += u64::from(newly_lost);
            #[expect(clippy::cast_precision_loss, reason = "more than 2^53 edges are not lost in a lifetime")]
            let total = Value::number(self.lost as f64);
            samples.extend(total.map(|total| Sample::new(EDGES_LOST, total)));
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

    fn samples(decoder: &mut GpioInput, active: bool, sequence: u32) -> Vec<Sample> {
        let mut out = Vec::new();
        decoder.edge(Edge { at: BootTime(u64::from(sequence) * 10), active, sequence }, &mut out);
        let (at, outcome) = out.pop().expect("an edge gives one observation");
        assert_eq!(at, BootTime(u64::from(sequence) * 10), "the kernel's time, not ours");
        outcome.expect("samples")
    }

    #[test]
    fn edges_are_levels_or_events() {
        let mut level = GpioInput::new(Report::Level);
        assert_eq!(samples(&mut level, true, 1), [Sample::new("state", Value::Switch(true))]);
        let mut edges = GpioInput::new(Report::Edges);
        assert_eq!(samples(&mut edges, true, 1), [Sample::event("edge", Value::Text("rising".into()))]);
        assert_eq!(samples(&mut edges, false, 2), [Sample::event("edge", Value::Text("falling".into()))]);

        let mut out = Vec::new();
        level.level(false, BootTime(7), &mut out);
        edges.level(false, BootTime(7), &mut out);
        assert_eq!(out[0], (BootTime(7), Ok(vec![Sample::new("state", Value::Switch(false))])));
        assert_eq!(out[1], (BootTime(7), Ok(vec![])), "a level is no edge");
    }

    #[test]
    fn lost_edges_are_counted_since_the_line_was_taken() {
        let lost = |total: f64| Some(Sample::new("edges_lost", Value::number(total).expect("finite")));
        let mut decoder = GpioInput::new(Report::Level);
        assert_eq!(samples(&mut decoder, true, 3).get(1).cloned(), lost(2.0), "the first two");
        assert_eq!(samples(&mut decoder, false, 4).get(1), None);
        assert_eq!(samples(&mut decoder, true, 10).get(1).cloned(), lost(7.0));

        let mut wrapping = GpioInput { report: Report::Level, last: Some(u32::MAX - 1), lost: 0 };
        assert_eq!(samples(&mut wrapping, true, u32::MAX).get(1), None);
        assert_eq!(samples(&mut wrapping, true, 0).get(1), None);
        assert_eq!(samples(&mut wrapping, true, 2).get(1).cloned(), lost(1.0));
    }

    #[test]
    fn a_kernel_that_does_not_count_loses_nothing_it_could_know_of() {
        let mut decoder = GpioInput::new(Report::Edges);
        for _ in 0..3 {
            assert_eq!(samples(&mut decoder, true, 0).len(), 1);
        }
    }
}
