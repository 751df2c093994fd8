//! `[[broker.ingest]]` and `[[broker.deliver]]`: what LAN clients publish goes up, and what comes down to them.
//!
//! A topic has one direction. What is taken from LAN clients must not match what is delivered to them, nor may either
//! be what the gateway itself publishes: so nothing goes round, whatever other programs do between the brokers.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;

use super::place::Place;
use super::read::{self, Bytes};
use super::uplink::{self, BROKER_UPLINK};
use super::{BrokerConfig, Gateway, broker_watch, sensor};
use crate::drivers::message::{self, Form};
use crate::options::{Options, Problem, Problems};
use crate::pipeline::PipelineConfig;
use crate::reading::{Descriptor, MAX_BYTES};
use crate::topic::filter;
use crate::topic::mapping::Mapping;

/// `rate` where it is not given.
const DEFAULT_RATE: u32 = 100;
const RATE: RangeInclusive<u32> = 1..=10_000;
/// `max_bytes` where it is not given.
const DEFAULT_MAX_BYTES: Bytes = Bytes(64 * 1024);
const SIZE: RangeInclusive<Bytes> = Bytes(1)..=Bytes(MAX_BYTES as u64);
/// `max_topics` where it is not given.
const DEFAULT_MAX_TOPICS: u32 = 500;
const TOPICS: RangeInclusive<u32> = 1..=10_000;
/// Filters of one table, and tables of each kind.
const MAX_LIST: usize = 64;

/// `[[broker.ingest]]`: messages of LAN clients that enter the outbox.
#[derive(Clone, Debug)]
pub struct Ingest {
    /// Filters of their topics.
    pub topics: Vec<String>,
    /// What becomes of them.
    pub becomes: Becomes,
    /// Messages a second that are taken; twice as many at once.
    pub rate: u32,
    /// The largest payload, in bytes.
    pub max_bytes: usize,
    /// Topics that are known at a time; messages on further ones are not taken.
    pub max_topics: usize,
    /// A topic that was published on regularly is silent after this time.
    pub silent_after: Option<Duration>,
}

/// What a LAN client's message becomes.
#[derive(Clone, Debug)]
pub enum Becomes {
    /// A message as it came, on this topic.
    Raw(Mapping),
    /// Readings of a sensor.
    Reading(Arc<LanSensor>),
}

/// The sensors that the messages of a [`Ingest`] are of.
#[derive(Clone, Debug)]
pub struct LanSensor {
    /// Its name.
    pub sensor: Mapping,
    /// Its room.
    pub room: Option<Mapping>,
    /// The quantity that a value without a name is.
    pub quantity: Option<Mapping>,
    /// What is in a message.
    pub form: Form,
    /// Name for people.
    pub label: Option<String>,
    /// Free tags, sorted by name.
    pub tags: Vec<(String, String)>,
    /// What is filtered and how.
    pub pipeline: Arc<PipelineConfig>,
    /// What is known of rooms, by name.
    pub rooms: BTreeMap<String, LanRoom>,
    /// The gateway's place.
    pub location: Option<Place>,
}

/// What a sensor has from its room.
#[derive(Clone, Debug)]
pub struct LanRoom {
    /// Name for people.
    pub label: Option<String>,
    /// Where it is; a place that follows a receiver is left out.
    pub location: Option<Place>,
    /// Free tags.
    pub tags: Vec<(String, String)>,
}

impl LanSensor {
    /// A sensor of that name in that room, before any quantity was seen.
    #[must_use]
    pub fn descriptor(&self, gateway: &Gateway, sensor: &str, room: Option<&str>) -> Descriptor {
        let text = |text: &Option<String>| text.as_deref().map(Into::into);
        let known = room.and_then(|room| self.rooms.get(room));
        let mut tags: BTreeMap<&str, &str> = BTreeMap::new();
        let all = known.iter().flat_map(|room| &room.tags).chain(&self.tags);
        tags.extend(all.map(|(name, value)| (name.as_str(), value.as_str())));
        Descriptor {
            gateway: gateway.name.as_str().into(),
            site: text(&gateway.site),
            room: room.map(Into::into),
            room_label: known.and_then(|room| text(&room.label)),
            sensor: sensor.into(),
            label: text(&self.label),
            location: known.and_then(|room| room.location.as_ref()).or(self.location.as_ref()).and_then(Place::fixed),
            tags: tags.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            quantities: Vec::new(),
        }
    }

