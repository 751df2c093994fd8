//! `privacy` of an uplink: what those who read along, and its broker, are not to know.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use super::outbox_key::outbox_key;
use super::payload::Format;
use super::pseudonyms::Pseudonyms;
use super::read::{Bytes, Surroundings};
use super::{Batch, Connect, Qos, UplinkConfig};
use crate::options::{Options, Problem, Problems};

/// `time_grain`
const GRAIN: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// `place_decimals`: from 111 km to 11 m.
const DECIMALS: RangeInclusive<u8> = 0..=4;

/// `rate = { every = … }`
const EVERY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// `rate = { size = … }`: from a reading to what fits into any broker's packet.
const SIZE: RangeInclusive<Bytes> = Bytes(256)..=Bytes(256 << 10);

/// `rate = { }`
const DEFAULT_RATE: FixedRate = FixedRate { every: Duration::from_secs(60), size: 1_024 };

/// Beside the payload, a PUBLISH has its topic and at most so many bytes (MQTT 5, 3.3).
const HEAD_BYTES: usize = 128;

/// `[uplink.NAME.privacy]`; by default nothing is hidden.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Privacy {
    /// Names are replaced by these.
    pub pseudonyms: Option<Pseudonyms>,
    /// Times are rounded down to multiples of it.
    pub time_grain: Option<Duration>,
    /// Places are rounded to so many decimals of a degree.
    pub place_decimals: Option<u8>,
    /// What is left out, whatever the form of the payload is.
    pub omit: Vec<Omit>,
    /// One message of one size in each interval.
    pub rate: Option<FixedRate>,
}

/// What `omit` leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omit {
    /// Names for people, of sensors and rooms.
    Labels,
    /// Where it was measured.
    Location,
    /// Free tags.
    Tags,
}

/// `rate = { … }`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedRate {
    /// Between two messages.
    pub every: Duration,
    /// Bytes of each payload.
    pub size: usize,
}

/// `privacy = { … }`
pub(super) fn privacy(options: &Options<'_>, around: &Surroundings<'_>) -> Privacy {
    let Some(keys) = options.section("privacy") else { return Privacy::default() };
    let privacy = privacy_keys(&keys, around);
    keys.finish();
    privacy
}

/// The keys of `privacy`.
pub(super) fn privacy_keys(keys: &Options<'_>, around: &Surroundings<'_>) -> Privacy {
    let pseudonyms = outbox_key(keys, around).as_ref().map(Pseudonyms::new);
    let rate = keys.section("rate").map(|rate| {
        let fixed = rate_keys(&rate);
        rate.finish();
        fixed
    });
    if rate.is_some() && keys.raw("key").is_none() {
        let what = format!("`rate` of {} has no `key`: the `id` of messages would count what happened", keys.what());
        let help = "add key = { file = \"…\" }: names and ids become pseudonyms";
        keys.problem_with_help("rate", what, None, Some(help.to_owned()));
    }
    Privacy {
        pseudonyms,
        time_grain: keys.optional_in("time_grain", GRAIN),
        place_decimals: keys.optional_in("place_decimals", DECIMALS),
        omit: omit(keys),
        rate,
    }
}

/// `rate = { … }`
pub(super) fn rate_keys(rate: &Options<'_>) -> FixedRate {
    let size = rate.optional_in("size", SIZE).and_then(|size| usize::try_from(size.0).ok());
    FixedRate {
        every: rate.optional_in("every", EVERY).unwrap_or(DEFAULT_RATE.every),
        size: size.unwrap_or(DEFAULT_RATE.size),
    }
}

fn omit(keys: &Options<'_>) -> Vec<Omit> {
    const WORDS: [(&str, Omit); 3] = [("labels", Omit::Labels), ("location", Omit::Location), ("tags", Omit::Tags)];
    let Some(value) = keys.raw("omit") else { return Vec::new() };
    // A list of anything else is reported here.
    let Some(names) = keys.optional::<Vec<String>>("omit") else { return Vec::new() };
    let Some(items) = value.get_ref().as_array() else { return Vec::new() };
    let mut omit = Vec::new();
    for (name, item) in names.iter().zip(items) {
        match WORDS.iter().find(|(word, _)| word == name) {
            Some((_, word)) => omit.push(*word),
            None => {
                let message = format!("`omit` of {} names the unknown `{name}`", keys.what());
                let expected = "expected some of \"labels\", \"location\", \"tags\"";
                keys.problems().push(Problem::new(item.span(), message).expected(expected));
            }
        }
    }
    omit
}

