//! What was measured: values, quantities and where a reading comes from.
//!
//! Everything else in the crate speaks in these types; this module imports nothing of ours.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number that can be published: never NaN, never infinite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Finite(f64);

impl Finite {
    /// `None` for NaN and the infinities: those are faults of a sensor, not values.
    #[must_use]
    pub fn new(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self(number))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl TryFrom<f64> for Finite {
    type Error = &'static str;

    fn try_from(number: f64) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("not a finite number")
    }
}

impl From<bool> for Finite {
    fn from(on: bool) -> Self {
        Self(f64::from(u8::from(on)))
    }
}

impl From<Finite> for f64 {
    fn from(number: Finite) -> Self {
        number.0
    }
}

impl fmt::Display for Finite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// A finite number, in the unit of its quantity.
    Number(Finite),
    /// On or off.
    Switch(bool),
    /// A text as the sensor gave it.
    Text(Box<str>),
    /// Raw bytes, such as a picture.
    Bytes(Box<[u8]>),
}

impl Value {
    /// A number, or `None` where it is NaN or infinite.
    #[must_use]
    pub fn number(number: f64) -> Option<Self> {
        Finite::new(number).map(Self::Number)
    }
}

/// Values of one observation: index into the quantities of the sensor's [`Descriptor`], and the value.
pub type Values = Vec<(u16, Value)>;

/// How the values of a quantity are to be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A measured number: filters and calibration apply.
    Number,
    /// On or off.
    Switch,
    /// Free text.
    Text,
    /// Something that happened: never filtered, retained or repeated.
    Event,
    /// Raw bytes.
    Bytes,
}

/// A quantity of a sensor as it is published: its name, unit and kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantity {
    /// Name in topics and payloads, for example `temperature`.
    pub name: Box<str>,
    /// Unit as it is published, for example `°C`.
    pub unit: Option<Box<str>>,
    /// How its values are treated.
    pub kind: Kind,
    /// A topic given outright in the configuration, instead of the template.
    pub topic: Option<Box<str>>,
    /// What its bytes are, where that is known: see [`is_content_type`]. Whoever stores descriptors stores it beside
    /// them, so that what was stored before there was such a thing can still be read.
    #[serde(skip)]
    pub content_type: Option<Box<str>>,
}

impl Quantity {
    /// One that goes where the template says, and whose bytes, if it has such, are of a type that nobody told.
    #[must_use]
    pub fn new(name: &str, unit: Option<&str>, kind: Kind) -> Self {
        Self { name: name.into(), unit: unit.map(Into::into), kind, topic: None, content_type: None }
    }
}

/// The most bytes of one value. With what stands around it, it fits into a frame of the outbox, and in base64 into the
/// largest packet that brokers take as they come (1 MiB).
pub const MAX_BYTES: usize = 512_000;

/// Bytes of a content type: so many, with the other properties of a PUBLISH, have a length of one byte.
pub const MAX_CONTENT_TYPE: usize = 78;

/// Is that a content type, such as `image/jpeg` or `text/plain; charset=utf-8`? (RFC 9110, 8.3: type and subtype are
/// tokens; parameters are not looked into.)
#[must_use]
pub fn is_content_type(text: &str) -> bool {
    let token = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.bytes().all(plain)
    };
    let (essence, parameters) = text.split_once(';').unwrap_or((text, ""));
    let parts = essence.trim_end().split_once('/');
    text.len() <= MAX_CONTENT_TYPE
        && parameters.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && parts.is_some_and(|(main, sub)| token(main) && token(sub))
}

/// A place on Earth (WGS 84).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// Degrees north, -90 to 90.
    pub latitude: Finite,
    /// Degrees east, -180 to 180.
    pub longitude: Finite,
    /// Metres above the ellipsoid.
    pub altitude: Option<Finite>,
}

/// Where something was measured, as a GPS receiver said at about that time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fix {
    /// The place.
    pub location: Location,
    /// How far from there it may have been, in metres: about two of three fixes are within it.
    pub accuracy: Option<Finite>,
    /// Milliseconds between the fix and the measurement, whichever was first.
    pub age: u32,
}

/// Everything about a sensor that a reading needs to be understood, as it was when it was measured.
///
/// Records refer to a descriptor, so that renaming a room does not move the backlog measured in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Descriptor {
    /// `gateway.name`.
    pub gateway: Box<str>,
    /// `gateway.site`.
    pub site: Option<Box<str>>,
    /// The room's topic-safe name.
    pub room: Option<Box<str>>,
    /// The room's name for people.
    pub room_label: Option<Box<str>>,
    /// The sensor's topic-safe name.
    pub sensor: Box<str>,
    /// The sensor's name for people.
    pub label: Option<Box<str>>,
    /// Where the sensor is: its own place, else its room's, else the gateway's.
    pub location: Option<Location>,
    /// Free tags, sorted by name.
    pub tags: Vec<(Box<str>, Box<str>)>,
    /// The quantities seen so far; values refer to them by index.
    pub quantities: Vec<Quantity>,
}

