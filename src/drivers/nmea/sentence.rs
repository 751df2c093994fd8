//! One sentence of NMEA 0183: its checksum, its fields, and what they say.
//!
//! Fields are as in NMEA 0183 (version 2.3 to 4.11), whose sentences the receivers' own manuals repeat, such as u-blox
//! M8 Receiver Description (UBX-13003221), section 31.2.

use crate::reading::{Fault, FaultCode};

/// Characters of a bad sentence that its fault shows.
const EXCERPT: usize = 82;

/// Kilometres per hour in a knot, which is 1852 m per hour.
const KNOT: f64 = 1.852;

/// What a sentence says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Sentence {
    /// GGA: position, quality of the fix.
    Gga { time: Option<TimeOfDay>, position: Option<Position>, height: Height, fixed: bool, fix: Fix },
    /// RMC: position, speed, course, date.
    Rmc { time: Option<TimeOfDay>, date: Option<Date>, position: Option<Position>, motion: Motion, fixed: bool },
    /// GSA: two or three dimensions, and their precision.
    Gsa { dimensions: Option<u8>, hdop: Option<f64> },
    /// VTG: speed and course.
    Vtg(Motion),
    /// ZDA: time and date.
    Zda { time: Option<TimeOfDay>, date: Option<Date> },
    /// What an instrument measures: quantity and value.
    Instrument(Vec<(&'static str, f64)>),
    /// Any other.
    Other,
}

/// Hours, minutes, seconds and milliseconds of UTC. A leap second is second 60.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeOfDay {
    pub(super) hour: u8,
    pub(super) minute: u8,
    pub(super) second: u8,
    pub(super) millisecond: u16,
}

/// A day of UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: u16,
    pub(super) month: u8,
    pub(super) day: u8,
}

/// Degrees north and east (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Position {
    pub(super) latitude: f64,
    pub(super) longitude: f64,
}

/// Metres: above mean sea level, and how far that is above the ellipsoid of WGS 84.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Height {
    pub(super) altitude: Option<f64>,
    pub(super) geoid: Option<f64>,
}

/// km/h and degrees from true north, over ground.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Motion {
    pub(super) speed: Option<f64>,
    pub(super) course: Option<f64>,
}

/// What a fix stands on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Fix {
    pub(super) satellites: Option<f64>,
    pub(super) hdop: Option<f64>,
}

/// Reads a line without its newline.
///
/// # Errors
/// The checksum does not match, or a field is none.
pub(super) fn read(line: &[u8]) -> Result<Sentence, Fault> {
    let text = std::str::from_utf8(line).unwrap_or("").trim_end_matches('\r');
    let bad = |code, what: String| {
        let excerpt: String = String::from_utf8_lossy(line).trim().chars().take(EXCERPT).collect();
        Fault::new(code, format!("{what} (`{}`)", excerpt.escape_default()))
    };
    // Sentences of AIS begin with an exclamation mark.
    let Some(body) = text.strip_prefix(['$', '!']) else {
        let what = "a line is not a sentence of NMEA 0183, which begins with `$` (is the baud rate right?)";
        return Err(bad(FaultCode::BadData, what.to_owned()));
    };
    let Some((body, checksum)) = body.rsplit_once('*') else {
        return Err(bad(FaultCode::BadData, "a sentence has no checksum at its end".to_owned()));
    };
    let sum = body.bytes().fold(0, |sum, byte| sum ^ byte);
    if checksum.len() != 2 || u8::from_str_radix(checksum, 16) != Ok(sum) {
        let what = format!("a sentence's checksum should be {sum:02X}: characters were lost or altered on the line");
        return Err(bad(FaultCode::Crc, what));
    }
    let mut fields = body.split(',');
    let address = fields.next().unwrap_or_default();
    // Two letters say who talks; a manufacturer's own sentence begins with P and is none of ours.
    let kind = if address.starts_with('P') { "" } else { address.get(2..).unwrap_or_default() };
    let fields = Fields(fields.collect());
    fields.sentence(kind).ok_or_else(|| bad(FaultCode::BadData, format!("a field of the sentence {kind} is wrong")))
}

struct Fields<'a>(Vec<&'a str>);

/// `None` outside: the field cannot be read; inside: it is empty.
type Field<T> = Option<Option<T>>;

