//! GPS receivers and marine instruments that speak NMEA 0183 on a serial port.
//!
//! A receiver says what it knows of one moment in several sentences ([`sentence`]). Those of one moment, an *epoch*, make
//! one observation. Its end is not marked: it is where the time changes, or, once that has been seen, behind the sentence
//! after which the time changed before.

use super::support::guess;
use super::support::lines::{Lines, TooLong};
use super::support::serial;
use super::{ByteDecoder, Connection, Decoded, Driver, Parsed, QuantityInfo, Source};
use crate::clock::BootTime;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample, Value};

mod sentence;
#[cfg(test)]
mod tests;

use sentence::{Date, Fix, Height, Motion, Position, Sentence, TimeOfDay};

/// Bytes of a sentence. The standard says 82, and receivers' own sentences are longer.
pub const MAX_SENTENCE_BYTES: usize = 256;

pub(crate) static DRIVER: Driver = Driver {
    name: "nmea",
    summary: "A GPS receiver or marine instrument that speaks NMEA 0183 on a serial port",
    notes: "\
Receivers of GPS, Galileo, GLONASS and BeiDou: NEO-6M, NEO-M8N, L76, ATGM336H, USB mice such as the BU-353. Most speak
at 9600 baud, old ones and instruments at 4800.

- The sentences GGA, RMC, GSA, VTG and ZDA of one moment become one reading; its time is when the first of them was read.
  MWV (wind), MTW (water), DPT (depth) and HDT (heading) each become a reading by themselves. All others are skipped.
- While the receiver has no fix it gives `fix = false`, and neither position nor time, whatever it prints.
- A sentence whose checksum does not match gives the fault `crc`, and the link goes on; so does a line that is no sentence
  with `bad-data`. The first line after opening is often cut, and skipped silently.
- A receiver gives a position each second, and each differs a little: `change = { latitude = 0.0001, longitude = 0.0001 }`
  (11 m) and a `heartbeat` spare the link.",
    sample: r#"[[sensor]]
name = "gps"
driver = "nmea"
port = "/dev/serial/by-id/usb-u-blox_AG_u-blox_7-if00"
change = { latitude = 0.0001, longitude = 0.0001, altitude = 10 }
"#,
    connection: Connection::Serial(INFO),
    options: &[],
    quantities: &[
        number("latitude", Some("°"), "Degrees north (WGS 84), -90 to 90, to 7 decimals (about 1 cm)."),
        number("longitude", Some("°"), "Degrees east (WGS 84), -180 to 180."),
        number("altitude", Some("m"), "Above mean sea level."),
        number("geoid", Some("m"), "Mean sea level above the ellipsoid of WGS 84; below it in much of Asia and America."),
        number("speed", Some("km/h"), "Over ground."),
        number("course", Some("°"), "Over ground, from true north, 0 to 360; none while standing still."),
        number("satellites", None, "How many the fix stands on."),
        number("hdop", None, "Horizontal dilution of precision: 1 is good, 10 is poor."),
        QuantityInfo { name: "fix", unit: None, kind: Kind::Switch, help: "Does the receiver know where it is?" },
        number("dimensions", None, "Of the fix: 0, 2 or 3."),
        QuantityInfo {
            name: "utc",
            unit: None,
            kind: Kind::Text,
            help: "The time of the fix as the receiver says, such as `2026-11-21T10:15:30.000Z`.",
        },
        number("wind_angle", Some("°"), "Where the wind comes from as felt on board, from the bow, 0 to 360."),
        number("wind_speed", Some("km/h"), "As felt on board."),
        number("true_wind_angle", Some("°"), "As `wind_angle`, without the vessel's own motion."),
        number("true_wind_speed", Some("km/h"), "As `wind_speed`, without the vessel's own motion."),
        number("water_temperature", Some("°C"), "Of the water around."),
        number("depth", Some("m"), "Of the water, from the surface or the keel, as the instrument is set up."),
        number("heading", Some("°"), "Where the bow points, from true north, 0 to 360."),
    ],
    parse,
};

const fn number(name: &'static str, unit: Option<&'static str>, help: &'static str) -> QuantityInfo {
    QuantityInfo { name, unit, kind: Kind::Number, help }
}

