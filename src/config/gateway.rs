//! `[gateway]`, `[hardware]`, `[outbox]` and `[broker]`.

use std::path::PathBuf;
use std::time::Duration;

use super::Machine;
use super::outbox_key::{OutboxKey, outbox_key};
use super::place::{self, Place};
use super::read::{self, Bytes, Surroundings, YEAR};
use crate::options::{Options, Problem};
use crate::topic::{self, Template};

/// `topic` where it is not given.
pub(super) const DEFAULT_TOPIC: &str = "{site}/{room}/{quantity}";

/// The outbox must hold a few of its segments of 1 MiB; more than this cannot be meant for a Pi's card.
const OUTBOX_BYTES: std::ops::RangeInclusive<Bytes> = Bytes(4 << 20)..=Bytes(1 << 40);

/// `max_bytes` where it is not given: 256 MiB, about two million readings.
const DEFAULT_OUTBOX_BYTES: u64 = 256 << 20;

/// Per cent of the disk that the outbox may share with others.
const FREE_SHARE: std::ops::RangeInclusive<u8> = 1..=100;

/// `free_share` where it is not given.
const DEFAULT_FREE_SHARE: u8 = 50;

/// Files of an archive go by the day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Longest that an archive is kept.
const CENTURY: Duration = Duration::from_secs(36_500 * 24 * 60 * 60);

/// `keep` where it is not given.
const DEFAULT_KEEP: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// An archive has at least sixteen files of some size.
const ARCHIVE_BYTES: std::ops::RangeInclusive<Bytes> = Bytes(1 << 20)..=Bytes(1 << 40);

/// `max` where it is not given: 1 GiB.
const DEFAULT_ARCHIVE_BYTES: u64 = 1 << 30;

/// More often would wear the card.
const SHORTEST_BATCH: Duration = Duration::from_secs(60);

/// `batch` where it is not given.
const DEFAULT_BATCH: Duration = Duration::from_secs(5 * 60);

/// `[gateway]`
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Topic-safe name; default: the host's name.
    pub name: String,
    /// Identity of the board; default: its serial number, else a hash of the machine id.
    pub id: String,
    /// Name for people.
    pub label: Option<String>,
    /// First level of the default topics.
    pub site: Option<String>,
    /// Topic of readings.
    pub topic: Template,
    /// Where the gateway is.
    pub location: Option<Place>,
}

/// `[outbox]`
#[derive(Clone, Debug)]
pub struct OutboxConfig {
    /// Folder of the log; default: `outbox` in the state folder.
    pub path: PathBuf,
    /// Folder on tmpfs for the tail; `None`: chosen as docs say (`/run/vigie`, `$XDG_RUNTIME_DIR`, `/dev/shm`).
    pub tail: Option<PathBuf>,
    /// How long a record may wait for its acknowledgement before it is written to disk; zero: on disk at once.
    pub flush: Duration,
    /// Bytes that the log may take on disk.
    pub max_bytes: u64,
    /// At most this share, in per cent, of what the log takes and what is free on its disk.
    pub free_share: u8,
    /// `full = "drop-newest"`: at the limit what is new goes instead of what is old.
    pub drop_newest: bool,
    /// What the outbox is encrypted with; `None`: it is not.
    pub key: Option<OutboxKey>,
}

/// `[archive]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchiveConfig {
    /// Its folder; default: `archive` in the state folder.
    pub path: PathBuf,
    /// How long it is kept.
    pub keep: Duration,
    /// Bytes that it may take on disk.
    pub max: u64,
    /// Between two writes.
    pub batch: Duration,
}

/// `[gateway]`, which may be left out.
pub(super) fn gateway(options: Option<&Options<'_>>, root: &Options<'_>, machine: &Machine) -> Option<Gateway> {
    if options.is_none_or(|options| options.raw("name").is_none()) {
        check_host_name(options.unwrap_or(root), machine);
    }
    Some(Gateway {
        name: options.and_then(|options| read::name(options, "name")).unwrap_or_else(|| machine.hostname.clone()),
        id: options.and_then(|options| read::label(options, "id")).unwrap_or_else(|| machine.id.clone()),
        label: options.and_then(|options| read::label(options, "label")),
        site: options.and_then(|options| read::name(options, "site")),
        topic: options.and_then(template).or_else(|| Template::parse(DEFAULT_TOPIC).ok())?,
        location: options.and_then(place::location),
    })
}

