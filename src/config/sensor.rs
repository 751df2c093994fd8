//! `[room.NAME]` and `[[sensor]]`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::filters::{self, Filters};
use super::gateway::check_outright_topic;
use super::place::{self, Place, Receiver};
use super::{LanRoom, SensorConfig};
use super::{hardware, read};
use crate::drivers::{Claim, Driver, Source};
use crate::hardware::PowerSettings;
use crate::options::{FromToml, Options, Problem, Problems, did_you_mean, unit};
use crate::pipeline::filter::MAX_DIGITS;
use crate::pipeline::{Deadband, Origin, PipelineConfig, QuantityConfig};
use crate::reading::{Finite, Kind};

/// `every` where it is not given.
const DEFAULT_EVERY: Duration = Duration::from_secs(30);

/// `deadline` where it is not given: this, or twice the longest that the driver says it takes.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(5);

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

/// `[sensor.quantity.NAME]`, with their filters by published name.
fn quantities(options: &Options<'_>, driver: Option<&'static Driver>) -> (BTreeMap<String, QuantityConfig>, Filters) {
    let (mut quantities, mut filters) = (BTreeMap::new(), Filters::default());
    let Some(table) = options.section("quantity") else { return (quantities, filters) };
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        let what = format!("quantity `{name}` of {}", options.what());
        let Some(own) = Options::table(value, what, options.problems()) else { continue };
        if let Some(driver) = driver {
            check_source(name, key.span(), &own, options.what(), &declared(driver));
        }
        let (quantity, given) = quantity(&own);
        if quantity.rename.is_none()
            && let Err(why) = read::check_name(name)
        {
            options.problems().push(
                Problem::new(key.span(), format!("the quantity name `{name}` {why}"))
                    .help("give it a name for topics: as = \"…\""),
            );
        }
        own.finish();
        let published = quantity.rename.as_deref().unwrap_or(name).to_owned();
        for short in ["multiply", "offset", "round"] {
            if let Some(value) = own.raw(short) {
                filters.note_key(&published, short, value.span());
            }
        }
        filters.add(given.map(|given| (published, given)), &Origin::Quantity);
        quantities.insert(name.to_owned(), quantity);
    }
    for (name, quantity) in &quantities {
        let source = quantity.of.as_ref().and_then(|source| quantities.get(source));
        if source.is_some_and(|source| source.of.is_some()) {
            let message =
                format!("`of` of quantity `{name}` of {} names one that is itself made of another", options.what());
            let key = table.entries().find(|(key, _)| key.get_ref().as_ref() == name);
            let at = key.map_or_else(|| options.span(), |(key, _)| key.span());
            options.problems().push(Problem::new(at, message).help("name the driver's own quantity"));
        }
    }
    (quantities, filters)
}

/// Notes it if a quantity is neither the driver's own nor made of one, or both.
fn check_source(name: &str, at: Range<usize>, own: &Options<'_>, sensor: &str, known: &[&str]) {
    let Some(source) = own.raw("of") else {
        own.problems().extend(unknown_quantity(name, at, sensor, known));
        return;
    };
    if known.contains(&name) {
        let problem =
            Problem::new(at, format!("{sensor} has a quantity `{name}` by itself: it cannot be made of another"));
        own.problems().push(problem.help("give it a name of its own"));
    }
    if let Some(text) = source.get_ref().as_str() {
        own.problems().extend(unknown_quantity(text, source.span(), sensor, known));
    }
}

/// The keys of a quantity, and its filters.
pub(super) fn quantity(options: &Options<'_>) -> (QuantityConfig, Option<filters::Given>) {
    let kind = options.optional_word(
        "kind",
        &[
            ("number", Kind::Number),
            ("switch", Kind::Switch),
            ("text", Kind::Text),
            ("event", Kind::Event),
            ("bytes", Kind::Bytes),
        ],
    );
    let quantity = QuantityConfig {
        of: options.optional("of"),
        rename: read::name(options, "as"),
        unit: unit(options),
        measured_unit: None,
        kind,
        topic: outright_topic(options),
        multiply: options.optional("multiply").and_then(Finite::new),
        offset: options.optional("offset").and_then(Finite::new),
        round: options.optional_in("round", 0..=MAX_DIGITS),
    };
    if quantity.multiply.is_some_and(|factor| factor.get() == 0.0) {
        options.problem("multiply", format!("`multiply` of {} is 0: every value would be 0", options.what()), None);
    }
    (quantity, filters::of_quantity(options))
}

fn outright_topic(options: &Options<'_>) -> Option<String> {
    let topic = options.optional::<String>("topic")?;
    match check_outright_topic(&topic) {
        Ok(()) => Some(topic),
        Err(why) => {
            options.problem(
                "topic",
                format!("`topic` of {} {why}", options.what()),
                Some("expected a topic such as \"maison/salon/temperature\"".to_owned()),
            );
            None
        }
    }
}