/// Refuses what would tell what is to be hidden. `at`: where a key's value stands.
pub(super) fn check(uplink: &UplinkConfig, at: impl Fn(&str) -> Range<usize>, problems: &Problems) {
    let name = &uplink.name;
    let refuse = |key: &str, why: &str, help: &str| {
        problems.push(Problem::new(at(key), format!("[uplink.{name}] {why}")).help(help));
    };
    if uplink.privacy.pseudonyms.is_some() {
        if uplink.commands.is_some() {
            let why = "has `commands` with pseudonyms: their topics and results name the sensors";
            refuse("commands", why, "take `commands` out, or give commands another uplink");
        }
        if uplink.discovery.is_some() {
            let why = "has `discovery` with pseudonyms: what is announced is there to be read by people";
            refuse("discovery", why, "take `discovery` out");
        }
        if uplink.audit {
            let why = "has `audit` with pseudonyms: what auditors are told names things";
            refuse("audit", why, "take `audit` out, or give it to another uplink");
        }
    }
    if uplink.privacy.rate.is_some() {
        fixed_rate(uplink, &refuse);
    }
}

/// What goes out beside the messages of a fixed rate would tell when something happens.
fn fixed_rate(uplink: &UplinkConfig, refuse: &impl Fn(&str, &str, &str)) {
    let Some(rate) = uplink.privacy.rate else { return };
    let payload = &uplink.payload;
    if !matches!(payload.format, Format::JsonArray | Format::Senml) {
        let why = "has a fixed `rate`, but the form of its payloads cannot be filled up to a size";
        refuse("format", why, "set format = \"json-array\" or \"senml\": spaces behind them mean nothing");
    }
    match &payload.topic {
        Some(topic) if topic.is_gateways() => {}
        _ => {
            let why = "has a fixed `rate`, but not one topic for all of its readings";
            refuse(
                "topic",
                why,
                "set topic = \"{site}/{gateway}/readings\"; {room}, {sensor} and tags would tell what is sent",
            );
        }
    }
    if uplink.qos == Qos::ExactlyOnce {
        let why = "has a fixed `rate` with `qos = 2`, whose acknowledgements would tell what was filled up";
        refuse("qos", why, "set qos = 1 or qos = 0");
    }
    if uplink.state {
        let why = "has a fixed `rate` with `state`, which is sent when it changes";
        refuse("state", why, "take `state` out: with a fixed `rate` it is false");
    }
    if uplink.audit {
        let why = "has a fixed `rate` with `audit`, which is sent when something happens";
        refuse("audit", why, "take `audit` out, or give it to another uplink");
    }
    if uplink.backlog.topic.is_some() {
        let why = "has a fixed `rate` with `backlog_topic`, whose messages would be longer";
        refuse("backlog_topic", why, "take `backlog_topic` out: the backlog has \"backlog\":true in it");
    }
    if uplink.connect != Connect::Always {
        let why = "has a fixed `rate`, but is not always connected";
        refuse("connect", why, "take `connect` out");
    }
    let topic = payload.topic.as_ref().map_or(0, |topic| topic.to_string().len());
    if rate.size + topic + HEAD_BYTES > usize::try_from(uplink.max_packet).unwrap_or(usize::MAX) {
        let why = "has messages of a fixed `rate` that are larger than `max_packet`";
        refuse("max_packet", why, "set a larger `max_packet`, or a smaller `size`");
    }
}

/// How readings are put together at a fixed rate, where `batch` does not say it: what fits.
pub(super) const BATCH: Batch = Batch { max: 100, wait: Duration::ZERO };
