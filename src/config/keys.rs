//! Every key of the configuration, for people: `docs/configuration.md` is made from this.
//!
//! The tests below hold that the readers ask for exactly these keys. The drivers describe theirs themselves.

use std::fmt::Write;

use crate::drivers::OptionInfo;

mod broker;
mod clock;
mod hardware;
mod lan;
mod payload;
mod place;
mod privacy;
mod sparkplug;
mod targets;

use broker::{BROKER, BROKER_JWT, BROKER_LIMITS, BROKER_LISTENER, BROKER_USER, BROKER_WATCH, LISTENER_TLS};
use clock::CLOCK;
use hardware::{EXPANDER, HARDWARE, HARDWARE_FAULT, INTERRUPT, POWER};
use lan::{BROKER_DELIVER, BROKER_INGEST};
use payload::{BATCH, PAYLOAD};
use place::LOCATION;
use privacy::{INTEGRITY, PRIVACY, RATE};
use sparkplug::{SPARKPLUG, SPARKPLUG_KEY};

/// A table of the configuration.
#[derive(Debug)]
pub struct Section {
    /// Its header as one writes it.
    pub title: &'static str,
    /// What it is for. Markdown.
    pub intro: &'static str,
    /// Its keys, in the order in which to show them.
    pub keys: &'static [OptionInfo],
}

