//! Lines of JSON on a serial port, as an Arduino prints them: one object a line.
//!
//! An object's keys become quantities as they are met, without a tree in between; see [`DRIVER`]'s notes for the
//! rules. Limits hold for each line: [`MAX_LINE_BYTES`], [`MAX_DEPTH`], [`MAX_QUANTITIES`], [`MAX_NAME_BYTES`].

use std::time::Duration;

use serde::de::Deserializer;

use super::support::acknowledge::{self, Answers};
use super::support::device_clock::{self, Stamp};
use super::support::guess;
use super::support::lines::{Lines, TooLong, excerpt};
use super::support::serial;
use super::{ByteDecoder, Connection, Decoded, Driver, Parsed, Source};
use crate::clock::BootTime;
use crate::command::{Answer, Command, Outgoing};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample};

mod commands;
mod flatten;

use flatten::Flatten;

/// Bytes of a line without its newline; a longer one is skipped with a fault.
pub const MAX_LINE_BYTES: usize = 4096;

/// Objects and arrays within one another, the line's own object included.
pub const MAX_DEPTH: usize = 8;

/// Values in one line, null excluded.
pub const MAX_QUANTITIES: usize = 128;

/// Bytes of a quantity's name, made of all keys that lead to it.
pub const MAX_NAME_BYTES: usize = 128;

pub(crate) static DRIVER: Driver = Driver {
    name: "serial-json",
    summary: "An Arduino or other device that prints one JSON object a line on a serial port",
    notes: "\
Any sketch that prints JSON lines will do, with or without ArduinoJson:
`Serial.println(\"{\\\"temp\\\":21.5}\");`. The time of a line is the time at which its end was read.

- Each key becomes a quantity. Keys inside of nested objects are joined with `_`: `{\"air\":{\"temp\":21}}` gives
  `air_temp`. Items of an array are counted from 0: `{\"soil\":[41,39]}` gives `soil_0` and `soil_1`.
- Numbers, `true`/`false` and strings become numbers, switches and texts. `null` gives nothing: the sensor behind it had
  no value.
- Letters of any language are kept. What a topic cannot hold (`/`, `+`, `#`, `{`, `}`, a leading `$`, control
  characters) becomes `_`; the reserved names `availability`, `gaps`, `info` and `set` get a `_` behind them.
- Names, units and kinds are given with `[sensor.quantity.NAME]`: `as = \"temperature\"`, `unit = \"°C\"`,
  `kind = \"event\"`.
- A line that is not a JSON object gives the fault `bad-data`, and the link goes on with the next one. This holds also
  for numbers too large for a double, and for `nan`, which is not JSON: have the sketch print `null` instead. The first
  line after opening is often cut, and skipped silently if it cannot be read. Empty lines are skipped.
- Limits: 4096 bytes a line, 128 values a line, 8 levels of nesting, 128 bytes a name.
- A command, which is sent to `…/set` below the sensor's topic, must be a JSON object, such as `{\"relay\":true}`. It is
  written as one line. With `acknowledge`, a number is put in, `{\"id\":7,\"relay\":true}`, and the device answers
  `{\"ack\":7}`, or `{\"ack\":7,\"error\":\"no such relay\"}`; a line with the key `ack` is then no reading.

The user that vigie runs as must belong to the group `dialout`. Opening the port restarts many Arduinos.",
    sample: r#"[[sensor]]
name = "arduino"
driver = "serial-json"
port = "/dev/serial/by-id/usb-Arduino_Uno-if00"
baud = 115200

[sensor.quantity.temp]
as = "temperature"
unit = "°C"
"#,
    connection: Connection::Serial(serial::SKETCH),
    options: &[acknowledge::OPTION, device_clock::OPTION],
    quantities: &[],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = serial::SKETCH.parse(options);
    let acknowledge = acknowledge::parse(options);
    let millis = device_clock::parse(options);
    let settings = settings?;
    let decoder = Box::new(move || {
        Box::new(SerialJson { acknowledge, stamp: millis.as_deref().map(Stamp::new), ..SerialJson::new() })
            as Box<dyn ByteDecoder>
    });
    Some(Parsed { claims: serial::claims(&settings), source: Source::Serial { settings, decoder } })
}

/// The decoder: bytes in, samples out.
#[derive(Debug)]
pub struct SerialJson {
    lines: Lines,
    lines_to_samples: LineReader,
    /// How long the device has to acknowledge a command, if it does.
    acknowledge: Option<Duration>,
    answers: Answers,
    stamp: Option<Stamp>,
    /// The device has the beginning of a command whose end was not written.
    cut: bool,
}

