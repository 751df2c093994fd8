//! Lines of JSON on a serial port, as an Arduino prints them: one object a line.
//!
//! An object's keys become quantities as they are met, without a tree in between; see [`DRIVER`]'s notes for the
//! rules. Limits hold for each line: [`MAX_LINE_BYTES`], [`MAX_DEPTH`], [`MAX_QUANTITIES`], [`MAX_NAME_BYTES`].

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::support::lines::{Lines, TooLong};
use super::support::{names, serial};
use super::{ByteDecoder, Connection, Decoded, Driver, Parsed, Source};
use crate::clock::BootTime;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Sample, Value};

/// Bytes of a line without its newline; a longer one is skipped with a fault.
pub const MAX_LINE_BYTES: usize = 4096;

/// Objects and arrays within one another, the line's own object included.
pub const MAX_DEPTH: usize = 8;

/// Values in one line, null excluded.
pub const MAX_QUANTITIES: usize = 128;

/// Bytes of a quantity's name, made of all keys that lead to it.
pub const MAX_NAME_BYTES: usize = 128;

/// Characters of a bad line that its fault shows.
const EXCERPT: usize = 60;

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
    options: &[],
    quantities: &[],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = serial::SKETCH.parse(options)?;
    let decoder = Box::new(|| Box::new(SerialJson::new()) as Box<dyn ByteDecoder>);
    Some(Parsed { claims: serial::claims(&settings), source: Source::Serial { settings, decoder } })
}

/// The decoder: bytes in, samples out.
#[derive(Debug)]
pub struct SerialJson {
    lines: Lines,
    lines_to_samples: LineReader,
}

impl SerialJson {
    /// A decoder for a port that was just opened.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::new(MAX_LINE_BYTES), lines_to_samples: LineReader::default() }
    }
}

impl Default for SerialJson {
    fn default() -> Self {
        Self::new()
    }
}

impl ByteDecoder for SerialJson {
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) {
        let reader = &mut self.lines_to_samples;
        self.lines.feed(bytes, |line| {
            if let Some(outcome) = reader.read(line) {
                out.push((at, outcome));
            }
        });
    }
}

#[derive(Debug, Default)]
struct LineReader {
    /// A line has ended since the port was opened, so that the next one begins at its beginning.
    in_step: bool,
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
            Ok(line) => self.samples(line).map_err(|error| bad_line(line, &error)),
            Err(TooLong) => Err(Fault::new(
                FaultCode::BadData,
                format!("a line is longer than {MAX_LINE_BYTES} bytes (is the baud rate right?); it was skipped"),
            )),
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

fn bad_line(line: &[u8], error: &serde_json::Error) -> Fault {
    // A line is one line: its number says nothing, and the column is in bytes.
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let text = String::from_utf8_lossy(line);
    let excerpt: String = text.trim().chars().take(EXCERPT).flat_map(char::escape_default).collect();
    let lower = text.to_ascii_lowercase();
    let hint = if lower.contains("nan") || lower.contains("inf") {
        "; `nan` and `inf` are not JSON: have the sketch print null"
    } else {
        ""
    };
    Fault::new(
        FaultCode::BadData,
        format!("a line is not one JSON object: {message} (byte {} of `{excerpt}`){hint}", error.column()),
    )
}

/// Turns what a JSON value holds into samples.
struct Flatten<'a> {
    name: &'a mut String,
    samples: &'a mut Vec<Sample>,
    /// Objects and arrays around the value, itself included where it is one.
    depth: usize,
}

impl Flatten<'_> {
    fn push<E: Error>(self, value: Value) -> Result<(), E> {
        if self.samples.len() == MAX_QUANTITIES {
            return Err(E::custom(format_args!("more than {MAX_QUANTITIES} values")));
        }
        let name = names::quantity(self.name);
        // Lines are short: to look through what is there is quicker than to keep a table.
        if self.samples.iter().any(|sample| *sample.quantity == *name) {
            return Err(E::custom(format_args!("two keys both become the quantity `{name}`")));
        }
        self.samples.push(Sample::new(name, value));
        Ok(())
    }

    /// Goes into a part of the value, whose name is `longer` than this one's.
    fn part(&mut self) -> Flatten<'_> {
        Flatten { name: self.name, samples: self.samples, depth: self.depth + 1 }
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!("nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Flatten<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Flatten<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, switch: bool) -> Result<(), E> {
        self.push(Value::Switch(switch))
    }

    #[expect(clippy::cast_precision_loss, reason = "a number is a double; beyond 2^53 the nearest one")]
    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "a number is a double; beyond 2^53 the nearest one")]
    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.visit_f64(number as f64)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        let value = Value::number(number).ok_or_else(|| E::custom("number out of range"))?;
        self.push(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.push(Value::Text(text.into()))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let base = self.name.len();
        while map.next_key_seed(Key(self.name))?.is_some() {
            map.next_value_seed(self.part())?;
            self.name.truncate(base);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let base = self.name.len();
        for index in 0_usize.. {
            append(self.name, &index.to_string())?;
            let more = items.next_element_seed(self.part())?.is_some();
            self.name.truncate(base);
            if !more {
                break;
            }
        }
        Ok(())
    }
}

