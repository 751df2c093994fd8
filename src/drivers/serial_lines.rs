//! Lines of text on a serial port, as sketches print them for people; see [`DRIVER`]'s notes for the rules.
//!
//! The three forms are each a file: `pairs`, `columns`, and the pattern of `support::pattern`. What is a value, and
//! what its unit, is the same in all of them (`support::printed`). Limits hold for each line: [`MAX_LINE_BYTES`],
//! [`MAX_QUANTITIES`], [`MAX_NAME_BYTES`].

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use super::support::acknowledge::Answers;
use super::support::device_clock::Stamp;
use super::support::guess;
use super::support::lines::{Lines, excerpt};
use super::support::pattern::Pattern;
use super::support::printed::{Decimal, Printed};
use super::support::tally::Tally;
use super::support::{names, serial};
use super::{ByteDecoder, Connection, Decoded, Driver};
use crate::clock::BootTime;
use crate::command::{Answer, Command, Outgoing};
use crate::reading::{Fault, FaultCode, Sample};

mod columns;
mod commands;
mod options;
mod pairs;

use columns::Columns;

/// Bytes of a line without its end; a longer one is skipped with a fault.
pub const MAX_LINE_BYTES: usize = 1024;

/// Values in one line.
pub const MAX_QUANTITIES: usize = 128;

/// Bytes of a quantity's name.
pub const MAX_NAME_BYTES: usize = 128;

/// The quantity that counts the lines that were skipped with `ignore_other`.
const IGNORED: &str = "ignored_lines";

pub(crate) static DRIVER: Driver = Driver {
    name: "serial-lines",
    summary: "An Arduino or other device that prints lines of text on a serial port",
    notes: "\
For sketches as they are found, which print for people: the examples of most sensor libraries work as they come.

- `form = \"pairs\"` takes names and values, `=` or `:` between them: `T=21.5C H=40%`, `temp:21.5,hum:40`,
  `Température : 21,5 °C`, `Humidity: 40.00%  Temperature: 21.00°C 69.80°F`. What belongs to a value is what reads
  naturally: numbers with their units, or a text up to the next comma, semicolon, tab, bar or wide gap. Further numbers
  of a name are counted: `Temperature`, `Temperature_2`. A unit in the name is taken as one: `Humidity (%): 40`,
  `Temp *C = 21`. `keys` names those that are wanted; all others are left out.
- `form = \"csv\"` takes values in a fixed order, which `columns` names. A heading with the same names is skipped.
- `form = \"pattern\"` takes a regular expression: what its named groups match become quantities.
- Numbers, `on`/`off`/`true`/`false` and everything else become numbers, switches and texts; a text in quotes loses
  them. `nan`, `inf` and `ovf`, which sketches print when a sensor gave nothing, are no values: a line with nothing else
  is the fault `impossible`. An empty value, `-`, `null` and `n/a` give nothing.
- A unit behind a number is taken off, and published where the configuration gives none. What is written to a number
  without a space must be one that is known (`21.5C`, `1013hPa`), so that `12ab` stays a text; `C` and `F` alone mean
  degrees.
- A number with a comma, such as `21,5`, could be two values: without `decimal` it is refused. With `decimal = \",\"`
  it is 21.5, and a point in a number is refused.
- A line that is not UTF-8 is read as Latin-1, in which old displays and editors have their `°` and `é`.
- A line in which nothing is found gives the fault `bad-data`, and the link goes on with the next one. With
  `ignore_other = true` it is skipped, and the quantity `ignored_lines` counts such lines since the port was opened. What
  comes before the first end of a line is skipped: it may have been cut.
- Names become topics as with `serial-json`, and are given with `[sensor.quantity.\"Heat index\"]`.
- Limits: 1024 bytes a line, 128 values a line, 128 bytes a name.
- A command, which is sent to `…/set` below the sensor's topic, must be one line of text; it is written with `line_end`.
  With `acknowledge`, the device answers with a line `ok`, or `error` and why; such lines are then no readings. Where a
  command could not be written to its end, the next one begins with the character CAN (0x18) and an end of line.

The user that vigie runs as must belong to the group `dialout`. Opening the port restarts many Arduinos.",
    sample: r#"[[sensor]]
name = "dht22"
driver = "serial-lines"
port = "/dev/serial/by-id/usb-Arduino_Uno-if00"
baud = 9600
ignore_other = true

[sensor.quantity.Temperature]
as = "temperature"

[sensor.quantity.Humidity]
as = "humidity"
"#,
    connection: Connection::Serial(serial::SKETCH),
    options: options::OPTIONS,
    quantities: &[],
    parse: options::parse,
};

