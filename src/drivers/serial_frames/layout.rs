//! What is in a frame, byte by byte; `docs/serial-frames.md` is the specification. Numbers are little-endian.

use std::collections::BTreeMap;

use super::frame::{CRC_BYTES, MAX_FRAME_BYTES, seal};
use crate::drivers::support::names;
use crate::reading::{Fault, FaultCode, Sample, Value};

/// The version of the layout, in the upper four bits of a frame's first byte.
const VERSION: u8 = 1;

/// What a frame is, in the lower four bits of its first byte. From 8 on they go to the device.
mod kind {
    pub(super) const READINGS: u8 = 1;
    pub(super) const DESCRIPTION: u8 = 2;
    pub(super) const ACKNOWLEDGEMENT: u8 = 3;
    pub(super) const COMMAND: u8 = 8;
    pub(super) const DESCRIBE: u8 = 9;
}

/// Bytes of type and sequence number, which every frame begins with.
const HEADER_BYTES: usize = 2;

/// Bytes of a command's number.
const ID_BYTES: usize = 4;

/// Bytes that a command's payload can have at most.
pub const MAX_COMMAND_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES - ID_BYTES - CRC_BYTES;

/// Bytes of a quantity's name in a description.
pub const MAX_NAME_BYTES: usize = 64;

/// Bytes of a quantity's unit in a description.
pub const MAX_UNIT_BYTES: usize = 32;

/// The quantity that counts lost frames; a device's own quantity of that name becomes `lost_`.
pub(super) const LOST: &str = "lost";

/// A frame from a device, of which nothing but the head has been looked at.
#[derive(Debug, PartialEq)]
pub(super) struct Frame<'a> {
    /// Counted by the sender for all of its frames; follows on 255 with 0.
    pub(super) sequence: u8,
    pub(super) content: Content<'a>,
}

#[derive(Debug, PartialEq)]
pub(super) enum Content<'a> {
    Readings {
        /// The device's milliseconds since its start, at the measurement.
        millis: u32,
        values: &'a [u8],
    },
    Description {
        /// The device has just started: its sequence numbers begin anew.
        started: bool,
        /// The longest frame that it can take, checksum included; 0: it takes none.
        receives: u8,
        entries: &'a [u8],
    },
    Acknowledgement {
        /// The command's number.
        id: u32,
        /// 0: done.
        status: u8,
        text: &'a [u8],
    },
    /// One of ours: the line echoes what is sent.
    Echo,
}

impl<'a> Frame<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Fault> {
        let mut rest = Reader(bytes);
        let [head, sequence] = rest.array("its head")?;
        let (version, kind) = (head >> 4, head & 0x0f);
        if version != VERSION {
            return Err(bad(format!("a frame of version {version} (first byte {head:#04x}); this is for version 1")));
        }
        let content = match kind {
            kind::READINGS => {
                Content::Readings { millis: u32::from_le_bytes(rest.array("the device's time")?), values: rest.0 }
            }
            kind::DESCRIPTION => {
                let [flags, receives] = rest.array("what the device takes")?;
                Content::Description { started: flags & 1 != 0, receives, entries: rest.0 }
            }
            kind::ACKNOWLEDGEMENT => Content::Acknowledgement {
                id: u32::from_le_bytes(rest.array("the command's number")?),
                status: rest.byte("the status")?,
                text: rest.0,
            },
            kind::COMMAND | kind::DESCRIBE => Content::Echo,
            other => return Err(bad(format!("a frame of the unknown type {other} (first byte {head:#04x})"))),
        };
        Ok(Self { sequence, content })
    }
}

/// What a description says of a quantity, and what the driver calls it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Quantity {
    pub(super) name: String,
    pub(super) unit: Option<String>,
    pub(super) event: bool,
}

/// Quantities by the numbers that the device gives them.
pub(super) type Names = BTreeMap<u8, Quantity>;

/// Reads the entries of a description; those of `fixed` stay as they are.
pub(super) fn describe(entries: &[u8], fixed: &Names, names: &mut Names) -> Result<(), Fault> {
    let mut rest = Reader(entries);
    while !rest.0.is_empty() {
        let [id, flags] = rest.array("a quantity")?;
        let name = rest.text(MAX_NAME_BYTES, "a name")?;
        let unit = rest.text(MAX_UNIT_BYTES, "a unit")?;
        if name.is_empty() {
            return Err(bad(format!("the device gives quantity {id} no name")));
        }
        if unit.chars().any(char::is_control) {
            return Err(bad(format!("the unit of quantity {id} has a control character: {}", unit.escape_default())));
        }
        let mut safe = String::new();
        names::push_safe(&mut safe, name);
        let mut name = names::quantity(&safe);
        if name == LOST {
            name.push('_');
        }
        if fixed.contains_key(&id) {
            continue;
        }
        if let Some((other, _)) = names.iter().find(|(other, quantity)| **other != id && quantity.name == name) {
            return Err(bad(format!("the device calls both quantity {other} and quantity {id} `{name}`")));
        }
        let unit = (!unit.is_empty()).then(|| unit.to_owned());
        names.insert(id, Quantity { name, unit, event: flags & 1 != 0 });
    }
    Ok(())
}

