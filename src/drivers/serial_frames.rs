//! Frames with a checksum on a serial port, for links that must notice corruption.
//!
//! `docs/serial-frames.md` says what is in them, byte by byte. `frame` cuts them out of the stream, `layout` reads
//! them, and the decoder here knows what belongs together over many of them: the names of the quantities, which the
//! device says once, the frames that were lost, and the device's clock.

use std::collections::VecDeque;
use std::time::Duration;

use self::frame::Frames;
use self::layout::{Content, Frame, LOST, Names, Quantity, Unread, bad};
use super::support::acknowledge::{self, Answers};
use super::support::device_clock::DeviceClock;
use super::support::serial;
use super::{ByteDecoder, Connection, Decoded, Driver, OptionInfo, Parsed, Source};
use crate::clock::BootTime;
use crate::command::{Answer, Command, Outgoing};
use crate::options::Options;
use crate::reading::{Fault, Sample, Value};
use crate::topic;

mod frame;
mod layout;

pub use frame::{MAX_FRAME_BYTES, seal};
pub use layout::{MAX_COMMAND_BYTES, MAX_NAME_BYTES, MAX_UNIT_BYTES};

/// Frames that wait for the names of their values, the latest ones.
pub const MAX_HELD: usize = 16;

/// How often a device is asked for names at most: an Arduino answers within milliseconds, but one that restarts is
/// away for two seconds.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// Quantities that a device can have: they are numbered with a byte.
const MAX_FIELDS: usize = 256;

/// Characters of the text with which a device refuses a command.
const MAX_REFUSAL: usize = 120;

pub(crate) static DRIVER: Driver = Driver {
    name: "serial-frames",
    summary: "An Arduino or other device that sends small binary frames with a checksum on a serial port",
    notes: "\
For links that must notice corruption: long or noisy cables, radio modules, optocouplers. A frame that was damaged is
never taken for a value. [serial-frames.md](serial-frames.md) says what is in a frame, byte by byte; the Arduino library
in `deploy/arduino/` sends them with two lines of a sketch.

- Frames are stuffed with COBS, end with a zero byte and carry a CRC-16. What is no frame, or has a wrong checksum, is
  the fault `bad-data` or `crc`, and the link goes on with the next one.
- Values are numbered. What the numbers are called, and their units, the device says in a frame of its own: when it
  starts, when it is asked (vigie asks where a number has no name), and once in a while for links that go one way only.
  Up to 16 frames wait for their names. Or `fields` names them: `fields = [\"temperature\", \"humidity\"]` names 0 and 1.
- Each frame has a number. `lost` counts those that are missing since the port was opened: sent with the first frame
  and whenever one was lost.
- Readings carry the time at which the device measured, so that what is read late is dated right.
- A command's payload goes down as it is, at most 246 bytes, fewer if the device says so. With `acknowledge` its result
  is what the device answers.
- Limits: 254 bytes a frame, 256 quantities, 64 bytes a name, 32 bytes a unit.

The user that vigie runs as must belong to the group `dialout`. Opening the port restarts many Arduinos.",
    sample: r#"[[sensor]]
name = "garden"
driver = "serial-frames"
port = "/dev/serial/by-id/usb-Arduino_Uno-if00"
acknowledge = "2s"
"#,
    connection: Connection::Serial(serial::SKETCH),
    options: &[
        OptionInfo {
            name: "fields",
            values: "list of names",
            default: Some("as the device says"),
            help: "Names of the quantities 0, 1, and so on, for a device that does not describe itself.",
        },
        acknowledge::OPTION,
    ],
    quantities: &[],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = serial::SKETCH.parse(options);
    let acknowledge = acknowledge::parse(options);
    let fields = fields(options);
    let settings = settings?;
    let decoder = Box::new(move || Box::new(SerialFrames::new(fields.clone(), acknowledge)) as Box<dyn ByteDecoder>);
    Some(Parsed { claims: serial::claims(&settings), source: Source::Serial { settings, decoder } })
}