/// What a line looks like.
#[derive(Clone, Debug)]
enum Form {
    /// Names and values; those wanted, or all where none is named.
    Pairs {
        keys: Vec<String>,
    },
    Csv(Columns),
    Pattern(Pattern),
}

/// How a device's letters are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    /// And Latin-1 where a line is not UTF-8.
    Utf8,
    Latin1,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineEnd {
    Lf,
    CrLf,
    Cr,
}

impl LineEnd {
    fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
            Self::Cr => b"\r",
        }
    }
}

/// The keys of the configuration.
#[derive(Clone, Debug)]
struct Settings {
    form: Form,
    decimal: Decimal,
    encoding: Encoding,
    ignore_other: bool,
    line_end: LineEnd,
    acknowledge: Option<Duration>,
    millis: Option<String>,
}

/// The decoder: bytes in, samples out.
#[derive(Debug)]
pub struct SerialLines {
    lines: Lines,
    reader: LineReader,
    /// The device has the beginning of a command whose end was not written.
    cut: bool,
}

/// The character CAN, "cancel", ends what the device has of a command that was cut: unlike an end of line alone, it does
/// not make `dim=10` the command `dim=1`.
const CANCEL: u8 = 0x18;

#[derive(Debug)]
struct LineReader {
    settings: Settings,
    /// A line has ended since the port was opened, so that the next one begins at its beginning.
    in_step: bool,
    stamp: Option<Stamp>,
    answers: Answers,
    /// Lines skipped since the port was opened.
    ignored: Tally,
    /// The unit with which each quantity came first, of the first [`MAX_QUANTITIES`] that had one.
    units: BTreeMap<String, Cow<'static, str>>,
    /// How many samples the last line gave: a good guess for the next one.
    expected: usize,
}

impl SerialLines {
    fn new(settings: Settings) -> Self {
        let end = if settings.line_end == LineEnd::Cr { b'\r' } else { b'\n' };
        let stamp = settings.millis.as_deref().map(Stamp::new);
        let reader = LineReader {
            settings,
            in_step: false,
            stamp,
            answers: Answers::default(),
            ignored: Tally::new(IGNORED),
            units: BTreeMap::new(),
            expected: 0,
        };
        Self { lines: Lines::ending(MAX_LINE_BYTES, end), reader, cut: false }
    }
}

impl ByteDecoder for SerialLines {
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) {
        let reader = &mut self.reader;
        self.lines.feed(bytes, |line| {
            if !std::mem::replace(&mut reader.in_step, true) {
                return;
            }
            match line {
                Ok(line) => out.extend(reader.line(line, at)),
                Err(too_long) => out.push((at, Err(too_long.fault(MAX_LINE_BYTES)))),
            }
        });
    }

    fn unfinished(&self) -> usize {
        self.lines.unfinished()
    }

    fn takes_commands(&self) -> bool {
        true
    }

    fn command(&mut self, command: &Command) -> Result<Outgoing, String> {
        let settings = &self.reader.settings;
        let mut bytes = commands::line(command, settings.encoding)?;
        bytes.extend_from_slice(settings.line_end.bytes());
        if std::mem::take(&mut self.cut) {
            bytes.splice(0..0, [&[CANCEL], settings.line_end.bytes()].concat());
        }
        Ok(Outgoing { bytes, answer_within: settings.acknowledge })
    }

    fn cut(&mut self) {
        self.cut = true;
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.reader.answers.take()
    }
}

