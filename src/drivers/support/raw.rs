//! A chip that is described by numbers from its data sheet: what `i2c-raw` and `spi-raw` have in common.
//!
//! A *question* is the bytes that are sent; the answer's bytes hold *fields*. All fields with the same question are read
//! in one transaction, so that values that belong together are of one measurement.

use std::time::Duration;

use super::crc8::Crc8;
use super::scaled::{self, Named, Scaled};
use crate::options::Options;
use crate::reading::{Fault, Sample};

mod described;

pub(crate) use described::{Ask, source};

/// Most messages at the start.
const MAX_MESSAGES: usize = 64;
/// Longest message or answer, in bytes.
const MAX_BYTES: usize = 64;
/// Longest wait for a measurement.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// What is sent to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    /// The bytes sent, a register's number or a command; none for a plain read.
    pub(crate) send: Vec<u8>,
    /// How many bytes come back.
    pub(crate) length: usize,
}

/// A whole number somewhere in an answer.
#[derive(Clone, Debug, PartialEq)]
struct Field {
    /// Where it begins in the answer, and its bytes, 1 to 4.
    at: usize,
    length: usize,
    little_endian: bool,
    /// Bits of it that count: the lowest, and how many.
    low: u32,
    width: u32,
    signed: bool,
}

impl Field {
    /// The number. The answer holds the field's bytes: questions are made as long as their fields need.
    fn number(&self, answer: &[u8]) -> i64 {
        let bytes = answer.iter().skip(self.at).take(self.length);
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        let number = if self.little_endian { bytes.rev().fold(0, join) } else { bytes.fold(0, join) };
        let unused = 64 - self.width;
        let aligned = (number >> self.low) << unused;
        if self.signed { aligned.cast_signed() >> unused } else { (aligned >> unused).cast_signed() }
    }
}

/// A value that the chip gives.
#[derive(Clone, Debug)]
struct RawValue {
    scaled: Scaled,
    /// Index of its question.
    question: usize,
    field: Field,
}

/// The check that the right chip answers.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) question: Question,
    field: Field,
    value: i64,
}

impl Identity {
    /// What is wrong with an answer, if it is another chip's.
    pub(crate) fn mismatch(&self, answer: &[u8]) -> Option<String> {
        let found = self.field.number(answer);
        (found != self.value).then(|| format!("its identity is {found:#x}, not {:#x}", self.value))
    }
}

/// A checksum behind each `every` bytes of an answer.
#[derive(Clone, Copy, Debug)]
struct Checked {
    crc: Crc8,
    /// `None` for one checksum at the answer's end.
    every: Option<usize>,
}

/// A chip's description.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// Messages at the start, in this order.
    pub(crate) init: Vec<Vec<u8>>,
    pub(crate) identity: Option<Identity>,
    /// Sent before each sample; empty for none.
    pub(crate) measure: Vec<u8>,
    /// After `measure`.
    pub(crate) wait: Duration,
    pub(crate) questions: Vec<Question>,
    checked: Option<Checked>,
    values: Vec<RawValue>,
}

/// On which kind of bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bus {
    /// `register` is a byte that is written before the read.
    I2c,
    /// The answer comes while the question goes out, so it has the question's length.
    Spi,
}

/// Reads the description; problems are noted there.
pub(crate) fn parse(options: &Options<'_>, bus: Bus) -> Option<Description> {
    let before = options.problems().len();
    let init = messages(options);
    let measure = bytes(options, "measure").unwrap_or_default();
    let wait = options.optional_in("wait", Duration::ZERO..=MAX_WAIT).unwrap_or_default();
    let checked = options.section("crc").map(|crc| checked(&crc));
    let mut questions = Vec::new();
    let identity = options.section("identity").and_then(|section| identity(&section, bus, checked));
    let values = values(options, bus, checked, &mut questions);
    if options.problems().len() > before {
        return None;
    }
    for question in &mut questions {
        complete(question, bus, checked);
    }
    Some(Description { init, identity, measure, wait, questions, checked, values: values? })
}