impl<'a> Fields<'a> {
    /// The field of that number, counted from 1; empty where there is none.
    fn text(&self, number: usize) -> &'a str {
        self.0.get(number - 1).copied().unwrap_or_default()
    }

    fn sentence(&self, kind: &str) -> Option<Sentence> {
        Some(match kind {
            "GGA" => Sentence::Gga {
                time: self.time(1)?,
                position: self.position(2)?,
                height: Height { altitude: self.number(9)?, geoid: self.number(11)? },
                fixed: !matches!(self.text(6), "" | "0"),
                fix: Fix { satellites: self.number(7)?, hdop: self.number(8)? },
            },
            "RMC" => Sentence::Rmc {
                time: self.time(1)?,
                date: self.day_month_year(9)?,
                position: self.position(3)?,
                motion: Motion { speed: self.number(7)?.map(|knots| knots * KNOT), course: self.degrees(8)? },
                fixed: self.text(2) == "A",
            },
            "GSA" => Sentence::Gsa {
                dimensions: match self.text(2) {
                    "" => None,
                    "1" => Some(0),
                    "2" => Some(2),
                    "3" => Some(3),
                    _ => return None,
                },
                hdop: self.number(16)?,
            },
            "VTG" => Sentence::Vtg(self.motion()?),
            "ZDA" => Sentence::Zda { time: self.time(1)?, date: self.date()? },
            "MWV" => Sentence::Instrument(self.wind()?),
            "MTW" => measured("water_temperature", self.number(1)?),
            "HDT" => measured("heading", self.degrees(1)?),
            // The offset is that of the transducer from the surface (positive) or the keel (negative).
            "DPT" => measured("depth", self.number(1)?.zip(self.number(2)?.or(Some(0.0))).map(|(a, b)| a + b)),
            _ => Sentence::Other,
        })
    }

    fn number(&self, number: usize) -> Field<f64> {
        let text = self.text(number);
        if text.is_empty() {
            return Some(None);
        }
        let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+'));
        let value = text.parse::<f64>().ok().filter(|value| plain && value.is_finite())?;
        Some(Some(value))
    }

    fn degrees(&self, number: usize) -> Field<f64> {
        match self.number(number)? {
            Some(value) if !(0.0..=360.0).contains(&value) => None,
            degrees => Some(degrees),
        }
    }

    fn position(&self, first: usize) -> Field<Position> {
        let latitude = self.coordinate(first, 90.0, "N", "S")?;
        let longitude = self.coordinate(first + 2, 180.0, "E", "W")?;
        Some(latitude.zip(longitude).map(|(latitude, longitude)| Position { latitude, longitude }))
    }

    /// Degrees and minutes, `dddmm.mmmm`, and on which side of zero in the next field.
    fn coordinate(&self, number: usize, most: f64, plus: &str, minus: &str) -> Field<f64> {
        let Some(value) = self.number(number)? else { return Some(None) };
        let side = self.text(number + 1);
        let sign = match side {
            _ if side == plus => 1.0,
            _ if side == minus => -1.0,
            _ => return None,
        };
        let degrees = (value / 100.0).floor();
        let minutes = value - 100.0 * degrees;
        let whole = degrees + minutes / 60.0;
        (value >= 0.0 && minutes < 60.0 && whole <= most).then_some(Some(sign * whole))
    }

    /// `hhmmss` with or without a fraction.
    fn time(&self, number: usize) -> Field<TimeOfDay> {
        let text = self.text(number);
        if text.is_empty() {
            return Some(None);
        }
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if whole.len() != 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let [hour, minute, second] = pairs(whole)?;
        let digits: String = fraction.chars().chain("000".chars()).take(3).collect();
        let millisecond = digits.parse().ok()?;
        (hour < 24 && minute < 60 && second <= 60).then_some(Some(TimeOfDay { hour, minute, second, millisecond }))
    }

    /// `ddmmyy`. The years are those from 1990 on: there were no sentences before.
    fn day_month_year(&self, number: usize) -> Field<Date> {
        let text = self.text(number);
        if text.is_empty() {
            return Some(None);
        }
        let [day, month, year] = pairs(text)?;
        let year = u16::from(year) + if year < 90 { 2000 } else { 1900 };
        date(year, month, day).map(Some)
    }

    /// Day, month and year in fields 2 to 4 of ZDA.
    fn date(&self) -> Field<Date> {
        if self.text(4).is_empty() {
            return Some(None);
        }
        let [day, month] = [2, 3].map(|number| self.text(number).parse().ok());
        date(self.text(4).parse().ok()?, month?, day?).map(Some)
    }

    /// VTG's fields have letters behind them since version 2; before that they had none.
    fn motion(&self) -> Option<Motion> {
        let lettered = self.text(2) == "T";
        let [knots, kilometres] = if lettered { [5, 7] } else { [3, 4] }.map(|number| self.number(number));
        let speed = kilometres?.or(knots?.map(|knots| knots * KNOT));
        Some(Motion { speed, course: self.degrees(1)? })
    }

    /// Angle, relative or true, speed and its unit, status.
    fn wind(&self) -> Option<Vec<(&'static str, f64)>> {
        if self.text(5) != "A" {
            return Some(Vec::new());
        }
        let names = match self.text(2) {
            "R" => ["wind_angle", "wind_speed"],
            "T" => ["true_wind_angle", "true_wind_speed"],
            _ => return None,
        };
        let factor = match self.text(4) {
            "M" => 3.6,
            "K" => 1.0,
            "N" => KNOT,
            // Statute miles per hour.
            "S" => 1.609_344,
            _ => return None,
        };
        let values = [self.degrees(1)?, self.number(3)?.map(|speed| speed * factor)];
        Some(names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?))).collect())
    }
}

fn measured(quantity: &'static str, value: Option<f64>) -> Sentence {
    Sentence::Instrument(value.map(|value| (quantity, value)).into_iter().collect())
}

/// Three numbers of two digits.
fn pairs(text: &str) -> Option<[u8; 3]> {
    let pair = |start: usize| {
        let digits = text.get(start..start + 2)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    (text.len() == 6).then_some(())?;
    Some([pair(0)?, pair(2)?, pair(4)?])
}

fn date(year: u16, month: u8, day: u8) -> Option<Date> {
    let days = match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    ((1990..=9999).contains(&year) && (1..=days).contains(&day)).then_some(Date { year, month, day })
}
