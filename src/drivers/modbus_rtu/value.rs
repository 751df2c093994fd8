//! Values in a device's tables: where they are, how they are coded, and which requests read them.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::frame::{Action, Request, Table};
use crate::drivers::support::scaled::{self, Named, Scaled};
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample, Value};

/// Registers of a text at most.
const MAX_TEXT: u16 = 64;

/// How a value is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    /// One coil or discrete input.
    Switch,
    /// A bit of a register, counted from the lowest.
    Bit(u8),
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F32,
    F64,
    /// Two characters a register.
    Text(u16),
}

const TYPES: [(&str, Coding); 9] = [
    ("u16", Coding::U16),
    ("i16", Coding::I16),
    ("u32", Coding::U32),
    ("i32", Coding::I32),
    ("u64", Coding::U64),
    ("i64", Coding::I64),
    ("f32", Coding::F32),
    ("f64", Coding::F64),
    ("text", Coding::Text(0)),
];

impl Coding {
    /// Entries of the table that it takes.
    fn entries(self) -> u16 {
        match self {
            Self::Switch | Self::Bit(_) | Self::U16 | Self::I16 => 1,
            Self::U32 | Self::I32 | Self::F32 => 2,
            Self::U64 | Self::I64 | Self::F64 => 4,
            Self::Text(registers) => registers,
        }
    }

    /// The nearest that it can hold to a number, the most significant byte first; `None` if it holds none of that size.
    #[expect(clippy::cast_possible_truncation, reason = "whole numbers in their ranges, and the nearest float")]
    fn bytes(self, number: f64) -> Option<Vec<u8>> {
        let (least, most) = match self {
            Self::F32 => {
                let float = number as f32;
                return float.is_finite().then(|| float.to_be_bytes().to_vec());
            }
            Self::F64 => return Some(number.to_be_bytes().to_vec()),
            Self::U16 => (0.0, f64::from(u16::MAX)),
            Self::U32 => (0.0, f64::from(u32::MAX)),
            Self::U64 => (0.0, MOST_EXACT),
            Self::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
            Self::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
            Self::I64 => (-MOST_EXACT, MOST_EXACT),
            Self::Switch | Self::Bit(_) | Self::Text(_) => return None,
        };
        let whole = Some(number.round()).filter(|whole| (least..=most).contains(whole))? as i64;
        Some(whole.to_be_bytes()[8 - 2 * usize::from(self.entries())..].to_vec())
    }
}

/// Beyond 2^53 a double is not each whole number, and what would be written is not what was meant.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

/// A text, filled up with zeros.
fn padded(text: &str, registers: u16) -> Result<Vec<u8>, String> {
    let room = 2 * usize::from(registers);
    if text.len() > room || text.contains(char::is_control) {
        return Err(format!("has room for {room} bytes without control characters"));
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(room, 0);
    Ok(bytes)
}

/// A value and where it is.
#[derive(Clone, Debug)]
pub(super) struct TableValue {
    pub(super) scaled: Scaled,
    table: Table,
    first: u16,
    coding: Coding,
    /// The least significant register comes first.
    words_reversed: bool,
    /// The least significant byte of a register comes first.
    bytes_reversed: bool,
    /// How it may be written; `None`: not at all.
    write: Option<Write>,
}

/// With which function an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Write {
    /// With that for one entry, where there is one.
    Shortest,
    /// With that for several, always.
    Multiple,
}

impl Named for TableValue {
    fn name(&self) -> &str {
        &self.scaled.quantity
    }
}

/// The keys that say in which table a value is.
const TABLES: [(&str, Table); 4] =
    [("holding", Table::Holding), ("input", Table::Input), ("coil", Table::Coil), ("discrete", Table::Discrete)];