/// Why a frame's values did not become samples.
#[derive(Debug, PartialEq)]
pub(super) enum Unread {
    /// This number has no name yet.
    Unnamed(u8),
    Bad(Fault),
}

impl From<Fault> for Unread {
    fn from(fault: Fault) -> Self {
        Self::Bad(fault)
    }
}

/// Reads the values of a frame with readings.
pub(super) fn samples(values: &[u8], names: &Names) -> Result<Vec<Sample>, Unread> {
    let mut samples: Vec<Sample> = Vec::new();
    let mut seen = [false; 256];
    let mut unnamed = None;
    let mut rest = Reader(values);
    while !rest.0.is_empty() {
        let [id, form] = rest.array("a value's head")?;
        let value = rest.value(id, form)?;
        if std::mem::replace(&mut seen[usize::from(id)], true) {
            return Err(bad(format!("a frame has two values for quantity {id}")).into());
        }
        let Some(quantity) = names.get(&id) else {
            unnamed.get_or_insert(id);
            continue;
        };
        if let Some(value) = value {
            samples.push(Sample {
                unit: quantity.unit.clone().map(Into::into),
                content_type: None,
                event: quantity.event,
                ..Sample::new(quantity.name.clone(), value)
            });
        }
    }
    unnamed.map_or(Ok(samples), |id| Err(Unread::Unnamed(id)))
}

/// A command, ready to be written.
pub(super) fn command(sequence: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut content = vec![VERSION << 4 | kind::COMMAND, sequence];
    content.extend_from_slice(&id.to_le_bytes());
    content.extend_from_slice(payload);
    seal(content)
}

/// Asks the device to describe itself, ready to be written.
pub(super) fn ask(sequence: u8) -> Vec<u8> {
    seal(vec![VERSION << 4 | kind::DESCRIBE, sequence])
}

/// Bytes of a frame that carries a payload of that length to the device, checksum included.
pub(super) fn command_bytes(payload: usize) -> usize {
    HEADER_BYTES + ID_BYTES + payload + CRC_BYTES
}

pub(super) fn bad(detail: String) -> Fault {
    Fault::new(FaultCode::BadData, detail)
}

/// What is left of a frame.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let (head, rest) = self.0.split_first_chunk().ok_or_else(|| bad(format!("a frame ends within {what}")))?;
        self.0 = rest;
        Ok(*head)
    }

    fn byte(&mut self, what: &str) -> Result<u8, Fault> {
        self.array::<1>(what).map(|[byte]| byte)
    }

    /// A text behind its length.
    fn text(&mut self, most: usize, what: &str) -> Result<&'a str, Fault> {
        let length = usize::from(self.byte(what)?);
        if length > most {
            return Err(bad(format!("{what} of {length} bytes; {most} are allowed")));
        }
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(|| bad(format!("a frame ends within {what}")))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| bad(format!("{what} is not UTF-8: {}", text.escape_ascii())))
    }

    /// A value of the form that its second byte says; `None` where the device has no value.
    fn value(&mut self, id: u8, form: u8) -> Result<Option<Value>, Fault> {
        let what = "a value";
        let number = match form {
            0 => return Ok(None),
            1 => {
                let on = match self.byte(what)? {
                    0 => false,
                    1 => true,
                    other => return Err(bad(format!("quantity {id} is a switch of the value {other}, not 0 or 1"))),
                };
                return Ok(Some(Value::Switch(on)));
            }
            2 => f64::from(self.byte(what)?),
            3 => f64::from(i16::from_le_bytes(self.array(what)?)),
            4 => f64::from(i32::from_le_bytes(self.array(what)?)),
            5 => f64::from(u32::from_le_bytes(self.array(what)?)),
            6 => shortest(f32::from_le_bytes(self.array(what)?)),
            7 => return Ok(Some(Value::Text(self.text(usize::from(u8::MAX), "a text")?.into()))),
            other => return Err(bad(format!("quantity {id} has a value of the unknown type {other}"))),
        };
        let value = Value::number(number);
        value
            .map(Some)
            .ok_or_else(|| bad(format!("quantity {id} is {number}: a device that has no value sends the type 0")))
    }
}

/// The number with the fewest digits that is this one among floats of 32 bits: 21.53, not 21.530000686645508.
fn shortest(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}