fn fields(options: &Options<'_>) -> Vec<String> {
    let fields = options.optional::<Vec<String>>("fields").unwrap_or_default();
    let expected = || Some("expected names such as [\"temperature\", \"humidity\"], each once".to_owned());
    if fields.len() > MAX_FIELDS {
        options.problem("fields", format!("`fields` has more than {MAX_FIELDS} names"), expected());
    }
    for (index, field) in fields.iter().enumerate() {
        let why = if let Err(why) = topic::check_name(field) {
            why.to_string()
        } else if topic::RESERVED.contains(&field.as_str()) || field == LOST {
            "is vigie's own".to_owned()
        } else if fields[..index].contains(field) {
            "is there twice".to_owned()
        } else {
            continue;
        };
        options.problem("fields", format!("`fields`: the name \"{field}\" {why}"), expected());
    }
    fields
}

/// The decoder: bytes in, samples out.
#[derive(Debug)]
pub struct SerialFrames {
    frames: Frames,
    link: Link,
}

impl SerialFrames {
    /// A decoder for a port that was just opened. `fields` are the names of the quantities 0, 1 and so on as far as
    /// the configuration has them, at most 256; `acknowledge` is how long the device has to answer a command.
    #[must_use]
    pub fn new(fields: Vec<String>, acknowledge: Option<Duration>) -> Self {
        let fixed: Names =
            (0..=u8::MAX).zip(fields).map(|(id, name)| (id, Quantity { name, unit: None, event: false })).collect();
        let link = Link { names: fixed.clone(), fixed, acknowledge, ..Link::default() };
        Self { frames: Frames::default(), link }
    }
}

impl ByteDecoder for SerialFrames {
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) {
        let link = &mut self.link;
        self.frames.feed(bytes, |content| {
            if let Err(fault) = content.and_then(|content| link.frame(content, at, out)) {
                out.push((at, Err(fault)));
            }
        });
    }

    fn unfinished(&self) -> usize {
        self.frames.unfinished()
    }

    fn asks(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.link.ask).then(|| layout::ask(self.link.next_sequence()))
    }

    fn takes_commands(&self) -> bool {
        true
    }

    fn command(&mut self, command: &Command) -> Result<Outgoing, String> {
        let link = &mut self.link;
        let (length, most) = (command.payload.len(), link.receives.map_or(MAX_FRAME_BYTES, usize::from));
        if link.receives == Some(0) {
            return Err("the device says that it takes no commands".to_owned());
        }
        let most = most.saturating_sub(layout::command_bytes(0)).min(MAX_COMMAND_BYTES);
        if length > most {
            let who = if most == MAX_COMMAND_BYTES { "a frame" } else { "the device" };
            return Err(format!("the command has {length} bytes; {who} takes at most {most}"));
        }
        let bytes = layout::command(link.next_sequence(), command.id, &command.payload);
        Ok(Outgoing { bytes, answer_within: link.acknowledge })
    }

    fn answers(&mut self) -> Vec<Answer> {
        self.link.answers.take()
    }
}

/// What is known of the device since the port was opened.
#[derive(Debug, Default)]
struct Link {
    /// Names of the configuration.
    fixed: Names,
    /// Those, and what the device has described.
    names: Names,
    /// The longest frame that the device takes, if it has said so.
    receives: Option<u8>,
    acknowledge: Option<Duration>,
    /// Of the device's last frame.
    sequence: Option<u8>,
    /// Of our last frame.
    sent: u8,
    /// The device's time in its last readings.
    millis: Option<u32>,
    clock: DeviceClock,
    /// Frames that are missing since the port was opened.
    lost: u32,
    /// What `lost` the last readings told.
    told: Option<u32>,
    /// Readings that wait for names, with the time of each; at most [`MAX_HELD`].
    held: VecDeque<(BootTime, Box<[u8]>)>,
    /// The device is to be asked for names.
    ask: bool,
    /// When it was asked last.
    asked: Option<BootTime>,
    answers: Answers,
}