impl TableValue {
    /// Reads a table `[[sensor.value]]`; problems are noted there.
    pub(super) fn parse(options: &Options<'_>, names: &[&str]) -> Option<Self> {
        let scaled = Scaled::parse(options, names);
        let place = place(options);
        let order = |key| options.optional_word(key, &[("big", false), ("little", true)]).unwrap_or(false);
        let (words_reversed, bytes_reversed) = (order("word_order"), order("byte_order"));
        let coding = coding(options, place.is_some_and(|(table, _)| table.has_bits()));
        let write = write(options);
        options.finish();
        let ((table, first), coding) = (place?, coding?);
        if first.checked_add(coding.entries() - 1).is_none() {
            let message = format!("{} ends behind entry 65535, which is the last one", options.what());
            options.problem(key_of(table), message, None);
            return None;
        }
        let scaled = scaled?;
        let misplaced = match coding {
            _ if write.is_none() => None,
            _ if !table.can_be_written() => Some("only `holding` and `coil` can be written"),
            Coding::Bit(_) => Some("a bit cannot be written without the rest of its register: give that instead"),
            _ if !scaled.can_be_reversed() => Some("with `scale = 0` there is nothing to reckon back from"),
            _ => None,
        };
        if let Some(why) = misplaced {
            options.problem("write", format!("`write` of {}: {why}", options.what()), None);
            return None;
        }
        Some(Self { scaled, table, first, coding, words_reversed, bytes_reversed, write })
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        &self.scaled.quantity
    }

    /// May commands write it?
    pub(super) fn can_be_written(&self) -> bool {
        self.write.is_some()
    }

    /// The request that reads it alone.
    pub(super) fn to_read(&self, address: u8) -> Request {
        Request { address, table: self.table, first: self.first, count: self.coding.entries(), action: Action::Read }
    }

    /// The request that writes its [data](Self::encode).
    pub(super) fn to_write(&self, address: u8, data: &[u8]) -> Request {
        let action = match (self.write, data) {
            (Some(Write::Shortest), [on]) => Action::WriteOne([if *on == 0 { 0 } else { 0xff }, 0]),
            (Some(Write::Shortest), [high, low]) => Action::WriteOne([*high, *low]),
            _ => Action::Write(data.to_vec()),
        };
        Request { action, ..self.to_read(address) }
    }

    /// Are these the same data, one as it was read, one as it was [made](Self::encode) here?
    pub(super) fn is_same(&self, read: &[u8], written: &[u8]) -> bool {
        match (self.coding, read, written) {
            // The other bits of the byte are not the coil's.
            (Coding::Switch, [read, ..], [written, ..]) => read & 1 == *written,
            _ => read == written,
        }
    }

    /// The data that makes its registers, or its coil, hold this.
    ///
    /// # Errors
    /// Why they cannot, to be read behind the name.
    pub(super) fn encode(&self, value: &Json) -> Result<Vec<u8>, String> {
        let mut bytes = match (self.coding, value) {
            (Coding::Switch | Coding::Bit(_), Json::Bool(on)) => return Ok(vec![u8::from(*on)]),
            (Coding::Switch | Coding::Bit(_), _) => return Err("is a switch: true or false".to_owned()),
            (Coding::Text(registers), Json::String(text)) => padded(text, registers)?,
            (Coding::Text(_), _) => return Err("is a text".to_owned()),
            (coding, value) => {
                let value = value.as_f64().ok_or("is a number")?;
                coding.bytes(self.scaled.raw(value)?).ok_or_else(|| {
                    format!(
                        "= {value} does not fit into its {}",
                        TYPES.iter().find(|(_, other)| *other == coding).map_or("type", |(name, _)| name)
                    )
                })?
            }
        };
        let words = bytes.as_chunks_mut::<2>().0;
        if self.words_reversed {
            words.reverse();
        }
        if self.bytes_reversed {
            words.iter_mut().for_each(|word| word.reverse());
        }
        Ok(bytes)
    }