/// A host's name that cannot be a level of a topic needs a name in its place.
fn check_host_name(place: &Options<'_>, machine: &Machine) {
    if let Err(why) = read::check_name(&machine.hostname) {
        let message = format!("`name` of [gateway] is not given, and this host's name {why}");
        place.problems().push(Problem::new(place.span(), message).help("add name = \"…\" to [gateway]"));
    }
}

fn template(options: &Options<'_>) -> Option<Template> {
    let text = options.optional::<String>("topic")?;
    let checked = Template::parse(&text).and_then(|template| {
        if !text.contains("{quantity}") && !text.contains("{sensor}") {
            return Err("names neither {quantity} nor {sensor}, so that all readings would share a topic".to_owned());
        }
        if text.starts_with('$') {
            return Err("starts with `$`: such topics belong to the broker".to_owned());
        }
        read::check_not_reserved(text.rsplit('/').next().unwrap_or_default())
            .map_err(|_| "ends in a level that is reserved for vigie's own messages".to_owned())?;
        Ok(template)
    });
    match checked {
        Ok(template) => Some(template),
        Err(why) => {
            options.problem(
                "topic",
                format!("`topic` of {} {why}", options.what()),
                Some(format!("expected a topic with placeholders, such as \"{DEFAULT_TOPIC}\"")),
            );
            None
        }
    }
}

/// `[outbox]`
pub(super) fn outbox(options: Option<&Options<'_>>, around: &Surroundings<'_>) -> OutboxConfig {
    let path = |key| path(options?, key, around);
    OutboxConfig {
        path: path("path").unwrap_or_else(|| around.machine.state_dir.join("outbox")),
        tail: path("tail"),
        flush: options
            .and_then(|outbox| outbox.optional_in("flush", Duration::ZERO..=YEAR))
            .unwrap_or(Duration::from_secs(1)),
        max_bytes: options
            .and_then(|outbox| outbox.optional_in("max_bytes", OUTBOX_BYTES))
            .map_or(DEFAULT_OUTBOX_BYTES, |bytes| bytes.0),
        free_share: options
            .and_then(|outbox| outbox.optional_in("free_share", FREE_SHARE))
            .unwrap_or(DEFAULT_FREE_SHARE),
        drop_newest: options
            .and_then(|outbox| outbox.optional_word("full", &[("drop-oldest", false), ("drop-newest", true)]))
            .unwrap_or_default(),
        key: options.and_then(|outbox| outbox_key(outbox, around)),
    }
}

/// A path, seen from the configuration's folder.
fn path(options: &Options<'_>, key: &'static str, around: &Surroundings<'_>) -> Option<PathBuf> {
    let text = options.optional::<String>(key)?;
    if text.is_empty() || text.contains('\0') {
        options.problem(key, format!("`{key}` of {} is not a path", options.what()), None);
        return None;
    }
    Some(around.resolve(&text))
}

/// `[archive]`
pub(super) fn archive(options: &Options<'_>, around: &Surroundings<'_>) -> ArchiveConfig {
    ArchiveConfig {
        path: path(options, "path", around).unwrap_or_else(|| around.machine.state_dir.join("archive")),
        keep: options.optional_in("keep", DAY..=CENTURY).unwrap_or(DEFAULT_KEEP),
        max: options.optional_in("max", ARCHIVE_BYTES).map_or(DEFAULT_ARCHIVE_BYTES, |bytes| bytes.0),
        batch: options.optional_in("batch", SHORTEST_BATCH..=DAY).unwrap_or(DEFAULT_BATCH),
    }
}

/// The last level of a topic must not be one of vigie's own.
pub(super) fn check_outright_topic(text: &str) -> Result<(), String> {
    topic::check(text)?;
    read::check_not_reserved(text.rsplit('/').next().unwrap_or_default())
        .map_err(|_| "ends in a level that is reserved for vigie's own messages".to_owned())
}
