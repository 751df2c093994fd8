//! What drivers of GPIO lines have in common: their keys, and how lost edges are noticed.

use std::time::Duration;

use toml::de::DeValue;

use crate::drivers::{Claim, OptionInfo, OptionRow, QuantityInfo};
use crate::hardware::expander;
use crate::hardware::header::{self, Position};
use crate::hardware::{Bias, Edge, Edges, LineId, LineSettings};
use crate::options::{FromToml, Options};
use crate::reading::{Kind, Sample, Value};

/// Longer than any contact bounces; the kernel takes no more than 71 minutes.
const MAX_DEBOUNCE: Duration = Duration::from_secs(60);

/// What all of them emit besides.
pub(crate) const EDGES_LOST: QuantityInfo = QuantityInfo {
    name: "edges_lost",
    unit: None,
    kind: Kind::Number,
    help: "Only where edges were lost: how many since the line was taken.",
};

/// The keys that say which line, and how it is taken, for people.
pub(crate) fn options() -> Vec<OptionRow> {
    let row = |name, values: &str, default: &str, help| OptionRow {
        name,
        values: values.to_owned(),
        default: Some(default.to_owned()),
        help,
    };
    let either = "none; `pin` or `line` must be given";
    vec![
        row(
            "pin",
            "BCM number 0 to 27, `\"header N\"`, or a line's name",
            either,
            "17, \"GPIO17\" and \"header 11\" (position 11 of the Pi's 40-pin header) are the same line. On other \
             boards the line's name, such as \"P9_12\"; see `gpioinfo`.",
        ),
        row(
            "line",
            "`\"gpiochip0:17\"` or `\"EXPANDER:GPA3\"`",
            either,
            "Chip and offset, for lines without a name; or a line of an [expander](configuration.md#expandername).",
        ),
        row(
            "allow_reserved",
            "true or false",
            "false",
            "Takes a line that the Pi needs for itself all the same: GPIO0 and GPIO1 (ID EEPROM of a HAT), and those \
             that are not on the header; and GPA7 and GPB7 of an MCP23017.",
        ),
        row(
            "bias",
            "`\"pull-up\"`, `\"pull-down\"`, `\"none\"` or `\"as-is\"`",
            "\"as-is\"",
            "The resistor inside of the chip.",
        ),
        row("invert", "true or false", "false", "Low counts as active."),
        row(
            "debounce",
            "duration up to 1 min",
            "\"0s\"",
            "A level must hold this long to count, so that a bouncing contact gives one edge. Done by the kernel.",
        ),
    ]
}

/// Reads the keys; problems are noted there. Both edges are asked for.
pub(crate) fn parse(options: &Options<'_>) -> Option<LineSettings> {
    let reserved = options.optional("allow_reserved").unwrap_or(false);
    let line = which_line(options, Some(reserved));
    let biases =
        [("pull-up", Bias::PullUp), ("pull-down", Bias::PullDown), ("none", Bias::Disabled), ("as-is", Bias::AsIs)];
    let bias = options.optional_word("bias", &biases).unwrap_or_default();
    let active_low = options.optional("invert").unwrap_or(false);
    let debounce = options.optional::<Duration>("debounce").unwrap_or_default();
    if debounce > MAX_DEBOUNCE {
        options.problem("debounce", "`debounce` is too long", Some("expected up to \"1m\"".to_owned()));
    }
    Some(LineSettings { line: line?, reserved, bias, active_low, debounce, edges: Edges::Both })
}

/// Reads the keys `pin` and `line`. `reserved`: may it be a line that the board needs itself? `None` where nobody is asked.
pub(crate) fn which_line(options: &Options<'_>, reserved: Option<bool>) -> Option<LineId> {
    let pin = options.optional::<Pin>("pin").map(|pin| pin.0);
    let chip_line = options.optional::<ChipLine>("line").map(|line| line.0);
    match (options.raw("pin").is_some(), options.raw("line").is_some()) {
        (true, true) => {
            options.problem("line", "`pin` and `line` both say which line: only one of them can stand", None);
        }
        (false, false) => options.problem(
            "pin",
            "neither `pin` nor `line` says which line",
            Some("expected pin = 17, pin = \"header 11\" or line = \"gpiochip0:17\"".to_owned()),
        ),
        _ => {}
    }
    let line = pin.or(chip_line)?;
    if let LineId::Name(name) = &line
        && let Some(found) = header::Line::of_name(name).filter(|found| found.is_reserved() && reserved != Some(true))
    {
        options.problem_with_help(
            "pin",
            format!("{found} is for the ID EEPROM of a HAT, which the firmware reads at start"),
            Some("expected a pin that the board does not need".to_owned()),
            reserved.map(|_| "where no HAT is on the header: allow_reserved = true".to_owned()),
        );
    }
    Some(line)
}