    /// The value in the data of a request that reads all of its entries.
    pub(super) fn sample(&self, request: &Request, data: &[u8]) -> Result<Sample, Fault> {
        let start = usize::from(self.first - request.first);
        let name = &self.scaled.quantity;
        if self.coding == Coding::Switch {
            let on = data.get(start / 8).is_some_and(|byte| byte >> (start % 8) & 1 == 1);
            return Ok(Sample::new(name.clone(), Value::Switch(on)));
        }
        let registers = data.chunks_exact(2).skip(start).take(usize::from(self.coding.entries()));
        let mut words: Vec<[u8; 2]> = registers.map(|pair| [pair[0], pair[1]]).collect();
        if self.words_reversed {
            words.reverse();
        }
        if self.bytes_reversed {
            words.iter_mut().for_each(|word| word.reverse());
        }
        let bytes = words.concat();
        let whole = || bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        #[expect(clippy::cast_precision_loss, reason = "a number is a double; beyond 2^53 the nearest one")]
        let number = match self.coding {
            Coding::Switch | Coding::U16 | Coding::U32 | Coding::U64 => whole() as f64,
            Coding::Bit(bit) => {
                return Ok(Sample::new(name.clone(), Value::Switch(whole() >> bit & 1 == 1)));
            }
            Coding::I16 | Coding::I32 | Coding::I64 => {
                let unused = 64 - 16 * u32::from(self.coding.entries());
                ((whole() << unused).cast_signed() >> unused) as f64
            }
            Coding::F32 => nearest(f32::from_bits(u32::try_from(whole()).unwrap_or(u32::MAX))),
            Coding::F64 => f64::from_bits(whole()),
            Coding::Text(_) => return text(name, &bytes),
        };
        self.scaled.sample(number).map_err(|fault| match number.is_finite() {
            true => fault,
            false => Fault::new(FaultCode::Impossible, format!("{name} is no number: the device has no value for it")),
        })
    }
}

/// The number that a float is the nearest one to, in the fewest digits: 230.2, not 230.199997.
fn nearest(float: f32) -> f64 {
    float.to_string().parse().unwrap_or(f64::NAN)
}

/// A text ends with its first zero, and blanks fill it up.
fn text(name: &str, bytes: &[u8]) -> Result<Sample, Fault> {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    match std::str::from_utf8(text) {
        Ok(text) if !text.contains(char::is_control) => {
            Ok(Sample::new(name.to_owned(), Value::Text(text.trim_end().into())))
        }
        _ => Err(Fault::new(FaultCode::BadData, format!("{name} is no text: {bytes:02x?}"))),
    }
}

fn key_of(table: Table) -> &'static str {
    TABLES.iter().find(|(_, other)| *other == table).map_or("holding", |(key, _)| key)
}

/// Exactly one of the keys of [`TABLES`].
fn place(options: &Options<'_>) -> Option<(Table, u16)> {
    let given: Vec<(&'static str, Option<u16>, Table)> = TABLES
        .iter()
        .map(|(key, table)| (*key, options.optional::<u16>(key), *table))
        .filter(|(key, ..)| options.raw(key).is_some())
        .collect();
    let expected = || Some("expected one of `holding`, `input`, `coil` and `discrete`, counted from 0".to_owned());
    match *given.as_slice() {
        [(_, first, table)] => Some((table, first?)),
        [] => {
            if !options.problems().is_partial() {
                options.problem("quantity", format!("{} does not say where it is", options.what()), expected());
            }
            None
        }
        [_, (second, ..), ..] => {
            options.problem(second, format!("{} is in two places", options.what()), expected());
            None
        }
    }
}

/// `type`, `bit` and `length`.
fn coding(options: &Options<'_>, one_bit: bool) -> Option<Coding> {
    let coding = options.optional_word("type", &TYPES);
    let bit = options.optional_in("bit", 0..=15);
    let length = options.optional_in("length", 1..=MAX_TEXT);
    let misplaced = |key: &'static str, why: &str| {
        options.problem(key, format!("`{key}` of {} {why}", options.what()), None);
        None
    };
    let given = |key: &'static str| options.raw(key).is_some();
    match coding {
        _ if one_bit && given("type") => misplaced("type", "is for registers: a coil or discrete input is a switch"),
        _ if one_bit && given("bit") => misplaced("bit", "is for registers: a coil or discrete input is a switch"),
        Some(Coding::Text(_)) if !given("length") => {
            options.required::<u16>("length");
            None
        }
        Some(Coding::Text(_)) => length.map(Coding::Text),
        _ if given("length") => misplaced("length", "is for texts: it counts their registers"),
        Some(_) if given("bit") => misplaced("bit", "makes a switch of the register, which has no type then"),
        _ if one_bit => Some(Coding::Switch),
        _ if given("bit") => bit.map(Coding::Bit),
        _ if given("type") => coding,
        _ => Some(Coding::U16),
    }
}