const fn key(
    name: &'static str,
    values: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> OptionInfo {
    OptionInfo { name, values, default, help }
}

/// `[gateway]`
static GATEWAY: Section = Section {
    title: "[gateway]",
    intro: "Who and where this gateway is, and on which topics it publishes.",
    keys: &[
        key("name", "name", Some("the host's name"), "Its level in topics."),
        key(
            "id",
            "text",
            Some("the board's serial number, else a hash of the machine id"),
            "Identity that survives renaming.",
        ),
        key("label", "text", Some("none"), "Name for people."),
        key("site", "name", Some("none"), "First level of the default topics."),
        key(
            "topic",
            "topic with `{gateway}` `{site}` `{room}` `{sensor}` `{quantity}` `{tag.NAME}`",
            Some("`\"{site}/{room}/{quantity}\"`"),
            "Where readings are published; a level that comes out empty is left out.",
        ),
        key("location", "table, see [location](#location)", Some("none"), "Where the gateway is."),
    ],
};

/// `[outbox]`
static OUTBOX: Section = Section {
    title: "[outbox]",
    intro: "What was measured waits here until every broker has acknowledged it.",
    keys: &[
        key(
            "path",
            "path",
            Some("`outbox` in the state folder, such as `/var/lib/vigie/outbox`"),
            "Folder of the log.",
        ),
        key(
            "tail",
            "path",
            Some("`/run/vigie`, else `$XDG_RUNTIME_DIR`, else `/dev/shm`"),
            "Folder in memory (tmpfs) for what is not on disk yet; it survives a crash of vigie, not a power cut.",
        ),
        key(
            "flush",
            "duration up to a year; `\"0s\"`: at once",
            Some("`\"1s\"`"),
            "How long a reading may wait for its acknowledgement before it is written to disk. A power cut loses at \
             most this much; what is acknowledged earlier is never written, which spares the SD card.",
        ),
        key(
            "max_bytes",
            "size, `\"4MiB\"` to `\"1024GiB\"`",
            Some("`\"256MiB\"`"),
            "How much the log may take on disk; beyond it readings are dropped, and counted.",
        ),
        key(
            "free_share",
            "per cent, 1 to 100",
            Some("50"),
            "Nor does the log take more than this share of what it has and what is free on its disk: when another program \
             fills the disk, it stops growing.",
        ),
        key(
            "full",
            "`\"drop-oldest\"` or `\"drop-newest\"`",
            Some("`\"drop-oldest\"`"),
            "What is dropped at that limit. A reading that is in flight to a broker never is.",
        ),
        key(
            "key",
            "table, see [outbox.key](#outboxkey)",
            Some("none: nothing is encrypted"),
            "Encrypts what waits, on disk and in memory (tmpfs), so that a card that is stolen tells nothing.",
        ),
    ],
};

/// `[outbox] key = { … }`
static OUTBOX_KEY: Section = Section {
    title: "outbox.key",
    intro: "Where the key of the outbox is read from, in exactly one way: `key = { credential = \"outbox-key\" }`. It is \
            32 random bytes, as they are, as 64 hexadecimal digits (`openssl rand -hex 32`) or in base64, and is read \
            once, at the start. A credential that is itself encrypted (`systemd-creds encrypt`) is the place for it: \
            a key that lies in clear on the same card protects nothing. What was written before there was a key is \
            still read. Without the key, or with another one, vigie does not start, and changes nothing: keep a copy. \
            The archive, and the messages that a broker refused (`refused/`), are not encrypted.",
    keys: &[
        key(
            "credential",
            "name",
            Some("none"),
            "A credential of the service, `LoadCredentialEncrypted=NAME:PATH` in its unit.",
        ),
        key("file", "path", Some("none"), "A file that nobody but its owner may read (`chmod 600`)."),
    ],
};

/// `[archive]`
static ARCHIVE: Section = Section {
    title: "[archive]",
    intro: "Readings that every broker has acknowledged are thrown away, unless this section is there: then they are kept \
            in compressed files, which `vigie export` reads. See [archive-format](archive-format.md) for what it costs \
            the card.",
    keys: &[
        key("path", "path", Some("`archive` in the state folder, such as `/var/lib/vigie/archive`"), "Its folder."),
        key("keep", "duration, `\"1d\"` to `\"36500d\"`", Some("`\"90d\"`"), "How long readings are kept, to the day."),
        key(
            "max",
            "size, `\"1MiB\"` to `\"1024GiB\"`",
            Some("`\"1GiB\"`"),
            "How much it may take on disk; beyond it the oldest files go. Of the disk, 64 MiB are always left free.",
        ),
        key(
            "batch",
            "duration, `\"1m\"` to `\"1d\"`",
            Some("`\"5m\"`"),
            "Between two writes. A power cut costs the archive at most this much.",
        ),
    ],
};

const COMMANDS_HELP: &str = "Take commands to devices from this broker, on the topic `…/set` of each sensor whose \
                             driver has them; see [commands](commands.md).";

const COMMAND_MAX_AGE_HELP: &str = "A command that may be older is refused.";

/// `[uplink.NAME]`
static UPLINK: Section = Section {
    title: "[uplink.NAME]",
    intro: "A broker to publish to. As many as wanted, each at its own pace. The name `broker` is taken by the \
            embedded broker.",
    keys: &[
        key(
            "url",
            "`\"mqtt://HOST:PORT\"`, `\"mqtts://…\"`, `\"ws://HOST:PORT/PATH\"`, `\"wss://…\"`, or a list of up to 16",
            None,
            "The broker; port 1883, with TLS 8883, over WebSocket 80 and 443. Along a list it fails over: each in turn, \
             then a pause. The brokers of a list count as independent: what was in flight to one is sent again to the \
             next.",
        ),
        targets::PRESET,
        key(
            "failback",
            "duration, `\"1s\"` to a year",
            Some("`\"3m\"`"),
            "While connected to a later one of several URLs, how often it is tried whether the first answers again; \
             seldomer, up to an hour, when it answers but then does not stay.",
        ),
        key(
            "connect",
            "`\"always\"` or `\"every DURATION\"`, from 1m",
            Some("`\"always\"`"),
            "`every 15m`: connect so often, send what waits, and disconnect; for metered links and batteries. Meanwhile \
             the gateway's availability is `asleep`.",
        ),
        key(
            "mqtt",
            "`\"3.1.1\"` or `\"5\"`",
            Some("`\"3.1.1\"`"),
            "Version of MQTT. With 5 the broker gives reasons and limits, which are observed, topics get aliases, and \
             each message has the reading's `id` as a user property.",
        ),
        key(
            "client_id",
            "text with `{gateway}` `{hostname}` `{id}`",
            Some("`\"vigie-{gateway}\"`"),
            "Client identifier; no two clients of a broker may have the same.",
        ),
        key(
            "username",
            "text, or a table as `password`",
            Some("none"),
            "User name at the broker; where it is a secret itself, such as an access token, where it is read from.",
        ),
        key(
            "password",
            "table, see [password](#password)",
            Some("none"),
            "Where the password is read from, at each connection.",
        ),
        targets::SHARED_ACCESS_KEY,
        targets::SIGNATURE_LIFETIME,
        key("qos", "0, 1 or 2", Some("1"), "At most once, at least once, exactly once."),
        key(
            "retain",
            "true or false",
            Some("true; false with `batch`"),
            "Does the broker keep the last reading of a topic? Never for events.",
        ),
        targets::STATE,
        key(
            "inflight",
            "1 to 65535",
            Some("100"),
            "How many messages may wait for their acknowledgement; fewer if the broker takes fewer, which only MQTT 5 \
             tells (in 3.1.1, at most 16 with `qos = 2`).",
        ),
        key(
            "keep_alive",
            "duration, `\"1s\"` to `\"65535s\"`",
            Some("`\"30s\"`"),
            "A silent connection is tested this often.",
        ),
        key(
            "clock_wait",
            "duration up to a year",
            Some("`\"1m\"`; `\"0s\"` for a broker on this machine"),
            "While the clock is not set, how long a connected uplink holds readings in the hope of dating them.",
        ),
        key(
            "max_packet",
            "size, `\"1KiB\"` to 268435455",
            Some("`\"1MiB\"`"),
            "Largest packet that is sent or accepted.",
        ),
        key("rooms", "list of names", Some("all"), "Only readings of these rooms are sent, and those of `sensors`."),
        key("sensors", "list of names", Some("all"), "Only readings of these sensors are sent, and those of `rooms`."),
        key(
            "max_age",
            "duration, `\"1s\"` to a year",
            Some("none"),
            "Readings that are older when their turn comes are dropped, and counted.",
        ),
        key(
            "backlog",
            "`\"all\"` or `\"latest\"`",
            Some("`\"all\"`"),
            "What is sent of the readings that were taken while there was no connection: all of them, or only the newest \
             of each topic, for consumers that take every arrival for the present.",
        ),
        key(
            "backlog_rate",
            "number, 0.001 to 1000000",
            Some("what the link takes"),
            "Messages of the backlog a second, at the most.",
        ),
        key(
            "backlog_topic",
            "topic with `{topic}`",
            Some("`\"{topic}\"`"),
            "Where the backlog is published; `{topic}` is the topic of live readings, as in `\"backlog/{topic}\"`. \
             The backlog has `\"backlog\":true` in it, and is never retained.",
        ),
        key(
            "live_first",
            "true or false",
            Some("true, but with `backlog = \"latest\"`"),
            "Live readings go before the backlog. With `false` everything goes in the order in which it was taken.",
        ),
        key("commands", "true or false", Some("false"), COMMANDS_HELP),
        key("command_max_age", "duration, `\"2s\"` to a year", Some("`\"30s\"`"), COMMAND_MAX_AGE_HELP),
        targets::DISCOVERY,
        targets::DISCOVERY_PREFIX,
        SPARKPLUG_KEY,
        key("integrity", "table, see [integrity](#integrity)", Some("none"), "A checksum of each payload."),
        key(
            "privacy",
            "table, see [privacy](#uplinknameprivacy)",
            Some("nothing is hidden"),
            "What is not to be told.",
        ),
        key("tls", "table, see [tls](#tls)", Some("the system's authorities"), "For `mqtts://` and `wss://`."),
        key("proxy", "table, see [proxy](#proxy)", Some("none"), "An HTTP proxy to go through."),
        key(
            "interface",
            "name of a network interface, such as `\"wwan0\"`",
            Some("as the system routes"),
            "The only interface that the connection may go through. Names are looked up as the system does it.",
        ),
    ],
};

/// `password = { … }`
static PASSWORD: Section = Section {
    title: "password",
    intro: "Where a password is read from, in exactly one way; a newline at its end is taken off. It is never written \
            into the configuration itself, and never printed. Files and credentials are read anew at each connection, \
            and looked at while connected: a changed one, such as a fresh token (JWT), is used without a restart.",
    keys: &[
        key("credential", "name", Some("none"), "A credential of the service: `LoadCredential=NAME:PATH` in its unit."),
        key("file", "path", Some("none"), "A file that nobody but its owner may read (`chmod 600`)."),
        key("env", "name", Some("none"), "An environment variable."),
    ],
};

/// `tls = { … }`
static TLS: Section = Section {
    title: "tls",
    intro: "For `mqtts://` and `wss://`, as `tls = { ca = \"ca.pem\" }` or `[uplink.NAME.tls]`. The files (PEM) are read \
            anew at each connection. While connected they are looked at every 30 seconds: when one has changed and all \
            of them are right, the connection is made anew; when not, that is logged and the connection stays. \
            While the clock is not set, a certificate is refused only if it had expired when vigie last knew the time, \
            or when it was built.",
    keys: &[
        key("ca", "path", Some("the system's authorities"), "The authorities to trust instead of the system's."),
        key("cert", "path", Some("none"), "Our certificate chain, where the broker asks for one."),
        key("key", "path", Some("none"), "Its private key; nobody but its owner may read it (`chmod 600`)."),
        key(
            "server_name",
            "host name",
            Some("the URL's host"),
            "Name that is asked for (SNI) and that the broker's certificate must be for.",
        ),
        key("alpn", "list of texts", Some("none"), "Protocols to offer (ALPN), such as `[\"x-amzn-mqtt-ca\"]`."),
    ],
};

/// `proxy = { … }`
static PROXY: Section = Section {
    title: "proxy",
    intro: "An HTTP proxy that lets connections through (CONNECT), as `proxy = { url = \"http://proxy.lan:3128\" }`. The \
            proxy looks up the broker's name.",
    keys: &[
        key("url", "`\"http://HOST:PORT\"`", None, "The proxy."),
        key("username", "text without colon", Some("none"), "User name, where the proxy asks for one (Basic)."),
        key("password", "table, see [password](#password)", Some("none"), "Where its password is read from."),
    ],
};

/// `[room.NAME]`
static ROOM: Section = Section {
    title: "[room.NAME]",
    intro: "What the sensors of a room have in common. A sensor's own key comes first; tags add up. A room without such \
            a table is fine.",
    keys: &[
        key("label", "text", Some("none"), "Name for people."),
        key("location", "table, see [location](#location)", Some("the gateway's"), "Where the room is."),
        key("every", "duration, `\"1ms\"` to a year", Some("`\"30s\"`"), "As in `[[sensor]]`."),
        key("align", "true or false", Some("false"), "As in `[[sensor]]`."),
        key("heartbeat", "duration, `\"1ms\"` to a year", Some("none"), "As in `[[sensor]]`."),
        key(
            "filters",
            "table of lists, see [filters](filters.md)",
            Some("none"),
            "By the published names of quantities; a sensor's own list for a quantity takes the place of the room's.",
        ),
        key("tags", "table of texts", Some("none"), "As in `[[sensor]]`."),
    ],
};

/// `[[sensor]]`
static SENSOR: Section = Section {
    title: "[[sensor]]",
    intro: "A sensor. The keys of its driver stand beside these: see [drivers](drivers.md) or `vigie drivers NAME`.",
    keys: &[
        key("name", "name", None, "Its own name, different from any other sensor's."),
        key("driver", "name of a driver", None, "How to read it; `vigie drivers` lists them."),
        key("label", "text", Some("none"), "Name for people."),
        key("room", "name", Some("none"), "Where it is: a level of the topics, and the name of its `[room.NAME]`."),
        key("location", "table, see [location](#location)", Some("the room's, else the gateway's"), "Its own place."),
        key(
            "tags",
            "table of texts",
            Some("none"),
            "Free tags, such as `tags = { floor = \"2\" }`; `{tag.floor}` in topics.",
        ),
        key("every", "duration, `\"1ms\"` to a year", Some("the room's, else `\"30s\"`"), "How often it is measured."),
        key("align", "true or false", Some("the room's, else false"), clock::ALIGN_HELP),
        key(
            "deadline",
            "duration, `\"1ms\"` to a year",
            Some("`\"5s\"`"),
            "How long a measurement may take before the sensor counts as stuck.",
        ),
        key(
            "change",
            "table, see [change](#change)",
            Some("none: every reading is published"),
            "Publish a quantity only when it has changed by so much.",
        ),
        key(
            "heartbeat",
            "duration, `\"1ms\"` to a year",
            Some("the room's, else none"),
            "With `change`: publish at least this often all the same.",
        ),
        key(
            "filters",
            "table of lists, see [filters](filters.md)",
            Some("the room's, else none"),
            "By the published names of quantities, as in `filters = { temperature = [{ median = 5 }, { throttle = \"1m\" }] }`.",
        ),
        key(
            "frozen_after",
            "duration, `\"1ms\"` to a year",
            Some("never"),
            "When all numbers of the sensor stand exactly still for this long, that is a fault `frozen`, until one moves \
             again: some chips that hang go on to answer with their last measurement. Not for what may rightly stand \
             still, such as the 0 W of a heater that is off, or a coarse sensor in a quiet room.",
        ),
        key(
            "power",
            "table, see [power](#power)",
            Some("none"),
            "A line that switches the sensor's supply, so that one that hangs can be switched off and on.",
        ),
        key(
            "quantity",
            "tables, see [[sensor.quantity.NAME]](#sensorquantityname)",
            Some("none"),
            "Settings of single quantities.",
        ),
    ],
};

/// `change = { … }`
static CHANGE: Section = Section {
    title: "change",
    intro: "How far a quantity must move from its last *published* value to be published, by its published name: \
            `change = { temperature = 0.1, humidity = 1, pressure = { relative = 0.001 } }`. A number is in the \
            quantity's unit; 0 means any change at all. As a table:",
    keys: &[key("relative", "number above 0 and below 1", None, "A fraction of the last published value.")],
};

/// `[sensor.quantity.NAME]`
static QUANTITY: Section = Section {
    title: "[sensor.quantity.NAME]",
    intro: "Settings of one quantity of the sensor above it; `NAME` is what the driver or the device calls it.",
    keys: &[
        key(
            "of",
            "the driver's name of a quantity",
            Some("none: `NAME` is the driver's own"),
            "Takes the values of that quantity, which is published besides: `[sensor.quantity.energy]` with \
             `of = \"power\"` and `filters = [{ integral = \"1h\" }]`.",
        ),
        key("as", "name", Some("the driver's name"), "Its name in topics and payloads."),
        key("unit", "text up to 32 characters", Some("the driver's"), "Its unit as it is published, such as `\"°C\"`."),
        key(
            "kind",
            "`\"number\"`, `\"switch\"`, `\"text\"`, `\"event\"` or `\"bytes\"`",
            Some("the driver's, else by its value"),
            "How it is treated; events are never filtered, retained or repeated.",
        ),
        key("topic", "topic", Some("by the gateway's `topic`"), "Its topic, outright."),
        key("multiply", "number but 0", Some("1"), "Factor; works before all filters."),
        key("offset", "number", Some("0"), "Added after the factor; works before those in `filters`."),
        key(
            "filters",
            "list, see [filters](filters.md)",
            Some("the sensor's, else the room's"),
            "What happens to its values before they are published, in that order.",
        ),
        key(
            "round",
            "0 to 12",
            Some("as measured"),
            "Digits after the decimal point; works behind those in `filters`.",
        ),
    ],
};

/// All tables, in the order in which to show them.
pub static SECTIONS: &[&Section] = &[
    &GATEWAY,
    &LOCATION,
    &CLOCK,
    &HARDWARE,
    &HARDWARE_FAULT,
    &EXPANDER,
    &INTERRUPT,
    &OUTBOX,
    &OUTBOX_KEY,
    &ARCHIVE,
    &UPLINK,
    &PAYLOAD,
    &BATCH,
    &SPARKPLUG,
    &PRIVACY,
    &RATE,
    &INTEGRITY,
    &PASSWORD,
    &TLS,
    &PROXY,
    &BROKER,
    &BROKER_LISTENER,
    &LISTENER_TLS,
    &BROKER_USER,
    &BROKER_JWT,
    &BROKER_WATCH,
    &BROKER_LIMITS,
    &BROKER_INGEST,
    &BROKER_DELIVER,
    &ROOM,
    &SENSOR,
    &POWER,
    &CHANGE,
    &QUANTITY,
];

const HEAD: &str = "\
# Configuration

<!-- Made from src/config/keys.rs by `UPDATE_DOCS=1 cargo test`: change it there. -->

One TOML file, `/etc/vigie/vigie.toml` on an installed gateway, with fragments beside it in `/etc/vigie/vigie.d/*.toml`,
read in the order of their names. Tables of several files merge and `[[sensor]]` lists add up, so that a room or a sensor
can have a file of its own; a key that is given in two files is an error. Relative paths start from the folder of
`vigie.toml`.

`vigie check FILE` reports every error with its place, without touching any hardware.

- A *name* becomes a level of topics: up to 128 bytes without `/`, `+`, `#`, braces and control characters, and not
  `availability`, `gaps`, `info` or `set`, which vigie keeps for itself. A *text* for people is free, up to 256 characters.
- A *duration* is a text such as `\"500ms\"`, `\"10s\"`, `\"5m\"` or `\"1h 30m\"`.
- A *size* is a number of bytes or a text such as `\"64MiB\"` or `\"1GB\"`.
";

/// `docs/configuration.md`
#[must_use]
pub fn docs() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n## {}\n\n{}\n\n", section.title, section.intro);
        text.push_str("| Key | Values | Default | |\n|---|---|---|---|\n");
        for key in section.keys {
            let default = key.default.unwrap_or("must be given");
            let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.name, key.values, key.help);
        }
    }
    text
}

#[cfg(test)]
mod tests;