/// What the sensor has for itself.
pub(crate) fn claims(settings: &LineSettings) -> Vec<Claim> {
    vec![Claim::Line(settings.line.clone())]
}

/// A line as `pin = …` gives it.
struct Pin(LineId);

impl FromToml for Pin {
    const EXPECTED: &'static str =
        "a BCM number from 0 to 27, \"header N\" with a position from 1 to 40, or a line's name in quotes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let Some(name) = value.as_str() else {
            let number = i64::from_toml(value)?;
            return match u8::try_from(number) {
                Ok(bcm @ 0..=header::LAST_LINE) => Ok(Self::bcm(bcm)),
                _ => Err(Some(not_on_the_header(number))),
            };
        };
        if name.is_empty() {
            return Err(Some("the name is empty".to_owned()));
        }
        if let Some((word, position)) = name.split_once(' ')
            && word.eq_ignore_ascii_case("header")
        {
            return Self::at_position(position.trim()).map_err(Some);
        }
        let digits = match name.get(..4) {
            Some(prefix) if prefix.eq_ignore_ascii_case("gpio") => &name[4..],
            _ => name,
        };
        Ok(match digits.parse() {
            Ok(bcm @ 0..=header::LAST_LINE) => Self::bcm(bcm),
            _ => Self(LineId::Name(name.to_owned())),
        })
    }
}

impl Pin {
    /// One name for a line of the header, however it was written, so that two sensors on it are noticed.
    fn bcm(number: u8) -> Self {
        Self(LineId::Name(format!("GPIO{number}")))
    }

    fn at_position(position: &str) -> Result<Self, String> {
        match position.parse().ok().and_then(|position: u8| Some((position, header::at(position)?))) {
            Some((_, Position::Line(bcm))) => Ok(Self::bcm(bcm)),
            Some((position, Position::Supply(volts))) => {
                Err(format!("pin {position} of the header is a {volts} supply, not a GPIO line"))
            }
            Some((position, Position::Ground)) => {
                Err(format!("pin {position} of the header is ground, not a GPIO line"))
            }
            None => Err(format!("the header has the pins 1 to {}, but no `{position}`", header::POSITIONS)),
        }
    }
}

/// What to say of a number that is no BCM number of the header.
fn not_on_the_header(number: i64) -> String {
    format!(
        "the header has GPIO0 to GPIO{}, but no GPIO{number}: lines above it are inside of the board (SD card, Wi-Fi, \
         LEDs), and what /sys/class/gpio counts is not meant; any other line is given by its name, or by `line`",
        header::LAST_LINE
    )
}

/// A line as `line = "chip:offset"` gives it.
struct ChipLine(LineId);

impl FromToml for ChipLine {
    const EXPECTED: &'static str =
        "a chip and an offset such as \"gpiochip0:17\", or an expander and its line such as \"portal:GPA3\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let wrong = || Some(format!("\"{text}\" is not a chip and an offset"));
        let (chip, offset) = text.split_once(':').ok_or_else(wrong)?;
        let (chip_is_fine, offset) = match chip.strip_prefix("gpiochip") {
            Some(digits) => {
                (digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty(), offset.parse().ok())
            }
            None => (!chip.is_empty(), expander::offset(offset)),
        };
        let offset = offset.filter(|_| chip_is_fine).ok_or_else(wrong)?;
        Ok(Self(LineId::Offset { chip: chip.to_owned(), offset }))
    }
}

/// Follows the kernel's numbers of a line's edges and notices which are missing.
#[derive(Debug, Default)]
pub(crate) struct Sequence {
    /// `None` before the first edge.
    last: Option<u32>,
    /// Since the line was taken.
    lost: u64,
}

impl Sequence {
    /// How many edges are missing before this one. The kernel counts them from 1, and back from 0 after 2^32 - 1; a
    /// back end that does not count says 0 each time.
    pub(crate) fn missing_before(&mut self, edge: &Edge) -> u32 {
        let expected = self.last.unwrap_or(0).wrapping_add(1);
        let never_counted = edge.sequence == 0 && expected <= 1;
        self.last = Some(edge.sequence);
        let missing = if never_counted { 0 } else { edge.sequence.wrapping_sub(expected) };
        self.lost += u64::from(missing);
        missing
    }

    /// How many are missing since the line was taken.
    pub(crate) fn lost(&self) -> u64 {
        self.lost
    }
}

/// The key of drivers that go by one edge of a pulse.
pub(crate) const EDGE: OptionInfo = OptionInfo {
    name: "edge",
    values: "`\"rising\"`, `\"falling\"` or `\"both\"`",
    default: Some("\"rising\""),
    help: "Which edge of a pulse counts: when the line becomes active, inactive, or each of them.",
};

/// Reads [`EDGE`].
pub(crate) fn edge(options: &Options<'_>) -> Edges {
    let words = [("rising", Edges::Rising), ("falling", Edges::Falling), ("both", Edges::Both)];
    options.optional_word(EDGE.name, &words).unwrap_or(Edges::Rising)
}