/// Reads names and values from texts that do not come from a serial port.
#[derive(Debug)]
pub(super) struct Pairs(LineReader);

impl Pairs {
    pub(super) fn new() -> Self {
        let settings = Settings {
            form: Form::Pairs { keys: Vec::new() },
            decimal: Decimal::Unsaid,
            encoding: Encoding::Utf8,
            ignore_other: false,
            line_end: LineEnd::Lf,
            acknowledge: None,
            millis: None,
        };
        Self(SerialLines::new(settings).reader)
    }

    /// The samples of a text of one or more lines.
    pub(super) fn read(&mut self, text: &[u8]) -> Result<Vec<Sample>, Fault> {
        let text = decode(text, Encoding::Utf8);
        let mut samples: Vec<Sample> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let more = self.0.samples(line)?.unwrap_or_default();
            if samples.len() + more.len() > MAX_QUANTITIES {
                return Err(Fault::new(FaultCode::BadData, format!("more than {MAX_QUANTITIES} values")));
            }
            if let Some(twice) = more.iter().find(|one| samples.iter().any(|other| other.quantity == one.quantity)) {
                let detail = format!("two values are called `{}`", twice.quantity);
                return Err(Fault::new(FaultCode::BadData, detail));
            }
            samples.extend(more);
        }
        Ok(samples)
    }
}

impl LineReader {
    /// `None` for a line that is no reading.
    fn line(&mut self, line: &[u8], at: BootTime) -> Option<Decoded> {
        let text = decode(line, self.settings.encoding);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        if self.settings.acknowledge.is_some()
            && let Some(answer) = commands::answer(text)
        {
            self.answers.push(answer);
            return None;
        }
        let result = match self.samples(text) {
            Ok(Some(mut samples)) => {
                let stamp = self.stamp.as_mut();
                stamp.map_or(Ok(at), |stamp| stamp.take(&mut samples, at)).map(|at| (at, samples))
            }
            Ok(None) => return None,
            Err(fault) => Err(fault),
        };
        Some(match result {
            Ok((at, mut samples)) => {
                self.ignored.tell(&mut samples);
                (at, Ok(samples))
            }
            Err(fault) => (at, Err(fault)),
        })
    }

    /// What a line holds; `None` if it is one of those that are skipped.
    fn samples(&mut self, text: &str) -> Result<Option<Vec<Sample>>, Fault> {
        let bad = |why: &str| {
            let advice = guess::advice(text.as_bytes(), DRIVER.name);
            Fault::new(FaultCode::BadData, format!("{why}: `{}`{advice}", excerpt(text)))
        };
        if text.contains(|character: char| character.is_control() && character != '\t') {
            return Err(bad("a line contains control characters (is the baud rate right?)"));
        }
        let mut found = Found::new(self.expected);
        let decimal = self.settings.decimal;
        let read = match &mut self.settings.form {
            // Its names would be in quotes and braces, and read as well as any.
            Form::Pairs { .. } if text.starts_with("{\"") => Err("it looks like JSON".to_owned()),
            Form::Pairs { keys } => {
                found.wanted = keys;
                pairs::read(text, decimal, &mut found)
            }
            Form::Csv(columns) => columns.read(text, decimal, &mut found).map(|heading| found.skip = heading),
            Form::Pattern(pattern) => {
                let read = pattern.read(text, decimal, |name, value| found.add(name, 0, value, None));
                // All groups may be optional, and none there.
                read.map(|matches| found.any |= matches)
            }
        };
        let Found { samples, any, broken, skip, .. } = found;
        if skip {
            return Ok(None);
        }
        if (read.is_err() || !any) && self.settings.ignore_other {
            self.ignored.add(1);
            return Ok(None);
        }
        read.map_err(|why| bad(&format!("a line cannot be read, {why}")))?;
        if !any {
            return Err(bad(self.nothing_found()));
        }
        if samples.is_empty() && broken {
            let detail = format!("the device has no value (`{}`): is its sensor connected?", excerpt(text));
            return Err(Fault::new(FaultCode::Impossible, detail));
        }
        for sample in &samples {
            self.check_unit(sample).map_err(|why| bad(&why))?;
        }
        self.expected = samples.len();
        Ok(Some(samples))
    }