/// What modules come with; the standard's 4800 is for old ones.
const INFO: serial::Info = serial::Info { baud: 9_600 };

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let settings = INFO.parse(options)?;
    let decoder = Box::new(|| Box::new(Nmea::new()) as Box<dyn ByteDecoder>);
    Some(Parsed { claims: serial::claims(&settings), source: Source::Serial { settings, decoder } })
}

/// The decoder: bytes in, samples out.
#[derive(Debug)]
pub struct Nmea {
    lines: Lines,
    epochs: Epochs,
    /// A line has ended since the port was opened, so that the next one begins at its beginning.
    in_step: bool,
}

impl Nmea {
    /// A decoder for a port that was just opened.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: Lines::new(MAX_SENTENCE_BYTES), epochs: Epochs::default(), in_step: false }
    }
}

impl Default for Nmea {
    fn default() -> Self {
        Self::new()
    }
}

impl ByteDecoder for Nmea {
    fn feed(&mut self, bytes: &[u8], at: BootTime, out: &mut Vec<Decoded>) {
        let Self { lines, epochs, in_step } = self;
        lines.feed(bytes, |line| {
            let in_step = std::mem::replace(in_step, true);
            match line.map(sentence::read) {
                Ok(_) if line.is_ok_and(|line| line.iter().all(u8::is_ascii_whitespace)) => {}
                Ok(Ok(sentence)) => epochs.take(&sentence, at, out),
                Ok(Err(_)) | Err(TooLong) if !in_step => {}
                Ok(Err(mut fault)) => {
                    if fault.code == FaultCode::BadData {
                        fault.detail.push_str(guess::advice(line.unwrap_or_default(), DRIVER.name));
                    }
                    epochs.spoilt = true;
                    out.push((at, Err(fault)));
                }
                Err(TooLong) => {
                    epochs.spoilt = true;
                    let detail = format!(
                        "a line is longer than {MAX_SENTENCE_BYTES} bytes (is the baud rate right?); it was skipped"
                    );
                    out.push((at, Err(Fault::new(FaultCode::BadData, detail))));
                }
            }
        });
    }

    fn unfinished(&self) -> usize {
        self.lines.unfinished()
    }
}

/// The sentences of a receiver that may come once in an epoch, but GSA: once for each system of satellites.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Gga,
    Rmc,
    Vtg,
    Zda,
    /// Which one.
    Gsa(u8),
}

/// Puts the sentences of one moment together.
#[derive(Debug, Default)]
struct Epochs {
    now: Epoch,
    /// The sentence after which the time changed last: the next epoch is whole when it has come.
    last: Option<Place>,
    /// The epoch has been given; what of it still comes shows that another sentence is its last.
    given: bool,
    /// A line could not be read since the last sentence with a time: one that began an epoch, or ended one.
    spoilt: bool,
}

/// What is known of one moment.
#[derive(Debug, Default)]
struct Epoch {
    at: Option<BootTime>,
    places: Vec<Place>,
    time: Option<TimeOfDay>,
    date: Option<Date>,
    position: Option<Position>,
    height: Height,
    motion: Motion,
    fix: Fix,
    fixed: Option<bool>,
    dimensions: Option<u8>,
}

impl Epochs {
    fn take(&mut self, sentence: &Sentence, at: BootTime, out: &mut Vec<Decoded>) {
        let (place, time) = match sentence {
            Sentence::Gga { time, .. } => (Place::Gga, *time),
            Sentence::Rmc { time, .. } => (Place::Rmc, *time),
            Sentence::Zda { time, .. } => (Place::Zda, *time),
            Sentence::Vtg(_) => (Place::Vtg, None),
            Sentence::Gsa { .. } => {
                let before = self.now.places.iter().filter(|place| matches!(place, Place::Gsa(_))).count();
                (Place::Gsa(u8::try_from(before).unwrap_or(u8::MAX)), None)
            }
            Sentence::Instrument(values) => {
                let samples: Vec<Sample> = values.iter().filter_map(|(name, value)| sample(name, *value, 2)).collect();
                if !samples.is_empty() {
                    out.push((at, Ok(samples)));
                }
                return;
            }
            Sentence::Other => return,
        };
        let another_time = time.is_some_and(|time| self.now.time.is_some_and(|now| now != time));
        // What came since a line that could not be read may be of the moment before.
        let unsure = self.spoilt && time.is_some() && self.now.time.is_none();
        if another_time || unsure || self.now.places.contains(&place) || self.now.places.len() == MAX_PLACES {
            if !self.spoilt {
                self.last = self.now.places.last().copied();
            }
            self.give(out);
            self.now = Epoch::default();
            self.given = false;
        }
        self.spoilt &= time.is_none();
        self.now.at.get_or_insert(at);
        self.now.places.push(place);
        self.now.add(sentence);
        if self.last == Some(place) {
            self.give(out);
            self.given = true;
        }
    }