impl Link {
    fn frame(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) -> Result<(), Fault> {
        let Frame { sequence, content } = Frame::parse(bytes)?;
        match content {
            Content::Echo => Ok(()),
            Content::Readings { millis, values } => {
                // A clock that went back is one that started anew, and so are the frames' numbers.
                let restarted =
                    self.millis.replace(millis).is_some_and(|last| millis.wrapping_sub(last) > u32::MAX / 2);
                self.count(sequence, restarted);
                let measured_at = self.clock.at(millis, at);
                self.readings(values, measured_at, at, out)
            }
            Content::Description { started, receives, entries } => {
                self.count(sequence, started);
                if started {
                    self.names = self.fixed.clone();
                    self.millis = None;
                }
                self.receives = Some(receives);
                layout::describe(entries, &self.fixed, &mut self.names)?;
                self.named(out);
                Ok(())
            }
            Content::Acknowledgement { id, status, text } => {
                self.count(sequence, false);
                self.answers.push(Answer { id: Some(id), outcome: outcome(status, text) });
                Ok(())
            }
        }
    }

    /// Counts the frames between the last one and this one.
    fn count(&mut self, sequence: u8, restarted: bool) {
        if let Some(last) = self.sequence.replace(sequence)
            && !restarted
        {
            let missing = sequence.wrapping_sub(last).wrapping_sub(1);
            self.lost = self.lost.saturating_add(u32::from(missing));
        }
    }

    /// Takes the values of a frame that were measured and read at these times.
    fn readings(
        &mut self,
        values: &[u8],
        measured_at: BootTime,
        read_at: BootTime,
        out: &mut Vec<Decoded>,
    ) -> Result<(), Fault> {
        match layout::samples(values, &self.names) {
            Ok(mut samples) => {
                samples.extend(self.tell_lost());
                out.push((measured_at, Ok(samples)));
                Ok(())
            }
            Err(Unread::Bad(fault)) => Err(fault),
            Err(Unread::Unnamed(id)) => {
                if self.asked.is_none_or(|asked| read_at.since(asked) >= ASK_EVERY) {
                    self.asked = Some(read_at);
                    self.ask = true;
                }
                self.held.push_back((measured_at, values.into()));
                if self.held.len() <= MAX_HELD {
                    return Ok(());
                }
                self.held.pop_front();
                Err(bad(format!(
                    "values without names were dropped: the device has not said what quantity {id} is; name it in \
                     `fields`, or have the sketch describe it"
                )))
            }
        }
    }

    /// Gives what has waited for names and has them now.
    fn named(&mut self, out: &mut Vec<Decoded>) {
        let names = &self.names;
        let mut decoded = Vec::new();
        self.held.retain(|(at, values)| match layout::samples(values, names) {
            Ok(samples) => {
                decoded.push((*at, Ok(samples)));
                false
            }
            Err(Unread::Bad(_)) => false,
            Err(Unread::Unnamed(_)) => true,
        });
        if let Some((_, Ok(samples))) = decoded.last_mut() {
            samples.extend(self.tell_lost());
        }
        out.append(&mut decoded);
    }

    fn tell_lost(&mut self) -> Option<Sample> {
        if self.told.replace(self.lost) == Some(self.lost) {
            return None;
        }
        Value::number(f64::from(self.lost)).map(|value| Sample::new(LOST, value))
    }

    fn next_sequence(&mut self) -> u8 {
        let sequence = self.sent;
        self.sent = sequence.wrapping_add(1);
        sequence
    }
}

/// What a device says of a command, for whoever sent it.
fn outcome(status: u8, text: &[u8]) -> Result<(), String> {
    if status == 0 {
        return Ok(());
    }
    let text = String::from_utf8_lossy(text);
    let text: String = text.trim().chars().filter(|character| !character.is_control()).take(MAX_REFUSAL).collect();
    Err(if text.is_empty() { format!("the device gives the status {status}") } else { text })
}

#[cfg(test)]
mod tests;