/// Makes the answer long enough for its checksums (I2C), or for the question (SPI).
fn complete(question: &mut Question, bus: Bus, checked: Option<Checked>) {
    if bus == Bus::Spi {
        question.length = question.length.max(question.send.len());
    } else if let Some(Checked { every, .. }) = checked {
        match every {
            None => question.length += 1,
            Some(every) => question.length = question.length.next_multiple_of(every + 1),
        }
    }
}

/// A list of bytes.
fn bytes(options: &Options<'_>, key: &'static str) -> Option<Vec<u8>> {
    let bytes = options.optional::<Vec<u8>>(key)?;
    if bytes.is_empty() || bytes.len() > MAX_BYTES {
        let message = format!("`{key}` of {} has {} bytes", options.what(), bytes.len());
        options.problem(key, message, Some(format!("expected 1 to {MAX_BYTES} bytes, such as [0xf4, 0x25]")));
        return None;
    }
    Some(bytes)
}

fn messages(options: &Options<'_>) -> Vec<Vec<u8>> {
    let init = options.optional::<Vec<Vec<u8>>>("init").unwrap_or_default();
    if init.len() > MAX_MESSAGES || init.iter().any(|message| message.is_empty() || message.len() > MAX_BYTES) {
        let message =
            format!("`init` of {} has too many messages, or one without bytes or of too many", options.what());
        let expected = format!("expected up to {MAX_MESSAGES} lists of 1 to {MAX_BYTES} bytes, such as [[0x01, 0x60]]");
        options.problem("init", message, Some(expected));
    }
    init
}

fn checked(options: &Options<'_>) -> Checked {
    let polynomial = options.required::<u8>("polynomial").unwrap_or_default();
    let init = options.optional::<u8>("init").unwrap_or_default();
    let every = options.optional_in::<u64>("every", 1..=32).and_then(|every| usize::try_from(every).ok());
    options.finish();
    Checked { crc: Crc8 { polynomial, init }, every }
}

fn identity(options: &Options<'_>, bus: Bus, checked: Option<Checked>) -> Option<Identity> {
    let send = question(options, bus);
    let field = field(options);
    let value = options.required::<i64>("value");
    options.finish();
    let (send, field) = (send?, field?);
    let mut question = Question { send, length: field.at + field.length };
    fits(options, &question, bus)?;
    complete(&mut question, bus, checked);
    Some(Identity { question, field, value: value? })
}

/// `register` or `send`.
fn question(options: &Options<'_>, bus: Bus) -> Option<Vec<u8>> {
    let send = bytes(options, "send");
    match bus {
        Bus::I2c => {
            let register = options.optional::<u8>("register");
            match (options.raw("register").is_some(), options.raw("send").is_some()) {
                (true, true) => {
                    let message = format!("{} has both `register` and `send`", options.what());
                    options.problem("send", message, Some("expected only one of them".to_owned()));
                    None
                }
                (true, false) => register.map(|register| vec![register]),
                (false, true) => send,
                (false, false) => Some(Vec::new()),
            }
        }
        Bus::Spi if options.raw("send").is_none() => options.required::<Vec<u8>>("send"),
        Bus::Spi => send,
    }
}

/// On SPI, as much comes back as is sent; on both, an answer has a bound.
fn fits(options: &Options<'_>, question: &Question, bus: Bus) -> Option<()> {
    let end = question.length;
    if bus == Bus::Spi && end > question.send.len() {
        let message = format!(
            "{} ends with byte {} of the answer, but `send` has only {} bytes, and as many come back",
            options.what(),
            end - 1,
            question.send.len()
        );
        options.problem("send", message, Some("expected more bytes: zeros while the chip answers".to_owned()));
        return None;
    }
    Some(())
}

