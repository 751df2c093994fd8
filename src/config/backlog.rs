//! What an uplink sends and how it catches up: `rooms`, `sensors`, `max_age`, `backlog…`, `live_first`.

use std::collections::BTreeSet;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::YEAR;
use super::sensor;
use crate::options::{Options, Problem, did_you_mean};
use crate::topic;

/// `backlog_rate`, in messages a second: from one in 17 minutes to more than any link takes.
const RATE: std::ops::RangeInclusive<f64> = 0.001..=1_000_000.0;

/// `max_age`: below a second nothing would ever be sent.
const MAX_AGE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=YEAR;

/// Which readings an uplink sends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of these rooms...
    pub rooms: Vec<String>,
    /// ...and of these sensors; all, if neither names any.
    pub sensors: Vec<String>,
    /// But none that is older.
    pub max_age: Option<Duration>,
}

impl Selection {
    /// Does it hold a sensor, which is perhaps in this room? Where it names none, it holds all.
    #[must_use]
    pub fn holds(&self, sensor: &str, room: Option<&str>) -> bool {
        (self.rooms.is_empty() && self.sensors.is_empty())
            || self.sensors.iter().any(|name| name == sensor)
            || self.rooms.iter().any(|name| Some(name.as_str()) == room)
    }
}

/// How an uplink catches up after it was away.
#[derive(Clone, Debug, PartialEq)]
pub struct Backlog {
    /// What is sent of it.
    pub policy: BacklogPolicy,
    /// Messages a second, above zero; `None`: as fast as the link takes them.
    pub rate: Option<f64>,
    /// Where it is published, if not where live readings are.
    pub topic: Option<BacklogTopic>,
    /// Live readings go before it.
    pub live_first: bool,
}

impl Default for Backlog {
    fn default() -> Self {
        Self { policy: BacklogPolicy::All, rate: None, topic: None, live_first: true }
    }
}

/// `backlog = "…"`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BacklogPolicy {
    /// Every reading.
    #[default]
    All,
    /// Of each topic only the newest one.
    Latest,
}

/// `backlog_topic = "…"`: what stands around the topic of live readings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BacklogTopic {
    /// Before it.
    pub before: String,
    /// Behind it.
    pub after: String,
}

impl BacklogTopic {
    /// Where the backlog of a topic goes.
    #[must_use]
    pub fn of(&self, topic: &str) -> String {
        format!("{}{topic}{}", self.before, self.after)
    }
}

/// Which readings the uplink sends.
pub(super) fn selection(options: &Options<'_>) -> Selection {
    Selection {
        rooms: options.optional("rooms").unwrap_or_default(),
        sensors: options.optional("sensors").unwrap_or_default(),
        max_age: options.optional_in("max_age", MAX_AGE),
    }
}

/// How it catches up.
pub(super) fn backlog(options: &Options<'_>) -> Backlog {
    let policies = [("all", BacklogPolicy::All), ("latest", BacklogPolicy::Latest)];
    let policy = options.optional_word("backlog", &policies).unwrap_or_default();
    let live_first = options.optional::<bool>("live_first");
    if policy == BacklogPolicy::Latest && live_first == Some(true) {
        options.problem_with_help(
            "live_first",
            format!("{} has `live_first` with backlog = \"latest\"", options.what()),
            None,
            Some("take one of them out: the latest value of the backlog must not come after a live one".to_owned()),
        );
    }
    Backlog {
        policy,
        rate: options.optional_in("backlog_rate", RATE),
        topic: backlog_topic(options),
        live_first: live_first.unwrap_or(true),
    }
}

fn backlog_topic(options: &Options<'_>) -> Option<BacklogTopic> {
    let text = options.optional::<String>("backlog_topic")?;
    match parse_topic(&text) {
        Ok(topic) => Some(topic),
        Err(why) => {
            options.problem(
                "backlog_topic",
                format!("`backlog_topic` of {} {why}", options.what()),
                Some("expected a topic with {topic} in it, such as \"backlog/{topic}\"".to_owned()),
            );
            None
        }
    }
}

fn parse_topic(text: &str) -> Result<BacklogTopic, String> {
    let (before, after) = text.split_once("{topic}").ok_or("does not say where {topic}, the live topic, goes")?;
    if before.is_empty() && after.is_empty() {
        return Err("is the live topic itself".to_owned());
    }
    topic::check(&format!("{before}x{after}"))?;
    Ok(BacklogTopic { before: before.to_owned(), after: after.to_owned() })
}

/// Rooms and sensors that an uplink names must be there: a slip of the pen would silence them without a word.
pub(super) fn check_names(root: &Options<'_>, sensors: &[sensor::Placed]) {
    let names: BTreeSet<&str> = sensors.iter().map(|placed| placed.sensor.name.as_str()).collect();
    let rooms: BTreeSet<&str> = sensors.iter().filter_map(|placed| placed.sensor.room.as_deref()).collect();
    let uplinks = root.raw("uplink").and_then(|table| table.get_ref().as_table());
    for (uplink, table) in uplinks.into_iter().flat_map(DeTable::iter) {
        let Some(table) = table.get_ref().as_table() else { continue };
        for (key, one, known) in [("rooms", "room", &rooms), ("sensors", "sensor", &names)] {
            for name in named(table, key).filter(|name| !known.contains(name.get_ref())) {
                let known: Vec<&str> = known.iter().copied().collect();
                let help = match did_you_mean(name.get_ref(), &known) {
                    Some(word) => format!("did you mean \"{word}\"?"),
                    None if known.is_empty() => format!("there is no {one} at all"),
                    None => format!("there are: {}", known.join(", ")),
                };
                let (uplink, name, span) = (uplink.get_ref(), name.get_ref(), name.span());
                let message = match one {
                    "room" => format!("no sensor is in the room `{name}` that [uplink.{uplink}] names"),
                    _ => format!("[uplink.{uplink}] names the unknown sensor `{name}`"),
                };
                root.problems().push(Problem::new(span, message).help(help));
            }
        }
    }
}

/// The texts of a list, with their places.
fn named<'a>(table: &'a DeTable<'a>, key: &str) -> impl Iterator<Item = Spanned<&'a str>> {
    let list = table.get(key).and_then(|value| value.get_ref().as_array());
    list.into_iter()
        .flatten()
        .filter_map(|item: &Spanned<DeValue<'_>>| Some(Spanned::new(item.span(), item.get_ref().as_str()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backlog_topic_goes_around_the_live_one() {
        for (text, expected) in
            [("backlog/{topic}", "backlog/a/b"), ("{topic}/late", "a/b/late"), ("x-{topic}-y", "x-a/b-y")]
        {
            assert_eq!(parse_topic(text).expect("a topic").of("a/b"), expected);
        }
        for wrong in ["", "backlog", "{topic}", "/{topic}", "{topic}/#", "+/{topic}", "{topic}/{topic}", "$x/{topic}"] {
            assert!(parse_topic(wrong).is_err(), "{wrong}");
        }
    }
}