impl SerialJson {
    /// A decoder for a port that was just opened.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lines: Lines::new(MAX_LINE_BYTES),
            lines_to_samples: LineReader::default(),
            acknowledge: None,
            answers: Answers::default(),
            stamp: None,
            cut: false,
        }
    }

    /// A decoder for a program that was just started: its first line is whole, and may be longer.
    pub(super) fn of_program(max_line_bytes: usize, acknowledge: Option<Duration>) -> Self {
        let reader = LineReader { in_step: true, program: Some(max_line_bytes), ..LineReader::default() };
        Self { lines: Lines::new(max_line_bytes), lines_to_samples: reader, acknowledge, ..Self::new() }
    }
}

impl Default for SerialJson {
    fn default() -> Self {
        Self::new()
    }
}

impl ByteDecoder for SerialJson {
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) {
        let Self { lines, lines_to_samples: reader, acknowledge, answers, stamp, .. } = self;
        lines.feed(bytes, |line| {
            if let (Ok(line), true) = (line, acknowledge.is_some())
                && commands::is_answer(line)
            {
                reader.in_step = true;
                match commands::answer(line) {
                    Ok(answer) => answers.push(answer),
                    Err(error) => out
                        .push((at, Err(bad_line("an acknowledgement is not in the form `{\"ack\":7}`", line, &error)))),
                }
                return;
            }
            let Some(mut outcome) = reader.read(line) else { return };
            let mut measured_at = at;
            if let (Some(stamp), Ok(samples)) = (stamp.as_mut(), &mut outcome) {
                match stamp.take(samples, at) {
                    Ok(measured) => measured_at = measured,
                    Err(fault) => outcome = Err(fault),
                }
            }
            out.push((measured_at, outcome));
        });
    }

    fn unfinished(&self) -> usize {
        self.lines.unfinished()
    }

    fn takes_commands(&self) -> bool {
        true
    }

    fn command(&mut self, command: &Command) -> Result<Outgoing, String> {
        let mut bytes = commands::line(command, self.acknowledge.is_some())?;
        if std::mem::take(&mut self.cut) {
            // What the device has of the last command is no JSON object, and no part of this one.
            bytes.insert(0, b'\n');
        }
        Ok(Outgoing { bytes, answer_within: self.acknowledge })
    }

    fn cut(&mut self) {
        self.cut = true;
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.answers.take()
    }
}

#[derive(Debug, Default)]
struct LineReader {
    /// A line has ended since the port was opened, so that the next one begins at its beginning.
    in_step: bool,
    /// The longest line of a program; `None` for a device.
    program: Option<usize>,
    /// The name that the keys met so far make; kept for its memory.
    name: String,
    /// How many samples the last line gave: a good guess for the next one.
    expected: usize,
}

impl LineReader {
    /// `None` for a line that is skipped silently.
    fn read(&mut self, line: Result<&[u8], TooLong>) -> Option<Result<Vec<Sample>, Fault>> {
        let in_step = std::mem::replace(&mut self.in_step, true);
        let outcome = match line {
            Ok(line) if line.iter().all(u8::is_ascii_whitespace) => return None,
            Ok(line) => self.samples(line).map_err(|error| {
                let mut fault = bad_line("a line is not one JSON object", line, &error);
                if self.program.is_none() {
                    fault.detail.push_str(guess::advice(line, DRIVER.name));
                }
                fault
            }),
            Err(TooLong) if self.program.is_some() => Err(Fault::new(
                FaultCode::BadData,
                format!("a line is longer than `max_bytes` ({})", self.program.unwrap_or_default()),
            )),
            Err(too_long) => Err(too_long.fault(MAX_LINE_BYTES)),
        };
        if outcome.is_err() && !in_step { None } else { Some(outcome) }
    }

    fn samples(&mut self, line: &[u8]) -> Result<Vec<Sample>, serde_json::Error> {
        let mut samples = Vec::with_capacity(self.expected);
        self.name.clear();
        let mut json = serde_json::Deserializer::from_slice(line);
        json.deserialize_map(Flatten { name: &mut self.name, samples: &mut samples, depth: 1 })?;
        json.end()?;
        self.expected = samples.len();
        Ok(samples)
    }
}

/// The samples of a text that is one object; `what` names it.
pub(super) fn object(text: &[u8], what: &str) -> Result<Vec<Sample>, Fault> {
    let read = LineReader::default().samples(text);
    read.map_err(|error| {
        let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or(text);
        bad_line(&format!("{what} is not one JSON object"), line, &error)
    })
}

fn bad_line(what: &str, line: &[u8], error: &serde_json::Error) -> Fault {
    // A line is one line: its number says nothing, and the column is in bytes.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let excerpt = excerpt(&text);
    let lower = text.to_ascii_lowercase();
    let hint = if lower.contains("nan") || lower.contains("inf") {
        "; `nan` and `inf` are not JSON: have the sketch print null"
    } else {
        ""
    };
    Fault::new(FaultCode::BadData, format!("{what}: {message} (byte {} of `{excerpt}`){hint}", error.column()))
}

#[cfg(test)]
mod tests;