fn field(options: &Options<'_>) -> Option<Field> {
    let before = options.problems().len();
    let size = |key: &'static str, range, default: u64| {
        let number = options.optional_in(key, range).unwrap_or(default);
        usize::try_from(number).unwrap_or_default()
    };
    let at = size("at", 0..=31, 0);
    let length = size("length", 1..=4, 1);
    let little_endian = options.optional_word("order", &[("big", false), ("little", true)]).unwrap_or(false);
    let signed = options.optional::<bool>("signed").unwrap_or(false);
    let top = u8::try_from(length * 8 - 1).unwrap_or(u8::MAX);
    let bits = options.optional::<Vec<u8>>("bits").unwrap_or_else(|| vec![top, 0]);
    let (low, width) = match *bits.as_slice() {
        [high, low] if high >= low && high <= top => (u32::from(low), u32::from(high - low) + 1),
        _ => {
            let message = format!("`bits` of {} do not fit a number of {length} bytes", options.what());
            let expected = format!("expected the highest and the lowest bit, from {top} to 0: [{top}, 4]");
            options.problem("bits", message, Some(expected));
            return None;
        }
    };
    (options.problems().len() == before).then_some(Field { at, length, little_endian, low, width, signed })
}

fn values(
    options: &Options<'_>,
    bus: Bus,
    checked: Option<Checked>,
    questions: &mut Vec<Question>,
) -> Option<Vec<RawValue>> {
    scaled::tables(options, |table, names| value(table, bus, checked, questions, names))
}

fn value(
    options: &Options<'_>,
    bus: Bus,
    checked: Option<Checked>,
    questions: &mut Vec<Question>,
    names: &[&str],
) -> Option<RawValue> {
    let scaled = Scaled::parse(options, names);
    let send = question(options, bus);
    let field = field(options);
    options.finish();
    let (scaled, send, field) = (scaled?, send?, field?);
    let end = field.at + field.length;
    fits(options, &Question { send: send.clone(), length: end }, bus)?;
    on_data(options, &field, checked)?;
    let question = questions.iter().position(|question| question.send == send).unwrap_or_else(|| {
        questions.push(Question { send, length: 0 });
        questions.len() - 1
    });
    questions[question].length = questions[question].length.max(end);
    Some(RawValue { scaled, question, field })
}

/// A field must not lie on a checksum.
fn on_data(options: &Options<'_>, field: &Field, checked: Option<Checked>) -> Option<()> {
    let Some(Checked { every: Some(every), .. }) = checked else { return Some(()) };
    let crc = (field.at..field.at + field.length).find(|byte| byte % (every + 1) == every);
    if let Some(byte) = crc {
        let message = format!("{} takes in byte {byte} of the answer, which is a checksum", options.what());
        let expected = "expected positions that count the checksums' bytes, too, as the data sheet draws the answer";
        options.problem("at", message, Some(expected.to_owned()));
        return None;
    }
    Some(())
}

impl Description {
    /// Units by quantity.
    pub(crate) fn units(&self) -> Vec<(String, String)> {
        self.values.iter().filter_map(|value| value.scaled.unit()).collect()
    }

    /// Sees that the checksums of an answer are right.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub(crate) fn check(&self, answer: &[u8]) -> Result<(), String> {
        let Some(Checked { crc, every }) = self.checked else { return Ok(()) };
        let block = every.map_or(answer.len(), |every| every + 1).max(1);
        for (number, bytes) in answer.chunks(block).enumerate() {
            let Some((found, covered)) = bytes.split_last() else { continue };
            let expected = crc.of(covered);
            if *found != expected {
                let at = number * block + covered.len();
                return Err(format!(
                    "byte {at} of its answer should be the checksum {expected:#04x}, but is {found:#04x}"
                ));
            }
        }
        Ok(())
    }

    /// The samples of the answers, which are in the order of the questions.
    ///
    /// # Errors
    /// A value is outside of its range.
    pub(crate) fn samples(&self, answers: &[Vec<u8>]) -> Result<Vec<Sample>, Fault> {
        let answer = |question: usize| answers.get(question).map_or(&[][..], Vec::as_slice);
        self.values.iter().map(|value| value.sample(answer(value.question))).collect()
    }
}

impl RawValue {
    fn sample(&self, answer: &[u8]) -> Result<Sample, Fault> {
        #[expect(clippy::cast_precision_loss, reason = "a field has 32 bits at most")]
        let raw = self.field.number(answer) as f64;
        self.scaled.sample(raw)
    }
}

impl Named for RawValue {
    fn name(&self) -> &str {
        &self.scaled.quantity
    }
}

#[cfg(test)]
mod tests;