    /// A filter of the topics on which its readings are published.
    fn filter(&self, gateway: &Gateway) -> String {
        let name = |mapping: &Mapping| if mapping.is_fixed() { mapping.to_string() } else { "+".to_owned() };
        let mut pattern = self.descriptor(gateway, &name(&self.sensor), self.room.as_ref().map(name).as_deref());
        if self.room.as_ref().is_some_and(|room| !room.is_fixed()) {
            for (_, value) in &mut pattern.tags {
                *value = "+".into();
            }
        }
        gateway.topic.filter(&pattern)
    }
}

impl Ingest {
    /// Is a topic one of those that go up, on the LAN or above?
    #[must_use]
    pub fn covers(&self, topic: &str) -> bool {
        self.topics.iter().any(|from| filter::matches(from, topic))
            || self.raw_filters().any(|to| filter::matches(&to, topic))
    }

    /// Filters of the topics that raw messages have above.
    pub fn raw_filters(&self) -> impl Iterator<Item = String> {
        let to = match &self.becomes {
            Becomes::Raw(to) => Some(to),
            Becomes::Reading(_) => None,
        };
        to.into_iter().flat_map(|to| self.topics.iter().map(|from| to.filter(from)))
    }
}

/// `[[broker.deliver]]`: messages of an uplink's broker that are delivered to LAN clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deliver {
    /// Filters of their topics.
    pub topics: Vec<String>,
    /// The topic that a message has on the LAN.
    pub to: Mapping,
    /// Is it retained there?
    pub retain: bool,
    /// The largest payload, in bytes.
    pub max_bytes: usize,
    /// Messages a second that come down.
    pub rate: u32,
}

/// A table, and where it stands.
pub(super) struct Placed<T> {
    table: T,
    at: Range<usize>,
}

/// Both lists, as they stand.
#[derive(Default)]
pub(super) struct Lists {
    ingest: Vec<Placed<Ingest>>,
    deliver: Vec<Placed<(Deliver, Option<String>)>>,
}

/// Reads both lists of `[broker]`.
pub(super) fn lists(options: &Options<'_>) -> Lists {
    Lists {
        ingest: list(options, "ingest", "[[broker.ingest]]", ingest),
        deliver: list(options, "deliver", "[[broker.deliver]]", deliver),
    }
}