/// `write` and `multiple`.
fn write(options: &Options<'_>) -> Option<Write> {
    let write = options.optional::<bool>("write").unwrap_or(false);
    let multiple = options.optional::<bool>("multiple");
    if multiple.is_some() && !write {
        let message = format!("`multiple` of {} says how it is written, and it is not", options.what());
        options.problem("multiple", message, Some("expected `write = true` beside it".to_owned()));
    }
    write.then_some(if multiple == Some(true) { Write::Multiple } else { Write::Shortest })
}

/// The requests that read a unit's values, and which values each gives.
#[derive(Debug)]
pub struct Plan {
    /// The unit.
    pub(super) address: u8,
    requests: Vec<Request>,
    values: Vec<(usize, TableValue)>,
}

impl Plan {
    /// Reads the keys that say what is read: `address`, `value` and `gap`; problems are noted there.
    #[must_use]
    pub fn parse(options: &Options<'_>) -> Option<Self> {
        let address = options.required::<u8>("address").filter(|address| {
            let unit = (1..=247).contains(address);
            if !unit {
                let message = format!("no unit can have the address {address}");
                options.problem("address", message, Some("expected 1 to 247".to_owned()));
            }
            unit
        });
        let gap = options.optional_in("gap", 0..=124).unwrap_or(0);
        let values = scaled::tables(options, TableValue::parse);
        Some(Self::new(address?, values?, gap))
    }

    /// As few requests as the limits and `gap` allow: entries that nobody asked for are read over if at most so many lie
    /// between two that are wanted.
    pub(super) fn new(address: u8, values: Vec<TableValue>, gap: u16) -> Self {
        let mut spans: BTreeMap<Table, Vec<(u32, u32)>> = BTreeMap::new();
        for value in &values {
            let first = u32::from(value.first);
            spans.entry(value.table).or_default().push((first, first + u32::from(value.coding.entries())));
        }
        let mut requests: Vec<Request> = Vec::new();
        for (table, mut wanted) in spans {
            wanted.sort_unstable();
            let mut joined: Vec<(u32, u32)> = Vec::new();
            for (first, end) in wanted {
                match joined.last_mut() {
                    Some((start, last))
                        if first <= *last + u32::from(gap) && end.max(*last) - *start <= u32::from(table.most()) =>
                    {
                        *last = end.max(*last);
                    }
                    _ => joined.push((first, end)),
                }
            }
            let request = |(first, end): (u32, u32)| {
                let (first, count) = (u16::try_from(first).ok()?, u16::try_from(end - first).ok()?);
                Some(Request { address, table, first, count, action: Action::Read })
            };
            requests.extend(joined.into_iter().filter_map(request));
        }
        let reads = |value: &TableValue| {
            let end = u32::from(value.first) + u32::from(value.coding.entries());
            let holds = |request: &Request| {
                request.table == value.table
                    && request.first <= value.first
                    && end <= u32::from(request.first) + u32::from(request.count)
            };
            requests.iter().position(holds)
        };
        let values = values.into_iter().filter_map(|value| Some((reads(&value)?, value))).collect();
        Self { address, requests, values }
    }

    /// What the unit is asked, one after the other.
    #[must_use]
    pub fn requests(&self) -> &[Request] {
        &self.requests
    }

    /// The values, in the order in which they are described.
    pub(super) fn values(&self) -> impl Iterator<Item = &TableValue> {
        self.values.iter().map(|(_, value)| value)
    }

    /// The samples of the data that answers each request, in the order in which the values are described.
    ///
    /// # Errors
    /// A value is outside of its range, or none.
    pub fn samples(&self, data: &[Vec<u8>]) -> Result<Vec<Sample>, Fault> {
        let sample = |(index, value): &(usize, TableValue)| {
            let data = data.get(*index).map_or(&[][..], Vec::as_slice);
            value.sample(&self.requests[*index], data)
        };
        self.values.iter().map(sample).collect()
    }

    /// Units by quantity.
    pub(super) fn units(&self) -> Vec<(String, String)> {
        self.values.iter().filter_map(|(_, value)| value.scaled.unit()).collect()
    }
}
