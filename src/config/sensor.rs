//! `[room.NAME]` and `[[sensor]]`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::filters::{self, Filters, KnownQuantity};
use super::place::{self, Follows, Place, Receiver};
use super::quantities::{change, check_published, published, quantities};
use super::{Gateway, LanRoom, Written, hardware, read};
use crate::drivers::{COMMON_KEYS, Claim, Driver, Source};
use crate::hardware::PowerSettings;
use crate::options::{Options, Problem, did_you_mean};
use crate::pipeline::{Origin, PipelineConfig};
use crate::reading::{Descriptor, Kind, Location};

/// `every` where it is not given.
const DEFAULT_EVERY: Duration = Duration::from_secs(30);

/// `deadline` where it is not given: this, or twice the longest that the driver says it takes.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

/// `[[sensor]]`
#[derive(Debug)]
pub struct SensorConfig {
    /// Topic-safe, unique name.
    pub name: String,
    /// Name for people.
    pub label: Option<String>,
    /// Its room.
    pub room: Option<String>,
    /// The room's name for people.
    pub room_label: Option<String>,
    /// Its own place, else its room's, else the gateway's.
    pub location: Option<Location>,
    /// The receiver that says where it is, in place of that.
    pub follows: Option<Follows>,
    /// Free tags, sorted by name.
    pub tags: Vec<(String, String)>,
    /// The driver.
    pub driver: &'static Driver,
    /// What the driver made of its keys.
    pub source: Source,
    /// The keys themselves.
    pub own_keys: Written,
    /// Between two samples of a poller; between two looks at a line's level.
    pub every: Duration,
    /// At multiples of that on the wall clock.
    pub align: bool,
    /// How long one sample may take before the sensor counts as stuck.
    pub deadline: Duration,
    /// How its supply is switched, if it is.
    pub power: Option<PowerSettings>,
    /// What is filtered and how; shared with the pipeline.
    pub pipeline: Arc<PipelineConfig>,
}

impl SensorConfig {
    /// Its quantities, as far as they are known before it is read.
    #[must_use]
    pub fn known_quantities(&self) -> Vec<KnownQuantity> {
        filters::known_quantities(self.driver, &self.pipeline)
    }

    /// The sensor as readings will describe it, with the quantities that are known before it is read.
    #[must_use]
    pub fn known_descriptor(&self, gateway: &Gateway) -> Descriptor {
        let mut descriptor = self.descriptor(gateway);
        descriptor.quantities = self
            .known_quantities()
            .iter()
            // A filter that does not fit is a problem of its own.
            .filter_map(|KnownQuantity { name, kind, unit }| {
                self.pipeline.published(name, kind.unwrap_or(Kind::Number), kind.is_some(), *unit).ok()
            })
            .flat_map(|published| published.quantities)
            .collect();
        descriptor
    }

    /// The sensor as its readings describe it, before any quantity was seen.
    #[must_use]
    pub fn descriptor(&self, gateway: &Gateway) -> Descriptor {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        Descriptor {
            gateway: gateway.name.as_str().into(),
            site: text(&gateway.site),
            room: text(&self.room),
            room_label: text(&self.room_label),
            sensor: self.name.as_str().into(),
            label: text(&self.label),
            location: self.location,
            tags: self.tags.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
            quantities: Vec::new(),
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Poller(_) => "Poller",
            Self::Serial { .. } => "Serial",
            Self::Line { .. } => "Line",
            Self::Process { .. } => "Process",
        })
    }
}

/// A sensor, where it stands, and what it uses.
pub(super) struct Placed {
    pub(super) sensor: SensorConfig,
    pub(super) claims: Vec<Claim>,
    /// Where its name stands.
    pub(super) at: Range<usize>,
    /// The receiver that says where it is.
    pub(super) follows: Option<Receiver>,
}

/// `[room.NAME]`: what its sensors have in common.
#[derive(Debug, Default)]
pub(super) struct Room {
    label: Option<String>,
    location: Option<Place>,
    every: Option<Duration>,
    align: Option<bool>,
    heartbeat: Option<Duration>,
    filters: BTreeMap<String, filters::Given>,
    tags: Vec<(String, String)>,
}

/// What sensors have from elsewhere where they do not say it themselves.
pub(super) struct Inherited {
    pub(super) rooms: BTreeMap<String, Room>,
    /// The gateway's.
    pub(super) location: Option<Place>,
}