/// `change = { QUANTITY = 0.1, QUANTITY = { relative = 0.01 } }`
fn change(
    options: &Options<'_>,
    driver: Option<&'static Driver>,
    quantities: &BTreeMap<String, QuantityConfig>,
    filters: &mut Filters,
) -> BTreeMap<String, Deadband> {
    let mut change = BTreeMap::new();
    let Some(table) = options.section("change") else { return change };
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        check_published(name, &key.span(), options, driver, quantities);
        let event = quantities.iter().any(|(given, quantity)| {
            quantity.kind == Some(Kind::Event) && quantity.rename.as_deref().unwrap_or(given) == name
        });
        if event {
            let message = format!("`change` cannot filter `{name}` of {}: events are always published", options.what());
            options.problems().push(Problem::new(key.span(), message));
        }
        if let Some(deadband) = deadband(value, name, options.what(), options.problems()) {
            filters.note_key(name, "change", key.span());
            change.insert(name.to_owned(), deadband);
        }
    }
    change
}

/// Notes it if a sensor has no quantity that is published under that name.
fn check_published(
    name: &str,
    at: &Range<usize>,
    options: &Options<'_>,
    driver: Option<&'static Driver>,
    quantities: &BTreeMap<String, QuantityConfig>,
) {
    if let Some(driver) = driver
        && let Some(problem) = unknown_quantity(name, at.clone(), options.what(), &published(driver, quantities))
    {
        let renamed = quantities.get(name).and_then(|quantity| quantity.rename.as_deref());
        options.problems().push(match renamed {
            Some(now) => problem.help(format!("`{name}` is published as `{now}`: write that here")),
            None => problem,
        });
    }
}

fn deadband<'a>(value: &'a Spanned<DeValue<'a>>, name: &str, sensor: &str, problems: &'a Problems) -> Option<Deadband> {
    let what = format!("`change` for `{name}` of {sensor}");
    if let Some(table) = value.get_ref().as_table() {
        let options = Options::new(table, value.span(), what.as_str(), problems);
        let fraction = relative(&options);
        options.finish();
        return fraction.map(Deadband::Relative);
    }
    match f64::from_toml(value.get_ref()) {
        Ok(number) if number >= 0.0 => return Finite::new(number).map(Deadband::Absolute),
        Ok(_) => problems.push(
            Problem::new(value.span(), format!("{what} is negative"))
                .expected("expected a number from 0 on; 0 means any change at all"),
        ),
        Err(why) => {
            let why =
                why.unwrap_or_else(|| format!("has the wrong type: this is of type {}", value.get_ref().type_str()));
            problems.push(
                Problem::new(value.span(), format!("{what} {why}"))
                    .expected("expected a number in the quantity's unit, or { relative = 0.01 }"),
            );
        }
    }
    None
}

/// The key of a relative deadband.
pub(super) fn relative(options: &Options<'_>) -> Option<Finite> {
    let fraction = options.required::<f64>("relative")?;
    if fraction > 0.0 && fraction < 1.0 {
        return Finite::new(fraction);
    }
    options.problem(
        "relative",
        format!("`relative` of {} is out of range", options.what()),
        Some("expected a fraction above 0 and below 1; 0.01 is one percent".to_owned()),
    );
    None
}

/// The names that the driver gives its quantities; none where the device or the configuration names them.
fn declared(driver: &'static Driver) -> Vec<&'static str> {
    driver.quantities.iter().map(|quantity| quantity.name).collect()
}

/// The names under which a driver's declared quantities are published, and those that are made of them.
fn published<'q>(driver: &'static Driver, quantities: &'q BTreeMap<String, QuantityConfig>) -> Vec<&'q str> {
    let declared = declared(driver);
    let derived = quantities.iter().filter(|(_, own)| own.of.is_some() && !declared.is_empty());
    let derived = derived.map(|(name, own)| own.rename.as_deref().unwrap_or(name));
    let name = |name| quantities.get(name).and_then(|quantity| quantity.rename.as_deref()).unwrap_or(name);
    declared.iter().copied().map(name).chain(derived).collect()
}

fn unknown_quantity(name: &str, at: Range<usize>, sensor: &str, known: &[&str]) -> Option<Problem> {
    if known.is_empty() || known.contains(&name) {
        return None;
    }
    let problem = Problem::new(at, format!("{sensor} has no quantity `{name}`"));
    Some(match did_you_mean(name, known) {
        Some(word) => problem.help(format!("did you mean `{word}`?")),
        None => problem.help(format!("it has: {}", known.join(", "))),
    })
}