/// Appends a key to the name of the value that it leads to.
struct Key<'a>(&'a mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        append(self.0, key)
    }
}

fn append<E: Error>(name: &mut String, key: &str) -> Result<(), E> {
    if !name.is_empty() {
        name.push('_');
    }
    if name.len() + key.len() > MAX_NAME_BYTES {
        return Err(E::custom(format_args!("a name of more than {MAX_NAME_BYTES} bytes")));
    }
    names::push_safe(name, key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A decoder that has seen the end of a line already.
    fn in_step() -> SerialJson {
        let mut decoder = SerialJson::new();
        decoder.feed(b"\n", BootTime(0), &mut Vec::new());
        decoder.feed(b"{}\n", BootTime(0), &mut Vec::new());
        decoder
    }

    fn decode(decoder: &mut SerialJson, chunks: &[&[u8]]) -> Vec<Result<Vec<Sample>, Fault>> {
        let mut out = Vec::new();
        for chunk in chunks {
            decoder.feed(chunk, BootTime(0), &mut out);
        }
        out.into_iter().map(|(_, outcome)| outcome).collect()
    }

    /// The samples of one line, each as a text.
    fn line(text: &str) -> Result<Vec<String>, String> {
        let outcomes = decode(&mut in_step(), &[text.as_bytes(), b"\r\n"]);
        let [outcome] = <[_; 1]>::try_from(outcomes).expect("one line gives one outcome");
        let show = |sample: Sample| match sample.value {
            Value::Number(number) => format!("{}={number}", sample.quantity),
            Value::Switch(switch) => format!("{}={switch}", sample.quantity),
            Value::Text(text) => format!("{}={text:?}", sample.quantity),
            Value::Bytes(_) => panic!("JSON has no bytes"),
        };
        outcome.map(|samples| samples.into_iter().map(show).collect()).map_err(|fault| {
            assert_eq!(fault.code, FaultCode::BadData);
            fault.detail
        })
    }

    #[test]
    fn an_object_becomes_quantities() {
        let text = r#"{"temp":21.5,"ok":true,"msg":"prêt","n":-3,"lumière":312,"none":null}"#;
        let samples = line(text).expect("samples");
        assert_eq!(samples, ["temp=21.5", "ok=true", "msg=\"prêt\"", "n=-3", "lumière=312"]);
    }

    #[test]
    fn nesting_becomes_longer_names() {
        let text = r#"{"air":{"temp":21,"co2":{"ppm":612}},"soil":[41,null,39,[1,{"x":2}]],"empty":{},"list":[]}"#;
        let samples = line(text).expect("samples");
        assert_eq!(samples, ["air_temp=21", "air_co2_ppm=612", "soil_0=41", "soil_2=39", "soil_3_0=1", "soil_3_1_x=2"]);
    }

    #[test]
    fn keys_become_names_that_topics_can_hold() {
        let text = r##"{"km/h":1,"a+b#":2,"set":3,"info":{"x":4},"":5,"$x":6,"tab\there":7,"é\/":8}"##;
        let samples = line(text).expect("samples");
        assert_eq!(samples, ["km_h=1", "a_b_=2", "set_=3", "info_x=4", "_=5", "_x=6", "tab_here=7", "é_=8"]);
    }

    #[test]
    fn numbers_keep_what_a_double_can_hold() {
        assert_eq!(line(r#"{"a":18446744073709551615}"#).expect("samples"), ["a=18446744073709552000"]);
        assert_eq!(line(r#"{"a":1e308,"b":-0.1}"#).expect("samples").len(), 2);
        let fault = line(r#"{"a":1e999}"#).expect_err("too large");
        assert!(fault.contains("number out of range"), "{fault}");
        let fault = line(r#"{"a":nan}"#).expect_err("not JSON");
        assert!(fault.contains("have the sketch print null"), "{fault}");
    }

    #[test]
    fn nothing_but_nulls_still_says_that_the_device_is_there() {
        assert_eq!(line(r#"{"a":null}"#).expect("samples"), <[&str; 0]>::default());
    }

    #[test]
    fn what_is_not_one_object_is_bad_data_and_says_where() {
        for (text, part) in [
            ("Hello, world", "expected value (byte 1 of `Hello, world`)"),
            ("21.5", "expected a JSON object"),
            ("[1,2]", "expected a JSON object"),
            (r#"{"a":1} {"b":2}"#, "trailing characters (byte 9"),
            (r#"{"a":1"#, "EOF"),
            (r#"{"a":{"b":1},"a_b":2}"#, "two keys both become the quantity `a_b`"),
            (r#"{"a":1,"a":2}"#, "two keys both become the quantity `a`"),
        ] {
            let fault = line(text).expect_err(text);
            assert!(fault.contains(part), "{text}: {fault}");
        }
        let fault = decode(&mut in_step(), &[b"{\"temp\xe9\":1}\n"]).remove(0).expect_err("Latin-1");
        assert!(fault.detail.is_ascii(), "{fault}");
    }

    #[test]
    fn limits_hold_and_the_link_goes_on() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(line(&deep).expect_err("too deep").contains("nested more than 8"), "{deep}");
        let many: Vec<String> = (0..=MAX_QUANTITIES).map(|n| format!("\"q{n}\":1")).collect();
        assert!(line(&format!("{{{}}}", many.join(","))).expect_err("too many").contains("more than 128 values"));
        assert_eq!(line(&format!("{{{}}}", many[1..].join(","))).expect("just enough").len(), MAX_QUANTITIES);
        let name = "x".repeat(MAX_NAME_BYTES);
        assert_eq!(line(&format!("{{\"{name}\":1}}")).expect("just short enough").len(), 1);
        assert!(line(&format!("{{\"{name}x\":1}}")).expect_err("too long").contains("name of more than 128"));

        let mut decoder = in_step();
        let long = vec![b'x'; 1_000_000];
        let outcomes = decode(&mut decoder, &[&long, b"\n{\"a\":1}\n"]);
        assert_eq!(outcomes.len(), 2);
        assert!(outcomes[0].as_ref().expect_err("too long").detail.contains("longer than 4096 bytes"));
        assert_eq!(outcomes[1].as_ref().expect("samples").len(), 1);
    }

    #[test]
    fn the_first_line_is_skipped_silently_only_if_it_cannot_be_read() {
        assert_eq!(decode(&mut SerialJson::new(), &[b"mp\":1}\n\xff\n"]).len(), 1, "the second one is told");
        assert_eq!(decode(&mut SerialJson::new(), &[b"{\"a\":1}\n"]).len(), 1);
        assert_eq!(decode(&mut SerialJson::new(), &[&[b'x'; 5000], b"\n"]).len(), 0);
    }

    #[test]
    fn a_lines_time_is_that_of_its_end() {
        let mut decoder = in_step();
        let mut out = Vec::new();
        decoder.feed(b"{\"a\"", BootTime(5), &mut out);
        decoder.feed(b":1}\n", BootTime(9), &mut out);
        assert_eq!(out[0].0, BootTime(9));
    }

    /// Bytes that are often JSON, or nearly.
    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            3 => prop::sample::select(vec![
                "{", "}", "[", "]", "\"", ":", ",", "\n", "\r\n", "null", "true", "1e308", "9e999", "-1", "nan",
                "\"a\":1", "\"é\":[1,2]", "{\"temp\":21.5}\n", "{\"a\":{\"b\":[null,true]}}\n", "\\u0000", "\u{0}",
            ])
            .prop_map(|text| text.as_bytes().to_vec()),
            1 => prop::collection::vec(any::<u8>(), 0..8),
        ];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_and_never_a_wrong_number(
            bytes in stream(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let whole = decode(&mut SerialJson::new(), &[&bytes]);
            let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            places.extend([0, bytes.len()]);
            places.sort_unstable();
            let chunks: Vec<&[u8]> = places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(&decode(&mut SerialJson::new(), &chunks), &whole);

            for sample in whole.into_iter().flatten().flatten() {
                if let Value::Number(number) = sample.value {
                    prop_assert!(number.get().is_finite());
                }
                prop_assert!(sample.quantity.len() <= MAX_NAME_BYTES + 1);
            }
        }

        #[test]
        fn what_serde_writes_is_read_back(
            values in prop::collection::btree_map("[a-zé ]{1,10}", -1.0e9..1.0e9_f64, 0..20),
        ) {
            let text = serde_json::to_vec(&values).expect("a map of numbers");
            let samples = decode(&mut in_step(), &[&text, b"\n"]).remove(0).expect("samples");
            prop_assert_eq!(samples.len(), values.len());
            for (sample, (name, number)) in samples.iter().zip(&values) {
                prop_assert_eq!(&*sample.quantity, name.as_str());
                let Value::Number(read) = sample.value else { panic!("a number") };
                // serde_json reads the last digit of long numbers to within one unit of a double.
                prop_assert!((read.get() - number).abs() <= number.abs() * f64::EPSILON);
            }
        }
    }
}