/// All `[room.NAME]`.
pub(super) fn rooms(root: &Options<'_>) -> BTreeMap<String, Room> {
    let mut rooms = BTreeMap::new();
    let Some(table) = root.section_called("room", "`room`") else { return rooms };
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        if let Err(why) = read::check_name(name) {
            root.problems().push(Problem::new(key.span(), format!("the room name `{name}` {why}")));
        }
        if let Some(options) = Options::table(value, format!("[room.{name}]"), root.problems()) {
            rooms.insert(name.to_owned(), room(&options));
            options.finish();
        }
    }
    rooms
}

/// The keys of a room.
pub(super) fn room(options: &Options<'_>) -> Room {
    Room {
        label: read::label(options, "label"),
        location: place::location(options),
        every: read::period(options, "every"),
        align: options.optional("align"),
        heartbeat: read::period(options, "heartbeat"),
        filters: filters::by_quantity(options, |_, _| ()),
        tags: read::tags(options),
    }
}

/// All `[[sensor]]`, in order.
pub(super) fn sensors(root: &Options<'_>, inherited: &Inherited, drivers: &'static [&'static Driver]) -> Vec<Placed> {
    let Some(value) = root.raw("sensor") else { return Vec::new() };
    let Some(list) = value.get_ref().as_array() else {
        root.problem(
            "sensor",
            format!("`sensor` has the wrong type: this is of type {}", value.get_ref().type_str()),
            Some("expected [[sensor]], with two brackets: there may be several".to_owned()),
        );
        return Vec::new();
    };
    let mut sensors = Vec::new();
    for item in list.iter() {
        let given = item.get_ref().as_table().and_then(|table| table.get("name")?.get_ref().as_str());
        let what = given.map_or_else(|| "the sensor".to_owned(), |name| format!("sensor `{name}`"));
        let Some(options) = Options::table(item, what, root.problems()) else { continue };
        if let Some(driver) = driver(&options, drivers) {
            sensors.extend(sensor(&options, inherited, driver));
        } else {
            // Only a known driver says which other keys there may be.
            common(&options, None);
        }
    }
    sensors
}

/// One sensor, with the keys of its driver.
fn sensor(options: &Options<'_>, inherited: &Inherited, driver: &'static Driver) -> Option<Placed> {
    let common = common(options, Some(driver));
    let parsed = (driver.parse)(options);
    if common.align == Some(true) && parsed.as_ref().is_some_and(|parsed| speaks_by_itself(&parsed.source)) {
        let message =
            format!("`align` of {} cannot be: its device says by itself when it has measured", options.what());
        options.problem("align", message, None);
    }
    options.finish();
    let (parsed, name, what) = (parsed?, common.name?, options.what());
    let room = common.room.as_ref().and_then(|name| inherited.rooms.get(name));
    let mut tags: BTreeMap<String, String> = room.iter().flat_map(|room| room.tags.iter().cloned()).collect();
    tags.extend(common.tags);
    let mut pipeline =
        PipelineConfig { heartbeat: common.pipeline.heartbeat.or_else(|| room?.heartbeat), ..common.pipeline };
    for (quantity, unit) in parsed.source.units() {
        pipeline.quantities.entry(quantity).or_default().measured_unit = Some(unit);
    }
    let mut filters = common.filters;
    if let (Some(name), Some(room)) = (&common.room, room) {
        let known = published(driver, &pipeline.quantities);
        let has = |name: &String| known.is_empty() || known.contains(&name.as_str());
        filters.add(room.filters.clone().into_iter().filter(|(name, _)| has(name)), &Origin::Room(name.clone()));
    }
    pipeline.filters = filters.links();
    let at = options.raw("name").map_or_else(|| options.span(), Spanned::span);
    filters.check(what, &at, driver, &pipeline, options.problems());
    let longest = match &parsed.source {
        Source::Poller(device) => device.longest(),
        Source::Serial { .. } | Source::Line(_) | Source::Process(_) => Duration::ZERO,
    };
    let place = common.location.or_else(|| room?.location.clone()).or_else(|| inherited.location.clone());
    let location = place.as_ref().and_then(Place::fixed);
    let follows = match place {
        Some(Place::Follows(receiver)) => Some(receiver),
        Some(Place::Fixed(_)) | None => None,
    };
    Some(Placed {
        claims: parsed.claims,
        at,
        follows,
        sensor: SensorConfig {
            name,
            label: common.label,
            room_label: room.and_then(|room| room.label.clone()),
            location,
            follows: None,
            room: common.room,
            tags: tags.into_iter().collect(),
            driver,
            source: parsed.source,
            own_keys: Written::of(options, |key| !COMMON_KEYS.contains(&key)),
            every: common.every.or_else(|| room?.every).unwrap_or(DEFAULT_EVERY),
            align: common.align.or_else(|| room?.align).unwrap_or_default(),
            deadline: common.deadline.unwrap_or_else(|| DEFAULT_DEADLINE.max(longest.saturating_mul(2))),
            power: common.power,
            pipeline: Arc::new(pipeline),
        },
    })
}

/// Is it not asked?
fn speaks_by_itself(source: &Source) -> bool {
    match source {
        Source::Serial { .. } => true,
        Source::Process(source) => source.settings.once.is_none(),
        Source::Poller(_) | Source::Line(_) => false,
    }
}

/// The driver that a sensor names.
pub(super) fn driver(options: &Options<'_>, drivers: &'static [&'static Driver]) -> Option<&'static Driver> {
    let name = options.required::<String>("driver")?;
    let found = drivers.iter().copied().find(|driver| driver.name == name);
    if found.is_none() {
        let known: Vec<&str> = drivers.iter().map(|driver| driver.name).collect();
        options.problem_with_help(
            "driver",
            format!("there is no driver `{name}`"),
            Some(format!("expected one of {}", known.join(", "))),
            did_you_mean(&name, &known).map(|word| format!("did you mean \"{word}\"?")),
        );
    }
    found
}

/// What any sensor may have, whatever its driver.
pub(super) struct Common {
    name: Option<String>,
    label: Option<String>,
    room: Option<String>,
    location: Option<Place>,
    tags: Vec<(String, String)>,
    every: Option<Duration>,
    align: Option<bool>,
    deadline: Option<Duration>,
    power: Option<PowerSettings>,
    pipeline: PipelineConfig,
    filters: Filters,
}

/// The keys that all sensors have in common.
pub(super) fn common(options: &Options<'_>, driver: Option<&'static Driver>) -> Common {
    options.required::<String>("name");
    let (quantities, mut filters) = quantities(options, driver);
    let change = change(options, driver, &quantities, &mut filters);
    let of_sensor = filters::by_quantity(options, |name, at| {
        check_published(name, &at, options, driver, &quantities);
    });
    filters.refuse_twice(&of_sensor, options.problems());
    filters.add(of_sensor, &Origin::Sensor);
    Common {
        name: read::name(options, "name"),
        label: read::label(options, "label"),
        room: read::name(options, "room"),
        location: place::location(options),
        tags: read::tags(options),
        every: read::period(options, "every"),
        align: options.optional("align"),
        deadline: read::period(options, "deadline"),
        power: power(options),
        pipeline: PipelineConfig {
            quantities,
            filters: BTreeMap::new(),
            change,
            heartbeat: read::period(options, "heartbeat"),
            frozen_after: read::period(options, "frozen_after"),
        },
        filters,
    }
}

/// The keys of a sensor that sends messages: what is made of them, its label and its tags.
pub(super) fn of_messages(options: &Options<'_>) -> (PipelineConfig, Option<String>, Vec<(String, String)>) {
    let (quantities, mut filters) = quantities(options, None);
    let change = change(options, None, &quantities, &mut filters);
    let of_sensor = filters::by_quantity(options, |_, _| ());
    filters.refuse_twice(&of_sensor, options.problems());
    filters.add(of_sensor, &Origin::Sensor);
    let heartbeat = read::period(options, "heartbeat");
    let pipeline =
        PipelineConfig { quantities, filters: filters.links(), change, heartbeat, ..PipelineConfig::default() };
    (pipeline, read::label(options, "label"), read::tags(options))
}

/// What is known of rooms.
pub(super) fn known_rooms(rooms: &BTreeMap<String, Room>) -> BTreeMap<String, LanRoom> {
    let known =
        |room: &Room| LanRoom { label: room.label.clone(), location: room.location.clone(), tags: room.tags.clone() };
    rooms.iter().map(|(name, room)| (name.clone(), known(room))).collect()
}

/// `power = { … }`
fn power(options: &Options<'_>) -> Option<PowerSettings> {
    let own = options.section("power")?;
    let power = hardware::power(&own);
    own.finish();
    power
}