fn list<T>(
    options: &Options<'_>,
    key: &'static str,
    what: &str,
    read: impl Fn(&Options<'_>) -> Option<T>,
) -> Vec<Placed<T>> {
    let Some(value) = options.raw(key) else { return Vec::new() };
    let Some(array) = value.get_ref().as_array() else {
        let message = format!("`{key}` of [broker] has the wrong type: this is of type {}", value.get_ref().type_str());
        options.problem(key, message, Some(format!("expected a list: write {what}")));
        return Vec::new();
    };
    if array.len() > MAX_LIST {
        options.problem(key, format!("there are more than {MAX_LIST} {what}"), None);
    }
    let mut tables = Vec::new();
    for entry in array.iter() {
        let Some(table) = Options::table(entry, what, options.problems()) else { continue };
        let at = table.raw("topics").map_or_else(|| table.span(), Spanned::span);
        tables.extend(read(&table).map(|table| Placed { table, at }));
        table.finish();
    }
    tables
}

/// The keys of a table that is about messages that go up.
pub(super) fn ingest(table: &Options<'_>) -> Option<Ingest> {
    let topics = topics(table);
    let before = table.problems().len();
    let to = mapping(table, "to", &topics);
    let [sensor, room, quantity] = ["sensor", "room", "as"].map(|key| name(table, key, &topics));
    let form = message::form(table);
    let (pipeline, label, tags) = sensor::of_messages(table);
    let rate = table.optional_in("rate", RATE).unwrap_or(DEFAULT_RATE);
    let (max_bytes, max_topics) = (max_bytes(table), table.optional_in("max_topics", TOPICS));
    let silent_after = broker_watch::silent_after(table);
    let is_raw = table.raw("sensor").is_none();
    let useless = if is_raw { &OF_READINGS[..] } else { &["to"] };
    for key in useless.iter().copied().filter(|key| table.raw(key).is_some()) {
        let message = format!(
            "{} has `{key}`, which means nothing {}",
            table.what(),
            if is_raw { "without `sensor`" } else { "with `sensor`" }
        );
        let help = "with `sensor`, messages become readings; without it they go up as they came, to the topic `to`";
        table.problem_with_help(key, message, None, Some(help.to_owned()));
    }
    let topics = topics?;
    if table.problems().len() > before {
        return None;
    }
    let becomes = if is_raw {
        Becomes::Raw(to.unwrap_or_else(|| Mapping::parse("lan/{topic}").expect("it is one")))
    } else {
        Becomes::Reading(Arc::new(LanSensor {
            sensor: sensor?,
            room,
            quantity,
            form,
            label,
            tags,
            pipeline: Arc::new(pipeline),
            rooms: BTreeMap::new(),
            location: None,
        }))
    };
    let max_topics = usize::try_from(max_topics.unwrap_or(DEFAULT_MAX_TOPICS)).unwrap_or(usize::MAX);
    Some(Ingest { topics, becomes, rate, max_bytes, max_topics, silent_after })
}

/// Keys that say something of readings alone.
const OF_READINGS: [&str; 9] = ["room", "as", "form", "label", "tags", "quantity", "filters", "change", "heartbeat"];

/// The keys of a table that is about messages that come down.
pub(super) fn deliver(table: &Options<'_>) -> Option<(Deliver, Option<String>)> {
    let topics = topics(table);
    let to = mapping(table, "to", &topics);
    let retain = table.optional("retain").unwrap_or(false);
    let (max_bytes, from) = (max_bytes(table), table.optional::<String>("from"));
    let rate = table.optional_in("rate", RATE).unwrap_or(DEFAULT_RATE);
    if table.raw("to").is_some() && to.is_none() {
        return None;
    }
    Some((Deliver { topics: topics?, to: to.unwrap_or_else(as_it_is), retain, max_bytes, rate }, from))
}

fn as_it_is() -> Mapping {
    Mapping::parse("{topic}").expect("it is one")
}

fn max_bytes(table: &Options<'_>) -> usize {
    let bytes = table.optional_in("max_bytes", SIZE).unwrap_or(DEFAULT_MAX_BYTES);
    usize::try_from(bytes.0).unwrap_or(MAX_BYTES)
}

fn topics(table: &Options<'_>) -> Option<Vec<String>> {
    let topics = table.required::<Vec<String>>("topics")?;
    let spans = table.raw("topics").and_then(|value| value.get_ref().as_array());
    let span = |index: usize| spans.and_then(|list| list.get(index)).map_or_else(|| table.span(), Spanned::span);
    let mut good = true;
    for (index, topic) in topics.iter().enumerate() {
        let why = filter::check(topic).err().or_else(|| {
            (topic.starts_with('$') || topic.starts_with("#"))
                .then_some("takes in everything, or what brokers say of themselves: name what is meant")
        });
        if let Some(why) = why {
            good = false;
            let message = format!("`topics` of {}: \"{topic}\" {why}", table.what());
            table
                .problems()
                .push(Problem::new(span(index), message).expected("expected a filter such as \"esp/+/state\""));
        }
    }
    if topics.is_empty() || topics.len() > MAX_LIST {
        table.problem(
            "topics",
            format!("`topics` of {} has {} filters", table.what(), topics.len()),
            Some(format!("expected 1 to {MAX_LIST}")),
        );
        good = false;
    }
    good.then_some(topics)
}

/// A mapping, each of whose levels the topics have.
fn mapping(table: &Options<'_>, key: &'static str, topics: &Option<Vec<String>>) -> Option<Mapping> {
    let text = table.optional::<String>(key)?;
    let parsed = Mapping::parse(&text).and_then(|mapping| {
        let filled = mapping.filter("t");
        if filled.len() > filter::MAX_BYTES || filled.starts_with('$') || filled.split('/').any(str::is_empty) {
            return Err("does not make a topic".to_owned());
        }
        let has = |filter: &String, level: usize| {
            let levels = filter.split('/').count();
            // Below a `#` there may be any number; those that have too few are not taken.
            level <= levels || filter.ends_with('#')
        };
        let missing = mapping.levels().find(|level| topics.iter().flatten().any(|filter| !has(filter, *level)));
        match missing {
            Some(level) => Err(format!("names level {level}, which not all of `topics` have")),
            None => Ok(mapping),
        }
    });
    match parsed {
        Ok(mapping) => Some(mapping),
        Err(why) => {
            let expected = "expected a text with {topic}, or {1}, {2} … for the topic's levels";
            table.problem(key, format!("`{key}` of {} {why}", table.what()), Some(expected.to_owned()));
            None
        }
    }
}

/// A mapping that makes one level.
fn name(table: &Options<'_>, key: &'static str, topics: &Option<Vec<String>>) -> Option<Mapping> {
    let name = mapping(table, key, topics)?;
    let wrong = if name.has_topic() {
        Err("has {topic}, which is more than one level".to_owned())
    } else {
        read::check_name(&name.filter("t").replace('+', "t"))
    };
    if let Err(why) = wrong {
        let expected = "expected a name, or the level of the topic that is it, such as \"{2}\"";
        table.problem(key, format!("`{key}` of {} {why}", table.what()), Some(expected.to_owned()));
        return None;
    }
    Some(name)
}

/// What the rest of the configuration says of it.
pub(super) struct Context<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) rooms: BTreeMap<String, LanRoom>,
    pub(super) problems: &'a Problems,
}