    /// Gives the epoch, unless it was given before.
    fn give(&mut self, out: &mut Vec<Decoded>) {
        if let (Some(at), false) = (self.now.at, self.given) {
            out.push((at, Ok(self.now.samples())));
        }
    }
}

/// Sentences of an epoch: one of each kind, and more systems of satellites than there are.
const MAX_PLACES: usize = 16;

impl Epoch {
    fn add(&mut self, sentence: &Sentence) {
        match *sentence {
            Sentence::Gga { time, position, height, fixed, fix } => {
                self.time = self.time.or(time);
                self.position = position.or(self.position);
                self.height = height;
                self.fix = Fix { satellites: fix.satellites, hdop: fix.hdop.or(self.fix.hdop) };
                self.fixed(fixed);
            }
            Sentence::Rmc { time, date, position, motion, fixed } => {
                self.time = self.time.or(time);
                self.date = self.date.or(date);
                self.position = self.position.or(position);
                self.moves(motion);
                self.fixed(fixed);
            }
            Sentence::Gsa { dimensions, hdop } => {
                self.dimensions = self.dimensions.max(dimensions);
                self.fix.hdop = self.fix.hdop.or(hdop);
            }
            Sentence::Vtg(motion) => self.moves(motion),
            Sentence::Zda { time, date } => {
                self.time = self.time.or(time);
                // It has all digits of the year.
                self.date = date.or(self.date);
            }
            Sentence::Instrument(_) | Sentence::Other => {}
        }
    }

    /// There is a fix only if all sentences say so.
    fn fixed(&mut self, fixed: bool) {
        self.fixed = Some(fixed && self.fixed.unwrap_or(true));
    }

    fn moves(&mut self, motion: Motion) {
        self.motion.speed = self.motion.speed.or(motion.speed);
        self.motion.course = self.motion.course.or(motion.course);
    }

    fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut number = |name, value: Option<f64>, decimals| {
            samples.extend(value.and_then(|value| sample(name, value, decimals)));
        };
        let fixed = self.fixed != Some(false);
        if fixed {
            number("latitude", self.position.map(|position| position.latitude), 7);
            number("longitude", self.position.map(|position| position.longitude), 7);
            number("altitude", self.height.altitude, 2);
            number("geoid", self.height.geoid, 2);
            number("speed", self.motion.speed, 2);
            number("course", self.motion.course, 2);
            // Without a fix it is a filler such as 99.99.
            number("hdop", self.fix.hdop, 2);
        }
        number("satellites", self.fix.satellites, 0);
        number("dimensions", self.dimensions.map(f64::from), 0);
        samples.extend(self.fixed.map(|fixed| Sample::new("fix", Value::Switch(fixed))));
        // Without a fix it is what the receiver reckons, perhaps since it was switched on years ago.
        if let (true, Some(date), Some(time)) = (fixed, self.date, self.time) {
            let Date { year, month, day } = date;
            let TimeOfDay { hour, minute, second, millisecond } = time;
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z");
            samples.push(Sample::new("utc", Value::Text(text.into())));
        }
        samples
    }
}

/// A rounded number.
fn sample(name: &'static str, value: f64, decimals: i32) -> Option<Sample> {
    let power = 10_f64.powi(decimals);
    Some(Sample::new(name, Value::number((value * power).round() / power + 0.0)?))
}