/// The key of drivers that measure how often pulses come.
pub(crate) const fn standstill_option(default: &'static str) -> OptionInfo {
    OptionInfo {
        name: STANDSTILL,
        values: "duration, 100 ms to a day",
        default: Some(default),
        help: "After so long without a pulse it is 0. Until then it falls to what one pulse now would mean.",
    }
}

const STANDSTILL: &str = "standstill";

/// Reads the key of [`standstill_option`].
pub(crate) fn standstill(options: &Options<'_>, default: Duration) -> Duration {
    let range = Duration::from_millis(100)..=Duration::from_secs(86_400);
    options.optional_in(STANDSTILL, range).unwrap_or(default)
}

/// The sample of [`EDGES_LOST`], if any were.
pub(crate) fn edges_lost(sequence: &Sequence) -> Option<Sample> {
    (sequence.lost() > 0).then(|| number(EDGES_LOST.name, whole(sequence.lost()))).flatten()
}

/// A number that was reckoned, as a sample; none where it came to infinity.
pub(crate) fn number(quantity: &'static str, number: f64) -> Option<Sample> {
    Some(Sample::new(quantity, Value::number(tidy(number))?))
}

/// A number without the noise in its last digits: three times 0.1 is 0.3.
pub(crate) fn tidy(number: f64) -> f64 {
    format!("{number:.13e}").parse().unwrap_or(number)
}

/// A count as a number.
#[expect(clippy::cast_precision_loss, reason = "more than 2^53 edges do not come in a lifetime")]
pub(crate) fn whole(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::clock::BootTime;
    use crate::options::{Problem, Problems};

    fn read(text: &str) -> (Option<LineSettings>, Vec<Problem>) {
        let table = DeTable::parse(text).expect("TOML");
        let problems = Problems::new();
        let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
        let settings = parse(&options);
        options.finish();
        drop(options);
        (settings, problems.into_sorted())
    }

    #[test]
    fn a_line_of_the_header_has_one_name_however_it_is_given() {
        for text in ["17", "0x11", "\"GPIO17\"", "\"gpio17\"", "\"17\"", "\"header 11\"", "\"Header 11\""] {
            let (settings, problems) = read(&format!("pin = {text}"));
            assert_eq!(problems, [], "{text}");
            assert_eq!(settings.expect("a line").line, LineId::Name("GPIO17".to_owned()), "{text}");
        }
        for name in ["P9_12", "GPIO28", "PIN17", "header_led"] {
            let (settings, problems) = read(&format!("pin = \"{name}\""));
            assert_eq!((settings.expect("a line").line, problems), (LineId::Name(name.to_owned()), vec![]));
        }
    }

    #[test]
    fn what_is_no_line_says_what_it_is() {
        for (text, part) in [
            ("pin = \"header 1\"", "3.3 V supply"),
            ("pin = \"header 6\"", "is ground"),
            ("pin = \"header 41\"", "pins 1 to 40"),
            ("pin = \"header x\"", "pins 1 to 40"),
            ("pin = 28", "no GPIO28"),
            ("pin = 529", "/sys/class/gpio"),
            ("pin = -1", "GPIO0 to GPIO27"),
        ] {
            let (settings, problems) = read(text);
            assert!(settings.is_none() && problems.len() == 1, "{text}: {problems:?}");
            assert!(problems[0].message.contains(part), "{text}: {problems:?}");
        }
    }

    #[test]
    fn what_the_board_needs_is_taken_with_consent_only() {
        for text in ["pin = 0", "pin = \"header 28\""] {
            let (_, problems) = read(text);
            assert!(problems.len() == 1 && problems[0].message.contains("ID EEPROM"), "{text}: {problems:?}");
            let (settings, problems) = read(&format!("{text}\nallow_reserved = true"));
            assert!(problems.is_empty() && settings.expect("a line").reserved, "{text}");
        }
    }

    #[test]
    fn missing_edges_are_counted_since_the_line_was_taken() {
        let edge = |sequence| Edge { at: BootTime(0), active: true, sequence };
        let mut sequence = Sequence::default();
        let missing: Vec<u32> = [3, 4, 10].into_iter().map(|number| sequence.missing_before(&edge(number))).collect();
        assert_eq!((missing, sequence.lost()), (vec![2, 0, 5], 7));

        let mut wrapping = Sequence { last: Some(u32::MAX - 1), lost: 0 };
        let missing: Vec<u32> = [u32::MAX, 0, 2].into_iter().map(|n| wrapping.missing_before(&edge(n))).collect();
        assert_eq!(missing, [0, 0, 1]);

        let mut uncounted = Sequence::default();
        assert!((0..3).all(|_| uncounted.missing_before(&edge(0)) == 0), "nothing that it could know of");
    }
}