/// Checks both lists against each other and against what the gateway publishes, and gives them to the broker and the
/// uplinks.
pub(super) fn fill_in(lists: Lists, broker: &mut BrokerConfig, uplinks: &mut [uplink::Placed], context: &Context<'_>) {
    let Lists { mut ingest, deliver } = lists;
    for placed in &mut ingest {
        if let Becomes::Reading(sensor) = &mut placed.table.becomes {
            let sensor = Arc::make_mut(sensor);
            sensor.rooms.clone_from(&context.rooms);
            sensor.location.clone_from(&context.gateway.location);
        }
    }
    let ups: Vec<_> = ingest.iter().flat_map(|placed| ups(placed, context.gateway)).collect();
    for placed in &ingest {
        check_ingest(placed, &ups, broker, uplinks, context);
    }
    for Placed { table: (deliver, from), at } in &deliver {
        check_deliver(deliver, at, &ups, broker, context);
        let named = |placed: &&mut uplink::Placed| from.as_ref().is_none_or(|from| placed.uplink.name == *from);
        let mut found = false;
        for placed in uplinks.iter_mut().filter(|placed| placed.uplink.name != BROKER_UPLINK).filter(named) {
            found = true;
            placed.uplink.deliver.push(deliver.clone());
        }
        if !found {
            let message = from.as_ref().map_or_else(
                || "[[broker.deliver]] has nothing to deliver: there is no uplink".to_owned(),
                |from| format!("`from` of [[broker.deliver]]: there is no uplink `{from}`"),
            );
            context.problems.push(Problem::new(at.clone(), message).help("add [uplink.NAME]"));
        }
    }
    broker.ingest = ingest.into_iter().map(|placed| placed.table).collect();
}

/// A filter of what goes up, and where that stands.
struct Up {
    filter: String,
    at: Range<usize>,
    /// Of what the gateway publishes itself, as readings.
    is_reading: bool,
}

fn ups(placed: &Placed<Ingest>, gateway: &Gateway) -> Vec<Up> {
    let up = |filter: String, is_reading| Up { filter, at: placed.at.clone(), is_reading };
    match &placed.table.becomes {
        Becomes::Raw(_) => placed.table.raw_filters().map(|filter| up(filter, false)).collect(),
        Becomes::Reading(sensor) => {
            let outright = sensor.pipeline.quantities.values().filter_map(|quantity| quantity.topic.clone());
            outright.chain([sensor.filter(gateway)]).map(|filter| up(filter, true)).collect()
        }
    }
}