/// Index of a sensor in the running configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SensorIndex(pub u32);

/// A quantity's name and value, as a driver gives it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The driver's name for the quantity; the configuration may rename it.
    pub quantity: std::borrow::Cow<'static, str>,
    /// Its value.
    pub value: Value,
    /// Its unit, where the driver learns it from the device and could not declare it.
    pub unit: Option<std::borrow::Cow<'static, str>>,
    /// What bytes are, where that is known: see [`is_content_type`].
    pub content_type: Option<Box<str>>,
    /// The driver's own knowledge of the kind, where the value alone does not tell (events).
    pub event: bool,
}

impl Sample {
    /// A value of a quantity that persists until it changes.
    pub fn new(quantity: impl Into<std::borrow::Cow<'static, str>>, value: Value) -> Self {
        Self { quantity: quantity.into(), value, unit: None, content_type: None, event: false }
    }

    /// Something that happened.
    pub fn event(quantity: impl Into<std::borrow::Cow<'static, str>>, value: Value) -> Self {
        Self { quantity: quantity.into(), value, unit: None, content_type: None, event: true }
    }

    /// The same, with a unit of the device's own.
    #[must_use]
    pub fn with_unit(self, unit: Option<&'static str>) -> Self {
        Self { unit: unit.map(Into::into), ..self }
    }
}

/// The quantity of the bytes that a sensor's serial port has lost, in total since the start.
pub const OVERRUNS: &str = "overruns";

/// The quantity of the lines, frames and answers on a sensor's link that could not be read, in total since the start.
pub const GARBLED: &str = "garbled";

/// Why a sensor gave no value. The code is what `…/availability` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultCode {
    /// The device or its file is not there.
    Missing,
    /// The operating system refuses access.
    Permission,
    /// Somebody else uses the line, port or address.
    Busy,
    /// The chip that answers is another one.
    WrongChip,
    /// The bus reported an error (no acknowledge, arbitration lost and the like).
    Bus,
    /// Another sensor's transfer holds the bus and does not return.
    BusHang,
    /// A checksum does not match.
    Crc,
    /// What came cannot be understood.
    BadData,
    /// The value is one that the sensor gives when it is broken, or lies outside of what it can measure.
    Impossible,
    /// The values have stood exactly still for longer than the configuration allows.
    Frozen,
    /// A quantity that is to come at least every so often has not come for too long.
    Silent,
    /// The sensor did not answer within its deadline; its call may still be running.
    Stuck,
    /// Its supply is being switched off and on.
    PowerCycle,
    /// Somebody has paused it, to use its device otherwise.
    Paused,
    /// The link was closed (a USB cable was pulled).
    Unplugged,
    /// The sensor's program ended or could not be started.
    Ended,
    /// The device or program says itself that it has no value.
    Reported,
    /// The driver panicked: a bug of ours.
    Panic,
    /// Anything else the operating system reports.
    Io,
}

impl FaultCode {
    /// Is it the fault of one line, frame or answer, so that the next one may well be good?
    #[must_use]
    pub fn is_garbled(self) -> bool {
        matches!(self, Self::BadData | Self::Crc)
    }

    /// The code as published.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Permission => "permission",
            Self::Busy => "busy",
            Self::WrongChip => "wrong-chip",
            Self::Bus => "bus",
            Self::BusHang => "bus-hang",
            Self::Crc => "crc",
            Self::BadData => "bad-data",
            Self::Impossible => "impossible",
            Self::Frozen => "frozen",
            Self::Silent => "silent",
            Self::Stuck => "stuck",
            Self::PowerCycle => "power-cycle",
            Self::Paused => "paused",
            Self::Unplugged => "unplugged",
            Self::Ended => "ended",
            Self::Reported => "reported",
            Self::Panic => "panic",
            Self::Io => "io",
        }
    }
}

/// A sensor's failure to give a value: a code for machines, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// What kind of failure.
    pub code: FaultCode,
    /// What happened, where (device, register), and what to do about it.
    pub detail: String,
}

impl Fault {
    /// A fault with its explanation.
    pub fn new(code: FaultCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into() }
    }
}

/// What one look at a sensor gave: its samples, or the reason why there are none.
#[derive(Clone, Debug)]
pub struct Observation {
    /// Which sensor.
    pub sensor: SensorIndex,
    /// When, on the boot clock.
    pub at: crate::clock::BootTime,
    /// Absence is data: a fault is an observation too.
    pub outcome: Result<Vec<Sample>, Fault>,
    /// What the sensor is to keep from now on; it lasts as surely as the samples.
    pub keep: Option<Box<[u8]>>,
}