    /// A quantity is published with the unit that it had first: a number in another one would be wrong.
    fn check_unit(&mut self, sample: &Sample) -> Result<(), String> {
        let Some(unit) = &sample.unit else { return Ok(()) };
        match self.units.get(&*sample.quantity) {
            Some(before) if before == unit => Ok(()),
            Some(before) => Err(format!(
                "`{}` is in {unit}, and was in {before} before; take them apart with `form = \"pattern\"`",
                sample.quantity
            )),
            None => {
                if self.units.len() < MAX_QUANTITIES {
                    self.units.insert(sample.quantity.to_string(), unit.clone());
                }
                Ok(())
            }
        }
    }

    fn nothing_found(&self) -> &'static str {
        match &self.settings.form {
            Form::Pairs { keys } if !keys.is_empty() => "a line holds none of the names in `keys`",
            Form::Pairs { .. } => {
                "a line holds no names and values such as `temp=21.5` (if it is values alone, say `form = \"csv\"`; if it \
                 is none of yours, `ignore_other = true`)"
            }
            Form::Csv(_) => "a line is empty",
            Form::Pattern(_) => "a line does not match `pattern` (or say `ignore_other = true`)",
        }
    }
}

/// A line as text. Every byte is a character of Latin-1.
fn decode(line: &[u8], encoding: Encoding) -> Cow<'_, str> {
    match std::str::from_utf8(line) {
        Ok(text) if encoding == Encoding::Utf8 || line.is_ascii() => Cow::Borrowed(text),
        _ => Cow::Owned(line.iter().copied().map(char::from).collect()),
    }
}

/// What was found in a line.
#[derive(Debug)]
struct Found<'a> {
    samples: Vec<Sample>,
    /// Names that are wanted; all where there is none.
    wanted: &'a [String],
    /// Something was found, if only a place without a value.
    any: bool,
    /// One of the values is what stands for a sensor that gave none.
    broken: bool,
    /// The line is nothing to speak of.
    skip: bool,
}

impl Found<'_> {
    fn new(expected: usize) -> Self {
        Self { samples: Vec::with_capacity(expected), wanted: &[], any: false, broken: false, skip: false }
    }

    /// Adds the value of a name that has `index` before it in the same line.
    ///
    /// # Errors
    /// There are too many, or two of the same name.
    fn add(&mut self, name: &str, index: usize, value: Printed, unit: Option<&'static str>) -> Result<(), String> {
        let mut safe = String::with_capacity(name.len() + 4);
        names::push_safe(&mut safe, name);
        if index > 0 {
            write!(safe, "_{}", index + 1).expect("a string takes everything");
        }
        let name = names::quantity(&safe);
        if !self.wanted.is_empty() && !self.wanted.contains(&name) {
            return Ok(());
        }
        self.any = true;
        if value == Printed::Broken {
            self.broken = true;
        }
        if self.samples.iter().any(|sample| *sample.quantity == *name) {
            return Err(format!("two values are called `{name}`"));
        }
        if self.samples.len() == MAX_QUANTITIES {
            return Err(format!("more than {MAX_QUANTITIES} values"));
        }
        self.samples.extend(value.sample(name, unit));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wild;