fn check_ingest(
    placed: &Placed<Ingest>,
    ups: &[Up],
    broker: &BrokerConfig,
    uplinks: &[uplink::Placed],
    context: &Context<'_>,
) {
    let Placed { table, at } = placed;
    let problem = |message: String| Problem::new(at.clone(), message);
    for from in &table.topics {
        if let Some(own) = broker.own_topics.iter().find(|own| filter::matches(from, own)) {
            let message = format!("[[broker.ingest]] takes {from}, where the gateway itself publishes ({own})");
            context.problems.push(problem(message).help("choose topics of the LAN clients' own"));
        }
        for up in ups.iter().filter(|up| up.is_reading && filter::overlap(from, &up.filter)) {
            let message = format!(
                "[[broker.ingest]] takes {from}, where the gateway publishes what it makes of it ({})",
                up.filter
            );
            let help = "give the LAN clients topics of their own, or readings another place with `topic` of [gateway]";
            context.problems.push(problem(message).related(up.at.clone(), "readings of this").help(help));
        }
    }
    match &table.becomes {
        Becomes::Raw(to) => {
            if uplinks.iter().all(|placed| placed.uplink.name == BROKER_UPLINK) {
                let help =
                    "add [uplink.NAME], or make readings of them with `sensor`, which the embedded broker has, too";
                context
                    .problems
                    .push(problem("[[broker.ingest]] has nowhere to go: there is no uplink".to_owned()).help(help));
            }
            let filters: Vec<String> = table.topics.iter().map(|from| to.filter(from)).collect();
            let again = table
                .topics
                .iter()
                .find(|from| ups.iter().any(|up| !up.is_reading && filter::overlap(from, &up.filter)));
            if let Some(from) = again {
                let message =
                    format!("[[broker.ingest]] takes {from}, where messages go up: a bridge would make them go round");
                context.problems.push(problem(message).help("put something before it: to = \"lan/{topic}\""));
            }
            let own = broker.own_topics.iter().find(|own| filters.iter().any(|to| filter::matches(to, own)));
            if let Some(own) = own {
                let message = format!("[[broker.ingest]] would publish where the gateway itself does ({own})");
                context.problems.push(problem(message).help("put something before it: to = \"lan/{topic}\""));
            }
        }
        Becomes::Reading(sensor) => {
            let tells_apart = sensor.sensor.is_fixed()
                || context.gateway.topic.to_string().contains("{sensor}")
                || sensor
                    .room
                    .as_ref()
                    .is_some_and(|room| sensor.sensor.levels().all(|level| room.levels().any(|other| other == level)));
            if !tells_apart {
                let message =
                    "the sensors of [[broker.ingest]] would have the same topics: nothing tells them apart".to_owned();
                let help = "put {sensor} into `topic` of [gateway], such as \"{site}/{room}/{sensor}/{quantity}\"";
                context.problems.push(problem(message).help(help));
            }
        }
    }
}

fn check_deliver(deliver: &Deliver, at: &Range<usize>, ups: &[Up], broker: &BrokerConfig, context: &Context<'_>) {
    let sides = deliver
        .topics
        .iter()
        .map(|from| (from.clone(), "takes"))
        .chain(deliver.topics.iter().map(|from| (deliver.to.filter(from), "delivers to")));
    for (side, does) in sides {
        if let Some(own) = broker.own_topics.iter().find(|own| filter::matches(&side, own)) {
            let message = format!("[[broker.deliver]] {does} {side}, where the gateway itself publishes ({own})");
            context.problems.push(Problem::new(at.clone(), message).help("choose topics that come from elsewhere"));
        }
        for up in ups.iter().filter(|up| filter::overlap(&side, &up.filter)) {
            let message = format!("[[broker.deliver]] {does} {side}, which is also what goes up ({})", up.filter);
            context.problems.push(
                Problem::new(at.clone(), message)
                    .related(up.at.clone(), "goes up here")
                    .help("a topic has one direction: give one of them a place of its own with `to`"),
            );
        }
    }
}
